"""Parallel per-clip work on several processes or machines."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
from tqdm import tqdm

from vadcore.utils.errors import VadError
from vadcore.utils.provenance import cores

if TYPE_CHECKING:
    from distributed import Client

    from vadcore.config import Machine

ANSWER_SECONDS = 10.0  # timeout of the first connection to a scheduler
LOOK_SECONDS = 5.0  # between checks for workers of the scheduler


def per_clip(
    function: Callable[..., Any], calls: Sequence[tuple], machine: Machine, name: str
) -> Iterator[tuple[tuple, Any]]:
    """Call ``function(*call)`` for every call; yield ``(call, result or VadError)`` as each completes.

    Runs on the dask.distributed cluster of ``machine.scheduler`` if set (every worker must see the same files and this
    project's packages), else on several processes of this machine, or in this process if one worker is enough. A
    :class:`VadError` is yielded; any other exception is raised and stops the remaining calls.
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
    """Run the calls on worker processes. They end with this process, because that closes their pipe."""
    context = multiprocessing.get_context("spawn")
    alive, held = context.Pipe(duplex=False)
    threads = max(1, cores() // workers)
    pool = ProcessPoolExecutor(workers, context, initializer=_prepare_worker, initargs=(alive, threads))
    try:
        futures = {pool.submit(_guarded, function, call): call for call in calls}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        said = f"one of {workers} worker processes was killed, probably out of memory"
        raise VadError(f"{said}; set machine.workers lower") from error
    else:
        pool.shutdown()  # all calls are done: let the workers exit normally and clean up
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)
        alive.close()


def _prepare_worker(alive: Connection, threads: int) -> None:
    """Initialize a worker process.

    It exits when the pipe closes, even in the middle of a call, and ignores Ctrl-C, which its parent handles. It uses
    only its share of the cores: processes whose threads wait for one another are several times slower.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read by torch at its first import, which comes later

    def wait() -> None:
        alive.poll(None)  # returns when the other end is closed; nothing is sent
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _on_cluster(function: Callable, calls: Sequence[tuple], scheduler: str) -> Iterator:
    """Run the calls on a dask.distributed cluster. If it has no worker yet, print a message and wait for one."""
    from distributed import Client, KilledWorker
    from distributed import as_completed as done

    try:
        client = Client(scheduler, timeout=ANSWER_SECONDS)
    except OSError as error:
        raise VadError(f"machine.scheduler: no answer from {scheduler} ({error}); start it, or set null") from error
    with client:
        here = str(Path.cwd())  # the paths in the calls are relative to this folder
        futures = {client.submit(_guarded_in, here, function, call, pure=False): call for call in calls}
        over = threading.Event()
        watcher = threading.Thread(target=_report_missing_workers, args=(client, scheduler, over), daemon=True)
        watcher.start()
        try:
            for future in done(list(futures)):
                yield futures[future], future.result()
        except CancelledError as error:  # every call is cancelled when the scheduler is gone
            said = f"the connection to {scheduler} was lost; start it and the command again, or set null"
            raise VadError(f"machine.scheduler: {said}") from error
        except KilledWorker as error:
            said = f"one call killed several workers of {scheduler}, probably out of memory; give each worker more"
            raise VadError(f"machine.scheduler: {said}") from error
        finally:
            over.set()
            client.cancel(list(futures))


def _report_missing_workers(client: Client, scheduler: str, over: threading.Event) -> None:
    """Print a message each time the scheduler has no worker, and when it has one again."""
    waiting = False
    while not over.wait(LOOK_SECONDS):
        try:
            alone = not client.nthreads()
        except OSError:  # the connection is lost; the calls end, too
            return
        if alone and not waiting:
            print(f"no worker is connected to {scheduler}; waiting", flush=True)
        elif waiting and not alone:
            print(f"a worker is connected to {scheduler}; continuing", flush=True)
        waiting = alone
