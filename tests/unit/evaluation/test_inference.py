"""Scores: every judged frame gets one, at its own frame number."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.footage import make_store
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipStore
from vadcore.data.windows import Segment, Windows, scoring_windows
from vadcore.evaluation.inference import score_clip, windows_of
from vadcore.models import create_model
from vadcore.models.base import Model, ModelConfig, Prediction
from vadcore.utils.errors import VadError


class Numbers(Model):
    """Gives each judged frame its number as score. Draws it in the grey levels of its number and of the first number of
    its window."""

    score = "number"

    def __init__(self, windows: Windows, draws: str = "frames"):
        super().__init__(ModelConfig())
        self.windows, self.draws = windows, draws

    def predict_step(self, batch):
        numbers = batch.numbers[:, list(self.windows.judged)].float()
        half = torch.where(numbers % 2 == 0, numbers, torch.nan)
        maps = numbers[..., None, None].expand(-1, -1, 24, 32)
        pictures = torch.stack((numbers, batch.numbers[:, :1].expand_as(numbers)), dim=-1) / 255
        pictures = pictures[:, :, None, None].expand(-1, -1, 1, 4, 2)
        shown = None if self.draws == "nothing" else lambda: pictures
        return Prediction({"number": numbers, "even": half}, maps, shown, shown if self.draws == "others" else None)


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


def test_clip_of_one_frame_without_flow_is_streamed(store):
    """The stored flow has another size than the model's input."""
    flow = ClipStore(Path(store.url).parent / "flow.zarr", "flow")
    model = create_model("flow_magnitude", {"image_size": (24, 32)})
    one = ClipLoader.for_model(model, store, [Segment(store.clips("test")[0], 0, 1)], flow, cache="stream")
    assert np.isnan(score_clip(model, one, 0).maps).all()


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


def test_streamed_footage_has_equal_scores(store):
    flow = ClipStore(Path(store.url).parent / "flow.zarr", "flow")
    segments = [Segment(store.clips("test")[0], 3, 40)]
    model = create_model("hog_hof_ae", {"image_size": (48, 64), "cell": 8, "frames": 6, "step": 2, "layers": (16, 4)})
    loaded, streamed = (
        score_clip(model, ClipLoader.for_model(model, store, segments, flow, cache=cache), 0)
        for cache in ("ram", "stream")
    )
    np.testing.assert_array_equal(streamed.maps, loaded.maps)
    np.testing.assert_array_equal(streamed.measures[model.score], loaded.measures[model.score])


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 5), st.data())
def test_windows_for_pictures_score_every_possible_frame(length, window, step, data):
    judged = tuple(sorted(data.draw(st.sets(st.integers(0, window - 1), min_size=1))))
    frames = sorted(data.draw(st.sets(st.integers(0, length - 1))))
    starts = scoring_windows(length, Windows(window, judged=judged, step=step))
    chosen = windows_of(frames, starts, judged)
    assert set(chosen) <= set(starts.tolist())
    assert all(frame - start in judged for start, taken in chosen.items() for frame in taken)
    possible = {start + position for start in starts.tolist() for position in judged}
    assert sorted(frame for taken in chosen.values() for frame in taken) == [n for n in frames if n in possible]


def test_few_windows_give_pictures():
    every = np.arange(16)
    assert {start: len(taken) for start, taken in windows_of(range(25), every, range(10)).items()} == {
        0: 10,
        10: 10,
        15: 5,
    }
    assert windows_of([0, 4, 9], np.arange(6), (4,)) == {0: [4], 5: [9]}  # no window scores frame 0


class TestReconstructions:
    def levels(self, model, footage, frames) -> dict[int, tuple[int, int]]:
        found = score_clip(model, footage, 0, reconstruct=frames).reconstructions
        return {frame: tuple(picture[0, :, 0].tolist()) for frame, picture in found.items()}

    def test_frame_comes_from_first_window(self, store):
        model = Numbers(Windows(10, judged=tuple(range(10))))
        assert self.levels(model, footage(store), [2, 5, 12, 39]) == {2: (2, 2), 5: (5, 2), 12: (12, 12), 39: (39, 30)}

    def test_windows_with_a_step(self, store):
        model = Numbers(Windows(10, judged=tuple(range(10)), step=7))
        assert self.levels(model, footage(store), [2, 8, 39]) == {2: (2, 0), 8: (8, 0), 39: (39, 30)}

    def test_unscored_frames_have_none(self, store):
        assert self.levels(Numbers(Windows(5, judged=(4,))), footage(store), [0, 3, 4, 20]) == {4: (4, 0), 20: (20, 16)}

    @pytest.mark.parametrize("draws", ["nothing", "others"])
    def test_model_without_pictures_has_none(self, store, draws):
        assert self.levels(Numbers(Windows(2, judged=(0,)), draws), footage(store), range(40)) == {}
