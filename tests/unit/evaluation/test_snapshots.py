"""Snapshots of the test footage: selection of frames, sheets of pictures."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadcore.evaluation.snapshots import Snapshot, snapshot_frames, write_sheets


@given(st.dictionaries(st.text("ab", min_size=1, max_size=3), st.integers(1, 300), min_size=1), st.integers(0, 400))
def test_snapshots_are_evenly_spread_and_limited(lengths, count):
    chosen = snapshot_frames(lengths, count)
    assert set(chosen) == set(lengths)
    assert sum(map(len, chosen.values())) <= count
    for clip, numbers in chosen.items():
        assert all(0 <= number < lengths[clip] for number in numbers)
        assert len(set(np.diff(numbers))) <= 1
    if count >= sum(lengths.values()):
        assert all(numbers.tolist() == list(range(lengths[clip])) for clip, numbers in chosen.items())


class TestSheets:
    LEVELS = (0, 60, 120, 180, 240)

    @pytest.fixture
    def known(self, tmp_path):
        drawn = [
            Snapshot(np.full((30, 40), level, np.uint8), None if level == 0 else np.full((10, 20, 1), level, np.uint8),
                   np.full((6, 8), level / 240), None)
            for level in self.LEVELS
        ]  # fmt: skip
        known = write_sheets(tmp_path, "01", np.array([3, 8, 13, 18, 23]), drawn, (0.0, 1.0))
        return tmp_path, json.loads(json.dumps(known))

    def small(self, folder, sheet, number):
        picture = cv2.imread(str(folder / sheet["file"]), cv2.IMREAD_GRAYSCALE)
        row, column = divmod(number, sheet["columns"])
        h, w = sheet["height"], sheet["width"]
        return picture[row * h : (row + 1) * h, column * w : (column + 1) * w]

    def test_index_locates_pictures(self, known):
        folder, known = known
        assert known["frames"] == [3, 8, 13, 18, 23]
        for number, level in enumerate(self.LEVELS):
            for kind in ("frame", "reconstruction"):
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
            "reconstruction": (20, 10),
            "error": (8, 6),
        }

    def test_large_pictures_are_reduced(self, tmp_path):
        snapshot = Snapshot(np.zeros((600, 800, 3), np.uint8), None, np.zeros((72, 96)), np.ones((600, 800), bool))
        sheets = write_sheets(tmp_path, "01", np.array([0]), [snapshot], (0.0, 1.0))["sheets"]
        assert (sheets["frame"]["width"], sheets["frame"]["height"]) == (240, 180)
        assert "reconstruction" not in sheets
