"""Per-clip work on several processes or machines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vadcore.errors import VadError
from vadcore.provenance import cores

if TYPE_CHECKING:
    from vadcore.config import Machine


def per_clip(
    function: Callable[..., Any], calls: Sequence[tuple], machine: Machine, name: str
) -> Iterator[tuple[tuple, Any]]:
    """``function(*call)`` for every call, yielding ``(call, result or VadError)`` as each is done.

    Runs in this process when one worker is enough, else on a dask.distributed cluster: of local processes, or the one
    whose scheduler ``machine.scheduler`` names (every worker must see the same files and this project's packages).
    Only :class:`VadError` is yielded; any other exception is raised.
    """
    workers = min(machine.workers or cores(), len(calls))
    bar = tqdm(total=len(calls), desc=name, unit="clip", mininterval=1 if sys.stderr.isatty() else 10)
    with bar:
        if machine.scheduler is None and workers <= 1:
            results = ((call, _guarded(function, call)) for call in calls)
            yield from _counted(results, bar)
        else:
            yield from _counted(_on_cluster(function, calls, machine.scheduler, workers), bar)


def _counted(results: Iterator, bar: tqdm) -> Iterator:
    for result in results:
        bar.update()
        yield result


def _guarded(function: Callable, call: tuple) -> Any:
    try:
        return function(*call)
    except VadError as error:
        return error


def _on_cluster(function: Callable, calls: Sequence[tuple], scheduler: str | None, workers: int) -> Iterator:
    import dask
    from distributed import Client, LocalCluster, as_completed

    quiet = {"distributed.admin.system-monitor.gil.enabled": False, "distributed.logging.distributed": "error"}
    with dask.config.set(quiet):
        if scheduler:
            try:
                client = Client(scheduler, timeout="10s")
            except OSError as error:
                raise VadError(
                    f"machine.scheduler: no answer from {scheduler} ({error}); start it, or set null"
                ) from error
            cluster = None
        else:
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs="ERROR"
            )
            client = Client(cluster)
        with client:
            futures = {client.submit(_guarded, function, call, pure=False): call for call in calls}
            try:
                for future in as_completed(list(futures)):
                    yield futures[future], future.result()
            finally:
                client.cancel(list(futures))
                if cluster is not None:
                    cluster.close()
