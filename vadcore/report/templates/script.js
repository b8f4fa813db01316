"use strict";
// The page is readable without this script. The script adds sortable tables, values and frame pictures at the pointer.

// ---- date, commit and costs: from run.js next to the page, if it belongs to these results
const run = window.vadRun?.of === document.body.dataset.results ? window.vadRun.cells : {};
for (const place of document.querySelectorAll("[data-run]")) {
  const cell = run[place.dataset.run];
  if (!cell) continue;
  place.textContent = cell.text;
  if (cell.value !== undefined) place.dataset.v = cell.value;
  place.classList.toggle("best", cell.best === true);
}

// ---- sortable tables: a click on a heading sorts best first, then worst first, then restores the original order; missing
// figures stay at the end
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const original = [...table.tBodies[0].rows];
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("num");
    const ways = numeric && head.dataset.better !== "low" ? ["descending", "ascending"] : ["ascending", "descending"];
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const way = ways[ways.indexOf(head.getAttribute("aria-sort")) + 1];  // undefined after the last one: original order
      heads.forEach(other => other.removeAttribute("aria-sort"));
      if (!way) {
        table.tBodies[0].append(...original);
        return;
      }
      head.setAttribute("aria-sort", way);
      const falling = way === "descending";
      const value = row => {
        const cell = row.cells[column];
        return numeric ? (cell.dataset.v === undefined ? NaN : Number(cell.dataset.v)) : cell.textContent;
      };
      const rows = original.toSorted((a, b) => {
        const [u, v] = [value(a), value(b)];
        if (!numeric) return falling ? v.localeCompare(u) : u.localeCompare(v);
        if (Number.isNaN(u) || Number.isNaN(v)) return Number.isNaN(u) - Number.isNaN(v);
        return falling ? v - u : u - v;
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// ---- scroll margin, so that link targets are not hidden by the bar of switches where that is sticky
for (const bar of document.querySelectorAll(".bar")) {
  new ResizeObserver(() => {
    const stays = getComputedStyle(bar).position === "sticky";
    bar.parentElement.style.setProperty("--bar", stays ? `${bar.offsetHeight + 8}px` : "0px");
  }).observe(bar);
}

const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));

// ---- charts: values are read from their paths (see vadcore/report/charts.py)
const parsed = new WeakMap();

// Parse a path into pieces, lists of absolute [x, y]. In the path, the first point of a piece is absolute and the others are
// relative to the previous one.
function pieces(path) {
  if (!parsed.has(path)) {
    parsed.set(path, path.getAttribute("d").split("M").slice(1).map(text => {
      const n = text.match(/-?\d+/g).map(Number);
      const points = [[n[0], n[1]]];
      for (let i = 2; i + 1 < n.length; i += 2) {
        const last = points[points.length - 1];
        points.push([last[0] + n[i], last[1] + n[i + 1]]);
      }
      return points;
    }));
  }
  return parsed.get(path);
}

// Return y of a curve at x by linear interpolation; null where there is no curve.
function at(path, x) {
  for (const points of pieces(path)) {
    if (x < points[0][0] || x > points[points.length - 1][0]) continue;
    let low = 0, high = points.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][0] <= x) low = middle; else high = middle;
    }
    const [a, b] = [points[low], points[high]];
    if (x >= b[0]) return b[1];
    return a[1] + (b[1] - a[1]) * (x - a[0]) / (b[0] - a[0]);
  }
  return null;
}

// Return the scores of a timeline, one per `data-every` frames (see vadcore/report/charts.py). NaN: not scored.
const unpacked = new WeakMap();

function scores(svg) {
  if (!unpacked.has(svg)) unpacked.set(svg, new Float32Array(bytes(svg.dataset.scores).buffer));
  return unpacked.get(svg);
}

// ---- snapshots: sheets of small pictures, decoded on first use
const sheets = new Map();

function sheet(id) {
  if (!sheets.has(id)) {
    const holder = document.getElementById(id);
    const {columns, rows, width, height} = holder.dataset;
    sheets.set(id, {
      image: `url("${URL.createObjectURL(new Blob([bytes(holder.textContent)], {type: "image/webp"}))}")`,
      columns: Number(columns), rows: Number(rows), shape: `${width} / ${height}`,
    });
  }
  return sheets.get(id);
}

// Show picture `number` of the sheet `id` in `tile`, scaled to its size. Hide the tile if there is no id.
function draw(tile, id, number) {
  tile.parentElement.hidden = !id;
  if (!id) return;
  const {image, columns, rows, shape} = sheet(id);
  const share = (at, count) => count > 1 ? 100 * at / (count - 1) : 0;
  if (tile.dataset.sheet !== id) {
    Object.assign(tile.style, {backgroundImage: image, backgroundSize: `${100 * columns}% ${100 * rows}%`, aspectRatio: shape});
    tile.dataset.sheet = id;
  }
  tile.style.backgroundPosition = `${share(number % columns, columns)}% ${share(Math.floor(number / columns), rows)}%`;
}

// Snapshot viewer of a clip: `look(frame)` shows the nearest snapshot, `choose(system)` selects the system to show.
function snapshotsOf(chart) {
  const viewer = chart.querySelector(".snapshots");
  if (!viewer) return null;
  const frames = viewer.dataset.frames.split(" ").map(Number);
  const tiles = [...viewer.querySelectorAll(".tile")];
  const select = viewer.querySelector("select");
  let chosen = 0;
  let pointed = null;  // frame at the pointer, which may have no picture
  const redraw = () => {
    const own = {frame: `${chart.id}-frame`, ...select.options[select.selectedIndex].dataset};
    for (const tile of tiles) draw(tile, own[tile.dataset.kind], chosen);
    const exact = pointed === null || pointed === frames[chosen];
    const named = `frame ${frames[chosen]}${exact ? "" : ", the nearest that has a picture"}`;
    tiles[0].setAttribute("aria-label", named);
    tiles[0].nextElementSibling.textContent = named;
  };
  const look = frame => {
    pointed = frame;
    let after = frames.findIndex(one => one >= frame);
    if (after < 0) after = frames.length - 1;
    chosen = after > 0 && frame - frames[after - 1] <= frames[after] - frame ? after - 1 : after;
    redraw();
  };
  const leave = () => {
    if (pointed === null) return;
    pointed = null;
    redraw();
  };
  const avoidHidden = () => {
    const visible = [...select.options].find(option => getComputedStyle(option).display !== "none");
    if (!visible || getComputedStyle(select.options[select.selectedIndex]).display !== "none") return;
    choose(visible.index);
  };
  const choose = system => {
    if (system < 0 || select.selectedIndex === system) return;
    select.selectedIndex = system;
    redraw();
  };
  select.addEventListener("change", redraw);
  chart.closest(".data").addEventListener("switched", avoidHidden);
  viewer.hidden = false;
  const alarm = chart.querySelector(".alarms li");
  new IntersectionObserver((entries, observer) => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    observer.disconnect();
    if (tiles[0].dataset.sheet) return;
    if (alarm) select.selectedIndex = Number(alarm.dataset.system);
    avoidHidden();
    look(alarm ? Number(alarm.dataset.frame) : frames[frames.length >> 1]);
    leave();
  }, {rootMargin: "300px"}).observe(viewer);
  return {look, leave, choose};
}

const digits = value => Number(value.toPrecision(3)).toString();

for (const chart of document.querySelectorAll(".chart")) {
  const kind = chart.dataset.chart;
  const area = chart.querySelector(".plots");
  const label = chart.querySelector(".at");
  const resting = label.textContent;
  const values = [...chart.querySelectorAll(".val")];
  const svgs = [...chart.querySelectorAll("svg")];
  const curves = [...chart.querySelectorAll("svg path:not(.grid,.chance,.dots,.extra)")];
  const box = svgs[0].viewBox.baseVal;
  const every = Number(chart.dataset.every);  // frames per score of a timeline
  // x of every `every`-th frame, if the frames of the clip have times of their own; else frame i is at x = i
  const times = chart.dataset.times ? new Int32Array(bytes(chart.dataset.times).buffer) : null;
  const [first, last] = times ? [0, (times.length - 1) * every]
    : kind === "tl" ? [box.x + 0.5, box.x + box.width - 0.5] : [box.x, box.x + box.width];
  const position = frame => times ? times[Math.floor(frame / every)] : frame;
  const frameAt = x => times ? every * Math.max(0, times.findLastIndex(time => time <= x + 0.5)) : x;
  const lanes = [...chart.querySelectorAll(".lane")];
  const snapshots = kind === "tl" ? snapshotsOf(chart) : null;
  const unlabelled = (chart.dataset.unlabelled?.split(" ") ?? []).map(run => run.split("-").map(Number));
  // For figures that exist only at certain x: these x and their labels. The curves carry a text for each.
  const stops = chart.dataset.stops?.split("|").map(Number);
  const stopLabels = chart.dataset.labels?.split("|");
  let current = null;

  // Convert x to an axis value: x itself, or a position between the ends of an axis, which may be logarithmic.
  const onAxis = x => {
    const {from, to, xlog} = chart.dataset;
    if (from === undefined) return x;
    const value = Number(from) + (to - from) * x / 1000;
    return digits(xlog === "1" ? 10 ** value : value);
  };

  const describe = x => {
    if (stops) {
      const stop = stops.indexOf(x);
      const beyond = curves.filter(curve => curve.dataset.extrapolated[stop] === "1").length;
      const share = beyond < curves.length ? ` for ${beyond} of ${curves.length}` : "";
      return `${chart.dataset.x} ${stopLabels[stop]}${beyond ? ` · extrapolated${share}` : ""}`;
    }
    if (kind === "roc") return `${(x / 10).toFixed(1)} % of normal frames flagged`;
    if (kind === "loss") return `${chart.dataset.x || "iteration"} ${onAxis(x)}`;
    const parts = [`frame ${x}`, `${((position(x) - first) / chart.dataset.fps).toFixed(2)} s`];
    if (unlabelled.some(([start, end]) => start <= x && x <= end)) {
      parts.push("no label");
    } else if (chart.dataset.truth === "1") {
      const abnormal = [...svgs[0].querySelectorAll(".truth")].some(rect => {
        const start = rect.x.baseVal.value;
        return start < position(x) && position(x) < start + rect.width.baseVal.value;
      });
      parts.push(abnormal ? "abnormal" : "normal");
    }
    if (every > 1) {
      const start = first + Math.floor((x - first) / every) * every;
      parts.push(`highest scores of frames ${start}–${Math.min(start + every - 1, last)}`);
    }
    return parts.join(" · ");
  };

  const nearest = x => stops
    ? stops.reduce((best, stop) => Math.abs(stop - x) < Math.abs(best - x) ? stop : best)
    : Math.max(first, Math.min(last, Math.round(x)));

  const show = x => {
    current = x = nearest(x);
    chart.classList.add("reading");
    const text = describe(x);
    label.textContent = text;
    const spoken = [text];
    curves.forEach((curve, index) => {
      const svg = curve.ownerSVGElement;
      if (kind === "tl") {
        const score = scores(svg)[Math.floor((x - first) / every)];
        const reading = Number.isNaN(score) ? "no score" : digits(score);
        values[index].textContent = reading;
        values[index].classList.toggle("over", score >= Number(svg.dataset.threshold));  // false without a threshold
        const lane = values[index].parentElement;
        if (lane.offsetParent) spoken.push(`${lane.querySelector(".name").textContent} ${reading}`);
        return;
      }
      // A histogram's area closes at the base line, so read the last bar slightly left of its right end.
      const y = at(curve, chart.classList.contains("steps") ? Math.min(x, last - 0.5) : x);
      let reading = "none";
      if (curve.dataset.read !== undefined) {
        reading = curve.dataset.read.split("|")[stops.indexOf(x)];
      } else if (y !== null) {
        const [low, high] = [Number(svg.dataset.low), Number(svg.dataset.high)];
        const value = high - y / 1000 * (high - low);
        if (kind === "roc") reading = `${(100 * value).toFixed(1)} % found`;
        else reading = digits(chart.dataset.log === "1" ? 10 ** value : value);
      }
      values[index].textContent = reading;
      spoken.push(`${values[index].previousSibling.textContent.trim()} ${reading}`);
    });
    const place = `${100 * (position(x) - box.x) / box.width}%`;
    for (const cross of chart.querySelectorAll(".cross")) cross.style.left = place;
    area.setAttribute("aria-valuenow", x);
    area.setAttribute("aria-valuetext", spoken.join(", "));
    snapshots?.look(x);
  };

  const rest = () => {
    chart.classList.remove("reading");
    label.textContent = resting;
    for (const value of values) {
      value.textContent = value.dataset.rest;
      value.classList.remove("over");
    }
    snapshots?.leave();
  };

  const follow = event => {
    snapshots?.choose(lanes.indexOf(event.target.closest(".lane")));
    const plot = [...chart.querySelectorAll(".plot")].find(one => one.offsetParent);
    if (!plot) return;
    const edge = plot.getBoundingClientRect();
    show(frameAt(box.x + (event.clientX - edge.left) / edge.width * box.width));
  };
  area.addEventListener("pointermove", follow);
  area.addEventListener("pointerdown", event => {
    // On touch, focus keeps the values visible after the finger is lifted, until something else is touched.
    if (event.pointerType !== "mouse") area.focus({preventScroll: true});
    follow(event);
  });
  area.addEventListener("pointercancel", rest);  // the touch scrolls the page
  area.addEventListener("pointerleave", () => { if (document.activeElement !== area) rest(); });
  area.addEventListener("blur", rest);

  const listed = document.querySelectorAll(`.found li[data-clip="${chart.id}"]`);
  for (const alarm of [...chart.querySelectorAll(".alarms li"), ...(chart.id ? listed : [])]) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...alarm.childNodes);
    alarm.append(button);
    button.addEventListener("click", () => {
      snapshots?.choose(Number(alarm.dataset.system));
      area.focus({preventScroll: true});
      if (!chart.contains(alarm)) chart.scrollIntoView();
      lanes[Number(alarm.dataset.system)]?.scrollIntoView({block: "nearest"});  // not below the bar or the pictures: scroll-margin
      show(Number(alarm.dataset.frame));
    });
  }

  // The slider role makes the chart usable with a screen reader and a keyboard.
  area.tabIndex = 0;
  area.setAttribute("role", "slider");
  area.setAttribute("aria-label", chart.dataset.label);
  area.setAttribute("aria-valuemin", first);
  area.setAttribute("aria-valuemax", last);
  area.setAttribute("aria-valuenow", first);
  const step = kind === "tl" ? every : Math.max(1, Math.round(box.width / 100));
  area.addEventListener("keydown", event => {
    const far = event.shiftKey ? 10 : 1;
    const from = current ?? nearest(first);
    const by = count => stops
      ? stops[Math.max(0, Math.min(stops.length - 1, stops.indexOf(from) + count))]
      : from + step * count;
    const to = {
      ArrowRight: by(far), ArrowUp: by(far), ArrowLeft: by(-far), ArrowDown: by(-far),
      PageUp: by(10), PageDown: by(-10), Home: first, End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
}

// ---- switches that hide systems: alarm lists show how many entries are hidden, and the viewer leaves a hidden system
for (const data of document.querySelectorAll(".data")) {
  data.addEventListener("change", event => {
    if (!event.target.matches(".bar input")) return;
    const inputs = [...data.querySelectorAll(".bar input")];
    const off = new Set(inputs.flatMap((input, number) => input.checked ? [] : [String(number)]));
    for (const list of data.querySelectorAll(".alarms")) {
      const hidden = [...list.querySelectorAll("li")].filter(one => off.has(one.dataset.system)).length;
      list.querySelector(".held-back").textContent = hidden ? `${hidden} hidden with their systems` : "";
    }
    data.dispatchEvent(new Event("switched"));
  });
}

// ---- printing: open the collapsed sections of systems and lists of alarms
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not([open]):is(.system,.found)")) {
    one.open = true;
    addEventListener("afterprint", () => { one.open = false; }, {once: true});
  }
});
