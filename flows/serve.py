"""``python -m flows.serve``: start the services that schedule and show pipeline runs on this machine.

======================  ===============================================================================================
``all`` (the default)   Prefect server, MLflow server, ``setup`` and a worker; on loopback, until Ctrl-C
``server``              the same without the worker: for a machine that workers and people on other machines connect to
``worker``              only a worker of the server at ``PREFECT_API_URL``: for a machine with a GPU
``setup``               create the work pool and the concurrency limit, both named ``gpu``, at ``PREFECT_API_URL``
======================  ===============================================================================================
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import httpx

from flows.process import Process
from flows.recovery import LIMIT, Checkout, requeue
from vadcore.utils.errors import VadError

LOOPBACK = "127.0.0.1"
START_SECONDS = 120.0
PROVEN_SECONDS = 20.0  # a worker that ran at least this long is restarted when it ends
LOOK_SECONDS = 0.5  # between checks for a service that has ended
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # would start seven processes that evaluate language models
    # with the default, in memory, a restarted server forgets who holds a slot and never frees it
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}


class Services:
    """Child processes that run until one of them ends or this process is stopped; prefix their output with their names."""

    def __init__(self, root: Path, environment: Mapping[str, str]):
        self.root, self.environment = root, environment
        self._processes: dict[str, Process] = {}
        self._started: dict[str, float] = {}

    def start(self, name: str, *command: str) -> None:
        process = Process([sys.executable, "-m", *command], self.root, self.environment, whom="all")
        self._processes[name], self._started[name] = process, time.monotonic()
        threading.Thread(target=self._show, args=(name, process), daemon=True).start()

    @staticmethod
    def _show(name: str, process: Process) -> None:
        for line in process.lines():
            print(f"{name:7} | {line}", flush=True)

    def wait_for(self, name: str, url: str) -> None:
        """Wait until the service answers. Raises VadError if it ends or does not answer within START_SECONDS."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            self._check()
            with suppress(httpx.TransportError):
                if httpx.get(url, timeout=2).is_success:
                    return
            time.sleep(0.2)
        raise VadError(f"{name}: no answer from {url} within {START_SECONDS:.0f} s")

    def _check(self) -> None:
        for name, process in self._processes.items():
            if (code := process.poll()) is not None:
                raise VadError(f"{name} has ended (exit code {code}); see its output above. All services are stopped")

    def watch(self, again: Mapping[str, Callable[[], None]], proven_seconds: float = PROVEN_SECONDS) -> None:
        """Wait until a service ends, then raise VadError.

        Services named in ``again`` are restarted by its functions instead, if they had run for ``proven_seconds``.
        """
        while True:
            time.sleep(LOOK_SECONDS)
            for name, start in again.items():
                code = self._processes[name].poll()
                if code is not None and time.monotonic() - self._started[name] > proven_seconds:
                    print(f"{name} has ended (exit code {code}); restarting it", flush=True)
                    start()
            self._check()

    def stop(self) -> None:
        """Stop the services in reverse order, so that the worker can sign off at a server that still runs."""
        for process in reversed(self._processes.values()):
            process.stop()
            process.wait()


def setup(slots: int) -> None:
    """Create the work pool and the concurrency limit if they are missing."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    with get_client(sync_client=True) as client:
        try:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=LIMIT, type="process", base_job_template=template))
            print(f"created the work pool {LIMIT}", flush=True)
        except ObjectAlreadyExists:
            print(f"the work pool {LIMIT} exists", flush=True)
        try:
            limit = client.read_global_concurrency_limit_by_name(LIMIT)
            print(f"the concurrency limit {LIMIT} exists, with {limit.limit} slots", flush=True)
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=slots))
            print(f"created the concurrency limit {LIMIT}, with {slots} slots", flush=True)


def worker_command(checkout: Checkout) -> list[str]:
    """Return the command of a worker. Before that, put a run that was killed in the checkout back into the queue."""
    if name := requeue(checkout):
        print(f"{name} was killed; the worker resumes it", flush=True)
    return ["prefect", "worker", "start", "--pool", LIMIT, "--type", "process", "--name", socket.gethostname()]


def serve_all(root: Path, options: argparse.Namespace) -> None:
    """Run both servers on the address ``options.host`` of this machine and, unless it is to be a server only, a worker.

    Returns on Ctrl-C or SIGTERM. Raises VadError if a service cannot start or ends.
    """
    from tasks.tracking.client import is_database, wanted_uri

    checkout = Checkout(root)
    host, store = options.host, wanted_uri()
    _check_ports(host, {"prefect": options.prefect_port, "mlflow": options.mlflow_port})
    ours = is_database(store)
    mlflow = f"http://{host}:{options.mlflow_port}" if ours else store
    api = f"http://{host}:{options.prefect_port}/api"
    mine = {"PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": mlflow, "VAD_PROJECT": str(root)}
    services = Services(root, {**os.environ, **QUIET, **mine})

    def start_worker() -> None:
        services.start("worker", *worker_command(checkout))

    try:
        services.start("prefect", "prefect", "server", "start", "--host", host, "--port", str(options.prefect_port))
        if ours:
            words = ["--backend-store-uri", store, "--host", host, "--port", str(options.mlflow_port), "--workers", "1"]
            if host != LOOPBACK:  # MLflow answers only to the host names that it is given
                words += ["--allowed-hosts", f"{host}:{options.mlflow_port}"]
            services.start("mlflow", "mlflow", "server", *words)
        services.wait_for("prefect", f"{api}/health")
        os.environ.update({**QUIET, **mine})  # before the first import of prefect in this process
        setup(options.slots)
        if ours:
            services.wait_for("mlflow", f"{mlflow}/health")
        if options.what == "all":
            start_worker()
        print(f"\nPrefect: http://{host}:{options.prefect_port}   MLflow: {mlflow}\n\nIn other shells:", flush=True)
        print(f"export PREFECT_API_URL={api} MLFLOW_TRACKING_URI={mlflow}\n", flush=True)
        if host != LOOPBACK and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
            print(f"anyone who can reach {host} can run this project's code: use a trusted network\n", flush=True)
        services.watch({"worker": start_worker} if options.what == "all" else {}, options.proven_seconds)
    finally:
        services.stop()


def _check_ports(host: str, ports: Mapping[str, int]) -> None:
    for name, port in ports.items():
        with socket.socket() as probe:
            try:
                taken = probe.connect_ex((host, port)) == 0
            except OSError as error:
                raise VadError(f"--host {host}: {error.strerror or error}; give an address of this machine") from error
            if taken:
                raise VadError(f"port {port} of {host} is taken; choose another: --{name}-port")


def worker(root: Path) -> None:
    """Replace this process by a worker."""
    checkout = Checkout(root)
    if not os.environ.get("PREFECT_API_URL"):
        raise VadError("PREFECT_API_URL is not set: set it to the server's address, http://<host>:4200/api")
    os.environ.update({**QUIET, "VAD_PROJECT": str(root)})
    os.execv(sys.executable, [sys.executable, "-m", *worker_command(checkout)])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description="Schedules and shows pipeline runs.")
    add = parser.add_argument
    add("what", nargs="?", choices=("all", "server", "worker", "setup"), default="all")
    add("--host", default=LOOPBACK, help="address of this machine for other machines (%(default)s)")
    add("--prefect-port", type=int, default=4200)
    add("--mlflow-port", type=int, default=5000)
    add("--slots", type=int, default=1, help="size of a new limit: heavy stages on all machines (%(default)s)")
    said = "restart a worker that ends after this time; stop all services if it ends earlier (%(default)g)"
    add("--proven-seconds", type=float, default=PROVEN_SECONDS, help=said)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        if options.what == "setup":
            setup(options.slots)
        elif options.what == "worker":
            worker(Path.cwd())
        else:
            serve_all(Path.cwd(), options)
    except VadError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
