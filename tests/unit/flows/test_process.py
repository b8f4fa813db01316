"""Processes that end with who started them, and a checkout in which one pipeline run is at work at a time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from flows import guard
from flows.checkout import Checkout, Refused
from flows.process import Process, thinned
from tests.helpers.flow_project import wait_until
from tests.helpers.project import ROOT
from vadcore.errors import VadError

# says that it has begun, is stopped by Ctrl-C if it `heeds` it, and says so
CHILD = """
import signal, sys, time
from pathlib import Path
if sys.argv[1] != "heeds":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
Path("begun").write_text(str(__import__("os").getpid()))
try:
    time.sleep(60)
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


def pid_in(file: Path) -> int:
    wait_until(lambda: file.exists() and file.read_text())
    return int(file.read_text())


@pytest.fixture
def child(tmp_path) -> Path:
    (tmp_path / "child.py").write_text(CHILD)
    return tmp_path


class TestAProcess:
    def test_its_lines_and_its_exit_code_are_passed_on(self, tmp_path):
        process = Process(["sh", "-c", "echo one; echo two >&2; exit 3"], tmp_path, os.environ)
        assert list(process.lines()) == ["one", "two"]
        assert process.wait() == 3

    def test_a_signal_that_ends_it_shows_in_the_exit_code(self, tmp_path):
        process = Process(["sh", "-c", "kill -KILL $$"], tmp_path, os.environ)
        assert list(process.lines()) == []
        assert process.wait() == 128 + signal.SIGKILL

    def test_it_is_as_nice_as_asked(self, tmp_path):
        process = Process([sys.executable, "-c", "import os; print(os.nice(0))"], tmp_path, os.environ, nice=7)
        assert list(process.lines()) == [str(os.nice(0) + 7)]

    def test_at_its_time_limit_it_is_asked_to_stop(self, child):
        command = ["sh", "-c", f"{sys.executable} child.py heeds; exit $?"]
        process = Process(command, child, os.environ, seconds=1.5)
        assert list(process.lines()) == ["stopped"]
        assert process.overdue
        assert process.wait() == 130

    def test_what_it_leaves_behind_does_not_keep_its_reader_waiting(self, tmp_path):
        started = time.monotonic()
        process = Process(["sh", "-c", "sleep 30 & echo done"], tmp_path, os.environ)
        assert list(process.lines()) == ["done"]
        assert time.monotonic() - started < 10


class TestItEndsWithItsStarter:
    def test_a_starter_killed_with_9(self, child):
        """The child is asked first, as Ctrl-C would ask: a training closes its MLflow run, and says where it goes on."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        starter = subprocess.Popen([sys.executable, "-c", STARTER], cwd=child, env=environment)
        number = pid_in(child / "begun")
        starter.send_signal(signal.SIGKILL)
        starter.wait()
        wait_until(lambda: not psutil.pid_exists(number))
        assert (child / "interrupted").exists()

    def test_one_that_does_not_heed_is_killed(self, child):
        patience = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from flows import guard; guard.GRACE_SECONDS = 0.5"
        command = ["sh", "-c", f"{sys.executable} child.py deaf; exit $?"]
        run = f"{patience}; sys.exit(guard.run(0, 'below', {command}))"
        starter = subprocess.Popen([sys.executable, "-c", run], cwd=child, stdin=subprocess.PIPE)
        number = pid_in(child / "begun")
        starter.stdin.close()
        assert starter.wait(60) == 128 + signal.SIGKILL
        wait_until(lambda: not psutil.pid_exists(number))

    def test_the_command_itself_is_not_asked(self, tmp_path):
        """`dvc repro` writes dvc.lock in place: it may finish that, and starts nothing more that lasts."""
        program = (
            "import time, pathlib\n"
            "pathlib.Path('begun').write_text('1')\n"
            "try:\n    time.sleep(1.5)\n"
            "except KeyboardInterrupt:\n    pathlib.Path('interrupted').touch()\n"
            "pathlib.Path('written').touch()"
        )
        process = Process([sys.executable, "-c", program], tmp_path, os.environ)
        pid_in(tmp_path / "begun")
        process.stop()
        assert process.wait(60) == 0
        assert (tmp_path / "written").exists()
        assert not (tmp_path / "interrupted").exists()

    def test_the_guard_has_the_time_that_a_worker_gives_a_cancelled_flow(self):
        assert guard.GRACE_SECONDS < 30  # Prefect's, after which it kills the flow


class TestOutput:
    def test_lines_are_lines(self):
        assert list(thinned(iter([b"one\ntw", b"o\r\n\n  three\nfour"]))) == ["one", "two", "  three", "four"]

    def test_a_progress_bar_shows_its_first_state_and_its_last(self):
        states = [b"\r%3d%%" % number for number in range(0, 101, 10)]
        assert list(thinned(iter([*states, b"\nafter\n"]))) == ["  0%", "100%", "after"]

    def test_a_state_is_shown_while_it_stands(self, monkeypatch):
        clock = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        seen = thinned(iter([b"\r 1%", b"\r 2%", b"\r 3%"]))
        assert next(seen) == " 1%"
        clock[0] = 11.0
        assert next(seen) == " 2%"  # as it arrives, not when the next one overwrites it

    def test_what_is_not_utf_8_does_not_end_it(self):
        assert list(thinned(iter([b"caf\xe9\n"]))) == ["caf\ufffd"]


HOLDER = """
import sys, time
from pathlib import Path
from flows.checkout import Checkout
with Checkout(Path.cwd()).hold("mauve-fox", "id-1") as left:
    checkout = Checkout(Path.cwd())
    checkout.note_leases(["lease-1", "lease-2"], held=True)
    checkout.note_leases(["lease-2"], held=False)
    Path("begun").write_text("1")
    time.sleep(60)
"""


WORKER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
RUN = """
import logging, os, time
from pathlib import Path
from flows import orphan
from flows.checkout import Checkout
orphan.get_run_logger = logging.getLogger
orphan.LOOK_SECONDS = 600
class Work:
    def stop(self):
        Path("stopped").touch()
worker = os.getppid()
with Checkout(Path.cwd()).hold("mauve-fox", "id-1"), orphan.end_with_parent(Work()):
    Path("begun").write_text(str(os.getpid()))
    while os.getppid() == worker:
        time.sleep(0.01)
    raise SystemExit("the console is gone")
Path("ended").touch()
"""


class TestTheCheckout:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        (tmp_path / "dvc.yaml").write_text("stages: {}\n")
        (tmp_path / ".dvc/tmp").mkdir(parents=True)
        return tmp_path

    @pytest.fixture
    def holder(self, root):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=root, env=environment)
        pid_in(root / "begun")
        yield process
        process.kill()
        process.wait()

    def test_a_second_run_is_refused_and_told_who_is_at_work(self, root, holder):
        line = (
            rf"^refused: pipeline run mauve-fox \(process {holder.pid} on .*, since .*\) is at work in .*; wait for it"
        )
        with pytest.raises(Refused, match=line), Checkout(root).hold("second", "id-2"):
            pass
        assert Checkout(root).cut_off() is None

    def test_a_second_run_may_wait(self, root, holder):
        said = []
        with (
            pytest.raises(Refused),
            Checkout(root).hold("second", "id-2", wait_seconds=1.5, say=said.append),
        ):
            pass
        assert "mauve-fox" in said[0]
        holder.kill()
        with Checkout(root).hold("second", "id-2", wait_seconds=20, say=said.append):
            pass

    def test_a_run_that_fails_because_its_worker_is_gone_is_left_as_a_killed_one(self, root):
        """Its stages print to the worker's console: the first of them that does may end before the next look."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT__FLOW_RUN_ID": "id-1"}
        worker = subprocess.Popen([sys.executable, "-c", WORKER, RUN], cwd=root, env=environment)
        number = pid_in(root / "begun")
        worker.kill()
        worker.wait()
        wait_until(lambda: not psutil.pid_exists(number))
        assert (root / "stopped").exists()
        assert not (root / "ended").exists()
        assert Checkout(root).cut_off()["flow_run"] == "id-1"

    def test_of_a_killed_run_is_known_what_it_held(self, root, holder):
        holder.kill()
        holder.wait()
        checkout = Checkout(root)
        assert checkout.cut_off()["flow_run"] == "id-1"
        with checkout.hold("second", "id-2") as left:
            assert left["leases"] == ["lease-1"]
        assert checkout.cut_off() is None  # the second one has ended well

    def test_a_folder_without_a_pipeline_is_one_line(self, tmp_path):
        with pytest.raises(VadError, match=r"no dvc\.yaml and \.dvc here; run this in the project's folder"):
            Checkout(tmp_path)

    def test_a_holder_that_lets_go_while_one_looks_is_nobody(self, root, monkeypatch):
        monkeypatch.setattr(Path, "exists", lambda path: True)  # it was there a moment ago
        checkout = Checkout(root)
        assert checkout.left_behind() is None
        checkout.note_leases(["lease-1"], held=True)
        assert list((root / ".dvc/tmp").iterdir()) == []

    def test_stages_that_the_remote_may_lack_are_remembered(self, root):
        checkout = Checkout(root)
        checkout.note_unpushed({"a", "b"}, pushed=False)
        checkout.note_unpushed({"a"}, pushed=True)
        assert Checkout(root).unpushed == ["b"]


STAGE = {"cmd": "true", "outs": [{"path": "x", "hash": "md5", "md5": "0" * 32, "size": 1}]}


class TestTheLockFile:
    """DVC writes dvc.lock in place: a process killed then leaves the first part of it."""

    @pytest.fixture
    def checkout(self, tmp_path) -> Checkout:
        (tmp_path / "dvc.yaml").write_text("stages: {}\n")
        (tmp_path / ".dvc/tmp").mkdir(parents=True)
        lock = {"schema": "2.0", "stages": {name: {**STAGE} for name in ("one", "two", "three")}}
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
        checkout = Checkout(tmp_path)
        checkout.keep_lock_file()
        return checkout

    def test_a_whole_one_is_left_alone(self, checkout):
        assert checkout.mend_lock_file(killed=True) is None

    def test_cut_anywhere_it_is_put_back(self, checkout):
        path = checkout.root / "dvc.lock"
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            mended = checkout.mend_lock_file(killed=True)
            assert (
                mended == "dvc.lock was broken by a process that was killed; put back as it was after the stage before"
            )
            assert path.read_bytes() == whole

    def test_cut_after_a_stage_that_had_changed_it_is_put_back_too(self, checkout):
        """What was being written differs from the copy in the stage that had just run."""
        path = checkout.root / "dvc.lock"
        whole = path.read_bytes()
        new = whole.replace(b"cmd: 'true'", b"cmd: 'false'", 1)
        second, third = new.index(b"  two:"), new.index(b"  three:")
        for length in range(second + 1, third):
            path.write_bytes(new[:length])
            assert checkout.mend_lock_file(killed=True), new[:length]
            assert path.read_bytes() == whole

    def test_a_persons_own_stays_though_a_run_was_killed(self, checkout):
        """Say, pulled from where a model was taken out and the report made anew: whole, with fewer stages."""
        path = checkout.root / "dvc.lock"
        lock = yaml.safe_load(path.read_text())
        for gone, other in (("three", "two"), ("one", "two"), ("two", "three")):
            stages = {name: {**stage} for name, stage in lock["stages"].items() if name != gone}
            stages[other]["cmd"] = "false"
            path.write_text(yaml.safe_dump({**lock, "stages": stages}, sort_keys=False))
            theirs = path.read_bytes()
            assert checkout.mend_lock_file(killed=True) is None
            assert path.read_bytes() == theirs

    def test_fewer_stages_are_no_break_where_nothing_was_killed(self, checkout):
        """A person has checked out an older dvc.lock."""
        path = checkout.root / "dvc.lock"
        lock = yaml.safe_load(path.read_text())
        del lock["stages"]["three"]
        path.write_text(yaml.safe_dump(lock, sort_keys=False))
        assert checkout.mend_lock_file(killed=False) is None
        assert "three" not in path.read_text()

    def test_a_broken_one_is_never_kept(self, checkout):
        path = checkout.root / "dvc.lock"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        checkout.keep_lock_file()
        checkout.mend_lock_file(killed=True)
        assert path.read_bytes() == whole

    def test_without_a_copy_the_line_says_what_to_do(self, checkout):
        (checkout.root / ".dvc/tmp/vad-dvc.lock").unlink()
        (checkout.root / "dvc.lock").write_text("schema: [")
        with pytest.raises(VadError, match=r"bring it back with: git checkout dvc\.lock"):
            checkout.mend_lock_file(killed=False)

    def test_it_is_only_read_while_no_dvc_process_writes(self, checkout):
        from dvc.lock import make_lock

        copy = checkout.root / ".dvc/tmp/vad-dvc.lock"
        copy.unlink()
        with make_lock(str(checkout.root / ".dvc/tmp/lock")):
            checkout.keep_lock_file()
        assert not copy.exists()
        checkout.keep_lock_file()
        assert copy.exists()
