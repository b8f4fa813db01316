"""Markdown tables of the stored results, for docs/results.md, README.md and weights/README.md."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import mean, stdev

from benchmarks.result import distinct_runs, label_set, read_rows
from vadcore.evaluation.cost import TABLED
from vadcore.report.text import duration

PUBLISHED = Path(__file__).with_name("published.csv")  # AUC that papers print, in percent, by data set
PUBLISHED_NOTE = "*published*: the frame AUC that the paper prints, usually micro per-clip min-max; not run here."
DATA_SETS = ("ped1", "ped2", "avenue", "shanghaitech")  # columns of published.csv
# order of the tables; other files follow by name
ORDER = ("ped2-cpu", "ablation-ped2-cpu", "length-ped2-cpu", "demo", "actions-cpu", "moving-mnist-cpu")
SUMMARY, SUMMARY_ROWS = "ped2-cpu", 8  # the file whose best systems the summary shows, and their number
SUMMARY_COLUMNS = ("system", "micro raw", "micro per-clip min-max", "published", "macro", "pixel AUC", "RBDC", "TBDC")
VERSIONS = ("python", "torch", "opencv-python")  # recorded versions that are shown
STEPS = (1, 2, 3, 5, 10, 30)  # steps ahead that the tables show
QUALITY = {"PSNR": ("psnr", "{:.1f} dB"), "SSIM": ("ssim", "{:.3f}"), "sharpness": ("sharpness", "{:.2f}")}

Rows = list[dict]
Cell = Callable[[Rows], str]  # formats the rows of one system, one row per seed; empty if there is no figure


def spread(values: list, write: Callable[..., str]) -> str:
    """Format values as mean and standard deviation, ``76.5% ± 0.7%``, or as one value if all are equal.

    Empty if there are no values. If some are None, the text says how many count: ``76.5% (1 of 2)``.
    """
    there = [value for value in values if value is not None]
    if not there:
        return ""
    text = write(there[0]) if len(set(there)) == 1 else f"{write(mean(there))} ± {write(stdev(there))}"
    return text if len(there) == len(values) else f"{text} ({len(there)} of {len(values)})"


def figure(key: str, form: str) -> Cell:
    """Return the formatter of one figure. Costs come from one run only, because machines differ."""

    def write(rows: Rows) -> str:
        counted = [row for row in rows if row["run"] == rows[0]["run"]] if key in TABLED else rows
        return spread([row.get(key) for row in counted], form.format)

    return write


def count(key: str, of: str, form: Callable[[Rows, str], str]) -> Cell:
    """Return the formatter of a number of alarms; empty where the total ``of`` is 0 or unknown.

    Rows without ``normal_alarmed`` follow an older rule of matching alarms with events, and are left out.
    """

    def write(rows: Rows) -> str:
        counted = [row for row in rows if "normal_alarmed" in row]
        if not counted or not all(row[of] for row in counted):
            return ""
        share = f" ({len(counted)} of {len(rows)})" if len(counted) < len(rows) else ""
        return form(counted, _count(counted, key)) + share

    return write


def _count(rows: Rows, key: str) -> str:
    values = [row[key] for row in rows]
    return spread(values, ("{:.0f}" if len(set(values)) == 1 else "{:.1f}").format)


def _footage(rows: Rows) -> str:
    return duration(3600 * mean(row["normal_hours"] for row in rows))


def _known(dataset: str) -> str | None:
    """Return the data set of published.csv that the name of a configured data set begins with."""
    return next((name for name in DATA_SETS if dataset.lower().startswith(name)), None)


def _published(rows: Rows) -> str:
    """Return the published AUC of a system on this data set, with its source; empty for variants and other systems."""
    known = _known(rows[0]["dataset"])
    return "; ".join(
        f"{float(entry[known]):.1f}% ({entry['source']})"
        for entry in _literature()
        if known and entry["ours"] == rows[0]["model"] and entry[known]
    )


@cache
def _literature() -> list[dict[str, str]]:
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


COLUMNS: dict[str, Cell] = {
    "system": figure("model", "`{}`"),
    "losses": figure("losses", "{}"),
    "seeds": lambda rows: str(len(rows)),
    "micro raw": figure("auc_micro", "{:.1%}"),
    "micro per-clip min-max": figure("auc_micro_minmax", "{:.1%}"),
    "published": _published,
    "macro": figure("auc_macro", "{:.1%}"),
    "AP": figure("ap", "{:.1%}"),
    "EER": figure("eer", "{:.1%}"),
    "pixel AUC": figure("pixel_auc", "{:.1%}"),
    "RBDC": figure("rbdc", "{:.1%}"),
    "TBDC": figure("tbdc", "{:.1%}"),
    "events found": count("detected", "events_true", lambda rows, text: f"{text} of {_count(rows, 'events_true')}"),
    "false alarms": count("false_alarms", "normal_hours", lambda rows, text: f"{text} in {_footage(rows)}"),
    "normal time in alarm": figure("normal_alarmed", "{:.1%}"),
    "frames judged": figure("frames_evaluated", "{:,.0f}"),
    "frames/s": figure("score_fps", "{:.0f}"),
    "training": figure("train_seconds", "{:.0f} s"),
    "parameters": figure("parameters", "{:,.0f}"),
}
TEXTS = ("system", "losses", "published", "step ahead", "pairs", "source", "protocol", "also needs")


def markdown(headings: list[str], lines: list[list[str]]) -> str:
    """Return a table. Columns of numbers are aligned to the right."""
    rule = "|" + "|".join("---" if heading in TEXTS else "---:" for heading in headings) + "|"
    head, *rest = (f"| {' | '.join(cells)} |" for cells in (headings, *lines))
    return "\n".join([head, rule, *rest])


def by_system(rows: Rows) -> dict[str, Rows]:
    """Group rows by system name.

    Names that differ only in a trailing number (``gru_ae``, ``gru_ae-2``) are seeds of one system if each has a
    different seed and all have the same losses and the same variant. Otherwise the numbers denote variants
    (``conv_ae-64``, ``conv_ae-128``).
    """
    stems: dict[str, Rows] = {}
    for row in rows:
        stems.setdefault(_stem(row), []).append(row)
    groups: dict[str, Rows] = {}
    for row in rows:
        name = _stem(row) if _are_seeds(stems[_stem(row)]) else row["model"]
        groups.setdefault(name, []).append(row | {"model": name})
    return groups


def _stem(row: dict) -> str:
    return re.sub(r"-\d+$", "", row["model"])


def _are_seeds(rows: Rows) -> bool:
    seeds, made = {row["seed"] for row in rows}, {(row.get("losses"), row.get("variant")) for row in rows}
    return 1 < len(rows) == len(seeds) and len(made) == 1


def result_table(groups: list[Rows], wanted: tuple[str, ...] = tuple(COLUMNS)) -> str:
    """Return a table with one line per system and the columns ``wanted``, without empty columns.

    Several seeds of a system are combined into mean and standard deviation.
    """
    cells = {heading: [COLUMNS[heading](group) for group in groups] for heading in wanted}
    if all(len(group) == 1 for group in groups):
        cells.pop("seeds", None)
    cells = {heading: texts for heading, texts in cells.items() if any(texts)}
    table = markdown(list(cells), [list(line) for line in zip(*cells.values(), strict=True)])
    return f"{table}\n\n{PUBLISHED_NOTE}" if "published" in cells else table


def quality_table(rows: Rows) -> str:
    """Return a table with one line per iteration and the figures of all systems side by side."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    at = {(row["model"], row["iteration"]): row for row in rows}
    lines = []
    for iteration in sorted({row["iteration"] for row in rows}):
        found = [(at.get((model, iteration), {}).get(key), form) for key, form in QUALITY.values() for model in models]
        lines.append([f"{iteration:,}", *("" if value is None else form.format(value) for value, form in found)])
    return markdown(["iteration", *(f"`{model}` {name}" for name in QUALITY for model in models)], lines)


def rollout_table(rows: Rows) -> str:
    """Return a table with one line per system, then the baselines. A baseline that systems share appears once."""
    steps = [step for step in STEPS if any(row["step_ahead"] == step for row in rows)]
    cells: dict[tuple[str, str, str], dict[int, str]] = {}
    for row in rows:
        line = cells.setdefault((row["model"], row["variant"], row["what"]), {})
        line[row["step_ahead"]] = f"{row['psnr']:.1f} dB, {row['ssim']:.3f}"
    models_of: dict[tuple[bool, str, tuple[str, ...]], list[str]] = {}
    for (model, variant, what), line in cells.items():
        own = what == "prediction"
        key = (not own, f"`{model}`: {variant}" if own else what, tuple(line.get(step, "") for step in steps))
        models_of.setdefault(key, []).append(f"`{model}`")
    names = [name for _, name, _ in models_of]
    lines = []
    for (_, name, texts), models in sorted(models_of.items(), key=lambda entry: entry[0][0]):
        lines.append([f"{name} ({', '.join(models)})" if names.count(name) > 1 else name, *texts])
    return markdown(["step ahead", *map(str, steps)], lines)


def flow_table(file: Path) -> str:
    """Return the end-point errors: one line per set of pairs, one column per estimator, pairs per second in brackets."""
    rows = read_rows(file)
    at = {(row["set"], row["estimator"]): row for row in rows}
    sets, estimators = (list(dict.fromkeys(row[key] for row in rows)) for key in ("set", "estimator"))
    lines = []
    for name in sets:
        cells = [at[name, estimator] for estimator in estimators]
        lines.append([name, *(f"{c['epe']:.3f}" + (f" ({c['fps']:.0f}/s)" if c["fps"] else "") for c in cells)])
    return f"{markdown(['pairs', *estimators], lines)}\n\n{_origin(rows[0]['run'], [], file)}"


def published_table() -> str:
    """Return the published figures of all systems of published.csv."""
    keys = {"system": "system", "source": "source", "protocol": "protocol", "needs": "also needs"}
    lines = [[entry[key] for key in (*keys, *DATA_SETS)] for entry in _literature()]
    return (
        f"**Published figures**, not run here\n\n{markdown([*keys.values(), *DATA_SETS], lines)}\n\n"
        "Frame AUC in percent, as printed in the papers: the frames of all clips pooled, after what *protocol* says (empty: "
        "unknown), often with the checkpoint chosen on the test set."
    )


def tables(folder: Path) -> str:
    """Return the tables of all results in ``folder``, one per file and data set, each with its origin below.

    The published figures follow if one of the data sets has some.
    """
    parts, known = [], False
    for file in sorted(folder.glob("*.json"), key=_place):
        rows = [row for row in read_rows(file) if {"dataset", "model"} <= row.keys()]
        datasets = list(dict.fromkeys(row["dataset"] for row in rows))
        for dataset in datasets:
            of_set = [row for row in rows if row["dataset"] == dataset]
            if "auc_micro" in of_set[0]:
                title, table = f"labels: {label_set(of_set, file)}", result_table(list(by_system(of_set).values()))
            elif "step_ahead" in of_set[0]:
                title = f"PSNR and SSIM of predictions many frames ahead, {of_set[0]['sequences']} test sequences"
                title, table = f"{title}; labels: {label_set(of_set, file)}", rollout_table(of_set)
            else:
                title, table = "held-out clips while training goes on", quality_table(of_set)
            parts.append(f"**{dataset}** (profile `{file.stem}`), {title}\n\n{table}\n\n{_origins(of_set, file)}")
            known = known or _known(dataset) is not None
    if known:
        parts.append(published_table())
    return "\n\n".join(parts)


def summary(folder: Path) -> str:
    """Return the table of the best systems of :data:`SUMMARY` by micro AUC, without variants; empty without results."""
    file = folder / f"{SUMMARY}.json"
    if not file.exists():
        return ""
    groups = by_system([row for row in read_rows(file) if "auc_micro" in row])
    plain = [group for name, group in groups.items() if "-" not in name]
    best = sorted(plain, key=lambda group: -mean(row["auc_micro"] for row in group))
    return result_table(best[:SUMMARY_ROWS], SUMMARY_COLUMNS)


def _place(file: Path) -> tuple[int, str]:
    """Return the sort key of a file's tables."""
    return (ORDER.index(file.stem) if file.stem in ORDER else len(ORDER)), file.stem


def _origins(rows: Rows, file: Path) -> str:
    """Describe how the rows of a table were made; for several runs, which systems came from each."""
    runs = distinct_runs(rows)
    if len(runs) == 1:
        return _origin(runs[0], rows, file)
    parts = []
    for run in runs:
        own = [row for row in rows if row["run"] == run]
        names = ", ".join(f"`{row['model']}`" for row in own)
        parts.append(f"{names}: {_origin(run, own, file)}")
    return "\n\n".join(parts)


def _origin(run: dict, rows: Rows, file: Path) -> str:
    """Describe how a table was made: command, hardware, versions, seeds, commit and date."""
    versions = ", ".join(f"{name} {run['versions'][name]}" for name in VERSIONS if name in run["versions"])
    seeds = sorted({row["seed"] for row in rows})
    seeds = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else ""
    commit, _, changed = (run["commit"] or "unknown").partition("+")
    facts = [versions, seeds, f"commit {commit[:10]}{' with changes' if changed else ''}", run["date"][:10]]
    return f"Made by `{run['command']}` on {run['hardware']}; {'; '.join(filter(None, facts))}. `{file}`"
