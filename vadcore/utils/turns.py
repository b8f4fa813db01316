"""Let processes that use all cores of a machine take turns.

OpenMP and oneDNN threads spin while they wait for each other. If two processes with one thread per core share the cores,
most threads wait for threads that are not running, and both processes become far more than twice as slow: two trainings
on two cores were 6 to 46 times slower each. With turns of one second, each takes about twice as long. The number of
threads does not change, so the results are bitwise the same.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from vadcore.utils.provenance import cores

TURN_SECONDS = 1.0
POLL_SECONDS = 0.002
PATIENCE_SECONDS = 10.0  # timeout for the locks; a process that holds a lock for longer is stopped or stuck
ALONE_SECONDS = 60.0  # time to run without the locks after a timeout

Item = TypeVar("Item")


def take_turns(items: Iterable[Item], device: str) -> Iterator[Item]:
    """Yield ``items`` in turns with other processes of the same user that call this function.

    Processes wait only if ``device`` is "cpu" and torch has more threads than half of the cores. Processes of one
    distributed training (``WORLD_SIZE``) never wait.
    """
    import torch  # local: workers that do not need torch start faster

    if device != "cpu" or 2 * torch.get_num_threads() <= cores() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield from items
        return
    turn = Turn(Path(tempfile.gettempdir()) / f"vad-turns-{os.getuid()}")
    try:
        for item in items:
            turn.take()
            yield item
    finally:
        turn.close()


class Turn:
    """Fair lock between processes, with the lock files ``<path>.next`` and ``<path>.now``.

    A process holds ``now`` while it computes. The first waiting process holds ``next``. A process needs ``next`` before
    ``now``, so a process that has just computed cannot overtake a waiting process.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic):
        self._next, self._now = (os.open(f"{path}.{name}", os.O_RDWR | os.O_CREAT, 0o600) for name in ("next", "now"))
        self._clock = clock
        self._until = -float("inf")  # the end of this turn

    def take(self) -> None:
        """Wait for this process's turn. Returns at once if its current turn has not ended."""
        if self._clock() < self._until:
            return
        fcntl.flock(self._now, fcntl.LOCK_UN)
        deadline = self._clock() + PATIENCE_SECONDS
        held = self._lock(self._next, deadline) and self._lock(self._now, deadline)
        fcntl.flock(self._next, fcntl.LOCK_UN)
        self._until = self._clock() + (TURN_SECONDS if held else ALONE_SECONDS)

    def close(self) -> None:
        """Release the locks, so that other processes can continue."""
        os.close(self._now)
        os.close(self._next)

    def _lock(self, file: int, deadline: float) -> bool:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if self._clock() > deadline:
                    return False
                time.sleep(POLL_SECONDS)
