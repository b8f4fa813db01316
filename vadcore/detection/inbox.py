"""A folder that videos come into. Each is scored once, whatever happens to the process that does it.

::

    inbox/*.mp4          what came in (subfolders too)
    inbox/.work/<key>/   the video while it is scored, ``lock`` (held by the process that scores it), ``deaths``, ``faults``
    inbox/done/          scored
    inbox/failed/        set aside, each with <name>.reason.txt

A video moves by renaming alone, so it is in one place at any moment. Who scores it holds a lock that the system lets go of
when the process dies, however it dies; the next one that looks takes the video up. ``key`` names the folder of its results
as well: where that is there already and of this video, the dead process had got so far, and nothing is scored again.

A video that cannot be scored holds up no other; :mod:`vadcore.detection.blame` says when it is set aside.
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
from vadcore.detection.naming import is_text, result_key, shown
from vadcore.detection.reading import UnreadableVideo
from vadcore.detection.settled import Settled
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_text

WORK, DONE, FAILED = ".work", "done", "failed"
MOST_DEATHS = 20  # of processes, over one video; then it is set aside, so that it stops nobody any more


class Claim:
    """A video that this process alone may score. ``path``: where it lies now. ``name``: what it was called in the inbox, as
    far as that can be shown."""

    def __init__(self, inbox: Inbox, key: str, lock: int):
        self.inbox, self.key, self._lock = inbox, key, lock
        self.folder = inbox.work / key
        self.path = next(path for path in self.folder.iterdir() if _is_video(path.name))
        self.name = _read(self.folder / "name", self.path.name)

    @property
    def has_results(self) -> bool:
        """Whether a process that died had made the results."""
        return made_from(self.inbox.results / self.key, self.path)

    @property
    def deaths(self) -> int:
        """How many processes have died over it."""
        return int(_read(self.folder / "deaths", "0"))

    @property
    def faults(self) -> int:
        """In how many runs it could not be scored though others could."""
        return int(_read(self.folder / "faults", "0"))

    @property
    def troubled(self) -> bool:
        """Whether a run has failed over it."""
        return (self.folder / "faults").exists()

    def trouble(self, faults: int) -> None:
        """It could not be scored, but no process died of it; so many of its ``faults`` count."""
        write_text(self.folder / "faults", str(faults))
        (self.folder / "deaths").unlink(missing_ok=True)

    def another_key(self) -> None:
        """Its own has been given to other results meanwhile."""
        with self.inbox.alone():
            self.key = self.inbox._key(Path(self.name))
            self.folder = self.folder.rename(self.inbox.work / self.key)
            self.path = self.folder / self.path.name

    def done(self) -> None:
        """The results are there: the video goes to ``done/``."""
        self._reason.unlink(missing_ok=True)
        self._move(DONE)

    def fail(self, reason: str, details: str = "") -> None:
        """The video goes to ``failed/``, with the reason beside it, and below that the ``details``."""
        kept = self.folder / "reason"
        write_text(kept, f"{reason.strip()}\n{details}".encode(errors="replace").decode())
        kept.rename(self._reason)
        self._move(FAILED)

    def release(self) -> None:
        """It was not the video's fault that it was not scored: it is taken up again later."""
        (self.folder / "deaths").unlink(missing_ok=True)  # which a full disk allows
        os.close(self._lock)

    @property
    def _reason(self) -> Path:
        return self.inbox.folder / FAILED / f"{self.key}{self.path.suffix}.reason.txt"

    def _move(self, where: str) -> None:
        target = self.inbox.folder / where / f"{self.key}{self.path.suffix}"
        target.parent.mkdir(exist_ok=True)
        self.path.rename(target)
        with self.inbox.alone():  # so that nobody looks into the folder while it goes
            shutil.rmtree(self.folder)
        os.close(self._lock)


class Inbox:
    """The videos in ``folder``; their results appear in ``results``, one folder a video.

    A file is taken when it is whole: :class:`~vadcore.detection.settled.Settled`, which reads ``clock``, says when.
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
            raise VadError(f"{shown(str(folder))}: a path that is not UTF-8; rename it")
        self.refused: dict[str, VadError] = {}  # videos that cannot be moved out of the inbox, by name
        self.work = self.folder / WORK
        for made in (self.work, self.folder / DONE, self.folder / FAILED, self.results):
            made.mkdir(parents=True, exist_ok=True)
        sweep(self.results)

    def take(self) -> Claim | None:
        """The next video to score; None when there is none now.

        First what one process has died over, then what is new, then what several have died over or a run has failed over.
        """
        with self.alone():
            for stray in self.work.glob(".*.partial"):  # of a process that was killed here
                stray.unlink()
            orphans = sorted(self._orphans(), key=lambda claim: (claim.troubled, claim.deaths, claim.key))
            first = orphans[0] if orphans and not orphans[0].troubled and orphans[0].deaths <= 1 else None
            claim = first or self._fresh() or (orphans[0] if orphans else None)
            for other in orphans:
                if other is not claim:
                    os.close(other._lock)
            if claim is not None:
                write_text(claim.folder / "deaths", str(claim.deaths + 1))  # until it is done or released
        return claim

    def coming(self) -> list[Path]:
        """The videos that are in the inbox, ready or not, by name; those being scored are not among them."""
        found, results = [], self.results.resolve()
        for here, folders, files in os.walk(self.folder):
            folder = Path(here)
            ours = (WORK, DONE, FAILED) if folder == self.folder else ()
            folders[:] = [  # what the walk goes into
                name
                for name in folders
                if name not in ours and not name.startswith(".") and (folder / name).resolve() != results
            ]
            found += [folder / name for name in files if _is_video(name) and _is_file(folder / name)]
        return sorted(found)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do, now or soon: no video has come, and none is being scored."""
        return not self.coming() and not any(path.is_dir() for path in self.work.iterdir())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time decides who takes what."""
        with (self.work / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _orphans(self) -> Iterator[Claim]:
        """Claims whose process is dead, or has released them; what it had not begun with is cleared away."""
        for folder in sorted(path for path in self.work.iterdir() if path.is_dir()):
            lock = hold(folder)
            if lock is None:
                continue
            if any(_is_video(path.name) for path in folder.iterdir()):
                yield Claim(self, folder.name, lock)
            else:  # killed before the video came, or after it went
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
        write_text(folder / "name", shown(name))
        try:
            path.rename(folder / f"{key}{path.suffix}")
        except OSError as error:
            shutil.rmtree(folder)
            os.close(lock)
            if is_shortage(error):
                raise
            if not isinstance(error, FileNotFoundError):  # taken away meanwhile
                self.refused[name] = VadError(
                    f"{shown(str(path))}: cannot be moved to {self.work} ({error.strerror}); let it lie in the same file "
                    "system, in a folder that may be written to"
                )
            return None
        return Claim(self, key, lock)

    def _key(self, name: Path) -> str:
        """A name for results that nothing else has or had."""
        plain = result_key("-".join(name.with_suffix("").parts))
        taken = {path.name for path in self.results.iterdir()} | {path.name for path in self.work.iterdir()}
        taken |= {name[1 : -len(".partial")] for name in taken if name.endswith(".partial")}  # being made
        taken |= {path.stem for where in (DONE, FAILED) for path in (self.folder / where).iterdir()}
        key, number = plain, 1
        while key in taken:
            number += 1
            key = f"{plain}-{number}"
        return key


def work_off(
    inbox: Inbox, score: Callable[[Claim], None], finish: Callable[[Claim], None] = lambda claim: None
) -> Iterator[tuple[str, str | None]]:
    """Score all that is ready: yields (name, None) of what is done, (name, reason) of what was set aside.

    ``score(claim)`` makes ``inbox.results / claim.key``, complete or not at all; an :class:`UnreadableVideo` of it says what
    is wrong with the video. For other errors :mod:`vadcore.detection.blame` says whether the video is at fault: it
    is raised on, after all other videos, and the video stays to be taken up again, until it is set aside; or, where it is
    the machine's, it is raised on at once. ``finish(claim)`` is called once the results are there, and again where a
    process died meanwhile.
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
    """Score one video and move it. Why it was set aside; None where it is done."""
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
    """A link that leads nowhere is none, nor is a pipe, nor what may not be looked at."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read(path: Path, otherwise: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return otherwise
