"""Whose fault it was that a video could not be scored: its own, or the machine's, which would be any video's.

Only the others tell. A fault counts against a video where another one could be scored in the same run; that often, in as
many runs, and the video is set aside. Where one after the other fails, or the machine has run out of something, it is the
machine's: the run ends, and nothing counts.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from vadcore.utils.errors import VadError

MOST_FAULTS = 3  # of a video; then it is set aside
MOST_IN_A_ROW = 3  # videos that fail one after the other; then it is the machine
SHORTAGES = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EPIPE,  # whoever reads what the process prints has ended
)


class Video(Protocol):
    """What is known of one here: see :class:`vadcore.detection.inbox.Claim`."""

    name: str
    faults: int
    troubled: bool

    def trouble(self, faults: int) -> None: ...
    def fail(self, reason: str, details: str = "") -> None: ...
    def release(self) -> None: ...


@dataclass
class Case:
    """A video that could not be scored in this run. It stays locked, so that it is not tried again in the same run."""

    video: Video
    error: Exception
    counted: bool = False


class Blame:
    """The faults of one run over an inbox."""

    def __init__(self):
        self.cases: list[Case] = []
        self.works = False  # whether a video could be scored
        self._in_a_row = 0

    def failed(self, video: Video, error: Exception) -> None:
        """Scoring ``video`` raised ``error``. Raises it on where it is the machine's."""
        self.cases.append(Case(video, error))
        if is_shortage(error):
            raise error
        known = video.troubled
        video.trouble(video.faults)
        if not (known and self.works):  # of what has failed before, much may come one after the other
            self._in_a_row += 1
            if self._in_a_row >= MOST_IN_A_ROW:
                raise error

    def scored(self) -> Iterator[tuple[str, str]]:
        """A video could be scored. Counts what has failed; (name, reason) of what that sets aside."""
        self.works, self._in_a_row = True, 0
        yield from self._count()

    def end(self) -> Iterator[tuple[str, str]]:
        """No video is left. (name, reason) of what is set aside now; then raises what is still wrong with others."""
        if self.works:
            yield from self._count()
        if self.cases:
            raise _all_of(self.cases)

    def release(self) -> None:
        """The run is over: other runs may try again."""
        for case in self.cases:
            case.video.release()
        self.cases.clear()

    def _count(self) -> Iterator[tuple[str, str]]:
        for case in [case for case in self.cases if not case.counted]:
            case.counted = True
            video, error = case.video, case.error
            video.trouble(video.faults + 1)
            if video.faults >= MOST_FAULTS:
                reason = f"{video.name}: failed in {MOST_FAULTS} runs that could score others ({_line(error)})"
                self.cases.remove(case)
                video.fail(reason, "".join(traceback.format_exception(error)))
                yield video.name, reason


def is_shortage(error: BaseException | None) -> bool:
    """Whether ``error``, or one that caused it, comes from the machine: it has run out of something, or a pipe is closed."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            return True
        error = error.__cause__
    return False


def _all_of(cases: list[Case]) -> Exception:
    """One error that says them all; where one is a defect of ours, its traceback is kept."""
    first, names = cases[0].error, ", ".join(case.video.name for case in cases)
    if len({_line(case.error) for case in cases}) == 1:
        first.add_note(f"not scored, and tried again next time: {names}")
        return first
    if all(isinstance(case.error, VadError) for case in cases):
        error = VadError("; ".join(f"{case.video.name}: {case.error}" for case in cases))
        error.__cause__ = first
        return error
    return ExceptionGroup(f"not scored, and tried again next time: {names}", [case.error for case in cases])


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, VadError) else f"{type(error).__name__}: {text}"
