"""Child processes: end with their starter, exit codes, time limits and output."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows import guard
from flows.process import Process
from tests.helpers.processes import running
from tests.helpers.project import LONG_ENOUGH, ROOT
from tests.helpers.waiting import pid_in, wait_until

# waits, stops at Ctrl-C if it `heeds` it, and says so
CHILD = """
import os, signal, sys, time
from pathlib import Path
if sys.argv[1] != "heeds":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
try:
    Path("begun").write_text(str(os.getpid()))
    time.sleep(600)
except KeyboardInterrupt:
    Path("interrupted").touch()
    print("stopped", flush=True)
    sys.exit(130)
"""
STARTER = """
import os, sys
from pathlib import Path
from flows.process import Process
process = Process(["sh", "-c", f"{sys.executable} child.py heeds; exit $?"], Path.cwd(), os.environ)
list(process.lines())
"""


@pytest.fixture
def child(tmp_path) -> Path:
    (tmp_path / "child.py").write_text(CHILD)
    return tmp_path


class TestProcess:
    def test_lines_and_exit_code(self, tmp_path):
        process = Process(["sh", "-c", "echo one; echo two >&2; exit 3"], tmp_path, os.environ)
        assert list(process.lines()) == ["one", "two"]
        assert process.wait() == 3

    def test_exit_code_of_a_signal(self, tmp_path):
        process = Process(["sh", "-c", "kill -KILL $$"], tmp_path, os.environ)
        assert list(process.lines()) == []
        assert process.wait() == 128 + signal.SIGKILL

    def test_nice(self, tmp_path):
        process = Process(["nice"], tmp_path, os.environ, nice=7)
        assert list(process.lines()) == [str(min(19, os.nice(0) + 7))]

    def test_time_limit(self, child, monkeypatch):
        monkeypatch.setattr(guard, "GRACE_SECONDS", 0.1)
        process = Process([sys.executable, "child.py", "deaf"], child, os.environ, seconds=0.0)
        list(process.lines())
        assert process.overdue
        assert process.wait() > 128

    def test_no_time_limit_after_the_end(self, tmp_path):
        process = Process(["true"], tmp_path, os.environ, seconds=LONG_ENOUGH)
        assert list(process.lines()) == []
        assert process.wait() == 0
        process.expire()
        assert not process.overdue

    def test_states_of_a_progress_bar_are_lines(self, tmp_path):
        process = Process(["printf", r"one\n\r 1%%\r 2%%\n\n  three\ncaf\351"], tmp_path, os.environ)
        assert list(process.lines()) == ["one", " 1%", " 2%", "  three", "caf\ufffd"]

    def test_background_process_ends_with_the_command(self, tmp_path):
        process = Process(["sh", "-c", "sleep 6000 & echo $!"], tmp_path, os.environ)
        (number,) = map(int, process.lines())
        assert process.wait() == 0
        wait_until(lambda: not running(number))


class TestGuard:
    def test_child_stops_with_killed_starter(self, child):
        """The child first gets SIGINT, as from Ctrl-C: a training closes its MLflow run and reports where it resumes."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        starter = subprocess.Popen([sys.executable, "-c", STARTER], cwd=child, env=environment)
        number = pid_in(child / "begun")
        starter.send_signal(signal.SIGKILL)
        starter.wait()
        wait_until(lambda: not running(number))
        assert (child / "interrupted").exists()

    def test_child_that_ignores_sigint_is_killed(self, child):
        command = ["sh", "-c", f"{sys.executable} child.py deaf; exit $?"]
        words = [sys.executable, "-P", guard.__file__, "0", "below", "0.1", *command]
        starter = subprocess.Popen(words, cwd=child, stdin=subprocess.PIPE)
        number = pid_in(child / "begun")
        starter.stdin.close()
        assert starter.wait(LONG_ENOUGH) == 128 + signal.SIGKILL
        wait_until(lambda: not running(number))

    def test_below_mode_does_not_interrupt_command(self, tmp_path):
        """`dvc repro` writes dvc.lock in place: it may finish writing, but starts no further long command."""
        program = (
            "import time, pathlib\n"
            "try:\n    pathlib.Path('begun').write_text('1'); time.sleep(0.5)\n"
            "except KeyboardInterrupt:\n    pathlib.Path('interrupted').touch()\n"
            "pathlib.Path('written').touch()"
        )
        process = Process([sys.executable, "-c", program], tmp_path, os.environ)
        pid_in(tmp_path / "begun")
        process.stop()
        assert process.wait(LONG_ENOUGH) == 0
        assert (tmp_path / "written").exists()
        assert not (tmp_path / "interrupted").exists()

    def test_grace_is_shorter_than_the_workers(self):
        assert guard.GRACE_SECONDS < 30  # after which Prefect kills a cancelled flow
