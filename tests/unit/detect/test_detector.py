"""A foreign video is judged as the stages would judge it: the same scores, events and error maps, to the bit."""

import dataclasses

import cv2
import numpy as np
import pytest

from tests.helpers.videos import RUNS, SIZE, Place, make_video, square_at
from vadcore.detect.frames import Sampling, sampling_of
from vadcore.detect.judging import Judge
from vadcore.detect.maps import Maps, place
from vadcore.detect.reading import UnreadableVideo
from vadcore.detect.scan import scan
from vadcore.evaluate import event_table, score_table

TINY = {
    "frame_diff": {"block": 8},
    "background": {"image_size": (24, 32)},
    "conv_ae": {"image_size": (27, 35), "frames": 5, "conv": (8, 4, 4), "step": 3},
    "convlstm_ae": {"image_size": (24, 32), "frames": 4, "conv": (4, 4), "lstm": (4,)},
    "latent_lstm": {
        "image_size": (32, 32),
        "frames": 6,
        "warm_up": 2,
        "hidden": 8,
        "front_end": {"name": "vcae", "conv": 2, "dense": 8},
    },
    "flow_magnitude": {},
    "hog_hof_ae": {"image_size": (48, 64), "cell": 8, "frames": 6, "step": 2, "layers": (16, 4)},
    "future_frame": {
        "image_size": (32, 40),
        "conv": (4, 4, 4, 4),
        "discriminator": (4, 4, 4, 4),
        "flow": 0,
        "flownet": None,
    },
}
FLOW = ("flow_magnitude", "hog_hof_ae", "future_frame")


def assert_same_as_stages(found, here: Place):
    """Scores, p-values, events and maps of ``found`` are what extraction, flow and scoring of the same video give."""
    stored = here.measured(here.stored)
    fps = here.frames.attributes(here.stored)["fps"]
    table = score_table({"gate": stored.measures}, here.model.score, {"gate": fps}, 1.5, here.calibration)
    for name in ("score", "p_value", *stored.measures):
        np.testing.assert_array_equal(found.frames[name], table[name], err_msg=name)
    maps = np.stack([found.maps[n] for n in range(found.maps.count)])
    np.testing.assert_array_equal(maps, stored.maps.astype(np.float32))
    events = event_table(table, here.calibration, here.calibration)
    for name in ("peak_score", "p_value", "start_seconds"):
        np.testing.assert_array_equal(found.events[name], events[name])
    return events


@pytest.mark.parametrize("name", TINY)
def test_every_system_scores_a_video_as_it_scores_the_stored_clip(tmp_path, name):
    here = Place(tmp_path, name, TINY[name], flow=name in FLOW)
    found = scan(here.detector(), here.video, tmp_path / "maps")
    events = assert_same_as_stages(found, here)
    assert found.events["start_frame"].tolist() == events["start_frame"].tolist()
    assert found.events["end_frame"].tolist() == events["end_frame"].tolist()
    found.maps.close()
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("frames", [3, 4, 5, 80, 83, 84, 85, 161])
def test_no_frame_is_lost_where_batches_of_windows_meet(tmp_path, frames):
    """80 frames make one batch of 20 windows of 4 on a CPU."""
    here = Place(tmp_path, "convlstm_ae", TINY["convlstm_ae"], frames=frames)
    found = scan(here.detector(), here.video, tmp_path / "maps")
    assert_same_as_stages(found, here)
    assert len(found.frames) == found.maps.count == frames


@pytest.mark.parametrize("fps", [4.0, 5.0, 9.0])
def test_faster_footage_is_brought_to_the_rate_that_was_trained_at(tmp_path, fps):
    here = Place(tmp_path, "convlstm_ae", TINY["convlstm_ae"], fps=fps)
    found = scan(here.detector(), here.video, tmp_path / "maps")
    assert found.sampling == Sampling(10.0, fps, 10 / fps)
    events = assert_same_as_stages(found, here)
    # in the video's own frames and seconds
    numbers = found.sampling.numbers(len(found.frames))
    np.testing.assert_array_equal(found.frames["frame"], numbers)
    np.testing.assert_array_equal(found.frames["seconds"], numbers / 10)
    assert found.events["peak_frame"].tolist() == numbers[events["peak_frame"]].tolist()
    assert found.length == 80
    assert (found.events["end_frame"] < 80).all()


def test_footage_of_any_size_is_brought_to_that_which_was_trained_at(tmp_path):
    here = Place(tmp_path, "convlstm_ae", TINY["convlstm_ae"], size=(30, 40), color="rgb")
    found = scan(here.detector(), here.video, tmp_path / "maps")
    assert_same_as_stages(found, here)
    assert found.size == SIZE  # boxes are in the video's pixels, not in these


def test_rates_that_differ_by_less_than_two_percent_are_the_same(tmp_path):
    video = make_video(tmp_path / "a.avi", 10, fps=30)
    assert sampling_of(video, 29.97) == Sampling(30.0, 30.0, 1.0)
    assert sampling_of(video, 25).every == pytest.approx(1.2)
    assert sampling_of(video, 25, stated=12.5) == Sampling(12.5, 12.5, 1.0)


def test_slower_or_squeezed_footage_is_scored_and_the_person_is_told(tmp_path):
    here = Place(tmp_path, "frame_diff", {})
    detector = here.detector(fps=20.0)
    found = scan(detector, here.video, tmp_path / "maps")
    assert len(found.frames) == 80
    assert [
        remark for remark in found.remarks if "gate.avi has 10 frames a second, the system was trained at 20" in remark
    ]
    wide = make_video(tmp_path / "wide.avi", 20, (48, 128))
    (remark,) = scan(here.detector(), wide, tmp_path / "maps").remarks
    assert remark.startswith("wide.avi is 128x48, the system was trained at 64x48: the picture is squeezed")
    assert scan(here.detector(), here.video, tmp_path / "maps").remarks == []


def test_a_video_shorter_than_a_window_has_no_scores_and_says_so(tmp_path):
    here = Place(tmp_path, "convlstm_ae", TINY["convlstm_ae"])
    found = scan(here.detector(), make_video(tmp_path / "short.avi", 2), tmp_path / "maps")
    assert found.frames["score"].isna().all()
    assert len(found.frames) == 2
    assert not len(found.events)
    assert "short.avi has 2 frames at 10 a second, fewer than one window of 4" in found.remarks[0]


def test_an_unreadable_video_is_told_apart_from_all_other_faults(tmp_path):
    here = Place(tmp_path, "frame_diff", {})
    whole = here.video.read_bytes()
    for name, content, why in (
        ("empty.avi", b"", "empty"),
        ("cut.avi", whole[: len(whole) // 2], "cut short"),
        ("text.mp4", b"no video " * 99, "not a readable video"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableVideo, match=why):
            scan(here.detector(), tmp_path / name, tmp_path / "maps")
        assert not (tmp_path / "maps").exists()
    with pytest.raises(UnreadableVideo, match=r"nowhere.avi: no such file; correct the path"):
        scan(here.detector(), tmp_path / "nowhere.avi", tmp_path / "maps")


def test_what_runs_is_found_and_its_place_is_told(tmp_path):
    here = Place(tmp_path, "frame_diff", {})
    (event,) = scan(here.detector(), here.video, tmp_path / "maps").events.to_dict("records")
    assert (
        RUNS.start - 5 <= event["start_frame"] <= event["peak_frame"] <= event["end_frame"] <= RUNS.stop + 5
    )  # smoothing spreads it
    x, y = square_at(event["peak_frame"], seed=5, fast=True)
    assert event["x"] - 8 <= x <= event["x"] + event["width"] + 8
    assert event["y"] - 4 <= y <= event["y"] + event["height"] + 4
    assert event["width"] < SIZE[1]


def test_the_place_is_the_spot_around_the_highest_error_in_the_video_s_pixels():
    error = np.full((24, 32), 0.1, np.float32)
    error[4:8, 20:26] = 1.0  # the highest
    error[15:18, 2:5] = 0.6
    x, y, width, height = place(error, (240, 320))
    assert (x + width / 2, y + height / 2) == pytest.approx((230, 60), abs=10)
    assert width == pytest.approx(60, abs=25)
    assert height == pytest.approx(40, abs=25)
    assert place(np.full((4, 4), np.nan), (8, 8)) is None
    assert place(np.zeros((4, 4), np.float32), (8, 8)) is None


def test_the_place_never_leaves_the_picture():
    error = np.zeros((7, 9), np.float32)
    error[:, 8] = 1
    x, y, width, height = place(error, (100, 131))
    assert x >= 0
    assert y == 0
    assert x + width <= 131
    assert y + height <= 100


def test_memory_does_not_grow_with_the_footage(tmp_path):
    """Frames, flow and maps are let go of: as many are held after 700 frames as after 200."""
    here = Place(tmp_path, "hog_hof_ae", TINY["hog_hof_ae"], flow=True)
    handed_on = []
    judge = Judge(here.detector(), lambda maps: handed_on.append(len(maps)))
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (1, *SIZE), dtype=np.uint8)
    field = np.zeros((2, *SIZE), np.int16)
    most = {}
    for number in range(700):
        judge.add(frame, field if number else None)
        held = len(judge._frames), len(judge._fields), 0 if judge._maps is None else len(judge._maps)
        half = "first" if number < 200 else "rest"
        most[half] = tuple(np.maximum(most.get(half, (0, 0, 0)), held))
    assert most["first"] == most["rest"]
    assert most["rest"][0] < 100
    judge.finish()
    assert sum(handed_on) == 700


def test_maps_are_read_back_as_they_were_written(tmp_path):
    maps = Maps(tmp_path / "maps")
    written = np.random.default_rng(0).random((10, 3, 4)).astype(np.float16)
    maps.append(written[:4])
    np.testing.assert_array_equal(maps[2], written[2])
    maps.append(written[4:])
    np.testing.assert_array_equal(maps[9], written[9])
    np.testing.assert_array_equal(maps[0], written[0])
    maps.close()
    assert list(tmp_path.iterdir()) == []


def test_another_rate_of_false_alarms_needs_no_other_calibration(tmp_path):
    here = Place(tmp_path, "frame_diff", {})
    calibration = here.calibration
    strict = calibration.model_copy(update={"threshold": calibration.threshold_at(0.01)})
    usual = scan(here.detector(), here.video, tmp_path / "maps")
    found = scan(dataclasses.replace(here.detector(), calibration=strict), here.video, tmp_path / "maps")
    assert len(found.events) <= len(usual.events)
    assert strict.threshold > calibration.threshold


def test_compressed_footage_of_another_size_and_rate_goes_all_the_way(tmp_path):
    """As a phone would deliver it: MPEG-4, larger, 30 frames a second."""
    here = Place(tmp_path, "background", TINY["background"])
    video = tmp_path / "phone.mp4"
    writer = cv2.VideoWriter(str(video), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 30, (320, 240))
    for number in range(90):
        writer.write(np.full((240, 320, 3), 50 + number, np.uint8))
    writer.release()
    found = scan(here.detector(), video, tmp_path / "maps")
    assert len(found.frames) == 30
    assert found.frames["frame"].tolist() == list(range(0, 90, 3))
    assert found.frames["score"].notna().all()
    assert found.size == (240, 320)
