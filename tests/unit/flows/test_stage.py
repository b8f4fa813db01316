"""The DVC commands of a pipeline run: their log and how they stop."""

import logging
import threading

import pytest

from flows import stage
from flows.graph import Node
from flows.recovery import Checkout
from flows.stage import Work, kind_of
from tests.helpers.fake_dvc import FakeDvc
from tests.helpers.project import LONG_ENOUGH

LOG = logging.getLogger("test")


@pytest.fixture
def dvc() -> FakeDvc:
    return FakeDvc()


@pytest.fixture
def work(project, dvc) -> Work:
    return Work(Checkout(project), {}, start=dvc.start)


def test_stop_ends_all_commands(work, dvc):
    dvc.change(a="wait")
    done = []
    thread = threading.Thread(target=lambda: done.append(work.dvc("repro", "prepare@a", log=LOG)))
    thread.start()
    dvc.wait_for("prepare@a")
    work.stop()
    thread.join(LONG_ENOUGH)
    assert done[0].code == 255
    assert work.dvc("repro", "prepare@b", log=LOG).code == 130
    assert dvc.ran() == ["prepare@a"]


def test_stopped_stage_is_cancelled(work, dvc, monkeypatch):
    monkeypatch.setattr(stage, "get_run_logger", lambda: LOG)
    dvc.change(a="wait")
    states = []
    node = Node("prepare@a", "prepare")
    thread = threading.Thread(target=lambda: states.append(stage.run_stage(node, kind_of("prepare"), work)))
    thread.start()
    dvc.wait_for("prepare@a")
    work.stop()
    thread.join(LONG_ENOUGH)
    assert states[0].name == "Cancelled"


def test_reader_error_stops_the_process(work, dvc):
    class Full(logging.Logger):
        def info(self, *_):
            raise OSError("disk is full")

    started = []
    work.start = lambda *words, **settings: started.append(dvc.start(*words, **settings)) or started[-1]
    with pytest.raises(OSError, match="disk is full"):
        work.dvc("repro", "prepare@a", log=Full("full"))
    assert started[0].stopped.is_set()


def test_broken_lock_file_is_restored(work, dvc, project, monkeypatch, caplog):
    monkeypatch.setattr(stage, "get_run_logger", lambda: LOG)
    lock = project / "dvc.lock"
    whole = "schema: '2.0'\nstages:\n  prepare@a:\n    cmd: work\n"
    lock.write_text(whole)
    work.checkout.keep_lock_file()
    dvc.change(a="kill")
    lock.write_text(whole[:20])
    state = stage.run_stage(Node("prepare@a", "prepare"), kind_of("prepare"), work)
    assert state.name == "BrokeOff"
    assert lock.read_text() == whole
    assert "dvc.lock" in caplog.text
