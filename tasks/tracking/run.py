"""Logging API of a stage: every call appends a line to the outbox and never waits for MLflow."""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import shutil
import socket
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from numbers import Real
from pathlib import Path

import psutil

from tasks.tracking.client import tag_name, wanted_uri, without_secrets
from tasks.tracking.lineage import lock_digest, locked_digest, out_digest
from tasks.tracking.outbox import TRACKING, EventLog, now_ms
from tasks.tracking.uploader import settings_digest, start_uploader, wait_for_upload
from vadcore.utils.provenance import commit


def wanted() -> bool:
    """Return True if stages log to MLflow; ``VAD_TRACKING=off`` turns it off."""
    return os.environ.get("VAD_TRACKING") != "off"


class StageRun:
    """The run of a stage, created by :func:`stage_run`. Thread-safe. With None instead of ``events``, it logs nothing."""

    def __init__(self, events: EventLog | None):
        self._events, self._lock = events, threading.Lock()
        self._params: dict[str, str] = {}
        self._metrics: dict[str, tuple[float, int, int]] = {}  # last value, time and step of each metric

    def _write(self, event: dict) -> None:
        with self._lock:
            if self._events:
                self._events.append(event)

    def params(self, values: Mapping) -> None:
        """Log parameters; nested ones get dotted names.

        Raises ValueError if a param gets a second value, which MLflow does not allow.
        """
        fresh = {name: str(value)[:6000] for name, value in _flat(values)}
        for name, value in fresh.items():
            if self._params.get(name, value) != value:
                raise ValueError(f"param {name} was logged as {self._params[name]!r}, now as {value!r}")
        self._params.update(fresh)
        self._write({"params": fresh})

    def metrics(self, values: Mapping[str, object], step: int | None = None) -> None:
        """Log the numbers among ``values`` at a step; other values, such as texts and booleans, are left out.

        step: None is for the run as a whole, stored at step 0. NaN and infinities are allowed.
        """
        known = {
            name: value for name, value in values.items() if isinstance(value, Real) and not isinstance(value, bool)
        }
        numbers = {tag_name(name): float(value) for name, value in known.items()}
        event = {"metrics": numbers, "step": step or 0, "time": now_ms()}
        self._metrics.update({name: (value, event["time"], event["step"]) for name, value in numbers.items()})
        self._write(event)

    def tags(self, values: Mapping[str, str]) -> None:
        """Log text tags, to search runs by."""
        self._write({"tags": {tag_name(name): str(value)[:8000] for name, value in values.items()}})

    def picture(self, path: Path | str, folder: str = "pictures", step: int | None = None) -> None:
        """Copy a picture and log it as an artifact in ``folder``.

        A PNG with a ``step`` also appears in MLflow's image grid of that name, which has a slider over steps.
        """
        kept = self._keep(Path(path))
        self._write({"artifact": kept, "folder": folder})
        if step is not None and Path(path).suffix == ".png":
            self._write({"image": kept, "key": folder, "step": step})

    def artifact(self, path: Path | str, folder: str = "") -> None:
        """Copy a file or folder and log it as an artifact in ``folder``."""
        self._write({"artifact": self._keep(Path(path)), "folder": folder})

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Log an input of the run.

        ``source``: its path, whose digest in dvc.lock is logged, too. ``digest``: vadcore's digest of the data, the main one
        if dvc.lock has no such out. ``context``: what it was used for.
        """
        values = {"name": name, "digest": digest, "source": str(source), "context": context}
        self._write({"dataset": {**values, "dvc": locked_digest(str(source))}})

    def made(self, path: Path | str) -> None:
        """Log an out of the stage with its path and DVC's digest of it.

        ``python -m tasks.tracking lineage`` finds the run by either, so also from the dvc.lock of any commit.
        """
        shown = Path(os.path.relpath(path)).as_posix()
        digest = out_digest(path)
        self.tags({f"vad.made.{shown}": digest, f"vad.digest.{digest}": shown})

    def model(
        self, folder: Path | str, more: Sequence[Path] = (), register: str = "", tags: Mapping | None = None
    ) -> None:
        """Log a trained model, with the params and last metrics of the run, that MLflow can load and serve.

        Input: uint8 windows ``[B, T, H, W, C]``. Output: float32 scores ``[B, J]``. A fusion takes clips and returns scores
        ``[B, T]``. See :mod:`tasks.tracking.vad_pyfunc`.

        Parameters
        ----------
        folder: output of ``vadcore.models.save_model``, or the detector folder of a fusion.
        more: files to store beside the weights.
        register: registered model to add a new version to; empty for none.
        tags: tags of that version.
        """
        from vadcore.evaluation.preprocess import MEMBERS, SYSTEM

        folder = Path(folder)
        system = [folder / name for name in (*SYSTEM, MEMBERS) if (folder / name).exists()]
        event = {
            "files": [self._keep(path) for path in (*system, *more)],
            "signature": _signature(folder, fused=(folder / MEMBERS).is_dir()),
            "params": self._params,
            "metrics": self._metrics,
            "register": register,
            "tags": {key: str(value)[:5000] for key, value in (tags or {}).items()},
        }
        self._write({"model": event})

    def _keep(self, path: Path) -> str:
        """Copy ``path`` into the outbox; return its path relative to the run's folder."""
        if not self._events:
            return path.name
        kept = Path("files") / uuid.uuid4().hex / path.resolve().name
        copy = self._events.folder / kept
        copy.parent.mkdir()
        (shutil.copytree if path.is_dir() else shutil.copy)(path, copy)
        return kept.as_posix()

    def end(self, status: str, error: BaseException | None = None) -> None:
        """Log the end of the run; called by :func:`stage_run`. ``status``: FINISHED, FAILED or KILLED."""
        if error is not None:
            self.tags({"vad.error": f"{type(error).__name__}: {error}".removesuffix(": ")})
        self._write({"end": status, "time": now_ms()})


def _flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield tag_name(f"{prefix}{key}"), value


def _signature(folder: Path, fused: bool) -> dict[str, str]:
    """Return the signature of the model in ``folder`` as MLflow's ``ModelSignature.to_dict``; -1 stands for any length."""
    from vadcore.models import load_model

    if fused:
        inputs, outputs = {"frames": ("uint8", [-1, -1, -1, -1, 3])}, [-1, -1]
    else:
        model = load_model(folder)
        config, windows = model.config, model.windows
        height, width = config.image_size or (-1, -1)
        inputs = {"frames": ("uint8", [-1, windows.length, height, width, config.channels])}
        if config.needs_flow:
            inputs["flow"] = "float32", [-1, windows.length - 1, 2, height, width]
        if windows.background:
            inputs["background"] = "uint8", [-1, height, width, config.channels]
        outputs = [-1, len(windows.judged)]
    named = [{"name": name, **_tensor(dtype, shape)} for name, (dtype, shape) in inputs.items()]
    if len(named) == 1:
        del named[0]["name"]  # a single input is a plain array
    return {"inputs": json.dumps(named), "outputs": json.dumps([_tensor("float32", outputs)])}


def _tensor(dtype: str, shape: list[int]) -> dict:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}


@contextmanager
def stage_run(
    stage: str,
    dataset: str = "",
    model: str = "",
    params: Mapping | None = None,
    experiment: str = "vad",
    tags: Mapping | None = None,
) -> Iterator[StageRun]:
    """Create the run of a stage, as a child of its pipeline's run.

    It is named ``<model> <stage> <dataset>``: lists truncate names, and runs of a stage differ by the model. At the end of
    the block the run is FINISHED; after an exception, which propagates, FAILED; after KeyboardInterrupt, KILLED. If MLflow
    does not answer, a message is printed. ``tags``: tags that the run has from its creation.
    """
    if not wanted():
        yield StageRun(None)
        return
    pipeline = pipeline_of_this_process()
    about = {
        "name": " ".join(word for word in (model, stage, dataset) if word),
        "experiment": experiment,
        "uri": without_secrets(wanted_uri()),
        "tags": _stage_tags(stage, dataset, model, pipeline["key"]) | dict(tags or {}),
        "start": now_ms(),
        "pipeline": pipeline,
        "uploader": settings_digest(),
    }
    words = [f"{datetime.now():%Y%m%d-%H%M%S}", *filter(None, (stage, dataset, model)), uuid.uuid4().hex[:6]]
    events = EventLog.create(TRACKING.resolve() / "outbox", re.sub(r"[^\w.-]", "_", "-".join(words)), about)
    run = StageRun(events)
    start_uploader(about["uploader"])
    try:
        if params:
            run.params(params)
        yield run
        run.end("FINISHED")
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            run.end("FINISHED")
        else:
            run.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", error)
        raise
    finally:
        wait_for_upload(events)
        events.close()


def _stage_tags(stage: str, dataset: str, model: str, pipeline: str) -> dict[str, str]:
    """Return the ``vad.*`` tags of this project and the ``mlflow.*`` tags that MLflow shows in separate columns.

    ``vad.stage``, ``vad.dataset``, ``vad.model``, ``vad.pipeline``, ``vad.dvc_lock`` (sha256 of dvc.lock when the stage
    started), ``vad.command``, ``vad.host``; commit, whether tracked files differ from it, user, source.
    """
    head, _, changes = (commit() or "").partition("+")
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        user = "unknown"
    tags = {
        "vad.stage": stage,
        "vad.pipeline": pipeline,
        "vad.command": shlex.join(sys.orig_argv)[:5000],
        "vad.host": socket.gethostname(),
        "vad.dataset": dataset,
        "vad.model": model,
        "vad.dvc_lock": lock_digest(),
        "mlflow.user": user,
        "mlflow.source.name": f"tasks.{stage}" if Path(sys.argv[0]).stem == stage else Path(sys.argv[0]).name,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": head,
        "mlflow.source.git.dirty": str(bool(changes)) if head else "",
    }
    return {name: value for name, value in tags.items() if value}


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
