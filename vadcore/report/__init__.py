"""Build the report: one HTML page, the same figures as JSON and CSV, and run.js for what changes from run to run."""

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
    """Write the report into ``out``.

    Files: ``index.html``, ``metrics.json``, ``results.csv``, ``quality.json``, ``rollouts.json``, ``run.js`` and
    pictures in ``out/strips``. Each file is written completely or not at all.

    The output is reproducible: the same results give the same bytes. Values that change from run to run (date,
    commit, costs) are stored in ``run.js`` only. The page reads them from there and shows a dash if the file is
    missing.

    Parameters
    ----------
    scores, models: folders that contain ``<dataset>/<model>/`` (fusions: ``fused/<dataset>/<model>/``), as written by
        scoring and training.
    datasets, model_names: data sets and models to show, in this order. Other content of the folders is ignored.
    run: how the results were made: command, profile, commit, hardware, versions (a dict), date.
    params: the configuration, parsed or as text.
    dataset_facts: facts about the footage of each data set (format, clips, frames, hours, size, fps, source digest,
        label set, ...), shown as given.
    published: AUC figures from the literature, shown next to ours if the data set's name begins with the name of a
        published one.
    title: heading of the page.
    check_points: iterations whose pictures are shown side by side. None selects up to three that all systems have. An
        iteration that no system has is skipped, with a note on the page.
    flow_pictures: folder of optical flow pictures for each data set whose flow is shown.
    kept: folder of the committed benchmark results (see benchmarks/result.py). Results on a published data set are
        shown if ``datasets`` contains that data set. With None or a missing folder nothing is shown.

    Raises
    ------
    VadError: ``datasets`` or ``model_names`` is empty, results are missing or unreadable (committed results: those on
        a published data set), or the models of a data set scored different frames.
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
    # Render everything before writing: if rendering fails, the previous report is unchanged.
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
