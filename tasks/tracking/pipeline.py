"""The pipeline that a stage belongs to, and the pipeline's run in MLflow."""

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

KEEP_SECONDS = 7 * 24 * 3600  # how long a pipeline's run id is cached; later it is searched for on the server


def pipeline_of_this_process() -> dict:
    """Return ``{"key", "start"}`` of the pipeline that this process belongs to.

    The key is ``VAD_PIPELINE`` if set, else it identifies the ``dvc repro`` (or ``dvc exp``) among the parents of this
    process, else this process: a stage started by hand is its own pipeline.
    """
    if named := os.environ.get("VAD_PIPELINE"):
        return {"key": re.sub(r"[^\w ./:@+-]", "_", named), "start": now_ms()}  # no quotes: used in search filters
    process = psutil.Process()
    owner = next((parent for parent in process.parents() if _runs_dvc(parent)), process)
    created = owner.create_time()
    return {"key": f"{socket.gethostname()}-{owner.pid}-{int(created)}", "start": int(created * 1000)}


def _runs_dvc(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:  # another user's process, so not our dvc
        return False
    names = [Path(word).name for word in words]
    return "dvc" in names and bool({"repro", "exp", "experiments"} & set(words[names.index("dvc") + 1 :]))


def attach(client, uri: str, experiment_id: str, about: dict, folder: Path) -> str:
    """Return the run id of the pipeline of the stage ``about`` (its run.json); create the run if it is missing.

    The run ids are cached in ``folder``, whose lock prevents two stages that start together from creating two runs. A
    run that is not cached is searched for by its tag ``vad.pipeline``.
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
    """Set the status of the pipeline's run from the runs of its stages.

    RUNNING while one runs; else FAILED or KILLED if the last run of a stage has that status; else FINISHED. Only the last
    run of a repeated stage counts.
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
