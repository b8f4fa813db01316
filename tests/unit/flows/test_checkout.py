"""A checkout: one pipeline run at a time, leftovers of a killed run, and repair of a broken dvc.lock."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows import recovery
from flows.recovery import Checkout, Refused
from tests.helpers.processes import running
from tests.helpers.project import LONG_ENOUGH, ROOT
from tests.helpers.waiting import pid_in, wait_until
from vadcore.utils.errors import VadError

HOLDER = """
import sys, time
from pathlib import Path
from flows.recovery import Checkout
with Checkout(Path.cwd()).hold("mauve-fox", "id-1") as left:
    checkout = Checkout(Path.cwd())
    checkout.note_leases(["lease-1", "lease-2"], held=True)
    checkout.note_leases(["lease-2"], held=False)
    Path("begun").write_text("1")
    time.sleep(600)
"""
WORKER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
RUN = """
import os, time
from pathlib import Path
from flows import process
from flows.recovery import Checkout
process.LOOK_SECONDS = 600
worker = os.getppid()
with Checkout(Path.cwd()).hold("mauve-fox", "id-1"), process.end_with_worker():
    stage = process.Process(["sh", "-c", "echo $$ > stage; exec sleep 600"], Path.cwd(), os.environ, whom="all")
    Path("begun").write_text(str(os.getpid()))
    while os.getppid() == worker:
        time.sleep(0.01)
    raise SystemExit("the console is gone")
Path("ended").touch()
"""


class TestHold:
    @pytest.fixture
    def holder(self, project):
        """A run in another process that holds the checkout."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=project, env=environment)
        pid_in(project / "begun")
        yield process
        process.kill()
        process.wait()

    def test_second_run_waits_for_the_first(self, project, holder, monkeypatch):
        with pytest.raises(Refused) as refused, Checkout(project).hold("second", "id-2"):
            pass
        assert all(text in str(refused.value) for text in ("mauve-fox", f"process {holder.pid} ", str(project)))
        assert Checkout(project).killed_run() is None

        monkeypatch.setattr(recovery, "POLL_SECONDS", 0.01)
        said = []
        with (
            pytest.raises(Refused),
            Checkout(project).hold("second", "id-2", wait_seconds=0.05, say=said.append),
        ):
            pass
        assert "mauve-fox" in said[0]

        def kill(text: str) -> None:
            holder.kill()
            holder.wait()

        with Checkout(project).hold("second", "id-2", wait_seconds=LONG_ENOUGH, say=kill) as left:
            assert left["flow_run"] == "id-1"

    def test_leftovers_of_a_killed_run(self, project, holder):
        holder.kill()
        holder.wait()
        checkout = Checkout(project)
        assert checkout.killed_run()["flow_run"] == "id-1"
        with checkout.hold("second", "id-2") as left:
            assert left["leases"] == ["lease-1"]
        assert checkout.killed_run() is None  # the second run ended normally

    def test_killed_worker_stops_its_run(self, project):
        """Stages print to the worker's console, so the first that prints may end before the next check."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT__FLOW_RUN_ID": "id-1"}
        worker = subprocess.Popen([sys.executable, "-c", WORKER, RUN], cwd=project, env=environment)
        numbers = pid_in(project / "begun"), pid_in(project / "stage")
        worker.kill()
        worker.wait()
        wait_until(lambda: not any(map(running, numbers)))
        assert not (project / "ended").exists()
        assert Checkout(project).killed_run()["flow_run"] == "id-1"

    def test_folder_without_a_pipeline(self, tmp_path):
        with pytest.raises(VadError, match=r"dvc\.yaml"):
            Checkout(tmp_path)

    def test_holder_file_disappears(self, project, monkeypatch):
        monkeypatch.setattr(Path, "exists", lambda path: True)  # as if it existed a moment ago
        checkout = Checkout(project)
        assert checkout.read_holder() is None
        checkout.note_leases(["lease-1"], held=True)
        assert list((project / ".dvc/tmp").iterdir()) == []

    def test_unpushed_stages_are_stored(self, project):
        checkout = Checkout(project)
        checkout.note_unpushed({"a", "b"}, pushed=False)
        checkout.note_unpushed({"a"}, pushed=True)
        assert Checkout(project).unpushed == ["b"]


STAGE = {"cmd": "true", "outs": [{"path": "x", "hash": "md5", "md5": "0" * 32, "size": 1}]}


class TestLockFile:
    """DVC writes dvc.lock in place, so a killed process can leave a truncated file."""

    @pytest.fixture
    def checkout(self, project) -> Checkout:
        lock = {"schema": "2.0", "stages": {name: {**STAGE} for name in ("one", "two", "three")}}
        (project / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
        checkout = Checkout(project)
        checkout.keep_lock_file()
        return checkout

    def test_intact_file_is_kept(self, checkout):
        assert checkout.mend_lock_file(killed=True) is None

    def test_truncated_file_is_restored(self, checkout):
        path = checkout.root / "dvc.lock"
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            assert "dvc.lock" in checkout.mend_lock_file(killed=True)
            assert path.read_bytes() == whole

    def test_truncation_after_a_changed_stage(self, checkout):
        """The truncated file differs from the copy in the stage that had just run."""
        path = checkout.root / "dvc.lock"
        whole = path.read_bytes()
        new = whole.replace(b"cmd: 'true'", b"cmd: 'false'", 1)
        second, third = new.index(b"  two:"), new.index(b"  three:")
        for length in range(second + 1, third):
            path.write_bytes(new[:length])
            assert checkout.mend_lock_file(killed=True), new[:length]
            assert path.read_bytes() == whole

    def test_manually_changed_file_is_kept(self, checkout):
        """For example, pulled after a model was removed and the report made again: intact, with fewer stages."""
        path = checkout.root / "dvc.lock"
        lock = yaml.safe_load(path.read_text())
        for gone, other in (("three", "two"), ("one", "two"), ("two", "three")):
            stages = {name: {**stage} for name, stage in lock["stages"].items() if name != gone}
            stages[other]["cmd"] = "false"
            path.write_text(yaml.safe_dump({**lock, "stages": stages}, sort_keys=False))
            theirs = path.read_bytes()
            assert checkout.mend_lock_file(killed=True) is None
            assert path.read_bytes() == theirs

    def test_older_file_is_kept_without_kill(self, checkout):
        """A person has checked out an older dvc.lock."""
        path = checkout.root / "dvc.lock"
        lock = yaml.safe_load(path.read_text())
        del lock["stages"]["three"]
        path.write_text(yaml.safe_dump(lock, sort_keys=False))
        assert checkout.mend_lock_file(killed=False) is None
        assert "three" not in path.read_text()

    def test_broken_file_is_never_copied(self, checkout):
        path = checkout.root / "dvc.lock"
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        checkout.keep_lock_file()
        checkout.mend_lock_file(killed=True)
        assert path.read_bytes() == whole

    def test_broken_file_without_a_copy(self, checkout):
        (checkout.root / ".dvc/tmp/vad-dvc.lock").unlink()
        (checkout.root / "dvc.lock").write_text("schema: [")
        with pytest.raises(VadError, match=r"git checkout dvc\.lock"):
            checkout.mend_lock_file(killed=False)

    def test_no_copy_while_dvc_writes(self, checkout, monkeypatch):
        import dvc.lock

        monkeypatch.setattr(dvc.lock, "DEFAULT_TIMEOUT", 0.05)  # how long it waits for a lock
        copy = checkout.root / ".dvc/tmp/vad-dvc.lock"
        copy.unlink()
        with dvc.lock.make_lock(str(checkout.root / ".dvc/tmp/lock")):
            checkout.keep_lock_file()
        assert not copy.exists()
        checkout.keep_lock_file()
        assert copy.exists()
