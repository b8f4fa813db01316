"""Lineage: find the run that made a file, by the digest that DVC gives it."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import yaml

from tasks.tracking.client import answering, search_tag, wanted_uri, without_secrets
from tasks.tracking.outbox import waiting_runs
from vadcore.utils.errors import VadError

LOCK = Path("dvc.lock")


def lineage(path: Path) -> list[str]:
    """Return lines that name the runs that made ``path``, newest first; empty if no run is known.

    Searches for runs that made exactly these bytes, at any path; else for runs that made the current content of the file's
    folder; else for runs that made an earlier version at this path, marked as such. Raises VadError if the file does not
    exist or MLflow does not answer.
    """
    if not path.exists():
        raise VadError(f"{path}: no such file or folder; give the path of an output of a stage")
    digest = out_digest(path)
    waiting = [
        f"{run.about['name']}  not sent yet: {run.folder}"
        for run in waiting_runs()
        if any(f"vad.digest.{digest}" in event.get("tags", {}) for event, _ in run.events())
    ]
    inside = Path(os.path.relpath(path))
    with answering() as client:
        lines = [_line(run) for run in search_tag(client, f"vad.digest.{digest}")]
        for folder in inside.parents:
            # digests of folders are slow: compute one only if some run made a folder of that name
            if not lines and folder.name and search_tag(client, f"vad.made.{folder.as_posix()}", most=1):
                lines = [_line(run) for run in search_tag(client, f"vad.digest.{out_digest(folder)}")]
        if not lines and not waiting:
            earlier = search_tag(client, f"vad.made.{inside.as_posix()}")
            lines = [f"{_line(run)}  (made an earlier version)" for run in earlier]
    return waiting + lines


def _line(run) -> str:
    info, tags, uri = run.info, run.data.tags, wanted_uri()
    page = f"#/experiments/{info.experiment_id}/runs/{info.run_id}"
    if uri.startswith("http"):
        page = f"{without_secrets(uri).rstrip('/')}/{page}"
    return (
        f"{info.run_name}  {datetime.fromtimestamp(info.start_time / 1000):%Y-%m-%d %H:%M}  {info.status}  "
        f"run {info.run_id}  pipeline {tags.get('vad.pipeline', '')}  "
        f"commit {tags.get('mlflow.source.git.commit', '')[:10] or 'no commit'}  {page}"
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def out_digest(path: Path | str) -> str:
    """Return DVC's digest of an out: the md5 of a file (32 hex digits), or of a folder's listing, followed by ``.dir``.

    The listing is the JSON list of ``{"md5": ..., "relpath": ...}`` in order of ``relpath``. Raises FileNotFoundError if the
    path does not exist. The files of a folder are read in parallel, because hashing releases the interpreter lock. DVC's
    own function gives the same, but a stage would import DVC for it, which takes a second.
    """
    path = Path(path)
    if not path.is_dir():
        return _md5(path)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    with ThreadPoolExecutor() as pool:
        digests = dict(zip(files, pool.map(_md5, files.values()), strict=True))
    listing = [{"md5": digests[name], "relpath": name} for name in sorted(files)]
    text = json.dumps(listing, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def lock_digest() -> str | None:
    """Return the sha256 of the current dvc.lock, 64 hex digits; None if there is none."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest() if LOCK.exists() else None


def locked_digest(path: str) -> str | None:
    """Return the digest of the out ``path`` in dvc.lock; None if dvc.lock has no such out."""
    if not LOCK.exists():
        return None
    lock = yaml.load(LOCK.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    outs = [out for stage in lock.get("stages", {}).values() for out in stage.get("outs", [])]
    return next((out.get("md5") for out in outs if out["path"] == Path(path).as_posix()), None)
