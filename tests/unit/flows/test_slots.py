"""Slots of the concurrency limit: shared by stages, released, and recorded in case of a kill."""

import threading
from contextlib import contextmanager

import pytest

from flows import stage
from flows.recovery import Checkout
from flows.stage import Slots
from vadcore.utils.errors import VadError


class Limit:
    """A fake of Prefect's ``concurrency``. taken: number of slots taken; error: raised instead."""

    def __init__(self, size: int):
        self.free, self.taken, self.error = threading.Semaphore(size), 0, None

    @contextmanager
    def __call__(self, name, occupy, timeout_seconds, **_):
        assert (name, occupy) == ("gpu", 1)
        if self.error:
            raise self.error
        if not self.free.acquire(timeout=timeout_seconds):
            raise TimeoutError
        self.taken += 1
        stage.ConcurrencyContext.get().cleanup_lease_ids.append(f"lease-{self.taken}")
        yield
        stage.ConcurrencyContext.get().cleanup_lease_ids.clear()
        self.free.release()


@pytest.fixture
def limit(monkeypatch) -> Limit:
    limit = Limit(1)
    monkeypatch.setattr(stage, "concurrency", limit)
    return limit


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def slots(project, stopping):
    """The slots of a run that holds the checkout."""
    checkout = Checkout(project)
    with checkout.hold("mauve-fox", "id-1"):
        slots = Slots(checkout, stopping)
        yield slots
        slots.release_idle()


def leases(project) -> list[str]:
    return Checkout(project).read_holder()["leases"]


def test_short_stages_share_a_slot(slots, limit, project):
    for _ in range(3):
        with slots.one() as held:
            assert held
            assert leases(project) == ["lease-1"]
    assert limit.taken == 1
    slots.release_idle()
    assert leases(project) == []
    with slots.one():
        assert limit.taken == 2


def test_slot_is_released_after_long_stage(slots, limit, project, monkeypatch):
    monkeypatch.setattr(stage, "KEEP_SECONDS", 0.0)
    with slots.one():
        pass
    assert leases(project) == []
    with slots.one():
        assert limit.taken == 2


def test_two_parallel_stages_need_two_slots(slots, project, monkeypatch):
    monkeypatch.setattr(stage, "concurrency", Limit(2))
    with slots.one(), slots.one():
        assert leases(project) == ["lease-1", "lease-2"]
    slots.release_idle()
    assert leases(project) == []


def test_stop_while_waiting(slots, limit, stopping, monkeypatch):
    monkeypatch.setattr(stage, "ASK_SECONDS", 0.01)
    limit.free.acquire()  # another run has the only slot
    threading.Timer(0.05, stopping.set).start()
    with slots.one() as held:
        assert not held
    limit.free.release()


def test_stopped_run_keeps_no_slot(slots, project, limit, stopping):
    with slots.one():
        stopping.set()
    assert leases(project) == []


def test_slot_released_by_another_thread(slots, project, limit):
    """A stage's thread takes the slot, the flow's thread releases it."""

    def stage_thread() -> None:
        with slots.one():
            assert leases(project) == ["lease-1"]

    thread = threading.Thread(target=stage_thread)
    thread.start()
    thread.join()
    slots.release_idle()
    assert leases(project) == []


def test_server_error(slots, limit):
    limit.error = RuntimeError("no such limit")
    with pytest.raises(VadError, match=r"gpu.*no such limit"), slots.one():
        pass
