import fcntl
import threading
from itertools import count
from pathlib import Path

import pytest
import torch

from tests.helpers.waiting import wait_until
from vadcore.utils import turns
from vadcore.utils.provenance import cores
from vadcore.utils.turns import Turn, take_turns


@pytest.fixture
def place(tmp_path):
    return tmp_path / "turns"


def is_free(path) -> bool:
    with Path(path).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_turns_alternate(place):
    now, order = [0.0], []
    first, second = (Turn(place, clock=lambda: now[0]) for _ in range(2))
    first.take()
    first.take()  # the same turn

    def compute():
        second.take()
        order.append("second")
        second.close()

    other = threading.Thread(target=compute)
    other.start()
    wait_until(lambda: not is_free(f"{place}.next"))  # the second one waits
    now[0] = 2.0
    first.take()
    order.append("first")
    other.join()
    assert order == ["second", "first"]
    first.close()


def test_stopped_process_is_not_waited_for(place):
    stopped = Turn(place)
    stopped.take()
    seconds = count(step=3)
    other = Turn(place, clock=lambda: next(seconds))
    other.take()
    waited = next(seconds)
    other.take()  # goes on without a lock for a while
    assert next(seconds) - waited <= 9
    assert not is_free(f"{place}.now")


def test_only_all_core_processes_alternate(tmp_path, monkeypatch):
    monkeypatch.setattr(turns.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores() // 2)
    assert list(take_turns(range(3), "cpu")) == [0, 1, 2]
    monkeypatch.setattr(torch, "get_num_threads", cores)
    assert list(take_turns(range(3), "cuda")) == [0, 1, 2]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert list(take_turns(range(3), "cpu")) == [0, 1, 2]
    assert not list(tmp_path.iterdir())


def test_lock_is_held_during_the_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(turns.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(torch, "get_num_threads", cores)

    def loop():
        for item in take_turns(range(3), "cpu"):
            (file,) = tmp_path.glob("*.now")
            assert not is_free(file)
            if item == 1:
                raise KeyError

    with pytest.raises(KeyError):
        loop()
    (file,) = tmp_path.glob("*.now")
    assert is_free(file)
