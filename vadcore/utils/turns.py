"""Processes that each compute on all cores of a machine take turns.

OpenMP and oneDNN threads spin while they wait for one another. Where two processes with a thread a core share the cores,
a thread mostly waits for one that is not running, and both are far more than twice as slow: two trainings on two cores
were 6 to 46 times slower each. With turns of a second each takes about twice as long. The number of threads stays the
same, and with it every digit of the result.
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
PATIENCE_SECONDS = 10.0  # a process that holds the lock for longer is stopped or stuck
ALONE_SECONDS = 60.0  # without locks, before the next attempt

Item = TypeVar("Item")


def take_turns(items: Iterable[Item], device: str) -> Iterator[Item]:
    """Yield ``items``; what the caller does with them takes turns with other processes of the same user that do so.

    They wait for one another only where ``device`` is "cpu" and torch has more threads than half of the cores. Several
    processes that train one model together (``WORLD_SIZE``) never wait.
    """
    import torch  # here: workers that compute without it do not wait for its import

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
    """A place in the queue of processes that lock the files ``<path>.next`` and ``<path>.now``.

    A process holds ``now`` while it computes. Who waits for it holds ``next``, and whoever has just computed needs that
    first, so that nobody is overtaken.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic):
        self._next, self._now = (os.open(f"{path}.{name}", os.O_RDWR | os.O_CREAT, 0o600) for name in ("next", "now"))
        self._clock = clock
        self._until = -float("inf")  # the end of this turn

    def take(self) -> None:
        """Return when it is this process's turn: at once while the last one goes on."""
        if self._clock() < self._until:
            return
        fcntl.flock(self._now, fcntl.LOCK_UN)
        deadline = self._clock() + PATIENCE_SECONDS
        held = self._lock(self._next, deadline) and self._lock(self._now, deadline)
        fcntl.flock(self._next, fcntl.LOCK_UN)
        self._until = self._clock() + (TURN_SECONDS if held else ALONE_SECONDS)

    def close(self) -> None:
        """Let the others go on."""
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
