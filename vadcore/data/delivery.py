"""Bring original footage into a folder: copy a folder, unpack an archive, or download and unpack.

The folder has the same tree as the source, but only the files that belong to the format. ``.delivery.json`` in the
folder records the source, whether the copy is complete, and the files of the source that were left out, with the reasons.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from vadcore.data.archives import ENDINGS, check_space, unpack
from vadcore.data.download import Published, fetch, sha256
from vadcore.data.formats.base import StoredConfig, locate
from vadcore.data.image_files import IMAGE_ENDINGS
from vadcore.data.video import VIDEO_ENDINGS
from vadcore.utils.errors import VadError
from vadcore.utils.files import complete, sweep_partial, write_json

RECORD = ".delivery.json"
HIDDEN, WRONG_FOLDER = "hidden", "in a folder that is not used"
MOST_VISITS = 8  # links to one folder that are followed: its own links may lead to each other
LeftOut = dict[str, list[str]]  # reason: files or folders, relative to the source
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
    endings: endings of the footage. A file with one of them that does not belong is in the wrong folder.
    depth: function that returns how deep the data set begins if a file belongs to it. Of several paths of one file, the
        first one with the smallest depth is taken.
    """

    belongs: Callable[[PurePosixPath], bool]
    description: str
    published: tuple[Published, ...] = ()
    endings: frozenset[str] = frozenset()
    depth: Callable[[PurePosixPath], int] = lambda path: 0

    def reason_against(self, path: PurePosixPath) -> str | None:
        """Return why a file is not part of the data set, or None if it is."""
        if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            return HIDDEN  # archives made on a Mac have a ._* copy of every file
        try:
            str(path).encode()
        except UnicodeEncodeError:
            return "name not in UTF-8, rename it"
        if self.belongs(path):
            return None
        return WRONG_FOLDER if path.suffix.lower() in self.endings else f"ending {path.suffix.lower() or 'missing'}"


def deliver(config: StoredConfig, raw: Path, layout: Layout, say: Callable[[str], None]) -> None:
    """Bring the footage of ``config.source`` into the folder ``raw``. Existing files are kept.

    Can be interrupted at any time and called again: files are written atomically and downloads resume. At the end, files
    that do not belong to the source are removed from ``raw``.
    """
    if config.source == "download":
        archives = None
        if not layout.published:
            raise VadError(
                f"dataset.*.source: download: the format {config.format} has no download; "
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
    if archives is None:
        archives = [fetch(published, raw / _DOWNLOADS, say) for published in layout.published]
    delivered: set[PurePosixPath] = set()
    left_out: LeftOut = {}

    def wants(path: PurePosixPath) -> bool:
        reason = layout.reason_against(path)
        if reason:
            left_out.setdefault(reason, []).append(_printable(path))
        return reason is None

    for archive in archives:
        say(f"{archive.name}: unpacking")
        delivered |= unpack(archive, raw, wants)
    if not delivered:
        raise _nothing(archives[0], layout, left_out)
    _finish(raw, delivered, identity, left_out, say)


def check_delivered(raw: Path) -> None:
    """Raise :class:`VadError` if ``raw`` is missing or its copy is incomplete."""
    if not raw.is_dir():
        raise VadError(f"{raw}: no footage here; run the prepare stage first")
    record = _record(raw)
    if record and not record["finished"]:
        raise VadError(f"{raw}: incomplete copy; run the prepare stage again, it resumes")


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
    raise VadError(f"{raw}: no folder {wanted}; expected {layout.description}{left_out_said(raw)}")


def left_out(raw: Path, used: Iterable[Path] = ()) -> LeftOut:
    """Return what the source holds but the data set does not: reason -> paths.

    used: files of the clips. Pictures and videos in ``raw`` that are not among them are included, except masks (``*_gt``).
    """
    found = dict(_record(raw).get("left_out", {}))
    known = set(used)
    unused = [
        path.relative_to(raw).as_posix()
        for path in _files(raw)
        if path.suffix.lower() in VIDEO_ENDINGS | IMAGE_ENDINGS and path not in known and path.parent.name[-3:] != "_gt"
    ]
    if known and unused:
        found[WRONG_FOLDER] = sorted([*found.get(WRONG_FOLDER, ()), *unused])
    return found


def left_out_lines(found: LeftOut) -> list[str]:
    """Format the result of :func:`left_out`, one line per reason. Hidden files are only counted."""
    lines = []
    for reason, paths in sorted(found.items()):
        named = "" if reason == HIDDEN else ": " + ", ".join(paths[:5]) + (", ..." if len(paths) > 5 else "")
        lines.append(f"left out, {reason} ({len(paths)}){named}")
    return lines


def left_out_said(raw: Path) -> str:
    """Return what the source of ``raw`` holds but ``raw`` does not, in brackets for an error message."""
    return _said(left_out(raw))


def _copy(source: Path, raw: Path, layout: Layout, say: Callable[[str], None]) -> None:
    files, left_out = _walk(source, layout)
    if not files:
        raise _nothing(source, layout, left_out)
    missing = {relative: path for relative, path in files.items() if not _same(path, raw / relative)}
    stale = _others(raw, files)
    record = _record(raw)
    if not missing and not stale and record.get("finished", False):
        if record.get("left_out") != left_out:
            write_json(raw / RECORD, {**record, "left_out": left_out})
        return
    raw.mkdir(parents=True, exist_ok=True)
    write_json(raw / RECORD, {"from": "folder", "finished": False})
    size = sum(path.stat().st_size for path in missing.values())
    check_space(raw, size, source)
    say(f"{source}: copying {len(missing)} of {len(files)} files, {size / 1e6:.1f} MB")
    for relative, path in missing.items():
        try:
            with complete(raw / relative) as temporary:
                shutil.copyfile(path, temporary)
                shutil.copystat(path, temporary)
                temporary.chmod(0o644)  # the copy of a read-only file must be replaceable
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise VadError(f"{path}: its path below {raw} is too long; shorten the names of its folders") from error
    _finish(raw, files, "folder", left_out, say)


def _walk(source: Path, layout: Layout) -> tuple[dict[PurePosixPath, Path], LeftOut]:
    """Return the files of a data set below ``source``, and what was left out.

    Every file is taken once, a video also if it has several hard links, by the first path of the smallest depth (see
    :class:`Layout`). Links are followed last, those of upper folders first: they are left out if they lead to nothing new.
    """
    files: dict[PurePosixPath, Path] = {}
    left_out: LeftOut = {}
    taken: dict[Path | tuple[int, int], PurePosixPath] = {}  # identity of a file: the path that is taken
    again: list[Path] = []  # further paths of files that are taken
    moved: list[Path] = []  # paths in whose place a path of smaller depth is taken
    unused: dict[Path, tuple[str, Path]] = {}  # real path of a file that does not belong: reason, path below source
    visits: Counter[Path] = Counter()  # of the folders that links lead to
    links: list[Path] = []

    def leave_out(reason: str, *paths: Path) -> None:
        if paths:
            left_out.setdefault(reason, []).extend(_printable(path.relative_to(source)) for path in paths)

    def take(path: Path) -> None:
        real = Path(os.path.realpath(path))  # without an error for a link to itself
        relative = PurePosixPath(path.relative_to(source))
        reason = layout.reason_against(relative)
        if reason:
            if real not in taken:
                unused.setdefault(real, (reason, path))
        elif not path.is_file():
            leave_out("a link to nothing" if path.is_symlink() else "no regular file", path)
        else:
            earlier = taken.get(_identity_of(real))
            if earlier and layout.depth(relative) >= layout.depth(earlier):
                again.append(path)
                return
            if earlier:
                moved.append(files.pop(earlier))
                if moved[-1].resolve() != real:
                    again.append(moved[-1])  # a hard link
            taken[real] = taken[_identity_of(real)] = relative
            unused.pop(real, None)
            files[relative] = path

    def walk(top: Path) -> None:
        def unreadable(error: OSError) -> None:
            leave_out(f"unreadable ({error.strerror})", Path(error.filename))

        for folder, folders, names in os.walk(top, onerror=unreadable):
            for path in (Path(folder, name) for name in sorted(folders + names)):
                if path.is_symlink():
                    links.append(path)
                elif path.name in names:
                    take(path)

    walk(source)
    while links:
        found, links = sorted(links, key=lambda path: (len(path.parts), path)), []
        for path in found:
            if not path.is_dir():
                take(path)
                continue
            real, before, known = path.resolve(), len(files) + len(moved) + len(links), len(again)
            if real in [parent.resolve() for parent in path.parents]:
                leave_out("a link to a folder that it is in", path)
                continue
            visits[real] += 1
            if visits[real] <= MOST_VISITS:
                walk(path)
            if len(files) + len(moved) + len(links) == before:
                del again[known:]
                leave_out("a link to a folder with nothing new in it", path)
    leave_out("a link to a file that is taken already", *again)
    for reason, path in unused.values():
        leave_out(reason, path)
    return dict(sorted(files.items())), {reason: sorted(paths) for reason, paths in sorted(left_out.items())}


def _identity_of(real: Path) -> Path | tuple[int, int]:
    """Return what identifies a file: device and inode of a video, the path of others: equal pictures may share an inode."""
    if real.suffix.lower() not in VIDEO_ENDINGS:
        return real
    status = real.stat()
    return status.st_dev, status.st_ino


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


def _finish(
    raw: Path, delivered: Iterable[PurePosixPath], identity: str, left_out: LeftOut, say: Callable[[str], None]
) -> None:
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
    facts = {
        "files": len(sizes),
        "bytes": sum(sizes),
        "left_out": {key: sorted(left_out[key]) for key in sorted(left_out)},
    }
    write_json(raw / RECORD, {"from": identity, "finished": True, **facts})


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


def _printable(path: PurePath) -> str:
    """Return a path as text; bytes that are not UTF-8 become U+FFFD."""
    return path.as_posix().encode(errors="surrogateescape").decode(errors="replace")


def _nothing(source: Path, layout: Layout, left_out: LeftOut) -> VadError:
    said = _said({reason: paths for reason, paths in left_out.items() if reason != HIDDEN})
    return VadError(f"{source}: holds no footage of this format; expected {layout.description}{said}")


def _said(found: LeftOut) -> str:
    return f" ({'; '.join(left_out_lines(found))})" if found else ""
