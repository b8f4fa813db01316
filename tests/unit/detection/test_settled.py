"""Files that are still being written are left in the inbox."""

import os
from pathlib import Path

import pytest

from tests.helpers.videos import make_video
from vadcore.detection.inbox import Claim, Inbox
from vadcore.detection.settled import PATIENCE

SETTLE = 10.0  # seconds
NOW = 1_700_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def video(tmp_path) -> Path:
    """A video that was just put into the inbox."""
    path = make_video(tmp_path / "inbox" / "a.avi", 4)
    touch(path, NOW)
    return path


@pytest.fixture
def take(tmp_path, clock):
    """A new process takes the complete videos from the inbox."""

    def take() -> Claim | None:
        return Inbox(tmp_path / "inbox", tmp_path / "out", SETTLE, clock).take()

    return take


def touch(path: Path, moment: float) -> None:
    os.utime(path, (moment, moment))


def test_video_is_taken_after_settle_time(video, take, clock):
    assert take() is None
    clock.now += SETTLE - 1
    assert take() is None
    touch(video, clock.now)  # written again
    clock.now += SETTLE - 1
    assert take() is None
    clock.now += 1
    assert take().name == "a.avi"


def test_open_video_is_not_taken(video, take):
    touch(video, NOW - 3600)
    with video.open("ab"):
        assert take() is None
    with video.open("rb"):  # readers do not matter
        assert take() is not None


def test_unreadable_file_is_taken_later(video, take, clock):
    video.write_bytes(video.read_bytes()[:500])
    touch(video, NOW)
    clock.now += PATIENCE * SETTLE - 1
    assert take() is None
    clock.now += 1
    assert take() is not None


def test_future_modification_time_causes_no_delay(video, take, clock):
    """The clock of a camera may be ahead. The inbox records when it first saw the file."""
    touch(video, NOW + 3600)
    assert take() is None
    clock.now += SETTLE - 1
    assert take() is None
    clock.now += 1
    assert take() is not None


def test_unfinished_video_does_not_delay_others(video, take, tmp_path):
    touch(make_video(tmp_path / "inbox" / "b.avi", 4), NOW - 3600)
    assert take().name == "b.avi"
    assert [path.name for path in Inbox(tmp_path / "inbox", tmp_path / "out").coming()] == ["a.avi"]


def test_non_utf8_name_is_taken_unopened(video, take, clock, tmp_path):
    """OpenCV would end the process."""
    odd = video.rename(Path(os.fsdecode(os.fsencode(tmp_path) + b"/inbox/a\xdf.avi")))
    touch(odd, NOW)
    clock.now += PATIENCE * SETTLE - 1
    assert take() is None
    clock.now += 1
    claim = take()
    assert (claim.name, claim.path.name) == ("a\ufffd.avi", "a_.avi")
