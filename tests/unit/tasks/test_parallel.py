"""Per-clip work on several processes: what comes back, and that nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import pytest

from tasks import parallel
from tasks.parallel import per_clip
from tests.helpers.project import LONG_ENOUGH, ROOT
from vadcore.config import Machine
from vadcore.errors import VadError
from vadcore.provenance import cores


def square(number):
    return number**2, os.getpid()


def threads(number):
    import torch

    return cv2.getNumThreads(), torch.get_num_threads()


def refuse_odd(number):
    if number % 2:
        raise VadError(f"{number} is odd")
    return number


def fail_at_zero_else_sleep(number):
    if number == 0:
        raise ZeroDivisionError("at zero")
    time.sleep(300)


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def write_pid_and_sleep(folder, number):
    (Path(folder) / str(number)).write_text(str(os.getpid()))
    time.sleep(300)


def results(function, count, **machine):
    return dict(per_clip(function, [(n,) for n in range(count)], Machine(**machine), "test"))


def wait_for(condition, seconds=LONG_ENOUGH):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.05)


def running(pid):
    """Whether the process is there and more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_every_call_gives_its_result(workers):
    done = results(square, 7, workers=workers)
    assert {call: value for call, (value, _) in done.items()} == {(n,): n**2 for n in range(7)}
    elsewhere = {pid for _, pid in done.values()} - {os.getpid()}
    assert bool(elsewhere) == (workers > 1)


def test_workers_share_the_cores():
    share = max(1, cores() // 2)
    assert set(results(threads, 2, workers=2).values()) == {(share, share)}


def test_no_call_at_all_gives_nothing():
    assert results(square, 0, workers=2) == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_wrong_with_one_clip_does_not_stop_the_others(workers):
    done = results(refuse_odd, 4, workers=workers)
    assert (done[(0,)], done[(2,)]) == (0, 2)
    assert [str(done[(n,)]) for n in (1, 3)] == ["1 is odd", "3 is odd"]
    assert all(isinstance(done[(n,)], VadError) for n in (1, 3))


def test_an_unforeseen_error_is_raised_and_ends_the_other_workers():
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError, match="at zero"):
        results(fail_at_zero_else_sleep, 4, workers=2)
    assert time.monotonic() - started < 60  # the others would sleep for minutes


def test_a_killed_worker_is_told_of_with_the_remedy():
    with pytest.raises(VadError, match=r"one of 2 worker processes was killed.*set machine\.workers lower"):
        results(die, 4, workers=2)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    code = (
        "from tests.unit.tasks.test_parallel import *\n"
        "if __name__ == '__main__':\n"
        f"    calls = [({str(tmp_path)!r}, n) for n in range(2)]\n"
        "    list(per_clip(write_pid_and_sleep, calls, Machine(workers=2), 'test'))\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.DEVNULL)
    pids = [tmp_path / str(n) for n in range(2)]
    wait_for(lambda: parent.poll() is not None or all(path.exists() and path.read_text() for path in pids))
    assert parent.poll() is None
    workers = [int(path.read_text()) for path in pids]
    assert all(running(pid) for pid in workers)
    parent.send_signal(how)
    assert parent.wait(LONG_ENOUGH) != 0
    wait_for(lambda: not any(running(pid) for pid in workers))


def test_a_dask_scheduler_given_by_address_does_the_work():
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        done = results(refuse_odd, 3, scheduler=cluster.scheduler_address)
    assert (done[(0,)], done[(2,)], str(done[(1,)])) == (0, 2, "1 is odd")


def test_a_scheduler_that_does_not_answer_is_named():
    with pytest.raises(VadError, match=r"machine\.scheduler: no answer from tcp://127\.0\.0\.1:9 .*or set null"):
        results(square, 1, scheduler="tcp://127.0.0.1:9")


def test_a_scheduler_without_a_worker_is_told_of_and_one_is_waited_for(monkeypatch, capsys):
    from distributed import LocalCluster

    monkeypatch.setattr(parallel, "LOOK_SECONDS", 0.1)
    with LocalCluster(n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        said = []

        def start_a_worker_once_it_is_asked_for():
            wait_for(lambda: said.append(capsys.readouterr().out) or "waiting" in "".join(said))
            cluster.scale(1)

        helper = threading.Thread(target=start_a_worker_once_it_is_asked_for)
        helper.start()
        done = results(refuse_odd, 2, scheduler=cluster.scheduler_address)
        helper.join()
        address = cluster.scheduler_address
    assert done[(0,)] == 0
    assert "".join(said).count(f"no worker is connected to {address}; waiting\n") == 1


def test_a_scheduler_that_is_killed_is_told_of_with_the_remedy(tmp_path):
    file = tmp_path / "scheduler.json"
    shared = ("--no-dashboard", "--scheduler-file", file)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = (
        ("scheduler", "--host", "127.0.0.1", "--port", "0", *shared),
        ("worker", "--nthreads", "1", "--no-nanny", *shared),
    )
    with (tmp_path / "log").open("w") as log:
        scheduler, worker = (
            subprocess.Popen([sys.executable, "-m", "dask", *words], env=environment, stdout=log, stderr=log)
            for words in commands
        )
    try:
        wait_for(file.exists)
        address = json.loads(file.read_text())["address"]
        done = per_clip(time.sleep, [(0.1,), (300,)], Machine(scheduler=address), "test")
        assert next(done) == ((0.1,), None)
        scheduler.kill()
        line = (
            rf"^machine\.scheduler: the connection to {address} was lost; start it and the command again, or set null$"
        )
        with pytest.raises(VadError, match=line):
            next(done)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()


def test_a_call_that_ends_workers_is_told_of_with_the_remedy():
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        pytest.raises(VadError, match=r"one call has ended several workers of .* give each worker more"),
    ):
        results(die, 1, scheduler=cluster.scheduler_address)
