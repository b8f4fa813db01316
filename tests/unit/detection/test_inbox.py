"""Each video of an inbox is scored once, also after kills and with several processes."""

import errno
import os
import sys
import traceback
from pathlib import Path

import pytest

from tests.helpers.inbox_worker import assert_each_scored_once, fill, finish, score, work_off_inbox
from vadcore.detection.inbox import DONE, Inbox, work_off
from vadcore.detection.making import EVENTS, making
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
