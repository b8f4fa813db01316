"""Every video that comes in is scored once: whoever is killed, wherever, and however many look into the inbox."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers.inbox_worker import finish, score, sweep
from tests.helpers.project import LONG_ENOUGH, ROOT
from tests.helpers.videos import make_video
from vadcore.detect.alerts import READY, SPOOL
from vadcore.detect.blame import MOST_FAULTS, MOST_IN_A_ROW
from vadcore.detect.inbox import DONE, FAILED, MOST_DEATHS, WORK, Claim, Inbox, work_off
from vadcore.detect.making import EVENTS, making
from vadcore.detect.settled import PATIENCE
from vadcore.errors import VadError
from vadcore.files import sha256_files, write_json


def fill(folder: Path, *names: str) -> Path:
    """An inbox of files that nobody has touched for an hour; each holds its own name."""
    folder.mkdir(exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, (time.time() - 3600,) * 2)
    return folder


def assert_each_was_scored_once(folder: Path, out: Path, names: list[str]) -> None:
    """Of every file there is one folder of results, one alert, and the file itself under done/; or it was set aside."""
    good, bad = ([name for name in names if ("broken" in name) == is_bad] for is_bad in (False, True))
    results = {path.parent.name: path.read_text() for path in out.glob("*/video")}
    assert sorted(results.values()) == sorted(good)
    done = {path.stem: path.read_text() for path in (folder / DONE).iterdir()}
    assert done == results
    aside = sorted(path for path in (folder / FAILED).iterdir() if path.suffix != ".txt")
    assert sorted(path.read_text() for path in aside) == sorted(bad)
    for path in aside:
        assert "not a readable video" in path.with_name(f"{path.name}.reason.txt").read_text()
    assert len(list((folder / FAILED).iterdir())) == 2 * len(bad)
    alerts = [json.loads(path.read_text())["alert"] for path in (out / SPOOL / "pending").glob("*/*.json")]
    assert sorted(alert["video"] for alert in alerts) == sorted(good)
    assert not list(out.glob(f"*/{READY}"))
    assert Inbox(folder, out).coming() == []
    assert sorted(path.name for path in (folder / WORK).iterdir()) == ["lock", "seen.json"]
    assert not list(out.glob(".*.partial"))


NAMES = ["a.mp4", "b.avi", "broken.mkv", "cam 1/a.mp4", "cam 2/a.mp4", "lock.mp4", "Ä ö.MOV"]


def test_what_can_be_read_is_scored_and_moved_and_the_rest_is_set_aside_with_the_reason(tmp_path):
    folder, out = fill(tmp_path / "inbox", *NAMES, "notes.txt", ".hidden.mp4", "half.mp4.part"), tmp_path / "out"
    told = sweep(folder, out)
    assert sorted(name for name, _ in told) == sorted(NAMES)
    assert [(name, reason) for name, reason in told if reason] == [
        ("broken.mkv", "broken.mkv: not a readable video; replace it")
    ]
    assert_each_was_scored_once(folder, out, NAMES)
    for other in ("notes.txt", ".hidden.mp4", "half.mp4.part"):
        assert (folder / other).exists()
    assert sweep(folder, out) == []


def test_a_second_video_of_the_same_name_gets_results_of_its_own(tmp_path):
    folder, out = fill(tmp_path / "inbox", "a.mp4"), tmp_path / "out"
    sweep(folder, out)
    fill(folder, "a.mp4")
    sweep(folder, out)
    assert sorted(path.name for path in (folder / DONE).iterdir()) == ["a-2.mp4", "a.mp4"]
    assert sorted(path.parent.name for path in out.glob("*/video")) == ["a", "a-2"]


def test_results_inside_the_inbox_are_not_taken_for_videos(tmp_path):
    folder = fill(tmp_path / "inbox", "a.mp4")
    sweep(folder, folder / "detections")
    (folder / "detections/a/annotated.webm").write_text("film")
    assert sweep(folder, folder / "detections") == []


def dies_at(step: int, work) -> bool:
    """Run ``work`` in a process that ends, as killed, just before its ``step``-th change to the file system."""
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
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 137), f"step {step}: {code}"
    return code == 137


def test_killed_before_any_single_step_nothing_is_lost_or_scored_twice(tmp_path):
    names = ["a.mp4", "broken.mp4", "cam/a.mp4"]
    step = 0
    died = True
    while died:
        step += 1
        folder, out = fill(tmp_path / f"inbox-{step}", *names), tmp_path / f"out-{step}"
        died = dies_at(step, lambda: sweep(folder, out))  # noqa: B023 - called at once
        sweep(folder, out)
        assert_each_was_scored_once(folder, out, names)
    assert step > 40  # so many steps there are


def start_worker(folder: Path, out: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "tests.helpers.inbox_worker", folder, out]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_processes_killed_at_random_moments_while_others_go_on(tmp_path):
    names = [f"{number:02d}{'-broken' if number % 7 == 3 else ''}.mp4" for number in range(40)]
    folder, out = fill(tmp_path / "inbox", *names), tmp_path / "out"
    chance = random.SystemRandom()
    killed = 0
    while Inbox(folder, out).coming() or killed < 4:
        workers = [start_worker(folder, out) for _ in range(2)]
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.02, 0.5))
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.communicate()
            killed += worker.returncode == -signal.SIGKILL
            time.sleep(chance.uniform(0, 0.05))
    last = start_worker(folder, out)
    said, _ = last.communicate(timeout=LONG_ENOUGH)
    assert last.returncode == 0, said
    print(f"killed {killed} processes")
    assert_each_was_scored_once(folder, out, names)


def test_two_processes_never_score_the_same_video(tmp_path):
    names = [f"{number:02d}.mp4" for number in range(30)]
    folder, out = fill(tmp_path / "inbox", *names), tmp_path / "out"
    workers = [start_worker(folder, out) for _ in range(3)]
    for worker in workers:
        said, _ = worker.communicate(timeout=LONG_ENOUGH)
        assert worker.returncode == 0, said
    assert_each_was_scored_once(folder, out, names)


class TestWhatIsStillBeingWrittenIsLeftAlone:
    @pytest.fixture
    def video(self, tmp_path) -> Path:
        (tmp_path / "inbox").mkdir()
        return make_video(tmp_path / "inbox" / "a.avi", 4)

    def taken(self, tmp_path, settle: float = 1.0) -> Claim | None:
        return Inbox(tmp_path / "inbox", tmp_path / "out", settle).take()

    def test_until_it_has_not_changed_for_a_while(self, video, tmp_path):
        assert self.taken(tmp_path) is None
        time.sleep(1.1)
        os.utime(video)  # somebody has written again
        assert self.taken(tmp_path) is None
        time.sleep(1.1)
        assert self.taken(tmp_path).name == "a.avi"

    def test_while_somebody_holds_it_open_for_writing(self, video, tmp_path):
        os.utime(video, (time.time() - 3600,) * 2)
        with video.open("ab"):
            assert self.taken(tmp_path) is None
        with video.open("rb"):  # who only reads does not matter
            assert self.taken(tmp_path) is not None

    def test_a_file_that_cannot_be_opened_gets_more_time_and_is_then_set_aside(self, video, tmp_path):
        video.write_bytes(video.read_bytes()[:500])
        os.utime(video, (time.time() - 2,) * 2)
        assert self.taken(tmp_path) is None
        os.utime(video, (time.time() - PATIENCE - 0.5,) * 2)
        assert self.taken(tmp_path) is not None

    def test_a_camera_whose_clock_is_ahead_does_not_have_to_wait_for_it(self, video, tmp_path):
        os.utime(video, (time.time() + 3600,) * 2)
        assert self.taken(tmp_path) is None
        time.sleep(1.1)
        assert self.taken(tmp_path) is not None  # another process, which remembers what the first one saw

    def test_one_that_is_not_ready_holds_up_no_other(self, video, tmp_path):
        other = make_video(tmp_path / "inbox" / "b.avi", 4)
        os.utime(other, (time.time() - 3600,) * 2)
        assert self.taken(tmp_path).name == "b.avi"
        assert [path.name for path in Inbox(tmp_path / "inbox", tmp_path / "out").coming()] == ["a.avi"]


def test_what_is_not_the_video_s_fault_sets_nothing_aside(tmp_path):
    """A full disk, damaged weights: the video waits for better times, however often that happens."""
    folder, out = fill(tmp_path / "inbox", "a.mp4"), tmp_path / "out"

    def fails(claim):
        raise VadError("the weights are damaged")

    for _ in range(MOST_DEATHS + 2):
        with pytest.raises(VadError, match="damaged"):
            list(work_off(Inbox(folder, out), fails))
    assert sweep(folder, out) == [("a.mp4", None)]
    assert_each_was_scored_once(folder, out, ["a.mp4"])


def fails_at(*keys: str, error: Exception):
    """Scoring in which the videos of these keys cannot be scored."""

    def scoring(claim):
        if claim.key in keys:
            raise error
        score(claim)

    return scoring


def run(folder: Path, out: Path, scoring) -> list[tuple[str, str | None]]:
    """What one run over the inbox says, until it ends or breaks off."""
    told = []
    with suppress(Exception):
        told.extend(work_off(Inbox(folder, out), scoring, finish))
    return told


def test_a_video_that_cannot_be_scored_stops_no_other_and_the_run_ends_with_its_fault(tmp_path):
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4", "c.mp4"), tmp_path / "out"
    told = []

    def scoring(claim):
        if claim.key != "c":
            raise VadError(f"no sense in {claim.key}")
        score(claim)

    with pytest.raises(VadError, match=r"^a.mp4: no sense in a; b.mp4: no sense in b$"):
        told.extend(work_off(Inbox(folder, out), scoring, finish))
    assert told == [("c.mp4", None)]
    assert sweep(folder, out) == [("a.mp4", None), ("b.mp4", None)]
    assert_each_was_scored_once(folder, out, ["a.mp4", "b.mp4", "c.mp4"])


def test_one_fault_of_two_videos_is_said_once_and_as_it_is(tmp_path):
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4"), tmp_path / "out"
    with pytest.raises(VadError) as raised:
        list(work_off(Inbox(folder, out), fails_at("a", "b", error=VadError("vad-yard: has no champion"))))
    assert str(raised.value) == "vad-yard: has no champion"


def test_a_defect_of_ours_keeps_its_traceback(tmp_path):
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4"), tmp_path / "out"
    with pytest.raises(ZeroDivisionError) as raised:
        list(work_off(Inbox(folder, out), fails_at("a", error=ZeroDivisionError("by zero"))))
    assert raised.value.__notes__ == ["not scored, and tried again next time: a.mp4"]
    assert "scoring" in [entry.name for entry in raised.traceback]


def test_a_video_that_cannot_be_scored_though_others_can_is_set_aside_in_the_end(tmp_path):
    folder, out = fill(tmp_path / "inbox", "a.mp4"), tmp_path / "out"
    scoring = fails_at("a", error=ValueError("cannot\nread it"))
    for number in range(MOST_FAULTS):
        assert (folder / WORK / "a").is_dir() == (number > 0)
        fill(folder, f"good-{number}.mp4")
        *others, last = run(folder, out, scoring)
        if number < MOST_FAULTS - 1:
            assert (others, last) == ([], (f"good-{number}.mp4", None))
    reason = f"a.mp4: failed in {MOST_FAULTS} runs that could score others (ValueError: cannot read it)"
    assert last == ("a.mp4", reason)
    text = (folder / FAILED / "a.mp4.reason.txt").read_text()
    assert text.startswith(f"{reason}\nTraceback")
    assert run(folder, out, scoring) == []
    assert Inbox(folder, out).empty


def test_a_fault_that_every_video_has_is_the_machine_s_and_ends_the_run(tmp_path):
    """Whether it was there from the start or has come in the middle: nothing counts, and nothing is set aside."""
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
    assert len(sweep(folder, out)) == 10
    assert_each_was_scored_once(folder, out, names)


def test_odd_videos_one_after_the_other_starve_the_rest_for_one_run_at_most(tmp_path):
    odd = [f"a{number}" for number in range(MOST_IN_A_ROW + 2)]
    folder, out = fill(tmp_path / "inbox", *(f"{name}.mp4" for name in (*odd, "x", "y", "z"))), tmp_path / "out"
    scoring = fails_at(*odd, error=VadError("odd"))
    told = [line for _ in range(3) for line in run(folder, out, scoring)]
    assert told == [(f"{name}.mp4", None) for name in "xyz"]
    for number in range(MOST_FAULTS):
        fill(folder, f"later-{number}.mp4")
        run(folder, out, scoring)
    assert sorted(path.stem for path in (folder / FAILED).glob("*.mp4")) == odd


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_ends_the_run_at_once(tmp_path, wrapped):
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4"), tmp_path / "out"
    tried = []

    def full(claim):
        tried.append(claim.key)
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            if wrapped:
                raise VadError("cannot write") from error
            raise

    for _ in range(MOST_FAULTS + 1):
        with pytest.raises((OSError, VadError)):
            list(work_off(Inbox(folder, out), full))
    assert tried == ["a"] * (MOST_FAULTS + 1)
    assert sweep(folder, out) == [("a.mp4", None), ("b.mp4", None)]


class TestOddNames:
    def test_bytes_that_are_no_utf_8(self, tmp_path):
        folder, out = fill(tmp_path / "inbox", "z.mp4"), tmp_path / "out"
        odd = Path(os.fsdecode(os.fsencode(folder) + b"/a\xdf.mp4"))
        (folder / "z.mp4").rename(odd)
        fill(folder, "z.mp4")
        assert sweep(folder, out) == [("a\ufffd.mp4", None), ("z.mp4", None)]
        assert sorted(path.name for path in (folder / DONE).iterdir()) == ["a_.mp4", "z.mp4"]

    def test_bytes_that_are_no_utf_8_are_never_given_to_opencv_which_would_end_the_process(self, tmp_path):
        video = make_video(tmp_path / "inbox" / "a.avi", 4)
        odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/inbox/a\xdf.avi"))
        video.rename(odd)
        os.utime(odd, (time.time() - 2,) * 2)
        assert Inbox(tmp_path / "inbox", tmp_path / "out", 1.0).take() is None
        os.utime(odd, (time.time() - PATIENCE - 0.5,) * 2)
        claim = Inbox(tmp_path / "inbox", tmp_path / "out", 1.0).take()
        assert (claim.name, claim.path.name) == ("a\ufffd.avi", "a_.avi")

    def test_names_longer_than_a_folder_s_may_be(self, tmp_path):
        long = ["n" * 250 + ".mp4", "/".join(["d" * 100] * 3 + ["1.mp4"]), "/".join(["d" * 100] * 3 + ["2.mp4"])]
        names = [*long, "broken" + "n" * 240 + ".mp4", "z.mp4"]
        folder, out = fill(tmp_path / "inbox", *names), tmp_path / "out"
        assert len(sweep(folder, out)) == len(names)
        assert_each_was_scored_once(folder, out, names)

    def test_a_folder_whose_path_is_no_utf_8_is_refused(self, tmp_path):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xdf"))
        folder.mkdir()
        with pytest.raises(VadError, match="not UTF-8; rename it"):
            Inbox(folder, tmp_path / "out")


def test_a_link_that_leads_nowhere_is_no_video(tmp_path):
    folder = fill(tmp_path / "inbox")
    (folder / "a.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(folder / "b.mp4")
    assert Inbox(folder, tmp_path / "out").coming() == []
    assert Inbox(folder, tmp_path / "out").empty


def test_a_video_that_cannot_be_moved_holds_up_no_other_and_is_named(tmp_path, monkeypatch):
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4"), tmp_path / "out"
    rename = Path.rename

    def on_another_disk(self, target):
        if self == folder / "a.mp4":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", on_another_disk)
    told = []
    with pytest.raises(VadError, match=r"inbox/a.mp4: cannot be moved to .* \(Invalid cross-device link\); let it lie"):
        told.extend(work_off(Inbox(folder, out), score, finish))
    assert told == [("b.mp4", None)]
    assert (folder / "a.mp4").exists()


def test_results_that_others_put_in_the_place_meanwhile_are_not_taken_for_the_video_s(tmp_path):
    """Another inbox may write to the same folder of results, or a person by hand."""
    folder, out = fill(tmp_path / "inbox", "a.mp4", "b.mp4"), tmp_path / "out"
    claim = Inbox(folder, out).take()
    claim.release()
    fill(tmp_path, "other")
    with making(out / "a", tmp_path / "other") as beside:
        (beside / "video").write_text("other")
        write_json(beside / EVENTS, {"sha256": sha256_files([tmp_path / "other"])})
    assert sweep(folder, out) == [("a.mp4", None), ("b.mp4", None)]
    assert {path.parent.name: path.read_text() for path in out.glob("*/video")} == {
        "a": "other",
        "a-2": "a.mp4",
        "b": "b.mp4",
    }
    assert sorted(path.name for path in (folder / DONE).iterdir()) == ["a-2.mp4", "b.mp4"]


def test_a_video_that_kills_every_process_stops_the_others_only_once_and_is_set_aside_in_the_end(tmp_path):
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
        if deaths == 2:  # the third process goes for the others first
            continue
        if deaths == 3:
            assert sorted(path.name for path in (folder / DONE).iterdir()) == ["b.mp4", "c.mp4"]
    assert deaths == MOST_DEATHS
    reason = (folder / FAILED / "a.mp4.reason.txt").read_text()
    assert reason == f"a.mp4: {MOST_DEATHS} processes died while they scored it, perhaps for want of memory\n"


def test_an_inbox_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(VadError, match="no such folder"):
        Inbox(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "nowhere").exists()
