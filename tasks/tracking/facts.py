"""Tags of a stage's MLflow run, to search runs by."""

from __future__ import annotations

import getpass
import shlex
import socket
import sys
from pathlib import Path

from tasks.tracking.digests import lock_digest
from vadcore.utils.provenance import commit


def stage_tags(stage: str, dataset: str, model: str, pipeline: str) -> dict[str, str]:
    """Return the ``vad.*`` tags of this project and the ``mlflow.*`` tags that MLflow shows in separate columns.

    ``vad.stage``, ``vad.dataset``, ``vad.model``, ``vad.pipeline``, ``vad.dvc_lock`` (sha256 of dvc.lock when the stage
    started), ``vad.command``, ``vad.host``; commit, whether tracked files differ from it, user, source.
    """
    head, _, changes = (commit() or "").partition("+")
    lock = lock_digest()
    optional = {
        "vad.dataset": dataset,
        "vad.model": model,
        "vad.dvc_lock": lock,
        "mlflow.source.git.commit": head,
        "mlflow.source.git.dirty": str(bool(changes)) if head else "",
    }
    return {
        "vad.stage": stage,
        "vad.pipeline": pipeline,
        "vad.command": shlex.join(sys.orig_argv)[:5000],
        "vad.host": socket.gethostname(),
        "mlflow.user": _user(),
        "mlflow.source.name": f"tasks.{stage}" if Path(sys.argv[0]).stem == stage else Path(sys.argv[0]).name,
        "mlflow.source.type": "LOCAL",
        **{name: value for name, value in optional.items() if value},
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        return "unknown"
