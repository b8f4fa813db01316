"""Inbox: a folder of incoming videos. Each video is scored once, even if processes are killed.

::

    inbox/*.mp4          incoming videos (also in subfolders)
    inbox/.work/<key>/   a video being scored, ``lock`` (held by the process that scores it), ``deaths``, ``faults``
    inbox/done/          scored videos
    inbox/failed/        videos that could not be scored, each with <name>.reason.txt

A video is moved only by renaming, so it is always in exactly one place. The process that scores it holds a lock, which the
operating system releases when the process dies; the next process then takes the video. ``key`` is also the name of the
results folder. If that folder already exists and belongs to this video, the dead process had finished scoring, and the
video is not scored again.

A video that cannot be scored does not block the others; :mod:`vadcore.detection.blame` decides when it is moved to
``failed/``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vadcore.data.video import VIDEO_ENDINGS
from vadcore.detection.blame import Blame, is_shortage
from vadcore.detection.held import hold
from vadcore.detection.making import Taken, made_from, sweep
from vadcore.detection.naming import is_text, printable, result_key
from vadcore.detection.settled import Settled
from vadcore.detection.stream import UnreadableVideo
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_text

WORK, DONE, FAILED = ".work", "done", "failed"
MOST_DEATHS = 20  # process deaths per video; after that the video is moved to failed/


class Claim:
    """A video that is locked by this process for scoring.

    key: name of its work and results folder. path: current path of the video. name: its name in the inbox, with
    unprintable characters replaced.
    """

    def __init__(self, inbox: Inbox, key: str, lock: int):
        self.inbox, self.key, self._lock = inbox, key, lock
        self.folder = inbox.work / key
        self.path = next(path for path in self.folder.iterdir() if _is_video(path.name))
        self.name = _read(self.folder / "name", self.path.name)

    @property
    def has_results(self) -> bool:
        """Whether the results already exist, made by a process that died afterwards."""
        return made_from(self.inbox.results / self.key, self.path)

    @property
    def deaths(self) -> int:
        """Number of processes that have died while they scored it."""
        return int(_read(self.folder / "deaths", "0"))

    @property
    def faults(self) -> int:
        """Number of runs in which it could not be scored although other videos could."""
        return int(_read(self.folder / "faults", "0"))

    @property
    def troubled(self) -> bool:
        """Whether scoring it has failed in any run."""
        return (self.folder / "faults").exists()

    def trouble(self, faults: int) -> None:
        """Record a failure that did not kill the process: store ``faults`` and reset ``deaths``."""
        write_text(self.folder / "faults", str(faults))
        (self.folder / "deaths").unlink(missing_ok=True)

    def another_key(self) -> None:
        """Choose a new key, because another results folder has taken the old one in the meantime."""
        with self.inbox.alone():
            self.key = self.inbox._key(Path(self.name))
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
        """Release the lock, so that the video is retried later. ``deaths`` is reset."""
        (self.folder / "deaths").unlink(missing_ok=True)  # works on a full disk too
        os.close(self._lock)

    @property
    def _reason(self) -> Path:
        return self.inbox.folder / FAILED / f"{self.key}{self.path.suffix}.reason.txt"

    def _move(self, where: str) -> None:
        target = self.inbox.folder / where / f"{self.key}{self.path.suffix}"
        target.parent.mkdir(exist_ok=True)
        self.path.rename(target)
        with self.inbox.alone():  # no other process may read the folder while it is removed
            shutil.rmtree(self.folder)
        os.close(self._lock)


class Inbox:
    """The videos in ``folder``; their results are written to ``results``, one folder per video.

    Parameters
    ----------
    folder: folder that receives the videos. It must exist.
    results: folder of the results folders.
    settle_seconds: a file is taken when :class:`~vadcore.detection.settled.Settled` finds it completely written: unchanged
        for this many seconds.
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
        self.refused: dict[str, VadError] = {}  # videos that cannot be moved out of the inbox, by name
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
            for stray in self.work.glob(".*.partial"):  # left by a killed process
                stray.unlink()
            orphans = sorted(self._orphans(), key=lambda claim: (claim.troubled, claim.deaths, claim.key))
            first = orphans[0] if orphans and not orphans[0].troubled and orphans[0].deaths <= 1 else None
            claim = first or self._fresh() or (orphans[0] if orphans else None)
            for other in orphans:
                if other is not claim:
                    os.close(other._lock)
            if claim is not None:
                write_text(claim.folder / "deaths", str(claim.deaths + 1))  # a death, until done or released
        return claim

    def coming(self) -> list[Path]:
        """Videos in the inbox, sorted by path, completely written or not; without the videos being scored."""
        found, results = [], self.results.resolve()
        for here, folders, files in os.walk(self.folder):
            folder = Path(here)
            ours = (WORK, DONE, FAILED) if folder == self.folder else ()
            folders[:] = [  # folders that os.walk enters
                name
                for name in folders
                if name not in ours and not name.startswith(".") and (folder / name).resolve() != results
            ]
            found += [folder / name for name in files if _is_video(name) and _is_file(folder / name)]
        return sorted(found)

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

    def _orphans(self) -> Iterator[Claim]:
        """Claims whose process is dead or has released them. Work folders without a video are removed."""
        for folder in sorted(path for path in self.work.iterdir() if path.is_dir()):
            lock = hold(folder)
            if lock is None:
                continue
            if any(_is_video(path.name) for path in folder.iterdir()):
                yield Claim(self, folder.name, lock)
            else:  # process killed before the video was moved in or after it was moved out
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)

    def _fresh(self) -> Claim | None:
        settled = Settled(self.work / "seen.json", self.settle_seconds, self._clock)
        claim = None
        for path in self.coming():
            name = path.relative_to(self.folder).as_posix()
            if settled.is_whole(path, name) and claim is None and name not in self.refused:
                claim = self._claim(path, name)
        settled.save()
        return claim

    def _claim(self, path: Path, name: str) -> Claim | None:
        key = self._key(Path(name))
        folder = self.work / key
        folder.mkdir()
        lock = hold(folder)
        write_text(folder / "name", printable(name))
        try:
            path.rename(folder / f"{key}{path.suffix}")
        except OSError as error:
            shutil.rmtree(folder)
            os.close(lock)
            if is_shortage(error):
                raise
            if not isinstance(error, FileNotFoundError):  # removed in the meantime
                self.refused[name] = VadError(
                    f"{printable(str(path))}: cannot be moved to {self.work} ({error.strerror}); let it lie in the same "
                    "file system, in a folder that may be written to"
                )
            return None
        return Claim(self, key, lock)

    def _key(self, name: Path) -> str:
        """A results key that no other video or results folder uses or has used."""
        plain = result_key("-".join(name.with_suffix("").parts))
        taken = {path.name for path in self.results.iterdir()} | {path.name for path in self.work.iterdir()}
        taken |= {name[1 : -len(".partial")] for name in taken if name.endswith(".partial")}  # results being made
        taken |= {path.stem for where in (DONE, FAILED) for path in (self.folder / where).iterdir()}
        key, number = plain, 1
        while key in taken:
            number += 1
            key = f"{plain}-{number}"
        return key


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

    For other errors :mod:`vadcore.detection.blame` decides. A video error is raised after all other videos; the video is
    retried in later runs until it is moved to ``failed/``. A machine error is raised at once. Videos that cannot be moved
    out of the inbox raise :class:`VadError` at the end.
    """
    blame = Blame()
    try:
        while claim := inbox.take():
            try:
                reason = _work_on(claim, score, finish)
            except Exception as error:
                blame.failed(claim, error)
                continue
            except BaseException:
                claim.release()
                raise
            yield claim.name, reason
            if reason is None:
                yield from blame.scored()
        yield from blame.end()
    finally:
        blame.release()
    if inbox.refused:
        raise VadError("; ".join(str(error) for error in inbox.refused.values()))


def _work_on(claim: Claim, score: Callable[[Claim], None], finish: Callable[[Claim], None]) -> str | None:
    """Score one video and move it. Returns None if it was scored, else the reason why it was moved to ``failed/``."""
    try:
        while not claim.has_results:
            if claim.deaths > MOST_DEATHS:
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


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_ENDINGS and not name.startswith(".")


def _is_file(path: Path) -> bool:
    """Whether ``path`` is a regular file; False for broken links, pipes and files without permission."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read(path: Path, otherwise: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return otherwise
