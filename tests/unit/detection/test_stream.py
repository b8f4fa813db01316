"""A video is scored as the stages score the stored clip: same scores, events and error maps, bit for bit."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.encode import encode, zero_packet
from tests.helpers.footage import pictures
from tests.helpers.tiny_systems import TINY
from tests.helpers.videos import RUNS, SIZE, Place, make_video, square_at
from vadcore.data.loader import ClipLoader
from vadcore.data.windows import Segment
from vadcore.detection.source import Sampling, UnreadableVideo, VideoSource, sampling_of
from vadcore.detection.stream import AHEAD, scan
from vadcore.evaluation.evaluate import event_table, score_table
from vadcore.evaluation.inference import StreamScorer, score_clip
from vadcore.evaluation.maps import Maps, place

pytestmark = pytest.mark.xdist_group("detector")  # its places are made once per worker
LONGEST = 161  # frames


def assert_same_as_stages(found, here: Place, frames: int | None = None):
    """Scores, p-values, events and maps of ``found`` are what extraction, flow and scoring give for the stored clip, or
    for its first ``frames``. Returns the events."""
    segment = Segment(here.stored, 0, frames or here.frames.length(here.stored))
    stored = score_clip(here.model, ClipLoader.for_model(here.model, here.frames, [segment], here.flow), 0)
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
def test_system_scores_video_like_stored_clip(place_of, tmp_path, name):
    here = place_of(name)
    found = scan(here.detector(), here.video, tmp_path / "maps")
    events = assert_same_as_stages(found, here)
    assert found.events["start_frame"].tolist() == events["start_frame"].tolist()
    assert found.events["end_frame"].tolist() == events["end_frame"].tolist()
    found.maps.close()
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("frames", [3, 4, 5, 80, 83, 84, 85, LONGEST])
def test_no_frame_is_lost_between_batches(place_of, tmp_path, frames):
    """80 frames make one batch of 20 windows of 4 on a CPU."""
    here = place_of("convlstm_ae", frames=LONGEST)
    video = make_video(tmp_path / "first.avi", frames, seed=5)  # the first frames of the stored clip
    found = scan(here.detector(), video, tmp_path / "maps")
    assert_same_as_stages(found, here, frames)
    assert len(found.frames) == found.maps.count == frames


@pytest.mark.parametrize("fps", [4.0, 5.0, 9.0])
def test_frame_rate_is_reduced_for_scoring(place_of, tmp_path, fps):
    here = place_of("convlstm_ae", fps=fps)
    found = scan(here.detector(), here.video, tmp_path / "maps")
    assert found.sampling == Sampling(10.0, fps, 10 / fps, wanted=fps)
    events = assert_same_as_stages(found, here)
    # in the video's own frames and seconds
    numbers = np.floor(np.arange(len(found.frames)) * 10 / fps + 0.5).astype(int)
    np.testing.assert_array_equal(found.frames["frame"], numbers)
    np.testing.assert_array_equal(found.frames["seconds"], numbers / 10)
    assert found.events["peak_frame"].tolist() == numbers[events["peak_frame"]].tolist()
    assert found.length == 80
    assert (found.events["end_frame"] < 80).all()


def test_events_are_at_the_times_in_the_video(place_of, tmp_path):
    # 2 frames a second while nothing happens, then 10 a second: the event is 12 s later than its frame numbers say
    here = place_of("frame_diff")
    shown = pictures(80, SIZE, 3, 5)
    shown[30:45] = pictures(80, SIZE, 3, 5, speed=7)[30:45]
    times = np.concatenate([np.arange(30) * 0.5, 15 + np.arange(50) * 0.1])
    video = encode(tmp_path / "smart.mkv", shown, "ffv1", fps=10, times=times, pixels="bgr0")
    found = scan(here.detector(), video, tmp_path / "maps")
    np.testing.assert_allclose(found.frames["seconds"], times, atol=1e-3)
    assert found.duration == pytest.approx(20.0, abs=0.01)
    assert len(found.events)
    for event in found.events.itertuples():
        assert event.start_seconds == pytest.approx(times[event.start_frame], abs=1e-3)
        assert event.peak_seconds == pytest.approx(times[event.peak_frame], abs=1e-3)
        assert event.end_seconds == pytest.approx([*times, 20.0][event.end_frame + 1], abs=1e-3)
    assert found.events["peak_frame"].between(29, 46).any()
    assert any("varies" in remark for remark in found.remarks)


PARTS = (slice(0, 37), slice(37, 39), slice(39, 80))  # between the pauses of a recording


def recording_with_pauses(path):
    """The frames 0 to 79 at 10 a second, with a pause of a minute before each of the later two :data:`PARTS`."""
    times = np.arange(80) / 10 + np.repeat([0, 60, 120], [len(range(80)[part]) for part in PARTS])
    return encode(path, pictures(80, SIZE, 3, 5), "ffv1", fps=10, times=times, pixels="bgr0")


@pytest.mark.parametrize("name", TINY)
def test_parts_between_pauses_are_scored_on_their_own(place_of, tmp_path, name):
    here = place_of(name)
    found = scan(here.detector(), recording_with_pauses(tmp_path / "test/gate.mkv"), tmp_path / "maps")
    stored = here.measured_video(tmp_path / "test/gate.mkv", tmp_path / "stores")
    for part in PARTS:
        frames = pictures(80, SIZE, 3, 5)[part]
        video = encode(tmp_path / "part.mkv", frames, "ffv1", fps=10, pixels="bgr0")
        alone = scan(here.detector(), video, tmp_path / "maps-alone")
        for measure in set(alone.frames) - {"frame", "seconds", "score", "p_value", "event"}:
            if not here.flow:  # OpenCV's flow depends on the pair before
                np.testing.assert_array_equal(found.frames[measure][part], alone.frames[measure], err_msg=measure)
            np.testing.assert_array_equal(found.frames[measure], stored.measures[measure], err_msg=measure)
    maps = np.stack([found.maps[number] for number in range(80)])
    np.testing.assert_array_equal(maps, stored.maps.astype(np.float32))
    unscored = found.frames["score"].isna()
    assert unscored[37:39].all() == any("2 frames in 1 pieces" in remark for remark in found.remarks)
    assert not unscored[38] or name != "frame_diff"


def test_jump_over_a_pause_is_no_event(place_of, tmp_path):
    here = place_of("frame_diff")
    video = recording_with_pauses(tmp_path / "paused.mkv")
    assert not len(scan(here.detector(), video, tmp_path / "maps").events)
    shown = pictures(80, SIZE, 3, 5)
    shown[39:] = pictures(80, SIZE, 3, 25)[39:]  # the square is elsewhere after a pause that the file does not tell
    joined = encode(tmp_path / "joined.mkv", shown, "ffv1", fps=10, pixels="bgr0")
    assert len(scan(here.detector(), joined, tmp_path / "maps").events)


def test_damaged_frame_moves_no_event(place_of, tmp_path):
    here = place_of("frame_diff")
    shown = pictures(80, SIZE, 3, 5)
    shown[30:45] = pictures(80, SIZE, 3, 5, speed=7)[30:45]
    video = encode(tmp_path / "middle.mkv", shown, "ffv1", fps=10, pixels="bgr0", g="1")
    expected = scan(here.detector(), video, tmp_path / "maps").events
    found = scan(here.detector(), zero_packet(video, 10), tmp_path / "maps")
    assert (len(found.frames), found.length, found.duration) == (79, 80, 8.0)
    late = expected[expected["start_frame"] > 20]
    assert found.events[found.events["start_frame"] > 20]["start_seconds"].tolist() == late["start_seconds"].tolist()
    assert "1 of 80 frames are missing (1 at 1.00 s)" in found.remarks[0]


def test_video_is_resized_to_training_size(place_of, tmp_path):
    here = place_of("convlstm_ae", size=(30, 40), color="rgb")
    found = scan(here.detector(), here.video, tmp_path / "maps")
    assert_same_as_stages(found, here)
    assert found.size == SIZE  # boxes are in pixels of the video


def test_frame_rate_tolerance_is_two_percent(tmp_path):
    video = make_video(tmp_path / "a.avi", 10, fps=30)
    assert sampling_of(video, 29.97) == Sampling(30.0, 30.0, 1.0)
    assert sampling_of(video, 25).every == pytest.approx(1.2)
    assert sampling_of(video, 25, stated=12.5) == Sampling(12.5, 12.5, 1.0)


def test_fast_stretches_of_an_idle_recording_are_reduced(tmp_path):
    times = np.concatenate([np.arange(50) * 0.2, 10 + np.arange(40) * 0.04])  # 5 frames a second, then 25
    video = encode(tmp_path / "idle.mkv", len(times), times=times)
    sampling = sampling_of(video, 10.0)
    source = VideoSource(video, sampling)
    assert sampling == Sampling(5.0, 5.0, 1.0, wanted=10.0)
    assert sum(1 for _ in source) == len(source.numbers) == 50 + 16
    assert not source.is_constant
    assert [remark for remark in source.remarks if "mostly 5 frames a second, up to 25" in remark]
    assert sum(1 for _ in VideoSource(video, sampling_of(video, 25.0))) == 90


def test_remark_on_slow_or_squeezed_video(place_of, tmp_path):
    here = place_of("frame_diff")
    found = scan(here.detector(fps=20.0), here.video, tmp_path / "maps")
    assert len(found.frames) == 80
    (remark,) = (remark for remark in found.remarks if "frames a second" in remark)
    assert remark.startswith("gate.avi ")
    assert "10 frames a second" in remark
    assert "20" in remark
    wide = make_video(tmp_path / "wide.avi", 20, (48, 128))
    (remark,) = scan(here.detector(), wide, tmp_path / "maps").remarks
    assert remark.startswith("wide.avi ")
    assert "128x48" in remark
    assert "64x48" in remark
    assert scan(here.detector(), here.video, tmp_path / "maps").remarks == []


def test_too_short_video_has_no_scores(place_of, tmp_path):
    here = place_of("convlstm_ae")
    found = scan(here.detector(), make_video(tmp_path / "short.avi", 2), tmp_path / "maps")
    assert found.frames["score"].isna().all()
    assert len(found.frames) == 2
    assert not len(found.events)
    assert found.remarks[0].startswith("short.avi has 2 frames")
    assert "window of 4" in found.remarks[0]


def test_unreadable_video_raises_its_own_error(place_of, tmp_path):
    here = place_of("frame_diff")
    whole = here.video.read_bytes()
    for name, content, why in (
        ("empty.avi", b"", "empty"),
        ("cut.avi", whole[: len(whole) // 2], "cut off"),
        ("text.mp4", b"no video " * 99, "not a readable video"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableVideo, match=rf"{name}.*{why}"):
            scan(here.detector(), tmp_path / name, tmp_path / "maps")
        assert not (tmp_path / "maps").exists()
    with pytest.raises(UnreadableVideo, match=r"nowhere.avi: no such file"):
        scan(here.detector(), tmp_path / "nowhere.avi", tmp_path / "maps")


def test_event_is_found_with_its_place(place_of, tmp_path):
    here = place_of("frame_diff")
    (event,) = scan(here.detector(), here.video, tmp_path / "maps").events.to_dict("records")
    assert (
        RUNS.start - 5 <= event["start_frame"] <= event["peak_frame"] <= event["end_frame"] <= RUNS.stop + 5
    )  # smoothing spreads it
    x, y = square_at(event["peak_frame"], seed=5, fast=True)
    assert event["x"] - 8 <= x <= event["x"] + event["width"] + 8
    assert event["y"] - 4 <= y <= event["y"] + event["height"] + 4
    assert event["width"] < SIZE[1]


def test_place_surrounds_highest_error():
    error = np.full((24, 32), 0.1, np.float32)
    error[4:8, 20:26] = 1.0  # the highest
    error[15:18, 2:5] = 0.6
    x, y, width, height = place(error, (240, 320))
    assert (x + width / 2, y + height / 2) == pytest.approx((230, 60), abs=10)
    assert width == pytest.approx(60, abs=25)
    assert height == pytest.approx(40, abs=25)
    assert place(np.full((4, 4), np.nan), (8, 8)) is None
    assert place(np.zeros((4, 4), np.float32), (8, 8)) is None


def test_place_stays_inside_the_picture():
    error = np.zeros((7, 9), np.float32)
    error[:, 8] = 1
    x, y, width, height = place(error, (100, 131))
    assert x >= 0
    assert y == 0
    assert x + width <= 131
    assert y + height <= 100


def test_memory_does_not_grow_with_length(place_of):
    """Frames, flow and maps are released: as few are held later as in the first 112 frames, which are four batches."""
    system, kept = place_of("hog_hof_ae").detector().systems[0], []
    scorer = StreamScorer(system.model, system.device, system.dtype, lambda maps: kept.append(len(maps)))
    most = {"first": (0, 0, 0), "rest": (0, 0, 0)}
    for start in range(0, 304, AHEAD):
        frames = torch.randint(0, 255, (AHEAD, 1, *SIZE), dtype=torch.uint8)
        scorer.add(frames, torch.zeros((AHEAD if start else AHEAD - 1, 2, *SIZE), dtype=torch.int16))
        held = len(scorer._frames), len(scorer._flow), 0 if scorer._maps is None else len(scorer._maps.total)
        part = "first" if start < 112 else "rest"
        most[part] = tuple(np.maximum(most[part], held))
    assert most["first"] == most["rest"]
    assert most["rest"][0] < 50
    scorer.finish()
    assert sum(kept) == 304


def test_maps_round_trip(tmp_path):
    maps = Maps(tmp_path / "maps")
    written = np.random.default_rng(0).random((10, 3, 4)).astype(np.float16)
    maps.append(written[:4])
    np.testing.assert_array_equal(maps[2], written[2])
    maps.append(written[4:])
    np.testing.assert_array_equal(maps[9], written[9])
    np.testing.assert_array_equal(maps[0], written[0])
    maps.close()
    assert list(tmp_path.iterdir()) == []


def test_lower_alarm_rate_raises_the_threshold(place_of, tmp_path):
    here = place_of("frame_diff")
    calibration = here.calibration
    lenient = calibration.at_rate(2_000)
    usual = scan(here.detector(), here.video, tmp_path / "maps")
    found = scan(dataclasses.replace(here.detector(), calibration=lenient), here.video, tmp_path / "maps")
    assert len(usual.events) <= len(found.events)
    assert lenient.threshold < calibration.threshold


@pytest.mark.parametrize(("changed", "said"), [({}, None), ({"busy": -1.0}, "higher"), ({"quiet": 1e9}, "lower")])
def test_drift_is_a_remark(place_of, tmp_path, monkeypatch, changed, said):
    here = place_of("frame_diff")
    monkeypatch.setattr("vadcore.detection.stream.DRIFT_SECONDS", 1)
    calibration = here.calibration.model_copy(update={"quiet": -1e9, "busy": 1e9} | changed)
    found = scan(dataclasses.replace(here.detector(), calibration=calibration), here.video, tmp_path / "maps")
    remarks = [remark for remark in found.remarks if "as a whole" in remark]
    assert len(remarks) == (said is not None)
    assert all(f"scores {said} as a whole" in remark for remark in remarks)
    monkeypatch.undo()
    short = scan(dataclasses.replace(here.detector(), calibration=calibration), here.video, tmp_path / "maps")
    assert not any("as a whole" in remark for remark in short.remarks)
    # 62 s in 119 frames, most of which are 0.1 s apart
    times = np.concatenate([np.arange(60) * 0.1, 6 + np.arange(59) * 0.95])
    slow = encode(tmp_path / "slow.mkv", pictures(119, SIZE, 3, 5), "ffv1", fps=10, times=times, pixels="bgr0")
    found = scan(dataclasses.replace(here.detector(), calibration=calibration), slow, tmp_path / "maps")
    assert any("as a whole" in remark for remark in found.remarks) == (said is not None)


def test_compressed_video(place_of, tmp_path):
    """As from a phone: MPEG-4, larger, 30 frames a second."""
    here = place_of("background")
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
