"use strict";
// The page reads without this script; it adds sortable tables and the reading of values under a crosshair.

// ---- tables: a heading becomes a button that sorts; figures that do not exist stay at the end
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") !== "descending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const numeric = head.classList.contains("num");
      const value = row => {
        const cell = row.cells[column];
        return numeric ? (cell.dataset.v === undefined ? NaN : Number(cell.dataset.v)) : cell.textContent;
      };
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [u, v] = [value(a), value(b)];
        if (!numeric) return falling ? v.localeCompare(u) : u.localeCompare(v);
        if (Number.isNaN(u) || Number.isNaN(v)) return Number.isNaN(u) - Number.isNaN(v);
        return falling ? v - u : u - v;
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// ---- charts: their paths are their data (see vadcore/report/charts.py)
const parsed = new WeakMap();

// The pieces of a path, each a list of [x, y]; the first point is absolute, the others relative to the one before.
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

// y of a curve at x, between two points on the line that joins them; null where there is no curve.
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

const digits = value => Number(value.toPrecision(3)).toString();

for (const chart of document.querySelectorAll(".chart")) {
  const kind = chart.dataset.chart;
  const area = chart.querySelector(".plots");
  const label = chart.querySelector(".at");
  const resting = label.textContent;
  const values = [...chart.querySelectorAll(".val")];
  const svgs = [...chart.querySelectorAll("svg")];
  const curves = [...chart.querySelectorAll("svg path:not(.grid,.chance,.dots)")];
  const box = svgs[0].viewBox.baseVal;
  const [first, last] = kind === "tl" ? [box.x + 0.5, box.x + box.width - 0.5] : [box.x, box.x + box.width];
  let current = null;

  const describe = x => {
    if (kind === "roc") return `${(x / 10).toFixed(1)} % of normal frames flagged`;
    if (kind === "loss") return `${chart.dataset.x || "iteration"} ${x}`;
    const parts = [`frame ${x}`, `${((x - first) / chart.dataset.fps).toFixed(2)} s`];
    if (chart.dataset.truth === "1") {
      const abnormal = [...svgs[0].querySelectorAll(".truth")].some(rect => {
        const start = rect.x.baseVal.value;
        return start < x && x < start + rect.width.baseVal.value;
      });
      parts.push(abnormal ? "abnormal" : "normal");
    }
    return parts.join(" · ");
  };

  const show = x => {
    current = x = Math.max(first, Math.min(last, Math.round(x)));
    chart.classList.add("reading");
    const text = describe(x);
    label.textContent = text;
    const spoken = [text];
    curves.forEach((curve, index) => {
      const svg = curve.ownerSVGElement;
      const y = at(curve, x);
      let reading = kind === "tl" ? "no score" : "";
      if (y !== null) {
        const [low, high] = [Number(svg.dataset.low), Number(svg.dataset.high)];
        const value = high - y / 1000 * (high - low);
        if (kind === "roc") reading = `${(100 * value).toFixed(1)} % found`;
        else reading = digits(chart.dataset.log === "1" ? 10 ** value : value);
      }
      values[index].textContent = reading;
      if (kind === "tl") {
        const threshold = svg.querySelector(".thr");
        values[index].classList.toggle("over", y !== null && threshold !== null && y <= threshold.y1.baseVal.value);
        const lane = values[index].parentElement;
        if (lane.offsetParent) spoken.push(`${lane.querySelector(".name").textContent} ${reading}`);
      } else {
        spoken.push(`${values[index].previousSibling.textContent.trim()} ${reading}`);
      }
    });
    const place = `${100 * (x - box.x) / box.width}%`;
    for (const cross of chart.querySelectorAll(".cross")) cross.style.left = place;
    area.setAttribute("aria-valuenow", x);
    area.setAttribute("aria-valuetext", spoken.join(", "));
  };

  const rest = () => {
    chart.classList.remove("reading");
    label.textContent = resting;
    for (const value of values) {
      value.textContent = value.dataset.rest;
      value.classList.remove("over");
    }
  };

  const follow = event => {
    const plot = [...chart.querySelectorAll(".plot")].find(one => one.offsetParent);
    if (!plot) return;
    const edge = plot.getBoundingClientRect();
    show(box.x + (event.clientX - edge.left) / edge.width * box.width);
  };
  area.addEventListener("pointermove", follow);
  area.addEventListener("pointerdown", follow);
  area.addEventListener("pointerleave", () => { if (document.activeElement !== area) rest(); });
  area.addEventListener("blur", rest);

  // A slider is what a screen reader and a keyboard already know how to move.
  area.tabIndex = 0;
  area.setAttribute("role", "slider");
  area.setAttribute("aria-label", chart.dataset.label);
  area.setAttribute("aria-valuemin", first);
  area.setAttribute("aria-valuemax", last);
  area.setAttribute("aria-valuenow", first);
  const step = kind === "tl" ? 1 : Math.max(1, Math.round(box.width / 100));
  area.addEventListener("keydown", event => {
    const far = event.shiftKey ? 10 : 1;
    const from = current ?? first;
    const to = {
      ArrowRight: from + step * far, ArrowUp: from + step * far,
      ArrowLeft: from - step * far, ArrowDown: from - step * far,
      PageUp: from + 10 * step, PageDown: from - 10 * step, Home: first, End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
}
