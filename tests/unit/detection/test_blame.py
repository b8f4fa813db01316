"""Videos that cannot be scored: which are retried, which are set aside, and when the run ends."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers.inbox_worker import assert_each_scored_once, fill, finish, score, work_off_inbox
from vadcore.detection.blame import MOST_FAULTS, MOST_IN_A_ROW
from vadcore.detection.inbox import DONE, FAILED, MOST_DEATHS, WORK, Inbox, work_off
from vadcore.utils.errors import VadError


def failing(*keys: str, error: Exception):
    """Scoring that fails for the videos of these keys."""

    def scoring(claim):
        if claim.key in keys:
            raise error
        score(claim)

    return scoring


def run(folder: Path, out: Path, scoring) -> list[tuple[str, str | None]]:
    """The results of one run over the inbox until it ends, with or without an error."""
    told = []
    with suppress(Exception):
        told.extend(work_off(Inbox(folder, out), scoring, finish))
    return told


def test_single_faulty_video_is_retried(tmp_path):
    """The cause may be damaged weights, so the video is always tried again."""
    folder, out = fill(tmp_path / "inbox", "a.mp4"), tmp_path / "out"
    for _ in range(MOST_DEATHS + 2):
        with pytest.raises(VadError, match="damaged"):
            list(work_off(Inbox(folder, out), failing("a", error=VadError("the weights are damaged"))))
    assert work_off_inbox(folder, out) == [("a.mp4", None)]
    assert_each_scored_once(folder, out, ["a.mp4"])


def test_faulty_videos_do_not_stop_others(tmp_path):
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4", "c.mp4"), tmp_path / "out"
    told = []

    def scoring(claim):
        if claim.key != "c":
            raise VadError(f"no sense in {claim.key}")
        score(claim)

    with pytest.raises(VadError, match=r"a.mp4: no sense in a.*b.mp4: no sense in b"):
        told.extend(work_off(Inbox(folder, out), scoring, finish))
    assert told == [("c.mp4", None)]
    assert work_off_inbox(folder, out) == [("a.mp4", None), ("b.mp4", None)]
    assert_each_scored_once(folder, out, ["a.mp4", "b.mp4", "c.mp4"])


def test_shared_fault_is_reported_once(tmp_path):
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4"), tmp_path / "out"
    with pytest.raises(VadError) as raised:
        list(work_off(Inbox(folder, out), failing("a", "b", error=VadError("vad-yard: has no champion"))))
    assert str(raised.value) == "vad-yard: has no champion"


def test_programming_error_has_traceback_and_video(tmp_path):
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4"), tmp_path / "out"
    with pytest.raises(ZeroDivisionError) as raised:
        list(work_off(Inbox(folder, out), failing("a", error=ZeroDivisionError("by zero"))))
    (note,) = raised.value.__notes__
    assert "a.mp4" in note
    assert "b.mp4" not in note
    assert "scoring" in [entry.name for entry in raised.traceback]


def test_faulty_video_is_set_aside(tmp_path):
    folder, out = fill(tmp_path / "inbox", "a.mp4"), tmp_path / "out"
    scoring = failing("a", error=ValueError("cannot\nread it"))
    for number in range(MOST_FAULTS):
        assert (folder / WORK / "a").is_dir() == (number > 0)
        fill(folder, f"good-{number}.mp4")
        *others, last = run(folder, out, scoring)
        if number < MOST_FAULTS - 1:
            assert (others, last) == ([], (f"good-{number}.mp4", None))
    name, reason = last
    assert name == "a.mp4"
    assert reason.startswith("a.mp4: ")
    assert "ValueError: cannot read it" in reason
    assert (folder / FAILED / "a.mp4.reason.txt").read_text().startswith(f"{reason}\nTraceback")
    assert run(folder, out, scoring) == []
    assert Inbox(folder, out).empty


def test_common_fault_ends_the_run(tmp_path):
    """The machine is the cause, from the start or later in the run; no video is set aside."""
    names = [f"{number:02d}.mp4" for number in range(12)]
    folder, out = fill(tmp_path / "inbox", *names), tmp_path / "out"
    tried = []

    def scoring(claim):
        tried.append(claim.key)
        if claim.key not in {"00", "01"}:
            raise VadError("the weights are damaged")
        score(claim)

    for _ in range(MOST_FAULTS + 1):
        before = len(tried)
        with pytest.raises(VadError, match=r"^the weights are damaged$"):
            list(work_off(Inbox(folder, out), scoring, finish))
        assert len(tried) - before <= 2 + MOST_IN_A_ROW
    assert len(work_off_inbox(folder, out)) == 10
    assert_each_scored_once(folder, out, names)


def test_many_faulty_videos_delay_one_run(tmp_path):
    odd = [f"a{number}" for number in range(MOST_IN_A_ROW + 2)]
    folder, out = fill(tmp_path / "inbox", *(f"{name}.mp4" for name in (*odd, "x", "y", "z"))), tmp_path / "out"
    scoring = failing(*odd, error=VadError("odd"))
    told = [line for _ in range(3) for line in run(folder, out, scoring)]
    assert told == [(f"{name}.mp4", None) for name in "xyz"]
    for number in range(MOST_FAULTS):
        fill(folder, f"later-{number}.mp4")
        run(folder, out, scoring)
    assert sorted(path.stem for path in (folder / FAILED).glob("*.mp4")) == odd


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
@pytest.mark.parametrize("wrapped", [False, True])
def test_machine_error_ends_the_run(tmp_path, wrapped, number):
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4"), tmp_path / "out"
    tried = []

    def full(claim):
        tried.append(claim.key)
        try:
            raise OSError(number, os.strerror(number))
        except OSError as error:
            if wrapped:
                raise VadError("cannot write") from error
            raise

    for _ in range(MOST_FAULTS + 1):
        with pytest.raises((OSError, VadError)):
            list(work_off(Inbox(folder, out), full))
    assert tried == ["a"] * (MOST_FAULTS + 1)
    assert work_off_inbox(folder, out) == [("a.mp4", None), ("b.mp4", None)]


def test_crashing_video_is_set_aside(tmp_path):
    """It delays the others once, and is set aside after MOST_DEATHS processes."""
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4", "c.mp4"), tmp_path / "out"

    def deadly(claim):
        if claim.key == "a":
            os._exit(137)
        score(claim)

    def killed() -> bool:
        child = os.fork()
        if child == 0:
            list(work_off(Inbox(folder, out), deadly, finish))
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137

    deaths = 0
    while killed():
        deaths += 1
        if deaths == 3:  # the third process has scored the others first
            assert sorted(path.name for path in (folder / DONE).iterdir()) == ["b.mp4", "c.mp4"]
    assert deaths == MOST_DEATHS
    reason = (folder / FAILED / "a.mp4.reason.txt").read_text()
    assert reason.startswith("a.mp4: ")
    assert str(MOST_DEATHS) in reason
    assert "memory" in reason
