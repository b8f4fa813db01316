"""The report: one HTML file, the same figures as JSON and CSV, and run.js with what differs each time they are made."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from vadcore.report.checkpoints import quality_rows
from vadcore.report.load import load_system, plain, same_footage
from vadcore.report.page import render_page
from vadcore.report.published import PUBLISHED, Published
from vadcore.report.rollouts import rollout_rows
from vadcore.report.run import DIFFERS, FILE, run_cells, write_run
from vadcore.report.strips import write_strips
from vadcore.utils.errors import VadError
from vadcore.utils.files import complete, digest_of, write_json, write_text

__all__ = ["build_report"]


def build_report(
    scores: Path,
    models: Path,
    out: Path,
    datasets: list[str],
    model_names: list[str],
    run: dict,
    params: dict | str,
    dataset_facts: dict[str, dict],
    published: tuple[Published, ...] = PUBLISHED,
    title: str = "Video anomaly report",
    check_points: tuple[int, ...] | None = None,
    flow_pictures: Mapping[str, Path] | None = None,
    kept: Path | None = None,
) -> None:
    """Write ``index.html``, ``metrics.json``, ``results.csv``, ``quality.json`` and ``rollouts.json`` into
    ``out``, each whole or not at all, and its strips of pictures into ``out/strips``.

    The same results give the same bytes. What differs between runs that give them (date, commit, costs) goes into
    ``run.js``, from where the page shows it; without that file the page shows a dash.

    Parameters
    ----------
    scores, models: the folders that hold ``<dataset>/<model>/`` (of fusions ``fused/<dataset>/<model>/``), as scoring and
        training wrote them.
    datasets, model_names: what to show, in this order; whatever else lies in the folders is left out.
    run: how the results were made: command, profile, commit, hardware, versions (a dict), date.
    params: the configuration, as read or as text.
    dataset_facts: per data set what a reader should know of the footage (format, clips, frames, hours, size, fps,
        source digest, label set, ...); shown as given.
    published: figures of the field, shown beside ours where a data set's name begins with that of a known one.
    title: the page's heading.
    check_points: the iterations whose pictures are put side by side; None: up to three that all systems have. One that
        no system has is left out, and the page says so.
    flow_pictures: data sets whose optical flow is to be shown, and the folder of its pictures.
    kept: the folder of results that are kept with the project (see benchmarks/result.py); those of a published data set are
        shown where ``datasets`` has one of it. None, or not there: none are.

    Raises
    ------
    VadError: nothing to show, results are missing or unreadable (of kept ones: unreadable, on a published data set), or the
        models of a data set judged different frames.
    """
    for key, names in (("datasets", datasets), ("models", model_names)):
        if not names:
            raise VadError(f"params.yaml: {key} is empty, there is nothing to report; list at least one")
    systems = {name: [load_system(scores, models, name, model) for model in model_names] for name in datasets}
    for group in systems.values():
        same_footage(group)
    rows = [system.row for group in systems.values() for system in group]

    facts = plain({key: value for key, value in run.items() if key not in DIFFERS})
    results = {"run": facts, "rows": rows}
    # Everything is rendered before anything is written: a failure leaves the last report as it was.
    page = render_page(
        systems,
        facts,
        digest_of(results),
        params,
        dataset_facts,
        published,
        title,
        check_points,
        dict(flow_pictures or {}),
        kept,
    )
    out = Path(out)
    write_run(out / FILE, results, run, run_cells(run, systems))
    write_json(out / "metrics.json", results)
    write_json(out / "quality.json", {"run": facts, "rows": quality_rows(systems)})
    write_json(out / "rollouts.json", {"run": facts, "rows": plain(rollout_rows(systems))})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with complete(out / "results.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    write_strips(out / "strips", [system for group in systems.values() for system in group])
    write_text(out / "index.html", page)
