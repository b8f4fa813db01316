"""Scores: every judged frame gets one, at its own frame number."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.footage import make_store
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipStore
from vadcore.data.windows import Segment, Windows
from vadcore.evaluation.inference import score_clip
from vadcore.models import create_model
from vadcore.models.base import Model, ModelConfig, Prediction
from vadcore.utils.errors import VadError


class Numbers(Model):
    """Gives each judged frame its number as score."""

    score = "number"

    def __init__(self, windows: Windows):
        super().__init__(ModelConfig())
        self.windows = windows

    def predict_step(self, batch):
        numbers = batch.numbers[:, list(self.windows.judged)].float()
        half = torch.where(numbers % 2 == 0, numbers, torch.nan)
        maps = numbers[..., None, None].expand(-1, -1, 24, 32)
        return Prediction({"number": numbers, "even": half}, maps)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Frames and their flow store."""
    return make_store(tmp_path_factory.mktemp("data"), flow=True)


def footage(store, start=0, stop=40):
    return ClipLoader(store, [Segment(store.clips("test")[0], start, stop)])


@pytest.mark.parametrize(
    ("windows", "unjudged"),
    [
        (Windows(2, judged=(1,)), [0]),
        (Windows(2, judged=(0,)), [39]),
        (Windows(5, judged=(4,)), [0, 1, 2, 3]),
        (Windows(10, judged=tuple(range(10))), []),
        (Windows(10, judged=tuple(range(10)), step=7), []),
        (Windows(3, judged=(1,)), [0, 39]),
    ],
)
def test_scores_are_aligned_with_judged_frames(store, windows, unjudged):
    result = score_clip(Numbers(windows), footage(store), 0)
    expected = np.arange(40, dtype=float)
    expected[unjudged] = np.nan
    np.testing.assert_array_equal(result.measures["number"], expected)
    np.testing.assert_array_equal(result.maps[:, 0, 0], expected)


def test_frames_without_measure_stay_nan(store):
    result = score_clip(Numbers(Windows(4, judged=(0, 1, 2, 3))), footage(store), 0)
    np.testing.assert_array_equal(np.isnan(result.measures["even"]), np.arange(40) % 2 == 1)
    np.testing.assert_array_equal(result.measures["even"][::2], np.arange(0, 40, 2))


def test_too_short_footage_has_no_scores(store):
    result = score_clip(Numbers(Windows(10)), footage(store, 0, 5), 0)
    assert np.isnan(result.measures["number"]).all()
    assert len(result.measures["number"]) == len(result.maps) == 5


def test_scores_of_overlapping_windows_are_averaged(store):
    torch.manual_seed(0)
    model = create_model("convlstm_ae", {"image_size": (24, 32), "frames": 3, "conv": (4, 4), "lstm": (4,)}).eval()
    whole = footage(store)
    result = score_clip(model, whole, 0)
    with torch.no_grad():
        three = [
            model.predict_step(whole.batch(np.array([[0, start, 1]]), 3)).measures["mse"][0] for start in (5, 6, 7)
        ]
    assert result.measures["mse"][7] == pytest.approx(float((three[0][2] + three[1][1] + three[2][0]) / 3), rel=1e-5)


def test_baselines_detect_running(store):
    flow = ClipStore(Path(store.url).parent / "flow.zarr", "flow")
    segments = [Segment(clip, 0, 40) for clip in store.clips("test")]
    for name in ("frame_diff", "flow_magnitude"):
        model = create_model(name, {})
        scores = score_clip(model, ClipLoader.for_model(model, store, segments, flow), 0).measures[model.score]
        assert np.nanmin(scores[21:29]) > np.nanmax(scores[:19])


def test_non_finite_errors_are_refused(store):
    model = create_model("convlstm_ae", {"image_size": (24, 32), "frames": 3, "conv": (4, 4), "lstm": (4,)})
    torch.nn.init.constant_(model.decoder[0].weight, torch.nan)
    with pytest.raises(VadError, match=r"test/01, frames 0 to .*weights"):
        score_clip(model, footage(store), 0)
