"""Per-clip work on processes and on a dask cluster, also when some of them die."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tasks import parallel
from tasks.parallel import per_clip
from tests.helpers.processes import running, scheduler_address
from tests.helpers.project import LONG_ENOUGH, ROOT
from tests.helpers.waiting import wait_until
from tests.helpers.worker_calls import FOREVER, die, fail_beside_sleeper, refuse_odd, threads
from vadcore.config import Machine
from vadcore.utils.errors import VadError

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",  # worker failures per call
}


def results(function, count, **machine):
    return dict(per_clip(function, [(n,) for n in range(count)], Machine(**machine), "test"))


def pid_in(path: Path) -> int:
    return int(path.read_text())


def test_error_stops_other_workers(tmp_path):
    calls = [(str(tmp_path), number) for number in range(2)]
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError, match="at zero"):
        list(per_clip(fail_beside_sleeper, calls, Machine(workers=2), "test"))
    assert time.monotonic() - started < FOREVER
    wait_until(lambda: not running(pid_in(tmp_path / "1")))


def test_killed_worker_error_names_setting():
    with pytest.raises(VadError, match=r"killed.*machine\.workers"):
        results(die, 2, workers=2)


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 6)
    monkeypatch.setenv("MKL_DYNAMIC", "FALSE")  # else torch uses at most one thread per core
    assert set(results(threads, 2, workers=2).values()) == {(3, 3)}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, how):
    words = [sys.executable, "-m", "tests.helpers.worker_calls", tmp_path]
    parent = subprocess.Popen(words, env=ENVIRONMENT, cwd=ROOT, stderr=subprocess.DEVNULL)
    files = [tmp_path / str(number) for number in range(2)]
    wait_until(lambda: parent.poll() is not None or all(file.exists() for file in files))
    assert parent.poll() is None
    workers = [pid_in(file) for file in files]
    assert all(running(pid) for pid in workers)
    parent.send_signal(how)
    assert parent.wait(LONG_ENOUGH) != 0
    wait_until(lambda: not any(running(pid) for pid in workers))


class Cluster:
    """A dask scheduler and its workers, as processes."""

    def __init__(self, folder: Path):
        self.folder, self.processes = folder, []
        self.file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        wait_until(lambda: scheduler_address(self.file) or self.scheduler.poll() is not None)
        assert self.scheduler.poll() is None, (folder / "log").read_text()
        self.address = scheduler_address(self.file)

    def _start(self, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", *words, "--no-dashboard", "--scheduler-file", self.file]
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(command, env=ENVIRONMENT, cwd=self.folder, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def start_worker(self) -> None:
        self._start("worker", "--nthreads", "1", "--no-nanny")

    def close(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    started = Cluster(tmp_path)
    yield started
    started.close()


def test_dask_cluster_waits_and_reports_failures(cluster, monkeypatch, capsys):
    """Work starts with the first worker. A call that kills its worker and a killed scheduler are reported."""
    monkeypatch.setattr(parallel, "LOOK_SECONDS", 0.05)
    said = []

    def start_worker_when_missed():
        wait_until(lambda: said.append(capsys.readouterr().out) or "waiting" in "".join(said))
        cluster.start_worker()

    helper = threading.Thread(target=start_worker_when_missed)
    helper.start()
    done = results(refuse_odd, 3, scheduler=cluster.address)
    helper.join()
    assert (done[(0,)], done[(2,)], str(done[(1,)])) == (0, 2, "1 is odd")
    (line,) = [line for line in "".join(said).splitlines() if "waiting" in line]
    assert cluster.address in line

    with pytest.raises(VadError, match=rf"machine\.scheduler: .*{cluster.address}.*memory"):
        results(die, 1, scheduler=cluster.address)

    cluster.start_worker()
    calls = per_clip(time.sleep, [(0.01,), (FOREVER,)], Machine(scheduler=cluster.address), "test")
    assert next(calls) == ((0.01,), None)
    cluster.scheduler.kill()
    with pytest.raises(VadError, match=rf"machine\.scheduler: .*{cluster.address} was lost.*null"):
        next(calls)
