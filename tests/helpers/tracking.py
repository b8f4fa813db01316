"""Stages that log to MLflow, as small programs in a folder of their own."""

import os
import subprocess
import sys
from pathlib import Path

import psutil

from tasks.tracking.outbox import EventLog, waiting_runs
from tests.helpers.project import LONG_ENOUGH, ROOT

URI = "sqlite:///mlflow.db"
STAGE = """
import sys
from tasks.tracking import stage_run
with stage_run("{stage}", "{dataset}") as run:
    run.metrics({{"x": 2.5}}, 3)
    {body}
"""


def stage(name: str, body: str = "pass", dataset: str = "street") -> str:
    return STAGE.format(stage=name, body=body, dataset=dataset)


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen:
    """Start ``python <words>`` in ``folder``, in its own process group as from a shell."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "VAD"))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    environment = {**known, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen([sys.executable, *words], cwd=folder, env=environment, **pipes)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    out, error = process.communicate(timeout=LONG_ENOUGH)
    return process.returncode, out + error


def tracking(folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    return finish(start(folder, "-m", "tasks.tracking", *words, **environment))


def uploaders(folder: Path) -> list[psutil.Process]:
    """The uploader processes of the stages in ``folder``."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if words[1:4] == ["-m", "tasks.tracking", "follow"] and process.info["cwd"] == str(folder):
            found.append(process)
    return found


def outbox(folder: Path) -> list[EventLog]:
    return waiting_runs(folder / "tracking")


def make_database(folder: Path) -> None:
    """Create the MLflow database of ``folder`` by four processes at the same time."""
    for process in [start(folder, "-m", "tasks.tracking", "init") for _ in range(4)]:
        code, said = finish(process)
        assert code == 0, said
        assert said == f"MLflow at {URI} is ready, experiment vad\n"


def run_of(client, stage: str):
    """The only run of a stage."""
    experiment = client.get_experiment_by_name("vad").experiment_id
    (run,) = client.search_runs([experiment], f"tags.`vad.stage` = '{stage}'")
    return run
