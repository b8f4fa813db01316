"""Bring original footage into a folder: copy a folder, unpack an archive, or download and unpack.

The folder has the same tree as the source, but only the files that belong to the format. ``.delivery.json`` in the
folder records the source and whether the copy is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vadcore.data.archives import ENDINGS, check_space, unpack
from vadcore.data.download import Published, fetch, sha256
from vadcore.data.formats.base import StoredConfig, locate
from vadcore.utils.errors import VadError
from vadcore.utils.files import complete, sweep_partial, write_json

RECORD = ".delivery.json"
_DOWNLOADS = ".download"


@dataclass(frozen=True)
class Layout:
    """The files of a data set format.

    Attributes
    ----------
    belongs: function that tells whether a file (path relative to the source) is part of the data set. It is not called
        for hidden files.
    description: description of the expected folder tree, for error messages.
    published: the archives that make up the data set; empty if it is not published.
    """

    belongs: Callable[[PurePosixPath], bool]
    description: str
    published: tuple[Published, ...] = ()

    def wants(self, path: PurePosixPath) -> bool:
        """Whether a file is not hidden and ``belongs``. Archives made on a Mac have a ``._*`` copy of every file."""
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
        return not hidden and self.belongs(path)


def deliver(config: StoredConfig, raw: Path, layout: Layout, say: Callable[[str], None]) -> None:
    """Bring the footage of ``config.source`` into the folder ``raw``. Existing files are kept.

    Can be interrupted at any time and called again: files are written atomically and downloads resume. At the end, files
    that do not belong to the source are removed from ``raw``.
    """
    if config.source == "download":
        archives = None
        if not layout.published:
            raise VadError(
                f"dataset.*.source: download: nobody publishes footage of the format {config.format}; "
                "set source to a folder or an archive"
            )
    else:
        source = locate(config.source)
        copy = raw.resolve()
        if source == copy or source in copy.parents or copy in source.parents:
            raise VadError(f"source {config.source}: overlaps {raw}, where its copy goes; move the footage elsewhere")
        archives = _archives_at(source, layout)
        if archives is None:
            _copy(source, raw, layout, say)
            return
    identity = _identity(layout.published, archives)
    if _is_whole(raw, identity):
        return
    raw.mkdir(parents=True, exist_ok=True)
    write_json(raw / RECORD, {"from": identity, "finished": False})
    fetched = archives is None
    if fetched:
        archives = [fetch(published, raw / _DOWNLOADS, say) for published in layout.published]
    delivered: set[PurePosixPath] = set()
    for archive in archives:
        say(f"{archive.name}: unpacking")
        delivered |= unpack(archive, raw, layout.wants)
    if not delivered:
        raise _nothing(archives[0], layout)
    _finish(raw, delivered, identity, say)


def check_delivered(raw: Path) -> None:
    """Raise :class:`VadError` if ``raw`` is missing or its copy is incomplete."""
    if not raw.is_dir():
        raise VadError(f"{raw}: no footage here; run the prepare stage first")
    record = _record(raw)
    if record and not record["finished"]:
        raise VadError(f"{raw}: its delivery was cut short; run the prepare stage again, it goes on from there")


def find_folder(raw: Path, wanted: str, layout: Layout) -> Path:
    """Find the folder below ``raw`` whose path ends with ``wanted``. If there are several, take the least deep.

    This is needed because archives have different outer folders (``UCSD_Anomaly_Dataset.v1p2/UCSDped2/Train`` or
    ``Train``). Raises :class:`VadError` if there is no such folder, or two at the same depth.
    """
    pattern = [wanted, *("/".join(["*"] * depth) + "/" + wanted for depth in range(1, 5))]
    for glob in pattern:
        found = [path for path in sorted(raw.glob(glob)) if path.is_dir()]
        if len(found) > 1:
            raise VadError(f"{raw}: two folders {wanted} ({found[0]}, {found[1]}); set source to the one data set")
        if found:
            return found[0]
    raise VadError(f"{raw}: no folder {wanted}; expected {layout.description}")


def _copy(source: Path, raw: Path, layout: Layout, say: Callable[[str], None]) -> None:
    walk = os.walk(source, followlinks=True)
    paths = (Path(folder) / name for folder, _, names in walk for name in sorted(names))
    files = {relative: path for path in paths if layout.wants(relative := PurePosixPath(path.relative_to(source)))}
    if not files:
        raise _nothing(source, layout)
    missing = {relative: path for relative, path in files.items() if not _same(path, raw / relative)}
    stale = _others(raw, files)
    whole = _record(raw).get("finished", False)
    if not missing and not stale and whole:
        return
    raw.mkdir(parents=True, exist_ok=True)
    write_json(raw / RECORD, {"from": "folder", "finished": False})
    size = sum(path.stat().st_size for path in missing.values())
    check_space(raw, size, source)
    say(f"{source}: copying {len(missing)} of {len(files)} files, {size / 1e6:.1f} MB")
    for relative, path in missing.items():
        with complete(raw / relative) as temporary:
            shutil.copyfile(path, temporary)
            shutil.copystat(path, temporary)
            temporary.chmod(0o644)  # the copy of a read-only file must be replaceable
    _finish(raw, files, "folder", say)


def _archives_at(source: Path, layout: Layout) -> list[Path] | None:
    """Return the archives at ``source``: the file itself, or all published archives in a folder.

    Returns None for a folder of unpacked footage.
    """
    if source.is_dir():
        published = [source / one.name for one in layout.published]
        return published if published and all(path.is_file() for path in published) else None
    if not source.name.lower().endswith(ENDINGS):
        raise VadError(f"{source}: neither a folder nor an archive ({', '.join(ENDINGS)}); correct dataset.*.source")
    return [source]


def _identity(published: Iterable[Published], archives: list[Path] | None) -> str:
    """Return a string that identifies the source: URLs or file names, with checksums."""
    if archives is None:
        return " ".join(f"{one.url}#{one.sha256}" for one in published)
    return " ".join(f"{archive.name}#{sha256(archive)}" for archive in archives)


def _record(raw: Path) -> dict:
    try:
        return json.loads((raw / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _is_whole(raw: Path, identity: str) -> bool:
    record = _record(raw)
    if record.get("from") != identity or not record["finished"]:
        return False
    sizes = [path.stat().st_size for path in _files(raw)]
    return (record["files"], record["bytes"]) == (len(sizes), sum(sizes))


def _finish(raw: Path, delivered: Iterable[PurePosixPath], identity: str, say: Callable[[str], None]) -> None:
    shutil.rmtree(raw / _DOWNLOADS, ignore_errors=True)
    sweep_partial(raw)
    stale = _others(raw, delivered)
    for path in stale:
        path.unlink()
    for folder, _, _ in os.walk(raw, topdown=False):
        if Path(folder) != raw and not any(Path(folder).iterdir()):
            Path(folder).rmdir()
    if stale:
        say(f"{raw}: removed {len(stale)} files that are not part of the source")
    sizes = [path.stat().st_size for path in _files(raw)]
    write_json(raw / RECORD, {"from": identity, "finished": True, "files": len(sizes), "bytes": sum(sizes)})


def _files(raw: Path) -> list[Path]:
    return [path for path in raw.rglob("*") if path.is_file() and path != raw / RECORD]


def _others(raw: Path, delivered: Iterable[PurePosixPath]) -> list[Path]:
    """Files of ``raw`` that are not among ``delivered``."""
    known = {raw / relative for relative in delivered}
    return [path for path in _files(raw) if path not in known] if raw.is_dir() else []


def _same(source: Path, copy: Path) -> bool:
    if not copy.is_file():
        return False
    a, b = source.stat(), copy.stat()
    return a.st_size == b.st_size and abs(a.st_mtime - b.st_mtime) < 0.001


def _nothing(source: Path, layout: Layout) -> VadError:
    return VadError(f"{source}: holds no footage of this format; expected {layout.description}")
