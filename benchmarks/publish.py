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

Updated pages: docs/results.md shows every file of benchmarks/results whose rows name a data set and a model; README.md
shows the best systems of one file; weights/README.md shows the errors of optical flow. See benchmarks/tables.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.result import NEEDED, label_set, read_report, read_rows, same_figures, write_rows
from benchmarks.tables import flow_table, summary, tables
from tasks import paths
from vadcore.evaluation.cost import TABLED, read_costs
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_text

RESULTS = Path("benchmarks/results")


def keep(report: Path, into: str | None = None, command: str | None = None) -> tuple[Path, list[dict]]:
    """Store the results of ``report`` in the file of its profile.

    Parameters
    ----------
    report: file of the report folder, e.g. reports/metrics.json.
    into: profile whose file the results are added to instead. They replace rows of the same systems.
    command: command that started the run. None keeps the stored command of the same run, else uses
        ``make profile NAME=<profile>``.

    Returns
    -------
    The path and the dropped rows.

    Raises
    ------
    VadError: there are no results, params.yaml differs from the profile, a stored file is invalid, or a data set would
        have two label sets in one file.
    """
    rows = _with_costs(report, read_report(report))
    run = rows[0]["run"]
    profile = run["profile"]
    _check_params(profile)
    path = RESULTS / f"{into or profile}.json"
    if into and not path.exists():
        raise VadError(f"{path}: does not exist; store the results of profile {into} first")
    stored = read_rows(path) if path.exists() else []
    before = [row for row in stored if row["run"]["profile"] == profile]
    if same_figures(before, rows):
        run = before[0]["run"] | ({"command": command} if command else {})
    else:
        run = run | {"command": command or f"make profile NAME={profile}"}
    rows = [row | {"run": run} for row in rows]

    systems = {_system(row) for row in rows}
    others = [row for row in stored if row["run"]["profile"] != profile and _system(row) not in systems]
    after = rows + others if path.stem == profile else others + rows
    for dataset in {row["dataset"] for row in after}:
        if scored := [row for row in after if row["dataset"] == dataset and "label_set" in row]:
            label_set(scored, path)
    write_rows(path, after)
    there = {_identity(row) for row in after}
    return path, [row for row in stored if _identity(row) not in there]


def _with_costs(report: Path, rows: list[dict]) -> list[dict]:
    """Add the costs that the tables show. Raises VadError unless every row has a system and one has a figure."""
    if not all({"dataset", "model"} <= row.keys() for row in rows):
        raise VadError(f"{report}: has a row without a data set or a model; run dvc repro --force --single-item report")
    if all("auc_micro" in row and row["auc_micro"] is None for row in rows):
        raise VadError(
            f"{report}: no row has an AUC, because no test clip is abnormal; store picture quality or rollouts instead: "
            "python -m benchmarks.publish --quality, or --rollouts"
        )
    costs = [read_costs(paths.SCORES, paths.MODELS, *_system(row)) if "auc_micro" in row else {} for row in rows]
    return [row | {key: cost[key] for key in TABLED if key in cost} for row, cost in zip(rows, costs, strict=True)]


def _check_params(profile: str) -> None:
    """Check that params.yaml equals the profile, so that the results stored under its name can be reproduced."""
    own = Path("profiles", f"{profile}.yaml")
    if not own.exists():
        raise VadError(f"{own}: does not exist; store the settings of this run under that name: cp params.yaml {own}")
    if _text(Path("params.yaml")) != _text(own):
        raise VadError(
            f"params.yaml: differs from {own}; store your settings under another name (`profile` in params.yaml, then "
            f"cp params.yaml profiles/<name>.yaml, and dvc repro), or run those of {own}: make profile NAME={profile}"
        )


def _system(row: dict) -> tuple[str, str]:
    return row["dataset"], row["model"]


def _identity(row: dict) -> tuple:
    """Return the key that identifies a row of a system."""
    return *(row.get(key) for key in ("dataset", "model", "seed")), *(key in row for key in NEEDED)


def rewrite(page: Path, text: str, mark: str = "results") -> None:
    """Replace the text between two marks of a page. Raises VadError if the marks are missing."""
    first, last = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, start, rest = _text(page).partition(first)
    _, end, after = rest.partition(last)
    if not start or not end:
        raise VadError(f"{page}: lacks {first} and, after it, {last}; put them where the tables belong")
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
    which.add_argument("--tables", action="store_true", help="only update the tables from the stored results")
    which.add_argument("--quality", action="store_true", help="store reports/quality.json instead")
    which.add_argument("--rollouts", action="store_true", help="store reports/rollouts.json instead")
    which.add_argument("--into", metavar="PROFILE", help="add to the results of this profile: more of its systems")
    parser.add_argument("--command", metavar="TEXT", help="command of the run, if not make profile NAME=..")
    arguments = parser.parse_args()
    if arguments.tables and arguments.command is not None:
        parser.error("--command is stored with the results of a run, and --tables stores none")
    try:
        if not arguments.tables:
            kind = "quality" if arguments.quality else "rollouts" if arguments.rollouts else "metrics"
            path, dropped = keep(Path("reports", f"{kind}.json"), arguments.into, arguments.command)
            print(f"stored: {path}")
            if dropped:
                names = dict.fromkeys(f"{row.get('model')} (seed {row.get('seed')})" for row in dropped)
                print(f"dropped: {', '.join(names)}")
        rewrite(Path("docs/results.md"), tables(RESULTS))
        rewrite(Path("README.md"), summary(RESULTS), "summary")
        if (errors := RESULTS / "flow-epe.json").exists():
            rewrite(Path("weights/README.md"), flow_table(errors))
    except VadError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
