"""Prefect artifacts of a pipeline run: result table, links to the report and to the MLflow run, and a link back."""

from __future__ import annotations

import csv
import socket
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_table_artifact

from tasks import paths
from tasks.tracking.client import connect, reason_of, search_tag, wanted_uri, without_secrets
from tasks.tracking.lineage import out_digest
from vadcore.evaluation.cost import TABLED, read_costs

LOCAL_MLFLOW = "http://127.0.0.1:5000"  # where `make mlflow` serves a database that has no MLflow server


def plan_table(rows: list[dict[str, str]]) -> None:
    """Create the table of a dry run, one row per stage."""
    create_table_artifact(rows, key="plan", description="`run`: DVC may still find that nothing has changed")


def create_artifacts(key: str, flow_run_url: str | None, root: Path, reported: bool, log) -> None:
    """Create the artifacts of a pipeline run: the result table, and links to its MLflow run and its report.

    The MLflow run is the pipeline's, whose stages logged under ``VAD_PIPELINE=key``. If this run did not build the report
    (``reported`` is False), the results and the report in the folder belong to another run and are not shown.
    """
    report = root / paths.REPORTS / "index.html"
    table = _results(root) if reported else []
    if table:
        create_table_artifact(table, key="results", description=f"{root / paths.REPORTS}/results.csv")
    uri = wanted_uri()
    page = report.as_uri()
    try:
        page = _link_both_ways(uri, key, flow_run_url, report if reported else None, root) or page
    except Exception as error:  # any MLflow error: the stages are done, only links are missing
        log.warning("MLflow at %s did not answer (%s): no link to the run", without_secrets(uri), reason_of(error))
    if reported and report.exists():
        create_link_artifact(page, "report", "report", f"Also {report} on {socket.gethostname()}")
        log.info("report: %s", report)


def _link_both_ways(uri: str, key: str, flow_run_url: str | None, report: Path | None, root: Path) -> str | None:
    """Link the flow run to the pipeline's MLflow run and back.

    Returns the URL of ``report`` in MLflow, at the run that made exactly these bytes, or None.
    """
    served = uri.startswith("http")
    if not served and not any(root.glob("mlflow.db")) and "mlflow.db" in uri:
        return None  # nothing was logged: do not create a database only for a link
    client = connect(uri)
    base = without_secrets(uri).rstrip("/") if served else LOCAL_MLFLOW
    if run := _pipeline_run(client, key):
        first = "" if served else "; start its page with `make mlflow`"
        title = f"MLflow: {run.info.run_name}"
        create_link_artifact(_page(base, run), title, "mlflow-run", f"The runs of this pipeline{first}")
        if flow_run_url:
            client.set_tag(run.info.run_id, "vad.flow_run", flow_run_url)
            client.set_tag(run.info.run_id, "mlflow.note.content", f"Prefect flow run: [{key}]({flow_run_url})")
    if not served or not report or not report.exists():
        return None
    makers = search_tag(client, f"vad.digest.{out_digest(report)}", most=1)
    return f"{_page(base, makers[0])}/artifacts/{report.name}" if makers else None


def _pipeline_run(client, key: str):
    experiments = [found.experiment_id for found in client.search_experiments()]
    where = f"tags.`vad.pipeline` = '{key}' and tags.`vad.stage` = 'pipeline'"
    return next(iter(client.search_runs(experiments, where, max_results=1)), None)


def _page(base: str, run) -> str:
    return f"{base}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def _results(root: Path) -> list[dict[str, str]]:
    """Return the rows of results.csv with their cost, without columns that are empty in all rows.

    Numbers are rounded to four digits.
    """
    path = root / paths.REPORTS / "results.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        cost = read_costs(root / paths.SCORES, root / paths.MODELS, row["dataset"], row["model"])
        row |= {key: str(cost.get(key, "")) for key in TABLED}
    shown = [name for name in (rows[0] if rows else {}) if any(row[name] for row in rows)]
    return [{name: _short(row[name]) for name in shown} for row in rows]


def _short(text: str) -> str:
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.4g}"
    except ValueError:
        return text
