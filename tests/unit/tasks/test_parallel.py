"""Per-clip work: results and errors of calls, in this process and in two workers."""

import os
import socket

import pytest

from tasks import parallel
from tasks.parallel import per_clip
from tests.helpers.worker_calls import refuse_odd, set_threads, square
from vadcore.config import Machine
from vadcore.utils.errors import VadError


def results(function, count, **machine):
    return dict(per_clip(function, [(n,) for n in range(count)], Machine(**machine), "test"))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_call_gives_its_result(workers):
    done = results(square, 7, workers=workers)
    assert {call: value for call, (value, _) in done.items()} == {(n,): n**2 for n in range(7)}
    elsewhere = {pid for _, pid in done.values()} - {os.getpid()}
    assert bool(elsewhere) == (workers > 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_error_does_not_stop_other_clips(workers):
    done = results(refuse_odd, 4, workers=workers)
    assert (done[(0,)], done[(2,)]) == (0, 2)
    assert [str(done[(n,)]) for n in (1, 3)] == ["1 is odd", "3 is odd"]
    assert all(isinstance(done[(n,)], VadError) for n in (1, 3))


def test_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 6)
    assert set(results(set_threads, 2, workers=2).values()) == {(3, "3", False)}


def test_no_calls():
    assert results(square, 0, workers=2) == {}


def test_scheduler_does_not_answer(monkeypatch):
    monkeypatch.setattr(parallel, "ANSWER_SECONDS", 0.1)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # bound, but not listening
        address = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(VadError, match=rf"machine\.scheduler: no answer from {address} .*null"):
            results(square, 1, scheduler=address)
