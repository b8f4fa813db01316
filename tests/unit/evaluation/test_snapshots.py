"""Moments of the test footage: selection of frames and windows, sheets of pictures."""

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.footage import make_store
from vadcore.data.loader import ClipLoader
from vadcore.data.windows import Segment, Windows
from vadcore.evaluation.snapshots import Snapshot, covering, shown_frames, snapshot_frames, write_index, write_sheets
from vadcore.models.base import Model, ModelConfig, Prediction


@given(st.dictionaries(st.text("ab", min_size=1, max_size=3), st.integers(1, 300), min_size=1), st.integers(0, 400))
def test_moments_are_evenly_spread_and_limited(lengths, count):
    chosen = snapshot_frames(lengths, count)
    assert set(chosen) == set(lengths)
    assert sum(map(len, chosen.values())) <= count
    for clip, numbers in chosen.items():
        assert all(0 <= number < lengths[clip] for number in numbers)
        assert len(set(np.diff(numbers))) <= 1
    if count >= sum(lengths.values()):
        assert all(numbers.tolist() == list(range(lengths[clip])) for clip, numbers in chosen.items())


@given(st.integers(1, 60), st.integers(1, 12), st.data())
def test_covering_judges_every_possible_frame(length, window, data):
    judged = tuple(sorted(data.draw(st.sets(st.integers(0, window - 1), min_size=1))))
    wanted = np.array(sorted(data.draw(st.sets(st.integers(0, length - 1)))), np.int64)
    starts = covering(length, window, judged, wanted)
    assert all(0 <= start <= length - window for start in starts)
    reached = {start + position for start in starts for position in judged}
    possible = {start + position for start in range(length - window + 1) for position in judged}
    assert set(wanted.tolist()) & possible <= reached
    assert len(starts) <= len(wanted)


def test_covering_windows_overlap_at_end():
    assert covering(25, 10, tuple(range(10)), np.arange(25)).tolist() == [0, 10, 15]
    assert covering(10, 5, (4,), np.array([0, 4, 9])).tolist() == [0, 5]  # no window judges frame 0


class Numbers(Model):
    """Draws each judged frame in the grey levels of its number and of the first number of its window."""

    score = "number"

    def __init__(self, windows: Windows, draws: str = "frames"):
        super().__init__(ModelConfig())
        self.windows, self.draws = windows, draws

    def predict_step(self, batch):
        numbers = batch.numbers[:, list(self.windows.judged)].float() / 255
        begins = batch.numbers[:, :1].expand_as(numbers) / 255
        pictures = torch.stack((numbers, begins), dim=-1)[:, :, None, None].expand(-1, -1, 1, 4, 2)
        shown = None if self.draws == "nothing" else lambda: pictures
        return Prediction({"number": numbers}, pictures[:, :, 0], shown, shown if self.draws == "others" else None)


@pytest.fixture
def footage(tmp_path):
    store = make_store(tmp_path)
    return ClipLoader(store, [Segment(store.clips("test")[0], 0, 40)])


def levels(picture):
    return tuple(np.rint(picture[0, 0] * 255).astype(int).tolist())


def test_frame_comes_from_first_window(footage):
    found = shown_frames(Numbers(Windows(10, judged=tuple(range(10)))), footage, 0, np.array([2, 5, 12, 39]))
    assert {frame: levels(picture) for frame, picture in found.items()} == {
        2: (2, 2),
        5: (5, 2),
        12: (12, 12),
        39: (39, 30),
    }


def test_unjudged_frames_are_not_shown(footage):
    found = shown_frames(Numbers(Windows(5, judged=(4,))), footage, 0, np.array([0, 3, 4, 20]))
    assert {frame: levels(picture) for frame, picture in found.items()} == {4: (4, 0), 20: (20, 16)}


@pytest.mark.parametrize("draws", ["nothing", "others"])
def test_model_without_pictures_shows_none(footage, draws):
    assert shown_frames(Numbers(Windows(2, judged=(0,)), draws), footage, 0, np.arange(40)) == {}


class TestSheets:
    LEVELS = (0, 60, 120, 180, 240)

    @pytest.fixture
    def known(self, tmp_path):
        drawn = [
            Snapshot(np.full((30, 40), level, np.uint8), None if level == 0 else np.full((1, 10, 20), level / 255),
                   np.full((6, 8), level / 240), None)
            for level in self.LEVELS
        ]  # fmt: skip
        known = write_sheets(tmp_path, "01", np.array([3, 8, 13, 18, 23]), drawn, (0.0, 1.0))
        write_index(tmp_path, {"01": known})
        return tmp_path, json.loads((tmp_path / "snapshots.json").read_text())["01"]

    def small(self, folder, sheet, number):
        picture = cv2.imread(str(folder / sheet["file"]), cv2.IMREAD_GRAYSCALE)
        row, column = divmod(number, sheet["columns"])
        h, w = sheet["height"], sheet["width"]
        return picture[row * h : (row + 1) * h, column * w : (column + 1) * w]

    def test_index_locates_pictures(self, known):
        folder, known = known
        assert known["frames"] == [3, 8, 13, 18, 23]
        for number, level in enumerate(self.LEVELS):
            for kind in ("frame", "shown"):
                assert abs(float(self.small(folder, known["sheets"][kind], number).mean()) - level) < 6

    def test_larger_errors_are_brighter(self, known):
        folder, known = known
        means = [self.small(folder, known["sheets"]["error"], number).mean() for number in range(5)]
        assert means == sorted(means)
        assert means[0] < 10 < 150 < means[-1]

    def test_small_pictures_keep_their_size(self, known):
        sheets = known[1]["sheets"]
        assert {kind: (sheet["width"], sheet["height"]) for kind, sheet in sheets.items()} == {
            "frame": (40, 30),
            "shown": (20, 10),
            "error": (8, 6),
        }

    def test_large_pictures_are_reduced(self, tmp_path):
        moment = Snapshot(np.zeros((600, 800, 3), np.uint8), None, np.zeros((72, 96)), np.ones((600, 800), bool))
        sheets = write_sheets(tmp_path, "01", np.array([0]), [moment], (0.0, 1.0))["sheets"]
        assert (sheets["frame"]["width"], sheets["frame"]["height"]) == (240, 180)
        assert "shown" not in sheets
