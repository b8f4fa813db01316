"""A score belongs to a frame: every frame that a window can judge gets one, at its own number."""

import numpy as np
import pytest
import torch

from tests.helpers.footage import make_store
from vadcore.errors import VadError
from vadcore.footage import Footage
from vadcore.models import create_model
from vadcore.models.base import Judged, Model, ModelConfig
from vadcore.score import measure
from vadcore.store import ClipStore
from vadcore.windows import Segment, Windows


class Numbers(Model):
    """Says of every frame it judges which number that frame has."""

    score = "number"

    def __init__(self, windows: Windows):
        super().__init__(ModelConfig())
        self.windows = windows

    def judge(self, batch):
        numbers = batch.numbers[:, list(self.windows.judged)].float()
        half = torch.where(numbers % 2 == 0, numbers, torch.nan)
        maps = numbers[..., None, None].expand(-1, -1, 24, 32)
        return Judged({"number": numbers, "even": half}, maps)


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path, flow=True)


def footage(store, start=0, stop=40):
    return Footage(store, [Segment(store.clips("test")[0], start, stop)])


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
def test_scores_stand_at_the_number_of_the_frame_they_judge(store, windows, unjudged):
    result = measure(Numbers(windows), footage(store), 0)
    expected = np.arange(40, dtype=float)
    expected[unjudged] = np.nan
    np.testing.assert_array_equal(result.measures["number"], expected)
    np.testing.assert_array_equal(result.maps[:, 0, 0], expected)


def test_a_window_that_says_nothing_of_a_frame_does_not_count(store):
    result = measure(Numbers(Windows(4, judged=(0, 1, 2, 3))), footage(store), 0)
    np.testing.assert_array_equal(np.isnan(result.measures["even"]), np.arange(40) % 2 == 1)
    np.testing.assert_array_equal(result.measures["even"][::2], np.arange(0, 40, 2))


def test_footage_shorter_than_a_window_has_no_scores(store):
    result = measure(Numbers(Windows(10)), footage(store, 0, 5), 0)
    assert np.isnan(result.measures["number"]).all()
    assert len(result.measures["number"]) == len(result.maps) == 5


def test_a_frame_in_several_windows_gets_their_mean(store):
    torch.manual_seed(0)
    model = create_model("convlstm_ae", {"image_size": (24, 32), "frames": 3, "conv": (4, 4), "lstm": (4,)}).eval()
    whole = footage(store)
    result = measure(model, whole, 0)
    with torch.no_grad():
        three = [model.judge(whole.batch(np.array([[0, start, 1]]), 3)).measures["mse"][0] for start in (5, 6, 7)]
    assert result.measures["mse"][7] == pytest.approx(float((three[0][2] + three[1][1] + three[2][0]) / 3), rel=1e-5)


def test_the_baselines_find_what_runs(store, tmp_path):
    flow = ClipStore(tmp_path / "flow.zarr", "flow")
    segments = [Segment(clip, 0, 40) for clip in store.clips("test")]
    for name in ("frame_diff", "flow_magnitude"):
        model = create_model(name, {})
        scores = measure(model, Footage.for_model(model, store, segments, flow), 0).measures[model.score]
        assert np.nanmin(scores[21:29]) > np.nanmax(scores[:19])


def test_errors_that_are_not_finite_are_not_passed_off_as_frames_without_a_score(store):
    model = create_model("convlstm_ae", {"image_size": (24, 32), "frames": 3, "conv": (4, 4), "lstm": (4,)})
    torch.nn.init.constant_(model.decoder[0].weight, torch.nan)
    with pytest.raises(VadError, match=r"errors are not finite on test/01, frames 0 to .*; its weights are damaged"):
        measure(model, footage(store), 0)
