"""What a person gets for a video: a folder that is complete or not there, and a detector that fits into another folder."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from tests.helpers.videos import Place, events_of, make_video
from tests.unit.detect.test_detector import TINY
from vadcore.detect import results
from vadcore.detect.detector import load_detector
from vadcore.detect.film import BAR, film_size
from vadcore.detect.making import Taken, making, sweep
from vadcore.detect.maps import Maps, colour_scale
from vadcore.detect.reading import UnreadableVideo
from vadcore.detect.recipe import describe, pack, read_recipe
from vadcore.detect.results import detect
from vadcore.detect.timeline import clock, highest_of_stretches
from vadcore.errors import VadError
from vadcore.files import sha256_files, write_json

FILES = ["annotated.webm", "events.csv", "events.json", "scores.csv", "timeline.png"]


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Place:
    return Place(tmp_path_factory.mktemp("place"), "frame_diff", TINY["frame_diff"])


@pytest.fixture(scope="module")
def made(here, tmp_path_factory):
    return detect(here.detector(), here.video, tmp_path_factory.mktemp("out") / "detections")


def pictures_of(video) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(video)), []
    while (read := capture.read())[0]:
        found.append(read[1])
    return found


def test_a_video_gets_a_folder_with_all_its_results(made, here):
    assert sorted(path.name for path in made.folder.iterdir()) == FILES
    assert [path.name for path in made.folder.parent.iterdir()] == ["gate"]
    about = json.loads((made.folder / "events.json").read_text())
    assert about == made.about
    assert {key: about[key] for key in ("video", "fps", "frames", "seconds", "width", "height")} == {
        "video": "gate.avi",
        "fps": 10.0,
        "frames": 80,
        "seconds": 8.0,
        "width": 64,
        "height": 48,
    }
    assert about["detector"]["dataset"] == "yard"
    assert about["detector"]["model"] == "frame_diff"
    assert about["threshold"] == here.calibration.threshold


def test_json_csv_and_scores_say_the_same(made):
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


def test_the_film_shows_every_frame_with_heat_where_the_error_is_and_a_red_bar_while_the_event_lasts(made, here):
    film = pictures_of(made.folder / "annotated.webm")
    height, width = film_size((48, 64))
    assert (height, width) == (240, 320)
    assert len(film) == 80
    assert film[0].shape == (height + BAR, width, 3)
    event = made.events[0]
    red = [int(picture[height + 4 :, width // 2 :, 2].mean()) for picture in film]
    lasts = np.arange(event["start_frame"], event["end_frame"] + 1)
    assert min(np.array(red)[lasts]) > 150
    assert max(np.delete(red, lasts)) < 100
    peak, source = event["peak_frame"], pictures_of(here.video)
    plain = cv2.resize(source[peak], (width, height), interpolation=cv2.INTER_NEAREST)
    changed = np.abs(film[peak][:height].astype(int) - plain).mean(-1)
    x, y, w, h = (event["box"][side] * 5 for side in ("x", "y", "width", "height"))
    assert changed[y : y + h, x : x + w].mean() > 4 * changed[:, : x - 20].mean()


def test_the_timeline_is_a_picture(made):
    picture = cv2.imread(str(made.folder / "timeline.png"))
    assert picture.shape[1] > 1000
    red = (picture[..., 2].astype(int) - picture[..., 0]) > 30  # the event's stretch and the threshold
    assert red.mean() > 0.02


def test_the_timeline_of_a_long_video_loses_no_alarm():
    scores = np.full(100_000, 1.0)
    scores[77_777] = 9.0
    scores[:500] = np.nan
    seconds, shown = highest_of_stretches(np.arange(100_000) / 25, scores)
    assert len(shown) <= 1500
    assert shown.max() == 9.0 or np.nanmax(shown) == 9.0
    assert seconds[np.nanargmax(shown)] == pytest.approx(77_777 / 25, abs=3)
    assert np.isnan(shown[0])


def test_times_read_as_clocks_do():
    assert [clock(s) for s in (0, 59.9, 61, 3600, 36_610)] == ["0:00", "0:59", "1:01", "1:00:00", "10:10:10"]


def test_films_are_at_most_480_wide_with_even_sides():
    assert film_size((360, 480)) == (360, 480)
    assert film_size((1080, 1920)) == (270, 480)
    assert film_size((127, 191)) == (254, 382)
    assert film_size((1, 3000)) == (2, 480)
    assert film_size((1920, 1080)) == (854, 480)
    assert film_size((1500, 2)) == (1200, 2)


def test_a_video_of_an_extreme_shape_has_a_film(here, tmp_path):
    video = make_video(tmp_path / "slit.avi", 4, size=(1500, 2), runs=None)
    found = detect(here.detector(), video, tmp_path / "out")
    assert pictures_of(found.folder / "annotated.webm")[0].shape == (1200 + BAR, 2, 3)


@pytest.mark.parametrize("name", [r"a$_$b.avi", r"$\\frac$ 10$.avi", "n" * 250 + ".avi", "a\nb.avi"])
def test_a_file_s_name_may_be_anything(here, tmp_path, name):
    video = make_video(tmp_path / "short.avi", 4, runs=None).rename(tmp_path / name)
    found = detect(here.detector(), video, tmp_path / "out", film=False)
    assert found.about["video"] == name.replace("\n", "\ufffd")
    assert len(pd.read_csv(found.folder / "scores.csv")) == 4


def test_a_path_that_is_no_utf_8_is_refused_before_opencv_ends_the_process(here, tmp_path):
    video = make_video(tmp_path / "a.avi", 4, runs=None).rename(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xdf.avi")))
    with pytest.raises(UnreadableVideo, match=r"a path that is not UTF-8; rename it$"):
        detect(here.detector(), video, tmp_path / "out")


def test_films_have_at_most_15_frames_a_second_and_keep_their_length(here, tmp_path):
    video = make_video(tmp_path / "fast.avi", 61, fps=40)
    found = detect(here.detector(fps=40), video, tmp_path)
    assert found.about["scored_fps"] == 40
    film = cv2.VideoCapture(str(found.folder / "annotated.webm"))
    assert film.get(cv2.CAP_PROP_FPS) == pytest.approx(40 / 3, rel=0.01)
    assert len(pictures_of(found.folder / "annotated.webm")) == 21


def test_a_video_on_which_nothing_happens_stays_dark(tmp_path):
    """The heat's scale comes from the video's usual frames and not from the highest error there happens to be."""
    maps = Maps(tmp_path / "maps")
    rng = np.random.default_rng(0)
    maps.append(rng.random((300, 12, 16)).astype(np.float16))
    low, high = colour_scale(maps, np.ones(300, bool))
    assert high >= 3 * low
    assert low > 0.5
    busy = np.zeros(20, bool)
    maps.append(np.full((20, 12, 16), 50, np.float16))
    low, high = colour_scale(maps, np.append(np.ones(300, bool), busy))
    assert low < 1 < 40 < high


def test_results_can_do_without_the_film(here, tmp_path):
    found = detect(here.detector(), here.video, tmp_path, film=False)
    assert sorted(path.name for path in found.folder.iterdir()) == [name for name in FILES if "webm" not in name]


def test_of_a_video_without_an_event_or_without_a_score_there_are_results_too(here, tmp_path):
    quiet = make_video(tmp_path / "quiet.avi", 30, seed=1, runs=None)
    short = make_video(tmp_path / "short.avi", 1)
    for video in (quiet, short):
        found = detect(here.detector(), video, tmp_path / "out")
        assert sorted(path.name for path in found.folder.iterdir()) == FILES
        assert found.events == events_of(found.folder) == []
        assert len(pd.read_csv(found.folder / "events.csv")) == 0
    assert found.about["scored_frames"] == 0


def test_new_results_of_a_video_take_the_place_of_old_ones(here, tmp_path):
    first = detect(here.detector(), here.video, tmp_path, film=False)
    (first.folder / "note.txt").write_text("of the first time")
    detect(here.detector(), here.video, tmp_path, film=False)
    assert not (first.folder / "note.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["gate"]
    with pytest.raises(VadError, match="there already"):
        detect(here.detector(), here.video, tmp_path, replace=False)


def test_results_of_another_video_are_refused_and_stay(here, tmp_path):
    """Cameras name their files alike."""
    for number in range(2):
        make_video(tmp_path / f"cam{number}" / "0001.avi", 4, seed=number, runs=None)
    first = detect(here.detector(), tmp_path / "cam0/0001.avi", tmp_path / "out", film=False)
    with pytest.raises(Taken, match=r"out/0001: there already, of another video; move it away, or .*--out"):
        detect(here.detector(), tmp_path / "cam1/0001.avi", tmp_path / "out", film=False)
    assert json.loads((first.folder / "events.json").read_text()) == first.about
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0001"]


def test_a_folder_that_holds_no_results_is_refused_and_stays(here, tmp_path):
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate/diary.txt").write_text("mine")
    with pytest.raises(Taken, match="there already"):
        detect(here.detector(), here.video, tmp_path, film=False)
    assert (tmp_path / "gate/diary.txt").read_text() == "mine"


def test_of_two_who_make_the_same_results_one_is_refused_and_the_other_undisturbed(here, tmp_path):
    with making(tmp_path / "gate", here.video) as beside:
        (beside / "half").write_text("made")
        with pytest.raises(Taken, match="another process is making these results"):
            detect(here.detector(), here.video, tmp_path, film=False)
        detect(here.detector(), here.video, tmp_path, key="other", film=False)
        assert (beside / "half").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate", "other"]


def killed_in(work) -> None:
    """Run ``work`` in a process that has to end itself as kill -9 would."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137


def test_who_is_killed_while_new_results_take_the_place_of_old_ones_leaves_one_of_both_and_nothing_else(tmp_path):
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

            with making(out / "warm", video):  # nothing of an earlier process is left to clear away
                pass
            Path.rename = counted
            make("new")

        make("old")
        killed_in(deadly)
        shutil.rmtree(out / "warm")
        sweep(out)
        assert [path.name for path in out.iterdir()] == ["gate"]
        kinds.add(json.loads((out / "gate/events.json").read_text())["text"])
    assert kinds == {"old", "new"}


def test_what_others_have_in_the_folder_is_not_cleared_away(here, tmp_path):
    (tmp_path / ".theirs.partial").mkdir()
    (tmp_path / ".theirs.partial/file").write_text("theirs")
    (tmp_path / ".file.partial").write_text("theirs")
    detect(here.detector(), here.video, tmp_path, film=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".file.partial", ".theirs.partial", "gate"]


def test_what_breaks_off_leaves_nothing_half_made(here, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(UnreadableVideo):
        detect(here.detector(), tmp_path / "not-there.avi", tmp_path / "out")
    monkeypatch.setattr(results, "write_film", full)
    with pytest.raises(OSError, match="No space"):
        detect(here.detector(), here.video, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away(here, tmp_path):
    left = tmp_path / ".gate.partial"
    left.mkdir()
    (left / "maps").write_bytes(b"half")
    detect(here.detector(), here.video, tmp_path, film=False)
    assert [path.name for path in tmp_path.iterdir()] == ["gate"]


class TestADetectorFolder:
    """All that scoring needs: it works far from the project that made it."""

    def test_gives_the_same_results(self, tmp_path):
        here = Place(tmp_path / "project", "hog_hof_ae", TINY["hog_hof_ae"], flow=True)
        project = detect(here.detector(), here.video, tmp_path / "a", film=False)
        pack(here.recipe(), here.trained, here.scored / "calibration.json", tmp_path / "detector")
        shutil.copy(here.video, tmp_path)
        shutil.rmtree(tmp_path / "project")
        moved = tmp_path / "elsewhere"
        (tmp_path / "detector").rename(moved)
        packed = detect(load_detector(moved, "cpu"), tmp_path / "gate.avi", tmp_path / "b", film=False)
        assert packed.about == project.about
        for name in ("scores.csv", "events.csv"):
            assert (packed.folder / name).read_text() == (project.folder / name).read_text()

    def test_takes_the_weights_of_the_flow_along(self, here, tmp_path):
        recipe = here.recipe()
        weights = tmp_path / "some.safetensors"
        weights.write_bytes(b"weights")
        flow = {"estimator": "flownet", "options": {"weights": str(weights), "enlarge": [2, 2]}, "size": (32, 32)}
        recipe = type(recipe)(**{**recipe.model_dump(), "flow": flow})
        pack(recipe, here.trained, here.scored / "calibration.json", tmp_path / "detector")
        known = read_recipe(tmp_path / "detector")
        assert known.flow.options["weights"] == str(tmp_path / "detector/flow.safetensors")
        assert (tmp_path / "detector/flow.safetensors").read_bytes() == b"weights"

    def test_another_rate_gives_another_threshold(self, here, tmp_path):
        pack(here.recipe(), here.trained, here.scored / "calibration.json", tmp_path / "d")
        usual, strict = load_detector(tmp_path / "d", "cpu"), load_detector(tmp_path / "d", "cpu", 0.1)
        assert usual.calibration == here.calibration
        assert strict.calibration.threshold == here.calibration.threshold_at(0.1)
        assert strict.calibration.extrapolated

    def test_faults_are_one_line_with_a_remedy(self, here, tmp_path):
        folder = tmp_path / "d"
        with pytest.raises(VadError, match=r"detector.json: not there; .*--pack"):
            load_detector(folder)
        pack(here.recipe(), here.trained, here.scored / "calibration.json", folder)
        (folder / "detector.json").write_text("{}")
        with pytest.raises(VadError, match="dataset: Field required"):
            load_detector(folder)
        pack(here.recipe(), here.trained, here.scored / "calibration.json", folder)
        (folder / "calibration.json").unlink()
        with pytest.raises(VadError, match="run the score stage"):
            load_detector(folder)
        with pytest.raises(VadError, match="run the train and the score stage of frame_diff first"):
            pack(here.recipe(), here.trained, tmp_path / "nowhere.json", folder)

    def test_a_project_that_has_not_trained_says_what_to_run(self, here, tmp_path):
        with pytest.raises(VadError, match=r"metrics.json: not there; run the train and the score stage"):
            describe(tmp_path, tmp_path, here.frames)

    def test_flow_made_with_other_weights_is_refused(self, tmp_path):
        here = Place(tmp_path, "flow_magnitude", {}, flow=True)
        assert here.recipe().flow.size == (32, 40)
        for clip in here.flow.clips("train"):
            known = {**here.flow.attributes(clip), "options": {"weights": "0" * 64}}
            type(here.flow)(here.flow.url, "flow", write=True).array(clip).attrs.update(known)
        other = tmp_path / "other.safetensors"
        other.write_bytes(b"others")
        with pytest.raises(VadError, match=r"other.safetensors: not the weights that .* was made with"):
            describe(here.trained, here.scored, here.frames, here.flow, str(other))
