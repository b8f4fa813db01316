"""Stop a flow run when the worker that started it is gone."""

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
    """Work that a flow run has started: a process, or all stages of a pipeline."""

    def stop(self) -> None: ...


@contextmanager
def end_with_parent(work: Stoppable) -> Iterator[None]:
    """If a worker started this process: stop ``work`` and exit when the worker is gone.

    A killed worker cannot cancel its runs, and a restarted worker does not know them. The run is left as a killed run; the
    next worker in this checkout resumes it (``flows.serve``).
    """
    if not by_worker():
        yield
        return
    parent, done, log = os.getppid(), threading.Event(), get_run_logger()

    def end_if_alone() -> None:
        if os.getppid() == parent:
            return
        try:  # the worker's console is gone: rich raises SystemExit in the thread that writes to it
            log.error("the worker (process %d) is gone: stopping", parent)
        finally:
            try:
                work.stop()
                APILogHandler().flush()  # send pending log records; waits 5 seconds at most
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
        watcher.join()  # if it is stopping the work, it exits the process and sends Prefect no state
        end_if_alone()  # a stage may fail on the worker's missing console before the next check
