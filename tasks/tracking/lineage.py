"""Lineage: find the run that made a file."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from tasks.tracking.digests import out_digest
from tasks.tracking.outbox import TRACKING, spools
from tasks.tracking.run import tag_name
from tasks.tracking.server import connect, wanted_uri, why, without_secrets
from vadcore.utils.errors import VadError


def lineage(path: Path) -> list[str]:
    """Return lines that name the runs that made ``path``, newest first; empty if no run is known.

    Searches for runs that made exactly these bytes, at any path; else for runs that made the current content of the file's
    folder; else for runs that once made another file at this path, which the line says. Raises VadError if the file does not
    exist or MLflow does not answer.
    """
    if not path.exists():
        raise VadError(f"{path}: no such file or folder; give the path of something that a stage has made")
    waiting = _waiting(out_digest(path))
    uri = wanted_uri()
    try:
        client = connect(uri)
        experiments = [found.experiment_id for found in client.search_experiments()]
        inside = Path(os.path.relpath(path))
        lines = _made_of(client, experiments, path)
        for folder in [] if lines else inside.parents:
            # digests of folders are slow: compute one only if some run made a folder of that name
            if folder.name and _search(client, experiments, f"vad.made.{folder.as_posix()}"):
                lines = _made_of(client, experiments, folder)
            if lines:
                break
        if not lines and not waiting:
            earlier = _search(client, experiments, f"vad.made.{inside.as_posix()}")
            lines = [f"{_line(run)}  (made an earlier version)" for run in earlier]
    except Exception as error:
        raise VadError(
            f"MLflow at {without_secrets(uri)} did not answer ({why(error)}); start it or set MLFLOW_TRACKING_URI"
        ) from error
    return waiting + lines


def _made_of(client, experiments: list[str], path: Path) -> list[str]:
    runs = _search(client, experiments, f"vad.digest.{out_digest(path)}")
    return [_line(run) for run in runs]


def _search(client, experiments: list[str], tag: str) -> list:
    where = f"tags.`{tag_name(tag)}` LIKE '%'"
    return client.search_runs(experiments, where, order_by=["start_time DESC"], max_results=20)


def _line(run) -> str:
    info, tags = run.info, run.data.tags
    moment = datetime.fromtimestamp(info.start_time / 1000)
    commit = tags.get("mlflow.source.git.commit", "")[:10] or "no commit"
    where = f"#/experiments/{info.experiment_id}/runs/{info.run_id}"
    uri = wanted_uri()
    if uri.startswith("http"):
        where = f"{without_secrets(uri).rstrip('/')}/{where}"
    return (
        f"{info.run_name}  {moment:%Y-%m-%d %H:%M}  {info.status}  run {info.run_id}  "
        f"pipeline {tags.get('vad.pipeline', '')}  commit {commit}  {where}"
    )


def _waiting(digest: str) -> list[str]:
    """Return lines for the runs that made this digest and are not sent yet."""
    return [
        f"{spool.about['name']}  not sent yet: {TRACKING / 'outbox' / spool.key}"
        for spool in spools(TRACKING / "outbox")
        if any(f"vad.digest.{digest}" in event.get("tags", {}) for event, _ in spool.events())
    ]
