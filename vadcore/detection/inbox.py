"""Inbox: a folder of incoming videos. Each video is scored once, even if processes are killed.

::

    inbox/*.mp4          incoming videos (also in subfolders), see :mod:`vadcore.detection.incoming`
    inbox/.work/<key>/   a video being scored, its ``state.json`` and a ``lock``, held by the process that scores it
    inbox/done/          scored videos
    inbox/failed/        videos that could not be scored, each with <name>.reason.txt
    inbox/.work/left_out.json    what is in the inbox and not a video, with the reason; :meth:`Inbox.news` tells it once

A video is moved only by renaming, so it is always in exactly one place. The operating system releases the lock when the
process dies; the next process then takes the video. A process that exits normally removes the lock file, so a lock file
that no process holds indicates a crash. ``key`` is also the name of the results folder. If that folder already exists
and belongs to this video, the process had finished scoring, and the video is not scored again. Videos are told apart by
their place, not by their content: a copy of a video is scored again. State is kept in files, because machines that share an
inbox over a network file system cannot share an SQLite database.

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
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vadcore.detection.incoming import incoming, is_settled, is_video
from vadcore.detection.naming import free_name, is_text, printable, result_key
from vadcore.detection.output import LOCK, Taken, hold, made_from, sweep
from vadcore.detection.source import UnreadableVideo
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_json, write_text

WORK, DONE, FAILED = ".work", "done", "failed"
STATE = "state.json"
MOST_DEATHS = 20  # process deaths per video; then the video is moved to failed/
MOST_FAILED_RUNS = 3  # runs in which only this video failed; then it is moved to failed/
MOST_IN_A_ROW = 3  # failures in a row that indicate a machine error
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
        self.path = next(path for path in folder.iterdir() if is_video(path.name))
        file = folder / STATE
        state = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
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
    settle_seconds: a file is taken when it is unchanged for this many seconds; see
        :func:`~vadcore.detection.incoming.is_settled`.
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
        self.refused: dict[Path, str] = {}  # videos that cannot be moved out of the inbox, with the reason
        self.work = self.folder / WORK
        ours = self.work, self.folder / DONE, self.folder / FAILED, self.results
        for made in ours:
            made.mkdir(parents=True, exist_ok=True)
        self._ours = {path.resolve() for path in ours}
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
        return sorted(path for path, why in incoming(self.folder, self._ours) if why is None)

    def news(self) -> list[str]:
        """Lines about what is in the inbox and not scored: what it is and why. Every file and reason is returned once.

        Files that have changed in the last ``settle_seconds`` may be unfinished, and are left for the next call.
        """
        file = self.work / "left_out.json"
        with self.alone():
            before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            now = {}
            for path, why in incoming(self.folder, self._ours):
                name = printable(path.relative_to(self.folder).as_posix())
                with suppress(FileNotFoundError):  # removed in the meantime
                    if why and (name in before or self._clock() - path.lstat().st_mtime >= self.settle_seconds):
                        now[name] = why
            if now != before:
                write_json(file, now)
        return [f"{name}: {why}" for name, why in sorted(now.items()) if before.get(name) != why]

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
            if not any(
                is_video(path.name) for path in folder.iterdir()
            ):  # killed before or after the move of the video
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
                continue
            claim = Claim(self, folder, lock)
            if died:
                claim.deaths += 1
                claim.save()
            yield claim

    def _fresh(self) -> Claim | None:
        """Claim the first video that is completely written; None if there is none."""
        for path in self.coming():
            if path in self.refused or not is_settled(path, self.settle_seconds, self._clock()):
                continue
            name = path.relative_to(self.folder).as_posix()
            folder = self.work / self.free_key(name)
            folder.mkdir()
            if (lock := hold(folder)) is None:  # removed in the meantime
                continue
            write_json(folder / STATE, {"name": printable(name)})
            try:
                path.rename(folder / f"{folder.name}{path.suffix}")
            except OSError as error:
                shutil.rmtree(folder)
                os.close(lock)
                if is_shortage(error):
                    raise
                if not isinstance(error, FileNotFoundError):  # removed in the meantime
                    said = f"{printable(str(path))}: cannot be moved to {self.work} ({error.strerror})"
                    self.refused[path] = f"{said}; keep it in the same file system, in a writable folder"
                continue
            return Claim(self, folder, lock)
        return None


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
    failures: list[tuple[Claim, Exception]] = []  # they stay locked, so that they are not retried in this run
    in_a_row, any_scored = 0, False
    try:
        while claim := inbox.take():
            try:
                reason = _work_on(claim, score, finish)
            except Exception as error:
                failures.append((claim, error))
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
        if any_scored:
            yield from _count(failures)
        if failures:
            raise _all_of(failures)
    finally:
        for claim, _ in failures:
            claim.release()
    if inbox.refused:
        raise VadError("; ".join(inbox.refused.values()))


def _work_on(claim: Claim, score: Callable[[Claim], None], finish: Callable[[Claim], None]) -> str | None:
    """Score one video and move it. Returns None if it was scored, else the reason why it was moved to ``failed/``."""
    try:
        while not claim.has_results:
            if claim.deaths >= MOST_DEATHS:
                said = f"{MOST_DEATHS} processes died while they scored it, perhaps for want of memory"
                raise UnreadableVideo(f"{claim.name}: {said}")
            try:
                score(claim)
                break
            except Taken:
                claim.another_key()
        finish(claim)
    except UnreadableVideo as error:
        reason = str(error).replace(str(claim.path), claim.name)
        claim.fail(reason)
        return reason
    claim.done()
    return None


def _count(failures: list[tuple[Claim, Exception]]) -> Iterator[tuple[str, str]]:
    """Count the failures against their videos. Yields (name, reason) of the videos that are moved to ``failed/``."""
    for failure in list(failures):
        claim, error = failure
        claim.failed_runs = (claim.failed_runs or 0) + 1
        claim.save()
        if claim.failed_runs >= MOST_FAILED_RUNS:
            reason = f"{claim.name}: failed in {MOST_FAILED_RUNS} runs that could score others ({_line(error)})"
            failures.remove(failure)
            claim.fail(reason, "".join(traceback.format_exception(error)))
            yield claim.name, reason


def is_shortage(error: BaseException | None) -> bool:
    """Whether ``error`` or one of its causes is a machine error: an exhausted resource or a closed pipe."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            return True
        error = error.__cause__
    return False


def _all_of(failures: list[tuple[Claim, Exception]]) -> Exception:
    """Combine the errors of several videos into one. Tracebacks of unexpected errors (not VadError) are kept."""
    errors, names = [error for _, error in failures], ", ".join(claim.name for claim, _ in failures)
    said = f"not scored, and tried again next time: {names}"
    if len(set(map(_line, errors))) == 1:
        errors[0].add_note(said)
        return errors[0]
    if all(isinstance(error, VadError) for error in errors):
        return VadError("; ".join(f"{claim.name}: {error}" for claim, error in failures))
    return ExceptionGroup(said, errors)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, VadError) else f"{type(error).__name__}: {text}"
