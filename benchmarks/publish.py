"""Publish a run's results: copy reports/metrics.json to benchmarks/results/<profile>.json and update the docs tables.

    python -m benchmarks.publish            # after a run: store its results, then update the tables
    python -m benchmarks.publish --tables   # only update the tables from the stored results
    python -m benchmarks.publish --quality  # as the first, but store the picture quality at each checkpoint
    python -m benchmarks.publish --rollouts # as the first, but store the prediction error at each step ahead
    python -m benchmarks.publish --into P   # as the first, but add to the stored results of profile P: systems or seeds
    python -m benchmarks.publish --command "OMP_NUM_THREADS=1 python -m flows.pipeline"

``--command`` can be combined with all of them except --tables. It records the command that started the run, if that was
not `make profile NAME=...`. The command is stored with the results. It is kept when the same results are published
again, even if the report has been rewritten since.

The cost of training and scoring is stored too, from the cost.json of each system.

A file holds one run per profile. Storing another run of the profile drops the rows of the previous run, including
systems that no longer exist, and rows of the same systems that were added from other profiles. The command prints what
was dropped.

Updated pages: docs/results.md shows every file of benchmarks/results whose rows name a data set and a model, those in
ORDER first; README.md shows the best systems of SUMMARY; weights/README.md shows the errors of optical flow. The report
of a published data set (vadcore/report/kept_table.py) shows the stored results after `dvc repro report`, which `make
results` runs after this program.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from itertools import compress
from pathlib import Path
from statistics import mean

from benchmarks.result import joined
from tasks import paths
from vadcore.evaluation.cost import TABLED, read_costs
from vadcore.report.columns import duration
from vadcore.report.kept import NEEDED, counted_by_the_present_rule, label_set, origin, read_kept, seeds
from vadcore.report.published import followed, known_data_set
from vadcore.report.repetitions import repetitions, spread
from vadcore.report.run import read_made
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_json, write_text

RESULTS = Path("benchmarks/results")
PAGE = Path("docs/results.md")
README = Path("README.md")  # contains the summary
WEIGHTS = Path("weights/README.md")  # contains the errors of optical flow
SUMMARY, SUMMARY_ROWS = "ped2-cpu", 8  # the file whose best systems README.md shows, and their number
SUMMARY_COLUMNS = ("system", "micro raw", "micro per-clip min-max", "published", "macro", "pixel AUC", "RBDC", "TBDC")
# order of the tables; other files follow by name
ORDER = ("ped2-cpu", "ablation-ped2-cpu", "length-ped2-cpu", "demo", "actions-cpu", "moving-mnist-cpu")
PUBLISHED_NOTE = "*published*: the frame AUC that the paper prints, usually micro per-clip min-max; not run here."


def _published(rows: list[dict]) -> str:
    """Return the AUC from the paper of the system of ``rows`` on their data set, with its source.

    Empty if there is none, and for variants, which differ from the published system.
    """
    known = known_data_set(rows[0]["dataset"])
    return "; ".join(f"{entry.auc[known]:.1f}% ({entry.source})" for entry in followed(known, rows[0]["model"]))


def _events(rows: list[dict]) -> str:
    """Return the number of detected events, as ``5 of 7``; empty if there are no true events."""
    counted = _of_this_rule(rows)
    if not counted or not all(row["events_true"] for row in counted):
        return ""
    found, true = (_count([row[key] for row in counted]) for key in ("detected", "events_true"))
    return f"{found} of {true}{_share(counted, rows)}"


def _false_alarms(rows: list[dict]) -> str:
    """Return the false alarms and the duration of normal footage, as ``1 in 60 s``; empty without normal footage."""
    counted = _of_this_rule(rows)
    if not counted or not all(row["normal_hours"] for row in counted):
        return ""
    footage = duration(3600 * mean(row["normal_hours"] for row in counted))
    return f"{_count([row['false_alarms'] for row in counted])} in {footage}{_share(counted, rows)}"


def _normal_alarmed(rows: list[dict]) -> str:
    """Return the share of the normal footage inside alarms; empty without normal footage."""
    return spread([row.get("normal_alarmed") for row in rows], "{:.1%}".format)


def _of_this_rule(rows: list[dict]) -> list[dict]:
    """Return the rows whose event figures follow the current matching rule."""
    return [row for row in rows if counted_by_the_present_rule(row)]


def _share(counted: list[dict], rows: list[dict]) -> str:
    """Return ``(2 of 3)``, as in :func:`spread`, if only some rows of a system were counted."""
    return f" ({len(counted)} of {len(rows)})" if len(counted) < len(rows) else ""


def _count(values: list[int]) -> str:
    """Format a count; mean and standard deviation if seeds differ."""
    return spread(values, ("{:.0f}" if len(set(values)) == 1 else "{:.1f}").format)


COLUMNS = (  # heading, key, format; without a key: function that formats the rows of a system
    ("system", "model", "`{}`"),
    ("losses", "losses", "{}"),
    ("seeds", "seeds", "{}"),
    ("micro raw", "auc_micro", "{:.1%}"),
    ("micro per-clip min-max", "auc_micro_minmax", "{:.1%}"),
    ("published", None, _published),
    ("macro", "auc_macro", "{:.1%}"),
    ("AP", "ap", "{:.1%}"),
    ("EER", "eer", "{:.1%}"),
    ("pixel AUC", "pixel_auc", "{:.1%}"),
    ("RBDC", "rbdc", "{:.1%}"),
    ("TBDC", "tbdc", "{:.1%}"),
    ("events found", None, _events),
    ("false alarms", None, _false_alarms),
    ("normal time in alarm", None, _normal_alarmed),
    ("frames judged", "frames_evaluated", "{:,.0f}"),
    ("frames/s", "score_fps", "{:.0f}"),
    ("training", "train_seconds", "{:.0f} s"),
    ("parameters", "parameters", "{:,.0f}"),
)
TEXTS = ("system", "losses", "published")  # headings of columns that are not numbers

STEPS = (1, 2, 3, 5, 10, 30)  # steps ahead that the tables show
QUALITY = {"PSNR": ("psnr", "{:.1f} dB"), "SSIM": ("ssim", "{:.3f}"), "sharpness": ("sharpness", "{:.2f}")}


def keep(report: Path, into: str | None = None, command: str | None = None) -> tuple[Path, list[dict], list[dict]]:
    """Store the results of ``report`` in the file of its profile.

    Parameters
    ----------
    report: file of the report folder, e.g. reports/metrics.json.
    into: profile whose file the results are added to instead. They replace rows of the same systems.
    command: command that started the run. None keeps the stored command of the same run, else uses
        ``make profile NAME=<profile>``.

    Returns
    -------
    The path, the new rows, and the dropped rows.

    Raises
    ------
    VadError: there are no results, params.yaml differs from the profile, a stored file is invalid, or a data set would
        have two label sets in one file.
    """
    run, rows = _made(report)
    profile = run["profile"]
    _check_params(profile)
    path = RESULTS / f"{into or profile}.json"
    if into and not path.exists():
        raise VadError(f"{path}: not there; keep the results of profile {into} first")
    kept = read_kept(path) if path.exists() else []
    same = [old for old, of_run in kept if old["profile"] == profile and of_run == rows]
    run = dict(same[0] if same else run, **({"command": command} if command else {}))
    if not same and not command:
        run["command"] = f"make profile NAME={profile}"
    parts = beside(kept, (run, rows), first=path.stem == profile)
    after = [row for _, of_run in parts for row in of_run]
    for dataset in {row["dataset"] for row in after}:
        if judged := [row for row in after if row["dataset"] == dataset and "label_set" in row]:
            label_set(judged, path)
    write_json(path, joined(parts))
    there = {_identity(row) for row in after}
    return path, rows, [row for _, of_run in kept for row in of_run if _identity(row) not in there]


def _check_params(profile: str) -> None:
    """Check that params.yaml equals the profile, so that the results stored under its name can be reproduced."""
    own = Path("profiles", f"{profile}.yaml")
    if not own.exists():
        raise VadError(f"{own}: not there; keep the settings of this run as that profile: cp params.yaml {own}")
    if _text(Path("params.yaml")) != _text(own):
        raise VadError(
            f"params.yaml: not that of {own}; keep your settings under a name of their own (`profile` in params.yaml, then "
            f"cp params.yaml profiles/<name>.yaml, and dvc repro), or run those of {own}: make profile NAME={profile}"
        )


def _made(report: Path) -> tuple[dict, list[dict]]:
    """Read the run of ``report`` and its rows, with their cost. Raises VadError unless there are rows with figures."""
    if not report.exists():
        raise VadError(f"{report}: not there; run dvc repro first")
    run, rows = read_made(report)
    if not all({"dataset", "model"} <= row.keys() for row in rows):
        raise VadError(f"{report}: has a row of no data set or no model; run dvc repro --force --single-item report")
    if not rows:
        raise VadError(f"{report}: holds no rows; list a system that has such figures under models")
    if all("auc_micro" in row and row["auc_micro"] is None for row in rows):
        raise VadError(
            f"{report}: no row has an AUC, because no test clip is abnormal; keep the figures of its check points or of its "
            "predictions instead: python -m benchmarks.publish --quality, or --rollouts"
        )
    return run, [row | _cost(row) if "auc_micro" in row else row for row in rows]


def _cost(row: dict) -> dict:
    """Return the cost figures of a system that the tables show, if known."""
    cost = read_costs(paths.SCORES, paths.MODELS, row["dataset"], row["model"])
    return {key: cost[key] for key in TABLED if key in cost}


def beside(kept: list[tuple[dict, list[dict]]], made: tuple[dict, list[dict]], first: bool) -> list:
    """Combine stored parts with a new run.

    Drops stored parts of the same profile, and rows of other profiles for the same systems. ``first``: put the new run
    first.
    """
    run, rows = made
    fresh = {(row["dataset"], row["model"]) for row in rows}
    parts = [
        (other, [row for row in of_run if (row["dataset"], row["model"]) not in fresh])
        for other, of_run in kept
        if other["profile"] != run["profile"]
    ]
    parts.insert(0 if first else len(parts), made)
    return parts


def _identity(row: dict) -> tuple:
    """Return the key that identifies a row of a system."""
    return tuple(row.get(key) for key in ("dataset", "model", "seed")), *(key in row for key in NEEDED)


def _names(rows: list[dict]) -> str:
    """Format as ``conv_ae (seed 1), gru_ae (seed 2)``."""
    return ", ".join(dict.fromkeys(f"{row.get('model')} (seed {row.get('seed')})" for row in rows))


def tables() -> str:
    """Return the tables of all stored results, one per file and data set, each with its origin below."""
    parts = []
    for file in sorted(RESULTS.glob("*.json"), key=_place):
        parts_of = [
            (run, [row for row in rows if "dataset" in row and "model" in row]) for run, rows in read_kept(file)
        ]
        rows = [row for _, of_run in parts_of for row in of_run]
        for dataset in dict.fromkeys(row["dataset"] for row in rows):
            runs = [(run, [row for row in of_run if row["dataset"] == dataset]) for run, of_run in parts_of]
            of_set = [row for _, of_run in runs for row in of_run]
            if "auc_micro" in of_set[0]:
                said, table = f"labels: {label_set(of_set, file)}", _table([of_run for _, of_run in runs])
            elif "step_ahead" in of_set[0]:
                said = f"PSNR and SSIM of predictions many frames ahead, {of_set[0]['sequences']} test sequences"
                said, table = f"{said}; labels: {label_set(of_set, file)}", _rollout_table(of_set)
            else:
                said, table = "held-out clips while training goes on", _quality_table(of_set)
            parts.append(f"**{dataset}** (profile `{file.stem}`), {said}\n\n{table}\n\n{_origins(runs, file)}")
    return "\n\n".join(parts)


def summary() -> str:
    """Return the table of the best systems of :data:`SUMMARY` by micro AUC, without variants; empty without results."""
    file = RESULTS / f"{SUMMARY}.json"
    if not file.exists():
        return ""
    runs = [[row for row in rows if "auc_micro" in row] for _, rows in read_kept(file)]
    groups = repetitions([row for rows in runs for row in rows])
    best = sorted(
        (name for name in groups if "-" not in name), key=lambda name: -mean(row["auc_micro"] for row in groups[name])
    )[:SUMMARY_ROWS]
    of_best = [[row for row in rows if any(row in groups[name] for name in best)] for rows in runs]
    return _table(of_best, SUMMARY_COLUMNS, best)


def _place(file: Path) -> tuple[int, str]:
    """Return the sort key of a file's tables."""
    return (ORDER.index(file.stem) if file.stem in ORDER else len(ORDER)), file.stem


def _origins(runs: list[tuple[dict, list[dict]]], file: Path) -> str:
    """Describe how a table was made; for several runs, which systems came from each."""
    if len(runs) == 1:
        return _origin(*runs[0], file)
    parts = []
    for run, rows in runs:
        if rows:
            names = ", ".join(f"`{row['model']}`" for row in rows)
            parts.append(f"{names}: {_origin(run, rows, file)}")
    return "\n\n".join(parts)


def _origin(run: dict, rows: list[dict], file: Path) -> str:
    """Describe how a table was made."""
    made = origin(run)
    facts = [made["versions"], seeds(rows), f"commit {made['commit']}", made["date"]]
    return f"Made by `{made['command']}` on {made['hardware']}; {'; '.join(filter(None, facts))}. `{file}`"


def _quality_table(rows: list[dict]) -> str:
    """Return a table with one line per iteration and the figures of all systems side by side."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    lines = [
        "| iteration | " + " | ".join(f"`{model}` {name}" for name in QUALITY for model in models) + " |",
        "|---:|" + "---:|" * len(models) * len(QUALITY),
    ]
    for iteration in sorted({row["iteration"] for row in rows}):
        of = {row["model"]: row for row in rows if row["iteration"] == iteration}
        cells = [
            form.format(of[model][key]) if model in of and of[model].get(key) is not None else ""
            for key, form in QUALITY.values()
            for model in models
        ]
        lines.append(f"| {iteration:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _rollout_table(rows: list[dict]) -> str:
    """Return a table with one line per system, then the baselines. A baseline that several systems share appears once."""
    steps = [step for step in STEPS if any(row["step_ahead"] == step for row in rows)]
    lines = {}
    for row in rows:
        line = lines.setdefault((row["model"], row["variant"], row["what"]), {})
        line[row["step_ahead"]] = f"{row['psnr']:.1f} dB, {row['ssim']:.3f}"
    shown: dict[tuple, list[str]] = {}
    for (model, variant, what), line in lines.items():
        own = what == "prediction"
        key = (not own, f"`{model}`: {variant}" if own else what, tuple(line.get(step, "") for step in steps))
        shown.setdefault(key, []).append(model)
    several = Counter(name for _, name, _ in shown)
    table = ["| step ahead | " + " | ".join(map(str, steps)) + " |", "|---|" + "---:|" * len(steps)]
    for (_, name, cells), models in sorted(shown.items(), key=lambda entry: entry[0][0]):
        of = f" ({', '.join(f'`{model}`' for model in models)})" if several[name] > 1 else ""
        table.append(f"| {name}{of} | " + " | ".join(cells) + " |")
    return "\n".join(table)


def _table(runs: list[list[dict]], wanted: tuple[str, ...] | None = None, order: list[str] | None = None) -> str:
    """Return a table with one line per system.

    Several seeds of a system are combined into mean and standard deviation; costs come from one run. Empty columns are
    left out. wanted: headings of the columns; None for all. order: order of the systems.
    """
    rows = [{"of": number, **row} for number, of_run in enumerate(runs) for row in of_run]
    groups = repetitions(rows)
    lines = []
    columns = [column for column in COLUMNS if wanted is None or column[0] in wanted]
    for name, group in [(name, groups[name]) for name in order or groups]:
        group = [row | {"model": name} for row in group]
        if len(groups) < len(rows):
            group = [row | {"seeds": len(group)} for row in group]
        of_one = [row for row in group if row["of"] == group[0]["of"]]
        lines.append(
            [
                spread([row.get(key) for row in (of_one if key in TABLED else group)], form.format)
                if key
                else form(group)
                for _, key, form in columns
            ]
        )
    shown = [any(cells) for cells in zip(*lines, strict=True)]
    headings = [heading for heading, _, _ in compress(columns, shown)]
    table = [f"| {' | '.join(cells)} |" for cells in (headings, *(compress(line, shown) for line in lines))]
    table.insert(1, "|" + "|".join("---" if heading in TEXTS else "---:" for heading in headings) + "|")
    return "\n".join([*table, "", PUBLISHED_NOTE] if "published" in headings else table)


def flow_table(file: Path) -> str:
    """Return the end-point errors: one line per set of pairs, one column per estimator, pairs per second in brackets."""
    ((run, rows),) = read_kept(file)
    cells = {(row["set"], row["estimator"]): row for row in rows}
    sets, estimators = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    lines = ["| pairs | " + " | ".join(estimators) + " |", "|---|" + "---:|" * len(estimators)]
    for name in sets:
        row = [cells[name, estimator] for estimator in estimators]
        texts = [f"{cell['epe']:.3f}" + (f" ({cell['fps']:.0f}/s)" if cell["fps"] else "") for cell in row]
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + f"\n\n{_origin(run, [], file)}"


def rewrite(page: Path, text: str, mark: str = "results") -> None:
    """Replace the text between two marks of a page. Raises VadError if the marks are missing."""
    first, last = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, start, rest = _text(page).partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise VadError(f"{page}: lacks {first} and, after it, {last}; put them where the tables shall stand")
    write_text(page, f"{before}{first}\n{text}\n{last}{after}")


def _text(path: Path) -> str:
    """Read a file of the project as text. Raises VadError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise VadError(f"{path}: cannot be read ({error}); restore it (git checkout -- {path})") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--tables", action="store_true", help="only rewrite the tables from what is kept")
    which.add_argument(
        "--quality", action="store_true", help="keep reports/quality.json, the figures of check points, instead"
    )
    which.add_argument(
        "--rollouts", action="store_true", help="keep reports/rollouts.json, the figures of steps ahead, instead"
    )
    which.add_argument(
        "--into", metavar="PROFILE", help="keep them beside the results of this profile: more of its systems"
    )
    parser.add_argument(
        "--command", metavar="TEXT", help="what the run was started with, where that was not make profile NAME=..."
    )
    arguments = parser.parse_args()
    if arguments.tables and arguments.command is not None:
        parser.error("--command is kept with a run's results, and --tables keeps none")
    try:
        if not arguments.tables:
            kind = "quality" if arguments.quality else "rollouts" if arguments.rollouts else "metrics"
            path, rows, dropped = keep(Path("reports", f"{kind}.json"), arguments.into, arguments.command)
            print(f"kept: {path}")
            if dropped:
                print(f"not kept any more: {_names(dropped)}")
            if kind == "metrics" and any(known_data_set(row["dataset"]) for row in rows):
                print("`dvc repro report` brings them into reports/index.html (`make results` does)")
        rewrite(PAGE, tables())
        rewrite(README, summary(), "summary")
        if (errors := RESULTS / "flow-epe.json").exists():
            rewrite(WEIGHTS, flow_table(errors))
    except VadError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
