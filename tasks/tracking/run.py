"""Logging API of a stage: every call appends a line to the run's spool and never waits for MLflow."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tasks.tracking.digests import locked_digest, out_digest
from tasks.tracking.facts import stage_tags
from tasks.tracking.outbox import TRACKING, EventLog, now_ms, this_process
from tasks.tracking.pipeline import pipeline_of_this_process
from tasks.tracking.server import wanted_uri, without_secrets
from tasks.tracking.uploader import Uploader

LINK_BYTES = 16 << 20  # larger files are hard-linked into the spool; safe, because files are replaced, never rewritten


def wanted() -> bool:
    """Return True if stages log to MLflow; ``VAD_TRACKING=off`` turns it off."""
    return os.environ.get("VAD_TRACKING") != "off"


def tag_name(text: str) -> str:
    """Return ``text`` with only the characters that MLflow allows in names of params, metrics and tags."""
    return re.sub(r"[^\w\-. :/]", "_", text)[:250]


def _flat(values: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield tag_name(f"{prefix}{key}"), value


class StageRun:
    """The run of a stage, created by :func:`stage_run`. Thread-safe."""

    def __init__(self, spool: EventLog):
        self.key = spool.key
        self._folder = spool.folder
        self._log = (spool.folder / "events.jsonl").open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self._params: dict[str, str] = {}
        self._files = 0

    def _write(self, event: dict) -> None:
        with self._lock:
            self._log.write(json.dumps(event) + "\n")
            self._log.flush()

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

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers at a step; None is for the run as a whole, stored at step 0. NaN and infinities are allowed."""
        numbers = {tag_name(name): float(value) for name, value in values.items()}
        self._write({"metrics": numbers, "step": step or 0, "time": now_ms()})

    def tags(self, values: Mapping[str, str]) -> None:
        """Log text tags, to search runs by."""
        self._write({"tags": {tag_name(name): str(value)[:8000] for name, value in values.items()}})

    def picture(self, path: Path | str, folder: str = "pictures", step: int | None = None) -> None:
        """Log a picture as an artifact in ``folder``, as it is now.

        A PNG with a ``step`` also appears in MLflow's image grid of that name, which has a slider over steps.
        """
        kept = self._keep(Path(path))
        self._write({"artifact": kept, "folder": folder})
        if step is not None and Path(path).suffix == ".png":
            self._write({"image": kept, "key": folder, "step": step})

    def artifact(self, path: Path | str, folder: str = "") -> None:
        """Log a file or folder as an artifact in ``folder``, as it is now."""
        self._write({"artifact": self._keep(Path(path)), "folder": folder})

    def dataset(self, name: str, digest: str, source: str, context: str) -> None:
        """Log an input of the run.

        Parameters
        ----------
        digest: vadcore's digest of the data.
        source: path of the data. Its digest in dvc.lock is logged as that of the data set, or ``digest`` if dvc.lock has
            no such out.
        context: what it was used for.
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
        self,
        folder: Path | str,
        more: Sequence[Path] = (),
        register: str = "",
        tags: Mapping[str, object] | None = None,
    ) -> None:
        """Log a trained model that MLflow can load and serve (see :mod:`tasks.tracking.vad_pyfunc`).

        Input: uint8 windows ``[B, T, H, W, C]``. Output: float32 scores ``[B, J]``. A fusion takes clips and returns scores
        ``[B, T]``.

        Parameters
        ----------
        folder: output of ``vadcore.models.save_model``, or the detector folder of a fusion.
        more: files to store beside the weights.
        register: registered model to add a new version to; empty for none.
        tags: tags of that version.
        """
        from vadcore.evaluation.preprocess import MEMBERS, SYSTEM

        folder = Path(folder)
        inputs, outputs = _signature(folder, fused=(folder / MEMBERS).is_dir())
        system = [folder / name for name in (*SYSTEM, MEMBERS) if (folder / name).exists()]
        files = [self._keep(path) for path in (*system, *more)]
        version = {"name": register, "tags": {key: str(value)[:5000] for key, value in (tags or {}).items()}}
        known = {"files": files, "inputs": inputs, "outputs": outputs, "time": now_ms()}
        self._write({"model": known | ({"version": version} if register else {})})

    def _keep(self, path: Path) -> str:
        """Copy ``path`` into the spool; return its path relative to the spool."""
        if not path.name:
            path = path.resolve()
        with self._lock:
            self._files += 1
            kept = self._folder / "files" / str(self._files) / path.name
        kept.parent.mkdir()
        if path.is_dir():
            shutil.copytree(path, kept, copy_function=_copy)
        else:
            _copy(path, kept)
        return kept.relative_to(self._folder).as_posix()

    def end(self, status: str, error: BaseException | None = None) -> None:
        """Log the end of the run; called by :func:`stage_run`. ``status``: FINISHED, FAILED or KILLED."""
        if error is not None:
            text = str(error)
            self.tags({"vad.error": f"{type(error).__name__}: {text}" if text else type(error).__name__})
        self._write({"end": status, "time": now_ms()})
        self._log.close()


class Unlogged(StageRun):
    """A run that discards everything: tracking is off, or another process logs."""

    def __init__(self):
        self._params: dict[str, str] = {}

    def _write(self, event: dict) -> None:
        """Discard the event."""

    def _keep(self, path: Path) -> str:
        return path.name


def _signature(folder: Path, fused: bool) -> tuple[list[dict], dict]:
    """Return the inputs and the output of the model in ``folder``: names, types and shapes; -1 stands for any length."""
    from vadcore.models import load_model

    if fused:
        frames = {"name": "frames", "dtype": "uint8", "shape": [-1, -1, -1, -1, 3]}
        return [frames], {"dtype": "float32", "shape": [-1, -1]}
    model = load_model(folder)
    config, windows = model.config, model.windows
    height, width = config.image_size or (-1, -1)
    inputs = [{"name": "frames", "dtype": "uint8", "shape": [-1, windows.length, height, width, config.channels]}]
    if config.needs_flow:
        shape = [-1, windows.length - 1, 2, height, width]
        inputs.append({"name": "flow", "dtype": "float32", "shape": shape})
    if windows.background:
        inputs.append({"name": "background", "dtype": "uint8", "shape": [-1, height, width, config.channels]})
    return inputs, {"dtype": "float32", "shape": [-1, len(windows.judged)]}


def _copy(source: str | Path, target: str | Path) -> None:
    if Path(source).stat().st_size >= LINK_BYTES:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without hard links
            pass
    shutil.copy(source, target)


@contextmanager
def stage_run(
    stage: str,
    dataset: str = "",
    model: str = "",
    params: Mapping | None = None,
    experiment: str = "vad",
    uploader: Uploader | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[StageRun]:
    """Create the run of a stage, as a child of its pipeline's run.

    It is named ``<model> <stage> <dataset>``: lists truncate names, and runs of a stage differ by the model. At the end of
    the block the run is FINISHED; after an exception, which propagates, FAILED; after KeyboardInterrupt, KILLED. If MLflow
    does not answer, only a message is printed.

    Parameters
    ----------
    uploader: an uploader that was started in advance.
    tags: tags that the run has from its creation.
    """
    if not wanted():
        yield Unlogged()
        return
    pipeline = pipeline_of_this_process()
    words = [word for word in (stage, dataset, model) if word]
    about = {
        "name": " ".join(word for word in (model, stage, dataset) if word),
        "experiment": experiment,
        "uri": without_secrets(wanted_uri()),
        "tags": stage_tags(stage, dataset, model, pipeline["key"]) | dict(tags or {}),
        "start": now_ms(),
        "pipeline": pipeline,
        "process": this_process(),
    }
    moment = datetime.now().strftime("%Y%m%d-%H%M%S")
    key = re.sub(r"[^\w.-]", "_", "-".join([moment, *words, uuid.uuid4().hex[:6]]))
    spool = EventLog.create(TRACKING.resolve() / "outbox", key, about)
    run = StageRun(spool)
    uploader = uploader or Uploader()
    uploader.follow(spool.folder)
    try:
        if params:
            run.params(params)
        yield run
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            run.end("FINISHED")
        else:
            run.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", error)
        raise
    else:
        run.end("FINISHED")
    finally:
        uploader.finish()
