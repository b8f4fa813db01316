"""A command of the project, run by a flow: its exit code, output, priority, threads and time limit."""

import logging
import os
import signal

import pytest

from flows.process import Ended, run_command
from flows.stage import NICE

BARS = [
    "v.avi: 0frame [00:00, ?frame/s]",
    "v.avi: 120frame [01:02, 1.94frame/s]",
    "detect:  50%|█████     | 3/6 [00:12<00:12,  4.1s/clip]",
    "100%|██████████| 2/2 [00:00<00:00, 5.12it/s, loss=0.1]",
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a few lines of Python as a flow runs a command of the project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prefect.logging.get_run_logger", lambda: logging.getLogger("test"))

    def run(*lines: str, **settings) -> Ended:
        (tmp_path / "work.py").write_text("\n".join(["import os, signal, sys, time", *lines]))
        return run_command("work", **settings)

    return run


def test_killed_command(run):
    done = run(f"print({BARS[0]!r}, flush=True)", "os.kill(os.getpid(), signal.SIGKILL)")
    assert (done.code, done.lines) == (128 + signal.SIGKILL, [BARS[0]])
    assert "killed" in done.reason
    assert "137" in done.reason
    assert BARS[0] not in done.reason


@pytest.mark.parametrize("bar", BARS)
def test_reason_skips_progress_bars(bar):
    assert Ended(1, ["ValueError: at [3]", bar], False).reason == "ValueError: at [3] (exit code 1)"
    assert bar not in Ended(1, [bar], False).reason


def test_reason_is_the_stated_error():
    assert Ended(1, ["error: a.yaml: no good", "more"], False).reason == "a.yaml: no good"


def test_priority_and_threads(run, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    show = "print(os.nice(0), os.environ['OMP_NUM_THREADS'])"
    assert run(show, nice=NICE, threads=3).lines == [f"{min(19, os.nice(0) + NICE)} 3"]
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # the user's setting is kept
    assert run(show, threads=3).lines == [f"{os.nice(0)} 7"]


def test_time_limit(run):
    done = run("time.sleep(600)", seconds=0.1)
    assert done.overdue
    assert done.code
