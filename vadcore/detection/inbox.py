"""Inbox: a folder of incoming videos. Each video is scored once, even if processes are killed.

::

    inbox/*.mp4          incoming videos (also in subfolders)
    inbox/.work/<key>/   a video being scored, its ``state.json`` and a ``lock``, held by the process that scores it
    inbox/done/          scored videos
    inbox/failed/        videos that could not be scored, each with <name>.reason.txt
    inbox/.work/left_out.json    what is in the inbox and not a video, with the reason; :meth:`Inbox.news` tells it once

A video is moved only by renaming, so it is always in exactly one place. The operating system releases the lock when the
process dies; the next process then takes the video. A process that stops of its own accord removes the lock file, so a
lock file that nobody holds means a death. ``key`` is also the name of the results folder. If that folder already exists
and belongs to this video, the dead process had finished scoring, and the video is not scored again.

A video that cannot be scored does not block the others. Failures are classified:

- Unreadable video: moved to ``failed/`` at once.
- Video error: another video could be scored in the same run. After ``MOST_FAILED_RUNS`` such runs, or ``MOST_DEATHS``
  deaths, the video is moved to ``failed/``.
- Machine error: ``MOST_IN_A_ROW`` videos fail in a row, or the machine has run out of a resource (disk space, memory,
  open files, ...). The run ends, and the failure does not count.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vadcore.data.video import VIDEO_ENDINGS
from vadcore.data.video_index import video_index
from vadcore.detection.naming import free_name, is_text, printable, result_key
from vadcore.detection.output import LOCK, Taken, hold, made_from, sweep
from vadcore.detection.stream import UnreadableVideo
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_json, write_text

WORK, DONE, FAILED = ".work", "done", "failed"
STATE = "state.json"
MOST_DEATHS = 20  # process deaths per video; then the video is moved to failed/
MOST_FAILED_RUNS = 3  # runs in which only this video failed; then it is moved to failed/
MOST_IN_A_ROW = 3  # failures in a row that indicate a machine error
PATIENCE = 3  # multiple of the settle time after which an unreadable file counts as broken
# disk, memory or open files exhausted, or the reader of the process's output has ended
SHORTAGES = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EPIPE}


class Claim:
    """A video that is locked by this process for scoring.

    Attributes
    ----------
    key: name of its work and results folder.
    path: current path of the video.
    name: its name in the inbox, with unprintable characters replaced.
    deaths: number of processes that have died while they scored it.
    failed_runs: number of runs in which it could not be scored although other videos could; None if it never failed.
    """

    def __init__(self, inbox: Inbox, folder: Path, lock: int):
        self.inbox, self.key, self.folder, self._lock = inbox, folder.name, folder, lock
        self.path = next(path for path in folder.iterdir() if _is_video(path.name))
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            state = {}
        self.name, self.deaths = state.get("name", self.path.name), state.get("deaths", 0)
        self.failed_runs: int | None = state.get("failed_runs")

    @property
    def has_results(self) -> bool:
        """Whether the results already exist, made by a process that died afterwards."""
        return made_from(self.inbox.results / self.key, self.path)

    def save(self) -> None:
        """Store the counts for later processes."""
        state = {"name": self.name, "deaths": self.deaths, "failed_runs": self.failed_runs}
        write_json(self.folder / STATE, state)

    def another_key(self) -> None:
        """Choose a new key, because another results folder has taken the old one in the meantime."""
        with self.inbox.alone():
            self.key = self.inbox.free_key(self.name)
            self.folder = self.folder.rename(self.inbox.work / self.key)
            self.path = self.folder / self.path.name

    def done(self) -> None:
        """Move the video to ``done/``. Call this when its results exist."""
        self._reason.unlink(missing_ok=True)
        self._move(DONE)

    def fail(self, reason: str, details: str = "") -> None:
        """Move the video to ``failed/`` and write ``reason`` and ``details`` to a file beside it."""
        kept = self.folder / "reason"
        write_text(kept, f"{reason.strip()}\n{details}".encode(errors="replace").decode())
        kept.rename(self._reason)
        self._move(FAILED)

    def release(self) -> None:
        """Release the lock, so that the video is retried later. Works on a full disk too."""
        (self.folder / LOCK).unlink(missing_ok=True)
        os.close(self._lock)

    @property
    def _reason(self) -> Path:
        return self.inbox.folder / FAILED / f"{self.key}{self.path.suffix}.reason.txt"

    def _move(self, where: str) -> None:
        self.path.rename(self.inbox.folder / where / f"{self.key}{self.path.suffix}")
        with self.inbox.alone():  # no other process may read the folder while it is removed
            shutil.rmtree(self.folder)
        os.close(self._lock)


class Inbox:
    """The videos in ``folder``; their results are written to ``results``, one folder per video.

    Parameters
    ----------
    folder: folder that receives the videos. It must exist.
    results: folder of the results folders.
    settle_seconds: a file is taken when it is unchanged for this many seconds; see :func:`is_settled`.
    clock: current time in seconds since the epoch.

    Raises :class:`VadError` if ``folder`` does not exist or its path is not UTF-8.
    """

    def __init__(
        self,
        folder: Path | str,
        results: Path | str,
        settle_seconds: float = 10.0,
        clock: Callable[[], float] = time.time,
    ):
        self.folder, self.results = Path(folder), Path(results)
        self.settle_seconds, self._clock = settle_seconds, clock
        if not self.folder.is_dir():
            raise VadError(f"{folder}: no such folder; make it, or name the one that videos come into")
        if not is_text(self.folder):
            raise VadError(f"{printable(str(folder))}: a path that is not UTF-8; rename it")
        self.refused: dict[Path, VadError] = {}  # videos that cannot be moved out of the inbox
        self.work = self.folder / WORK
        for made in (self.work, self.folder / DONE, self.folder / FAILED, self.results):
            made.mkdir(parents=True, exist_ok=True)
        sweep(self.results)

    def take(self) -> Claim | None:
        """Take the next video to score; None if there is none at the moment.

        Order: videos over which one process has died; new videos; videos over which several processes have died or that
        failed in an earlier run.
        """
        with self.alone():
            left = sorted(self._left(), key=lambda claim: (claim.failed_runs is not None, claim.deaths, claim.key))
            first = left[0] if left and left[0].failed_runs is None and left[0].deaths <= 1 else None
            claim = first or self._fresh() or (left[0] if left else None)
            for other in left:
                if other is not claim:
                    other.release()
        return claim

    def coming(self) -> list[Path]:
        """Videos in the inbox, sorted by path, completely written or not; without the videos being scored."""
        return sorted(path for path, why in self._everything() if why is None)

    def news(self) -> list[str]:
        """Lines about what is in the inbox and not scored: what it is and why. Every file and reason is returned once.

        Files that have changed in the last ``settle_seconds`` may be unfinished, and are left for the next call. Hidden
        files that are not named like videos belong to programs; there are no lines about them.
        """
        file = self.work / "left_out.json"
        with self.alone():
            before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            now = {}
            for path, why in self._everything():
                name = printable(path.relative_to(self.folder).as_posix())
                with suppress(FileNotFoundError):  # removed in the meantime
                    if why and (name in before or self._clock() - path.lstat().st_mtime >= self.settle_seconds):
                        now[name] = why
            if now != before:
                write_json(file, now)
        return [f"{name}: {why}" for name, why in sorted(now.items()) if before.get(name) != why]

    def _everything(self) -> Iterator[tuple[Path, str | None]]:
        """Yield everything in the inbox with the reason why it is not scored; None for videos."""
        results = self.results.resolve()
        for here, folders, files in os.walk(self.folder):
            folder = Path(here)
            ours = (WORK, DONE, FAILED) if folder == self.folder else ()
            others = [name for name in folders if name not in ours and (folder / name).resolve() != results]
            folders[:] = [name for name in others if not _why_not_entered(folder / name)]
            yield from ((folder / name, why) for name in others if (why := _why_not_entered(folder / name)))
            yield from ((folder / name, _why_not_scored(folder / name)) for name in files if not _is_system_file(name))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do: no video is in the inbox, and none is being scored."""
        return not self.coming() and not any(path.is_dir() for path in self.work.iterdir())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the inbox lock: only one process at a time takes or moves videos."""
        with (self.work / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def free_key(self, name: str) -> str:
        """A results key that no other video or results folder uses or has used. name: path in the inbox."""
        taken = {path.name for path in self.results.iterdir()} | {path.name for path in self.work.iterdir()}
        taken |= {name[1 : -len(".partial")] for name in taken if name.endswith(".partial")}  # results being made
        taken |= {path.stem for where in (DONE, FAILED) for path in (self.folder / where).iterdir()}
        return free_name(result_key("-".join(Path(name).with_suffix("").parts)), taken)

    def _left(self) -> Iterator[Claim]:
        """Videos that no process scores any more, with deaths counted. Work folders without a video are removed."""
        for folder in sorted(path for path in self.work.iterdir() if path.is_dir()):
            died = (folder / LOCK).exists()
            if (lock := hold(folder)) is None:
                continue
            if not any(_is_video(path.name) for path in folder.iterdir()):
                shutil.rmtree(
                    folder, ignore_errors=True
                )  # process killed before the video was moved in or after it was moved out
                os.close(lock)
                continue
            claim = Claim(self, folder, lock)
            if died:
                claim.deaths += 1
                claim.save()
            yield claim

    def _fresh(self) -> Claim | None:
        for path in self.coming():
            if path in self.refused or not is_settled(path, self.settle_seconds, self._clock()):
                continue
            if claim := self._claim(path):
                return claim
        return None

    def _claim(self, path: Path) -> Claim | None:
        name = path.relative_to(self.folder).as_posix()
        key = self.free_key(name)
        folder = self.work / key
        folder.mkdir()
        lock = hold(folder)
        if lock is None:  # removed in the meantime
            return None
        write_json(folder / STATE, {"name": printable(name)})
        try:
            path.rename(folder / f"{key}{path.suffix}")
        except OSError as error:
            shutil.rmtree(folder)
            os.close(lock)
            if is_shortage(error):
                raise
            if not isinstance(error, FileNotFoundError):  # removed in the meantime
                self.refused[path] = VadError(
                    f"{printable(str(path))}: cannot be moved to {self.work} ({error.strerror}); let it lie in the same "
                    "file system, in a folder that may be written to"
                )
            return None
        return Claim(self, folder, lock)


@dataclass
class _Failure:
    """A video that could not be scored in this run. It stays locked, so that it is not retried in the same run."""

    claim: Claim
    error: Exception
    counted: bool = False


def work_off(
    inbox: Inbox, score: Callable[[Claim], None], finish: Callable[[Claim], None] = lambda claim: None
) -> Iterator[tuple[str, str | None]]:
    """Score all videos that are ready. Yields (name, None) for scored and (name, reason) for failed videos.

    Parameters
    ----------
    inbox: the videos.
    score: ``score(claim)`` creates ``inbox.results / claim.key`` atomically. It raises :class:`UnreadableVideo` if the
        video cannot be read; the video is then moved to ``failed/``.
    finish: ``finish(claim)`` is called when the results exist; it is called again if a process died in between.

    A video error is raised after all other videos; the video is retried in later runs until it is moved to ``failed/``. A
    machine error is raised at once. Videos that cannot be moved out of the inbox raise :class:`VadError` at the end.
    """
    failures: list[_Failure] = []
    in_a_row, any_scored = 0, False
    try:
        while claim := inbox.take():
            try:
                reason = _work_on(claim, score, finish)
            except Exception as error:
                failures.append(_Failure(claim, error))
                if is_shortage(error):
                    raise
                if claim.failed_runs is None or not any_scored:  # those that failed before come last, maybe in a row
                    in_a_row += 1
                claim.failed_runs = claim.failed_runs or 0
                claim.save()
                if in_a_row >= MOST_IN_A_ROW:
                    raise
                continue
            except BaseException:
                claim.release()
                raise
            yield claim.name, reason
            if reason is None:
                in_a_row, any_scored = 0, True
                yield from _count(failures)
        if any_scored:
            yield from _count(failures)
        if failures:
            raise _all_of(failures)
    finally:
        for failure in failures:
            failure.claim.release()
    if inbox.refused:
        raise VadError("; ".join(str(error) for error in inbox.refused.values()))


def _work_on(claim: Claim, score: Callable[[Claim], None], finish: Callable[[Claim], None]) -> str | None:
    """Score one video and move it. Returns None if it was scored, else the reason why it was moved to ``failed/``."""
    try:
        while not claim.has_results:
            if claim.deaths >= MOST_DEATHS:
                raise UnreadableVideo(
                    f"{claim.name}: {MOST_DEATHS} processes died while they scored it, perhaps for want of memory"
                )
            try:
                score(claim)
                break
            except Taken:
                claim.another_key()
        finish(claim)
    except UnreadableVideo as error:
        claim.fail(str(error))
        return str(error)
    claim.done()
    return None


def _count(failures: list[_Failure]) -> Iterator[tuple[str, str]]:
    """Count the failures against their videos. Yields (name, reason) of the videos that are moved to ``failed/``."""
    for failure in [failure for failure in failures if not failure.counted]:
        failure.counted, claim = True, failure.claim
        claim.failed_runs = (claim.failed_runs or 0) + 1
        if claim.failed_runs < MOST_FAILED_RUNS:
            claim.save()
            continue
        reason = f"{claim.name}: failed in {MOST_FAILED_RUNS} runs that could score others ({_line(failure.error)})"
        failures.remove(failure)
        claim.fail(reason, "".join(traceback.format_exception(failure.error)))
        yield claim.name, reason


def is_shortage(error: BaseException | None) -> bool:
    """Whether ``error`` or one of its causes is a machine error: an exhausted resource or a closed pipe."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            return True
        error = error.__cause__
    return False


def _all_of(failures: list[_Failure]) -> Exception:
    """Combine the errors of several videos into one. Tracebacks of unexpected errors (not VadError) are kept."""
    first, names = failures[0].error, ", ".join(failure.claim.name for failure in failures)
    if len({_line(failure.error) for failure in failures}) == 1:
        first.add_note(f"not scored, and tried again next time: {names}")
        return first
    if all(isinstance(failure.error, VadError) for failure in failures):
        error = VadError("; ".join(f"{failure.claim.name}: {failure.error}" for failure in failures))
        error.__cause__ = first
        return error
    message = f"not scored, and tried again next time: {names}"
    return ExceptionGroup(message, [failure.error for failure in failures])


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, VadError) else f"{type(error).__name__}: {text}"


def is_settled(path: Path, seconds: float, now: float) -> bool:
    """Whether a video file is completely written.

    It is if it has not changed for ``seconds``, no process on this machine has it open for writing, and it can be opened as
    a video. A file that cannot be opened also counts as complete after ``PATIENCE`` times ``seconds``; reading it then
    reports the error.

    now: current time in seconds since the epoch. Where the modification time is later, such as that of a camera whose
    clock is ahead, the time counts at which this machine changed the file.
    """
    try:
        found = path.stat()
    except FileNotFoundError:  # removed in the meantime
        return False
    unchanged = now - (found.st_mtime if found.st_mtime <= now else found.st_ctime)
    if unchanged < seconds or _open_for_writing(path):
        return False
    if unchanged >= PATIENCE * seconds:
        return True
    if not is_text(path):  # OpenCV would crash; the inbox renames the file when it takes it
        return False
    with suppress(VadError):
        return not video_index(path).cut_off
    return False


def _open_for_writing(path: Path) -> bool:
    """Whether a process on this machine has the file open for writing; False if the system cannot tell.

    Linux refuses a read lease on a file that is open for writing. If a writer opens the file while the lease is held, the
    kernel signals the holder; SIGURG is used because it is ignored by default.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    with suppress(OSError), path.open("rb") as file:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _why_not_entered(folder: Path) -> str | None:
    """Return why the videos in a folder of the inbox are not scored, or None."""
    if folder.name.startswith("."):
        return "a hidden folder; rename it"
    return "a link to a folder; bring the folder itself" if folder.is_symlink() else None


def _why_not_scored(path: Path) -> str | None:
    """Return why a file in the inbox is not scored, or None if it is a video."""
    if path.name.startswith("."):
        return "hidden; rename it"
    if not _is_video(path.name):
        return f"{'ends in ' + path.suffix if path.suffix else 'has no ending'}, unlike a video; rename it if it is one"
    return None if _is_file(path) else "a broken link, a pipe or without permission; replace it by the video itself"


def _is_system_file(name: str) -> bool:
    return name.startswith(".") and Path(name).suffix.lower() not in VIDEO_ENDINGS


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_ENDINGS and not name.startswith(".")


def _is_file(path: Path) -> bool:
    """Whether ``path`` is a regular file; False for broken links, pipes and files without permission."""
    try:
        return path.is_file()
    except OSError:
        return False
