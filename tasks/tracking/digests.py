"""Digests of outs as in dvc.lock, so that the run that made an out can be found by its digest."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

LOCK = Path("dvc.lock")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def out_digest(path: Path | str) -> str:
    """Return DVC's digest of an out: the md5 of a file (32 hex digits), or of a folder's listing, followed by ``.dir``.

    The listing is the JSON list of ``{"md5": ..., "relpath": ...}`` in order of ``relpath``. Raises FileNotFoundError if the
    path does not exist. The files of a folder are read in parallel, because hashing releases the interpreter lock.
    """
    path = Path(path)
    if not path.is_dir():
        return _md5(path)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    names = sorted(files, key=lambda name: tuple(name.split("/")))
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_md5, (files[name] for name in names)))
    listing = [{"md5": digest, "relpath": name} for name, digest in zip(names, digests, strict=True)]
    text = json.dumps(sorted(listing, key=lambda entry: entry["relpath"]), sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def lock_digest() -> str | None:
    """Return the sha256 of the current dvc.lock, 64 hex digits; None if there is none."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest() if LOCK.exists() else None


def locked_digest(path: str) -> str | None:
    """Return the digest of the out ``path`` in dvc.lock; None if dvc.lock has no such out."""
    if not LOCK.exists():
        return None
    lock = yaml.load(LOCK.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    for stage in lock.get("stages", {}).values():
        for out in stage.get("outs", []):
            if out["path"] == Path(path).as_posix():
                return out.get("md5")
    return None
