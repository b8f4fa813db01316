"""Each video of an inbox is scored once, also after kills; failures are classified; files still being written are left."""

import errno
import os
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers.inbox_worker import assert_each_scored_once, fill, finish, score, work_off_inbox
from tests.helpers.videos import make_video
from vadcore.detection.inbox import (
    DONE,
    FAILED,
    MOST_DEATHS,
    MOST_FAILED_RUNS,
    MOST_IN_A_ROW,
    WORK,
    Claim,
    Inbox,
    work_off,
)
from vadcore.detection.incoming import PATIENCE
from vadcore.detection.output import EVENTS, making
from vadcore.utils.errors import VadError
from vadcore.utils.files import sha256_files, write_json

NAMES = ["a.mp4", "b.avi", "broken.mkv", "cam 1/a.mp4", "cam 2/a.mp4", "lock.mp4", "Ä ö.MOV"]


def test_videos_are_scored_or_set_aside(tmp_path):
    others = ("notes.txt", ".hidden.mp4", "half.mp4.part")
    folder, out = fill(tmp_path / "inbox", *NAMES, *others), tmp_path / "out"
    told = work_off_inbox(folder, out)
    assert sorted(name for name, _ in told) == sorted(NAMES)
    assert [(name, reason) for name, reason in told if reason] == [
        ("broken.mkv", "broken.mkv: not a readable video; replace it")
    ]
    assert_each_scored_once(folder, out, NAMES)
    for other in others:
        assert (folder / other).exists()
    assert work_off_inbox(folder, out) == []


def test_same_name_twice_gives_two_results(tmp_path):
    folder, out = fill(tmp_path / "inbox", "a.mp4"), tmp_path / "out"
    work_off_inbox(folder, out)
    fill(folder, "a.mp4")
    work_off_inbox(folder, out)
    assert sorted(path.name for path in (folder / DONE).iterdir()) == ["a-2.mp4", "a.mp4"]
    assert sorted(path.parent.name for path in out.glob("*/video")) == ["a", "a-2"]


def test_results_in_inbox_are_not_scored(tmp_path):
    folder = fill(tmp_path / "inbox", "a.mp4")
    work_off_inbox(folder, folder / "detections")
    (folder / "detections/a/annotated.webm").write_text("film")
    assert work_off_inbox(folder, folder / "detections") == []


def test_two_processes_take_different_videos(tmp_path):
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4"), tmp_path / "out"
    first, second = Inbox(folder, out), Inbox(folder, out)
    claims = [first.take(), second.take()]
    assert [claim.name for claim in claims] == ["a.mp4", "b.mp4"]
    assert first.take() is second.take() is None
    assert not first.empty  # two are being scored
    for claim in claims:
        claim.release()
    assert {first.take().name, second.take().name} == {"a.mp4", "b.mp4"}


def killed_at(step: int, work) -> bool:
    """Run ``work`` in a process that ends, as if killed, before its ``step``-th change to the file system."""
    child = os.fork()
    if child == 0:
        left = [step]

        def deadly(function):
            def counted(*arguments, **named):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(137)
                return function(*arguments, **named)

            return counted

        for name in ("rename", "replace", "mkdir", "unlink", "rmdir", "open"):
            setattr(os, name, deadly(getattr(os, name)))
        try:
            work()
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 137), f"step {step}: {code}"
    return code == 137


def test_kill_before_any_step(tmp_path):
    names = ["broken.mp4", "cam/a.mp4"]
    step = 0
    died = True
    while died:
        step += 1
        folder, out = fill(tmp_path / f"inbox-{step}", *names), tmp_path / f"out-{step}"
        died = killed_at(step, lambda: work_off_inbox(folder, out))  # noqa: B023 - called at once
        work_off_inbox(folder, out)
        assert_each_scored_once(folder, out, names)
    assert step > 40  # the work has more steps than that


class TestOddNames:
    def test_non_utf8_name(self, tmp_path):
        folder, out = fill(tmp_path / "inbox", "z.mp4"), tmp_path / "out"
        odd = Path(os.fsdecode(os.fsencode(folder) + b"/a\xdf.mp4"))
        (folder / "z.mp4").rename(odd)
        fill(folder, "z.mp4")
        assert work_off_inbox(folder, out) == [("a\ufffd.mp4", None), ("z.mp4", None)]
        assert sorted(path.name for path in (folder / DONE).iterdir()) == ["a_.mp4", "z.mp4"]

    def test_name_too_long_for_a_folder(self, tmp_path):
        long = ["n" * 250 + ".mp4", "/".join(["d" * 100] * 3 + ["1.mp4"]), "/".join(["d" * 100] * 3 + ["2.mp4"])]
        names = [*long, "broken" + "n" * 240 + ".mp4", "z.mp4"]
        folder, out = fill(tmp_path / "inbox", *names), tmp_path / "out"
        assert len(work_off_inbox(folder, out)) == len(names)
        assert_each_scored_once(folder, out, names)

    def test_inbox_path_must_be_utf8(self, tmp_path):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xdf"))
        folder.mkdir()
        with pytest.raises(VadError, match=r"UTF-8.*rename"):
            Inbox(folder, tmp_path / "out")


def test_broken_links_and_pipes_are_ignored(tmp_path):
    folder = fill(tmp_path / "inbox")
    (folder / "a.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(folder / "b.mp4")
    assert Inbox(folder, tmp_path / "out").coming() == []
    assert Inbox(folder, tmp_path / "out").empty


def test_unmovable_video_does_not_stop_others(tmp_path, monkeypatch):
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4"), tmp_path / "out"
    rename = Path.rename

    def on_another_disk(self, target):
        if self == folder / "a.mp4":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", on_another_disk)
    told = []
    with pytest.raises(VadError, match=r"inbox/a.mp4: .*Invalid cross-device link.*same file system"):
        told.extend(work_off(Inbox(folder, out), score, finish))
    assert told == [("b.mp4", None)]
    assert (folder / "a.mp4").exists()


def test_foreign_results_are_kept(tmp_path):
    """Another inbox or a person may write to the results folder while a video is scored."""
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4"), tmp_path / "out"
    claim = Inbox(folder, out).take()
    claim.release()
    fill(tmp_path, "other")
    with making(out / "a", tmp_path / "other") as beside:
        (beside / "video").write_text("other")
        write_json(beside / EVENTS, {"sha256": sha256_files([tmp_path / "other"])})
    assert work_off_inbox(folder, out) == [("a.mp4", None), ("b.mp4", None)]
    assert {path.parent.name: path.read_text() for path in out.glob("*/video")} == {
        "a": "other",
        "a-2": "a.mp4",
        "b": "b.mp4",
    }
    assert sorted(path.name for path in (folder / DONE).iterdir()) == ["a-2.mp4", "b.mp4"]


def test_missing_inbox_is_refused(tmp_path):
    with pytest.raises(VadError, match="nowhere: no such folder"):
        Inbox(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "nowhere").exists()


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
    for number in range(MOST_FAILED_RUNS):
        assert (folder / WORK / "a").is_dir() == (number > 0)
        fill(folder, f"good-{number}.mp4")
        *others, last = run(folder, out, scoring)
        if number < MOST_FAILED_RUNS - 1:
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

    for _ in range(MOST_FAILED_RUNS + 1):
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
    for number in range(MOST_FAILED_RUNS):
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

    for _ in range(MOST_FAILED_RUNS + 1):
        with pytest.raises((OSError, VadError)):
            list(work_off(Inbox(folder, out), full))
    assert tried == ["a"] * (MOST_FAILED_RUNS + 1)
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
    """The clock of a camera may be ahead. Then the time counts at which the file was changed on this machine."""
    clock.now = time.time()
    touch(video, clock.now + 3600)
    assert take() is None
    clock.now += SETTLE - 1
    assert take() is None
    clock.now += 2
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


def test_every_file_that_is_no_video_is_told_once(tmp_path):
    folder = fill(tmp_path / "inbox", "a.mp4", "notes.txt", "README", ".b.mp4", ".system", ".cache/c.mp4")
    (folder / "gone.mp4").symlink_to("nowhere.mp4")
    (folder / "here").symlink_to(folder)
    inbox = Inbox(folder, folder / "out", settle_seconds=5, clock=lambda: time.time() + 6)
    told = dict(line.split(": ", 1) for line in inbox.news())
    assert {name: why.partition(";")[0] for name, why in told.items()} == {
        ".b.mp4": "hidden",
        ".cache": "a hidden folder",
        "README": "has no ending, unlike a video",
        "gone.mp4": "a broken link, a pipe or without permission",
        "here": "a link to a folder",
        "notes.txt": "ends in .txt, unlike a video",
    }
    assert inbox.coming() == [folder / "a.mp4"]
    (folder / "new.part").touch()
    assert Inbox(folder, folder / "out", settle_seconds=5).news() == []  # new.part may still be written
    assert [line.split(":")[0] for line in Inbox(folder, folder / "out", 5, lambda: time.time() + 6).news()] == [
        "new.part"
    ]
