"""Unpack archives safely: no file is written outside the target folder, and each file is written atomically."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from vadcore.utils.errors import VadError
from vadcore.utils.files import complete

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError)


class Member(NamedTuple):
    """A regular file in an archive: path, size in bytes, modification time in seconds, and a function to open it."""

    path: PurePosixPath
    size: int
    mtime: float
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, target: Path, wanted: Callable[[PurePosixPath], bool]) -> set[PurePosixPath]:
    """Unpack the ``wanted`` files of ``archive`` into ``target`` and return their paths.

    Existing files with the same size and modification time are kept. The list of files is checked before anything is
    written. Raises :class:`VadError` if the archive is unreadable, damaged, contains a link or a path outside its
    folder, or needs more than the free disk space.
    """
    with _members(archive, target) as members:
        taken = [member for member in members if wanted(member.path)]
        new = [member for member in taken if not _is_there(target / member.path, member)]
        check_space(target, sum(member.size for member in new), archive)
        for member in new:
            with _faults_of(archive), member.open() as source, complete(target / member.path) as temporary:
                with temporary.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                if temporary.stat().st_size != member.size:
                    raise EOFError("ends early")
                os.utime(temporary, (member.mtime, member.mtime))
        return {member.path for member in taken}


def check_space(target: Path, needed: int, what: Path) -> None:
    """Raise :class:`VadError` unless ``needed`` bytes are free on the disk of ``target``."""
    existing = next(folder for folder in (target, *target.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise VadError(
            f"{what}: {needed / 1e9:.2f} GB to write, {free / 1e9:.2f} GB free at {existing}; make room there"
        )


@contextmanager
def _members(archive: Path, target: Path) -> Iterator[list[Member]]:
    is_zip = archive.name.lower().endswith(".zip")
    with ExitStack() as stack:
        with _faults_of(archive):
            if is_zip:
                members = _zip_members(stack.enter_context(zipfile.ZipFile(archive)), archive)
            else:
                members = _tar_members(stack.enter_context(tarfile.open(archive)), archive, target)
        yield members


def _zip_members(opened: zipfile.ZipFile, archive: Path) -> list[Member]:
    members = []
    for info in opened.infolist():
        path = _safe(info.filename, archive)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise VadError(f"{archive}: {info.filename} is a link; such an archive is not unpacked: get a proper copy")
        if info.flag_bits & 1:
            raise VadError(f"{archive}: {info.filename} is encrypted; unpack it by hand and set source to the folder")
        if not info.is_dir():
            mtime = time.mktime((*info.date_time, 0, 0, -1))
            members.append(Member(path, info.file_size, mtime, partial(opened.open, info)))
    return members


def _tar_members(opened: tarfile.TarFile, archive: Path, target: Path) -> list[Member]:
    members = []
    for info in opened:
        path = _safe(info.name, archive)
        try:
            tarfile.data_filter(info, str(target))
        except tarfile.FilterError as error:
            raise _escapes(archive, info.name) from error
        if info.isfile():
            members.append(Member(path, info.size, info.mtime, partial(_extracted, opened, info)))
        elif not info.isdir():
            raise VadError(f"{archive}: {info.name} is a link; such an archive is not unpacked: get a proper copy")
    return members


def _extracted(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = opened.extractfile(info)
    if file is None:
        raise tarfile.ReadError(f"{info.name} is no regular file")
    return file


def _safe(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")) or "\0" in name:
        raise _escapes(archive, name)
    return path


def _escapes(archive: Path, name: str) -> VadError:
    return VadError(
        f"{archive}: {name} would leave its folder; nothing was unpacked: get the archive from its publisher"
    )


@contextmanager
def _faults_of(archive: Path) -> Iterator[None]:
    """Convert the exceptions of the archive libraries for damaged files to :class:`VadError`."""
    try:
        yield
    except VadError:
        raise
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a disk error, not a damaged archive
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VadError(
            f"{archive}: not a readable archive ({why}); fetch it again (accepted: {', '.join(ENDINGS)})"
        ) from error


def _is_there(path: Path, member: Member) -> bool:
    return path.is_file() and path.stat().st_size == member.size and abs(path.stat().st_mtime - member.mtime) < 2
