"""Per-clip work on several processes or machines."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
from tqdm import tqdm

from vadcore.errors import VadError
from vadcore.provenance import cores

if TYPE_CHECKING:
    from vadcore.config import Machine


def per_clip(
    function: Callable[..., Any], calls: Sequence[tuple], machine: Machine, name: str
) -> Iterator[tuple[tuple, Any]]:
    """``function(*call)`` for every call, yielding ``(call, result or VadError)`` as each is done.

    Runs in this process when one worker is enough, else on several of this machine, else on the machines of the
    dask.distributed cluster whose scheduler ``machine.scheduler`` names (every worker must see the same files and this
    project's packages). Only :class:`VadError` is yielded; any other exception is raised, and ends what is still running.
    """
    workers = min(machine.workers or cores(), len(calls))
    if machine.scheduler is not None:
        results = _on_cluster(function, calls, machine.scheduler)
    elif workers > 1:
        results = _on_processes(function, calls, workers)
    else:
        results = ((call, _guarded(function, call)) for call in calls)
    with tqdm(total=len(calls), desc=name, unit="clip", mininterval=1 if sys.stderr.isatty() else 10) as bar:
        for result in results:
            bar.update()
            yield result


def _guarded(function: Callable, call: tuple) -> Any:
    try:
        return function(*call)
    except VadError as error:
        return error


def _guarded_in(folder: str, function: Callable, call: tuple) -> Any:
    os.chdir(folder)
    return _guarded(function, call)


def _on_processes(function: Callable, calls: Sequence[tuple], workers: int) -> Iterator:
    """The workers end with this process, however it ends: they see the pipe close, whose other end it alone holds."""
    context = multiprocessing.get_context("spawn")
    alive, held = context.Pipe(duplex=False)
    threads = max(1, cores() // workers)
    pool = ProcessPoolExecutor(workers, context, initializer=_prepare_worker, initargs=(alive, threads))
    try:
        futures = {pool.submit(_guarded, function, call): call for call in calls}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise VadError(
            f"one of {workers} worker processes was killed, perhaps for want of memory; set machine.workers lower"
        ) from error
    else:
        pool.shutdown()  # all is done: the workers may end in their own way, and tidy up
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)
        alive.close()


def _prepare_worker(alive: Connection, threads: int) -> None:
    """A worker ends when the pipe closes, in the middle of its work if need be; Ctrl-C is for its parent. It takes its
    share of the cores and no more: processes whose threads wait for one another are several times slower."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch looks when it is first imported, which is after this

    def wait() -> None:
        alive.poll(None)  # nothing is ever sent
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _on_cluster(function: Callable, calls: Sequence[tuple], scheduler: str) -> Iterator:
    from distributed import Client
    from distributed import as_completed as done

    try:
        client = Client(scheduler, timeout="10s")
    except OSError as error:
        raise VadError(f"machine.scheduler: no answer from {scheduler} ({error}); start it, or set null") from error
    with client:
        here = str(Path.cwd())  # where the calls' paths begin
        futures = {client.submit(_guarded_in, here, function, call, pure=False): call for call in calls}
        try:
            for future in done(list(futures)):
                yield futures[future], future.result()
        finally:
            client.cancel(list(futures))
