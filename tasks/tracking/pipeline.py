"""Which pipeline a stage belongs to, and that pipeline's run in MLflow."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from datetime import datetime
from pathlib import Path

import psutil
from filelock import FileLock

from tasks.tracking.outbox import now_ms
from vadcore.utils.files import digest_of, write_json

KEEP_SECONDS = 7 * 24 * 3600  # how long a pipeline's run id is remembered; later it is searched for on the server


def pipeline_of_this_process() -> dict:
    """``{"key", "start"}`` of the pipeline: ``VAD_PIPELINE`` where it is set; else the ``dvc repro`` (or ``dvc exp``)
    that this process descends from; else this process, a stage started by hand, is a pipeline of its own."""
    if named := os.environ.get("VAD_PIPELINE"):
        return {"key": re.sub(r"[^\w ./:@+-]", "_", named), "start": now_ms()}  # no quotes: it is searched for
    process = psutil.Process()
    owner = next((parent for parent in process.parents() if _runs_dvc(parent)), process)
    created = owner.create_time()
    return {"key": f"{socket.gethostname()}-{owner.pid}-{int(created)}", "start": int(created * 1000)}


def _runs_dvc(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:  # not ours to look at, so not our dvc
        return False
    names = [Path(word).name for word in words]
    return "dvc" in names and bool({"repro", "exp", "experiments"} & set(words[names.index("dvc") + 1 :]))


def attach(client, uri: str, experiment_id: str, about: dict, folder: Path) -> str:
    """The run id of the pipeline that the stage ``about`` (its run.json) belongs to; the run is created where it is missing.

    ``folder`` remembers the ids, and its lock keeps stages that start at once from making two. Where it has forgotten,
    the run is searched for by its tag ``vad.pipeline``.
    """
    from mlflow.exceptions import MlflowException

    key, dataset = about["pipeline"]["key"], about["tags"].get("vad.dataset")
    folder.mkdir(parents=True, exist_ok=True)
    _forget_old(folder)
    file = folder / f"{digest_of([key, uri, experiment_id])}.json"
    with FileLock(folder / "lock"):
        known = json.loads(file.read_text(encoding="utf-8"))["run_id"] if file.exists() else None
        run = None
        if known:
            try:
                run = client.get_run(known)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        if run is None or run.info.lifecycle_stage == "deleted":
            where = f"tags.`vad.pipeline` = '{key}' and tags.`vad.stage` = 'pipeline'"
            run = next(iter(client.search_runs([experiment_id], where, max_results=1)), None)
        if run is None:
            run = _create(client, experiment_id, about)
        datasets = run.data.tags.get("vad.dataset", "").split()
        if dataset and dataset not in datasets:
            datasets.append(dataset)
            client.set_tag(run.info.run_id, "vad.dataset", " ".join(datasets))
            client.update_run(run.info.run_id, name=_name(run.info.start_time, datasets))
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        write_json(file, {"pipeline": key, "uri": uri, "run_id": run.info.run_id})
    return run.info.run_id


def settle(client, experiment_id: str, run_id: str, folder: Path) -> None:
    """Give the pipeline's run the status that its stages' runs add up to.

    RUNNING while one runs; else FAILED or KILLED where the last run of some stage was; else FINISHED. A stage that
    failed and was repeated counts by its repetition.
    """
    with FileLock(folder / "lock"):
        children = client.search_runs(
            [experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000, order_by=["start_time ASC"]
        )
        last = {child.info.run_name: child.info for child in children}
        statuses = {info.status for info in last.values()}
        for status in ("RUNNING", "FAILED", "KILLED", "FINISHED"):
            if status in statuses:
                break
        if status != "RUNNING":
            client.set_terminated(run_id, status, end_time=max(info.end_time for info in last.values()))


def _create(client, experiment_id: str, about: dict):
    start = about["pipeline"]["start"]
    shared = ("vad.pipeline", "vad.host", "mlflow.user", "mlflow.source.git.commit", "mlflow.source.git.dirty")
    tags = {name: about["tags"][name] for name in shared if name in about["tags"]}
    tags |= {"vad.stage": "pipeline", "mlflow.source.name": "dvc.yaml", "mlflow.source.type": "LOCAL"}
    return client.create_run(experiment_id, start, tags, _name(start, []))


def _name(start: int, datasets: list[str]) -> str:
    return " ".join(["pipeline", f"{datetime.fromtimestamp(start / 1000):%Y-%m-%d %H:%M}", *datasets])


def _forget_old(folder: Path) -> None:
    for file in folder.glob("*.json"):
        if time.time() - file.stat().st_mtime > KEEP_SECONDS:
            file.unlink(missing_ok=True)
