"""A video is scored by a fusion as the stages score and fuse the stored clip: same scores and error maps, bit for bit."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.videos import RUNS, SIZE, Place, make_video, square_at
from vadcore.data.loader import ClipLoader
from vadcore.data.windows import Segment
from vadcore.detection import stream
from vadcore.detection.detector import Detector, load_detector
from vadcore.detection.stream import scan, score_pictures
from vadcore.evaluation.calibration import calibrate
from vadcore.evaluation.evaluate import score_table
from vadcore.evaluation.inference import ClipScores, score_clip
from vadcore.evaluation.preprocess import MEMBERS, describe, pack
from vadcore.models.fusion import Fusion, Member, Scale, save_fusion
from vadcore.utils.files import write_json, write_text
from vadcore.utils.folders import FUSED

pytestmark = pytest.mark.xdist_group("detector")
SYSTEMS = {
    "wide": ("box_speed", "convlstm_ae"),  # windows of 5 and 4 frames, maps of 48x64 and 24x32
    "flow": ("flow_magnitude", "hog_hof_ae", "future_frame"),  # at 48x64, 48x64 and 32x40; the stored flow has 32x40
    "plain": ("conv_ae", "background"),  # windows of 5 frames with a step of 3, and single frames
}


class Fused:
    """A fusion of systems that look at the same place, packed as a detector folder."""

    def __init__(self, folder: Path, places: list[Place], rule: str):
        self.places, first = places, places[0]
        val = [[place.measured(clip) for clip in place.frames.clips("train")] for place in places]
        self.fusion = Fusion(
            system="fusion",
            of=[place.name for place in places],
            rule=rule,
            members={
                place.name: Member(
                    measure=place.model.score,
                    precision="float32",
                    score=Scale.over(np.concatenate([found.measures[place.model.score] for found in of_place]), 0.99),
                    map=Scale.over(np.concatenate([found.map_max for found in of_place]), 0.99),
                )
                for place, of_place in zip(places, val, strict=True)
            },
        )
        for place in places:
            shutil.copytree(place.trained, folder / "model" / MEMBERS / place.name)
        save_fusion(self.fusion, folder / "model")
        write_json(folder / "model/metrics.json", {"dataset": "yard", "model": "fusion", "precision": None})
        write_json(folder / "scores/metrics.json", {"smoothing_frames": 1.5})
        normal = [self.fusion.measures([found.measures for found in clip])[FUSED] for clip in zip(*val, strict=True)]
        self.calibration = calibrate(dict(enumerate(normal)), dict.fromkeys(range(len(normal)), 10.0), 120, 0.5, 0.2)
        write_text(folder / "scores/calibration.json", self.calibration.to_json())
        flow = next((place.flow for place in places if place.flow), None)
        recipe = describe(folder / "model", folder / "scores", first.frames, flow)
        pack(recipe, folder / "model", folder / "scores/calibration.json", folder / "detector")
        self.detector: Detector = load_detector(folder / "detector", "cpu")

    def stored(self, frames: int) -> ClipScores:
        """What the stages make of the first ``frames`` of the stored clip."""
        judged = []
        for place in self.places:
            footage = ClipLoader.for_model(place.model, place.frames, [Segment(place.stored, 0, frames)], place.flow)
            judged.append(score_clip(place.model, footage, 0))
        measures = self.fusion.measures([found.measures for found in judged])
        return ClipScores(measures, self.fusion.maps([found.maps for found in judged]))


@pytest.fixture(scope="session")
def fused_of(place_of, tmp_path_factory):
    """``fused_of(key, rule)``: a :class:`Fused` of ``SYSTEMS[key]``. Tests do not change it."""

    def fused_of(key: str, rule: str = "mean") -> Fused:
        return Fused(tmp_path_factory.mktemp("fused"), [place_of(name) for name in SYSTEMS[key]], rule)

    return fused_of


def assert_same_as_stages(found, fused: Fused, frames: int) -> None:
    stored = fused.stored(frames)
    table = score_table({"gate": stored.measures}, FUSED, {"gate": 10.0}, 1.5, fused.calibration)
    for name in ("score", "p_value", *stored.measures):
        np.testing.assert_array_equal(found.frames[name], table[name], err_msg=name)
    assert found.maps.count == frames
    maps = np.stack([found.maps[number] for number in range(frames)])
    np.testing.assert_array_equal(maps, stored.maps.astype(np.float32))


@pytest.mark.parametrize(("key", "rule"), [("wide", "mean"), ("wide", "max"), ("flow", "mean"), ("plain", "mean")])
def test_fusion_scores_video_like_stored_clip(fused_of, tmp_path, key, rule):
    fused = fused_of(key, rule)
    found = scan(fused.detector, fused.places[0].video, tmp_path / "maps")
    assert_same_as_stages(found, fused, 80)
    assert found.frames["score"].notna().any()
    found.maps.close()


@pytest.mark.parametrize("frames", [1, 4, 5, 6, 17, 79])
def test_short_videos(fused_of, tmp_path, frames):
    fused = fused_of("wide")
    video = make_video(tmp_path / "first.avi", frames, seed=5)
    found = scan(fused.detector, video, tmp_path / "maps")
    assert_same_as_stages(found, fused, frames)
    assert found.frames["score"].notna().any() == (frames >= 6)  # of 5 frames the systems judge different ones
    said = (
        f"first.avi has {frames} frames at 10 a second, too few for a window of 5 and one of 4: nothing could be scored"
    )
    assert found.remarks == ([said] if frames < 6 else [])


def test_event_is_found_with_its_place(fused_of, tmp_path):
    found = scan(fused_of("wide").detector, fused_of("wide").places[0].video, tmp_path / "maps")
    event = found.events.to_dict("records")[0]
    assert RUNS.start - 5 <= event["start_frame"] <= event["peak_frame"] <= event["end_frame"] <= RUNS.stop + 5
    x, y = square_at(event["peak_frame"], seed=5, fast=True)
    assert event["x"] <= x <= event["x"] + event["width"]
    assert event["y"] <= y <= event["y"] + event["height"]
    assert event["width"] * event["height"] < SIZE[0] * SIZE[1] / 2


def test_flow_is_estimated_once(fused_of, tmp_path):
    fused, pairs = fused_of("flow"), []

    def counted(first, second):
        pairs.append(len(first))
        return fused.detector.estimator(first, second)

    scan(dataclasses.replace(fused.detector, estimator=counted), fused.places[0].video, tmp_path / "maps").maps.close()
    assert sum(pairs) == 79


def test_waiting_maps_are_bounded(fused_of, monkeypatch):
    kept, waiting, take = [], [], stream._FusedMaps.take

    def counted(self, number, maps):
        take(self, number, maps)
        waiting.append(max(map(len, self.waiting)))

    monkeypatch.setattr(stream._FusedMaps, "take", counted)
    pictures = (np.zeros((*SIZE, 3), np.uint8) for _ in range(300))
    score_pictures(fused_of("wide").detector, pictures, lambda maps: kept.append(len(maps)))
    assert max(waiting[len(waiting) // 3 :]) <= max(waiting[: len(waiting) // 3]) < 100
    assert sum(kept) == 300


def test_another_fusion_has_another_digest(fused_of):
    assert fused_of("plain").detector.digest == fused_of("plain").detector.digest
    assert fused_of("plain").detector.digest != fused_of("plain", "max").detector.digest
