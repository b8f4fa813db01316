"""A flow run ends with the worker that started it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogHandler

from flows.checkout import by_worker

LOOK_SECONDS = 1.0


class Stoppable(Protocol):
    """What a flow run has started: a process, or all stages of a pipeline."""

    def stop(self) -> None: ...


@contextmanager
def end_with_parent(work: Stoppable) -> Iterator[None]:
    """Where a worker has started this process: stop ``work`` and end when the worker is gone.

    A worker that was killed cannot cancel its runs any more, and one that is started again does not know of them. The run
    is left as a killed one: the worker that is started next in this checkout lets it go on (``flows.serve``).
    """
    if not by_worker():
        yield
        return
    parent, done, log = os.getppid(), threading.Event(), get_run_logger()

    def end_if_alone() -> None:
        if os.getppid() == parent:
            return
        try:  # the console was the worker's: rich ends the thread that writes to it, with SystemExit
            log.error("the worker (process %d) is gone: stopping", parent)
        finally:
            try:
                work.stop()
                APILogHandler().flush()  # what is on its way to the server; waits 5 seconds at most
            finally:
                os._exit(1)

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            end_if_alone()

    watcher = threading.Thread(target=watch, name="end-with-parent", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()  # where it is stopping the work, this process ends there and tells Prefect nothing
        end_if_alone()  # a stage that printed to the worker's console has failed before the next look
