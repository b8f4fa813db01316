"""The results folder of a video: complete or absent, also after a kill; results of other videos are kept."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.videos import RUNS, events_of, make_video
from vadcore.detection import output
from vadcore.detection.output import Taken, detect, making, sweep
from vadcore.detection.source import UnreadableVideo
from vadcore.utils.files import sha256_files, write_json

pytestmark = pytest.mark.xdist_group("results")
FILES = ["annotated.webm", "events.csv", "events.json", "scores.csv", "timeline.png"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def made(here, tmp_path_factory):
    return detect(here.detector(), here.video, tmp_path_factory.mktemp("out") / "detections", film=False)


@pytest.fixture
def short(tmp_path) -> Path:
    """A video of four frames."""
    return make_video(tmp_path / "short.avi", 4, runs=None)


@pytest.mark.parametrize(("frames", "runs", "events"), [(80, RUNS, 1), (30, None, 0), (1, None, 0)])
def test_results_folder_has_all_files(here, tmp_path, frames, runs, events):
    """With an event, without one, and without a score."""
    found = detect(here.detector(), make_video(tmp_path / "a.avi", frames, seed=5, runs=runs), tmp_path / "out")
    assert names_in(tmp_path / "out") == ["a"]
    assert names_in(found.folder) == FILES
    assert found.events == events_of(found.folder)
    assert len(found.events) == len(pd.read_csv(found.folder / "events.csv")) == events
    assert (found.about["scored_frames"] == 0) == (frames == 1)


def test_film_can_be_left_out(made):
    assert names_in(made.folder) == [name for name in FILES if "webm" not in name]
    assert names_in(made.folder.parent) == ["gate"]


def test_events_json_describes_video_and_detector(made, here):
    about = json.loads((made.folder / "events.json").read_text())
    assert about == made.about
    expected = {"video": "gate.avi", "fps": 10.0, "frames": 80, "seconds": 8.0, "width": 64, "height": 48}
    assert {key: about[key] for key in expected} == expected
    assert about["detector"]["dataset"] == "yard"
    assert about["detector"]["model"] == "frame_diff"
    assert about["threshold"] == here.calibration.threshold


def test_json_and_csv_files_agree(made):
    table = pd.read_csv(made.folder / "events.csv")
    scores = pd.read_csv(made.folder / "scores.csv")
    assert len(table) == len(made.events) == 1
    event, row = made.events[0], table.iloc[0]
    assert event["box"] == {side: row[side] for side in ("x", "y", "width", "height")}
    for name in ("number", "start_seconds", "end_seconds", "peak_seconds", "peak_score", "p_value", "peak_frame"):
        assert event[name] == row[name]
    within = scores[scores["event"] == 1]
    assert within["frame"].iloc[[0, -1]].tolist() == [event["start_frame"], event["end_frame"]]
    assert within["score"].max() == pytest.approx(event["peak_score"])
    assert (scores.loc[scores["score"] >= made.about["threshold"], "event"] == 1).all()
    assert event["end_seconds"] == pytest.approx((event["end_frame"] + 1) / 10)


@pytest.mark.parametrize("name", [r"a$_$b.avi", r"$\\frac$ 10$.avi", "n" * 250 + ".avi", "a\nb.avi"])
def test_file_name_may_hold_any_text(here, tmp_path, short, name):
    found = detect(here.detector(), short.rename(tmp_path / name), tmp_path / "out", film=False)
    assert found.about["video"] == name.replace("\n", "\ufffd")
    assert len(pd.read_csv(found.folder / "scores.csv")) == 4


def test_non_utf8_path_is_refused(here, tmp_path, short):
    """OpenCV would end the process."""
    video = short.rename(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xdf.avi")))
    with pytest.raises(UnreadableVideo, match=r"UTF-8.*rename"):
        detect(here.detector(), video, tmp_path / "out")


def test_new_results_replace_old_ones(here, tmp_path, short):
    out = tmp_path / "out"
    first = detect(here.detector(), short, out, film=False)
    (first.folder / "note.txt").write_text("of the first time")
    detect(here.detector(), short, out, film=False)
    assert not (first.folder / "note.txt").exists()
    assert names_in(out) == ["short"]


def test_results_of_another_video_are_kept(here, tmp_path):
    """Cameras give their files the same names."""
    for number in range(2):
        make_video(tmp_path / f"cam{number}" / "0001.avi", 4, seed=number, runs=None)
    first = detect(here.detector(), tmp_path / "cam0/0001.avi", tmp_path / "out", film=False)
    with pytest.raises(Taken, match=r"out/0001: .*--out"):
        detect(here.detector(), tmp_path / "cam1/0001.avi", tmp_path / "out", film=False)
    assert json.loads((first.folder / "events.json").read_text()) == first.about
    assert names_in(tmp_path / "out") == ["0001"]


def test_folder_without_results_is_kept(here, tmp_path, short):
    out = tmp_path / "out"
    (out / "short").mkdir(parents=True)
    (out / "short/diary.txt").write_text("mine")
    with pytest.raises(Taken, match=r"out/short: "):
        detect(here.detector(), short, out, film=False)
    assert (out / "short/diary.txt").read_text() == "mine"


def test_results_are_locked_by_one_process(here, tmp_path, short, monkeypatch):
    monkeypatch.setattr(output, "PATIENCE", 0.0)
    out = tmp_path / "out"
    with making(out / "short", short) as beside:
        (beside / "half").write_text("made")
        with pytest.raises(Taken, match=r"another process.*--out"):
            detect(here.detector(), short, out, film=False)
        detect(here.detector(), short, out, key="other", film=False)
        assert (beside / "half").exists()
    assert names_in(out) == ["other", "short"]


def test_leftovers_of_killed_process_are_removed(here, tmp_path, short):
    left = tmp_path / "out/.short.partial"
    left.mkdir(parents=True)
    (left / "maps").write_bytes(b"half")
    detect(here.detector(), short, tmp_path / "out", film=False)
    assert names_in(tmp_path / "out") == ["short"]


def test_foreign_partial_files_are_kept(here, tmp_path, short):
    out = tmp_path / "out"
    (out / ".theirs.partial").mkdir(parents=True)
    (out / ".theirs.partial/file").write_text("theirs")
    (out / ".file.partial").write_text("theirs")
    detect(here.detector(), short, out, film=False)
    assert names_in(out) == [".file.partial", ".theirs.partial", "short"]


def test_failure_leaves_no_partial_results(here, tmp_path, short, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(UnreadableVideo):
        detect(here.detector(), tmp_path / "not-there.avi", tmp_path / "out")
    monkeypatch.setattr(output, "write_film", full)
    with pytest.raises(OSError, match="No space"):
        detect(here.detector(), short, tmp_path / "out")
    assert names_in(tmp_path / "out") == []


def assert_killed_in(work) -> None:
    """Run ``work`` in a process and assert that it ends with code 137."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137


def test_kill_leaves_old_or_new_results(tmp_path):
    video = tmp_path / "video"
    video.write_text("some")
    kinds = set()
    for step in range(1, 4):
        out = tmp_path / str(step)

        def make(text, out=out):
            with making(out / "gate", video) as beside:
                write_json(beside / "events.json", {"sha256": sha256_files([video]), "text": text})

        def deadly(out=out, make=make, step=step):
            left, rename = [step], Path.rename

            def counted(self, target):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(137)
                return rename(self, target)

            with making(out / "warm", video):  # no leftovers of an earlier process
                pass
            Path.rename = counted
            make("new")

        make("old")
        assert_killed_in(deadly)
        shutil.rmtree(out / "warm")
        sweep(out)
        assert [path.name for path in out.iterdir()] == ["gate"]
        kinds.add(json.loads((out / "gate/events.json").read_text())["text"])
    assert kinds == {"old", "new"}
