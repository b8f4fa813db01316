"""Distinguish video errors from machine errors when a video in an inbox cannot be scored.

- Video error: another video could be scored in the same run. The failure counts against the video. After
  ``MOST_FAULTS`` such runs the video is moved to ``failed/``.
- Machine error: ``MOST_IN_A_ROW`` videos fail in a row, or the machine has run out of a resource (disk space, memory, open
  files, ...). The run ends, and the failure does not count.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from vadcore.utils.errors import VadError

MOST_FAULTS = 3  # counted failures of a video before it is moved to failed/
MOST_IN_A_ROW = 3  # failures in a row that indicate a machine error
SHORTAGES = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EPIPE,  # the reader of the process's output has ended
)


class Video(Protocol):
    """Interface of a video in the inbox: see :class:`vadcore.detection.inbox.Claim`."""

    name: str
    faults: int
    troubled: bool

    def trouble(self, faults: int) -> None: ...
    def fail(self, reason: str, details: str = "") -> None: ...
    def release(self) -> None: ...


@dataclass
class Case:
    """A video that could not be scored in this run. It stays locked, so that it is not retried in the same run."""

    video: Video
    error: Exception
    counted: bool = False


class Blame:
    """Counts the failures of one run over an inbox and decides between video errors and machine errors."""

    def __init__(self):
        self.cases: list[Case] = []
        self.works = False  # whether a video could be scored
        self._in_a_row = 0

    def failed(self, video: Video, error: Exception) -> None:
        """Record that scoring ``video`` raised ``error``. Re-raises it if it is a machine error."""
        self.cases.append(Case(video, error))
        if is_shortage(error):
            raise error
        known = video.troubled
        video.trouble(video.faults)
        if not (known and self.works):  # videos that failed in earlier runs come last and may fail in a row
            self._in_a_row += 1
            if self._in_a_row >= MOST_IN_A_ROW:
                raise error

    def scored(self) -> Iterator[tuple[str, str]]:
        """Record that a video was scored; the failures so far now count against their videos.

        Yields (name, reason) of the videos that are moved to ``failed/``.
        """
        self.works, self._in_a_row = True, 0
        yield from self._count()

    def end(self) -> Iterator[tuple[str, str]]:
        """Finish the run when no video is left.

        Yields (name, reason) of the videos that are moved to ``failed/``, then raises the errors of the other failed
        videos.
        """
        if self.works:
            yield from self._count()
        if self.cases:
            raise _all_of(self.cases)

    def release(self) -> None:
        """Release the failed videos, so that other runs can retry them."""
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
    """Whether ``error`` or one of its causes is a machine error: an exhausted resource or a closed pipe."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in SHORTAGES:
            return True
        error = error.__cause__
    return False


def _all_of(cases: list[Case]) -> Exception:
    """Combine the errors of several videos into one. Tracebacks of unexpected errors (not VadError) are kept."""
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
