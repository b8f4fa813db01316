"""The fully connected autoencoder on HOG and HOF descriptors."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from vadcore.data.windows import Batch
from vadcore.models import create_model, model_config
from vadcore.models.components.hog_hof import describe
from vadcore.training.trainer import _Updates
from vadcore.utils.errors import VadError

SMALL = {"image_size": (32, 48), "cell": 8, "frames": 6, "rest": 0.3, "layers": (64, 8), "learning_rate": 3e-3}


def footage(speed: float, windows: int = 4, seed: int = 0) -> Batch:
    """Windows of 7 frames in which a square of 16 x 16 moves right with ``speed`` px/frame from a random position."""
    rng = np.random.default_rng(seed)
    texture = torch.from_numpy(rng.random((16, 16), np.float32))
    frames, flow = torch.full((windows, 7, 1, 32, 48), 0.4), torch.zeros(windows, 6, 2, 32, 48)
    for window in range(windows):
        row, start = rng.integers(0, 16), rng.integers(0, 4)
        for t in range(7):
            left = start + round(speed * t)
            frames[window, t, 0, row : row + 16, left : left + 16] = texture
            if t < 6:
                flow[window, t, 0, row : row + 16, left : left + 16] = speed
    return Batch(frames, torch.zeros(windows), torch.zeros(windows, 7), flow)


def test_parameter_count_matches_publication():
    widths = [204, 2000, 1000, 500, 30, 500, 1000, 2000, 204]
    expected = sum(a * b + b for a, b in pairwise(widths))
    assert sum(p.numel() for p in create_model("hog_hof_ae").parameters()) == expected == 5_853_234


def test_grid_of_cuboids():
    model = create_model("hog_hof_ae", SMALL).eval()
    with torch.no_grad():
        judged = model.predict_step(footage(2))
    assert judged.maps.shape == (4, 7, 3, 5)  # 32 x 48 pixels are 4 x 6 cells of 8
    assert judged.measures["max"].shape == (4, 7)


def test_still_footage_has_zero_error():
    model = create_model("hog_hof_ae", SMALL).eval()
    batch = footage(0)
    with torch.no_grad():
        assert model.predict_step(batch).maps.abs().max() == 0
    assert model.loss(batch) == 0


def test_frame_scores_from_cuboids():
    model = create_model("hog_hof_ae", SMALL).eval()
    with torch.no_grad():
        judged = model.predict_step(footage(2))
    torch.testing.assert_close(judged.measures["max"], judged.maps.amax((2, 3)))
    torch.testing.assert_close(judged.measures["sum"], judged.maps.sum((2, 3)))


def test_cuboid_error_is_squared_descriptor_distance():
    model = create_model("hog_hof_ae", SMALL | {"least_motion": 0}).eval()
    batch = footage(2)
    x, moving = model.describe(batch)
    with torch.no_grad():
        expected = (model(x) - x).norm(dim=-1).square() * moving
        torch.testing.assert_close(model.predict_step(batch).maps[:, 0], expected)


def test_unusual_speed_is_reconstructed_worse():
    torch.manual_seed(0)
    model = create_model("hog_hof_ae", SMALL)
    (phase,) = model.phases()
    update = _Updates(phase, processes=1)
    for seed in range(150):
        phase.step(footage(1, seed=seed % 10), update)
    with torch.no_grad():
        usual, fast = (model.predict_step(footage(speed, seed=99)).measures["max"].mean() for speed in (1, 3))
    assert fast > 2 * usual


def test_shown_roses_point_along_the_motion():
    """For a square that moves right, the pixel right of the middle is bright in the HOF half."""
    model = create_model("hog_hof_ae", SMALL).eval()
    with torch.no_grad():
        judged = model.predict_step(footage(2))
    assert judged.reconstruction().shape == judged.target().shape == (4, 7, 1, 9, 30)
    roses = judged.target()[:, 3, 0, :, 15:].unflatten(1, (3, 3)).unflatten(3, (5, 3))  # [B, rows, 3, columns, 3]
    assert roses[:, :, 1, :, 2].max() > 0.2
    assert roses[:, :, 1, :, 0].max() < 1e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": (250, 320)}, r"multiples of cell 16.*\[256, 320\]"),
        ({"image_size": (16, 320)}, r"at least 32.*\[32, 320\]"),
        ({"frames": 10}, r"frames 10: .*\b9\b"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        model_config("hog_hof_ae", wrong)


def test_footage_without_motion_is_refused():
    model = create_model("hog_hof_ae", SMALL)
    (phase,) = model.phases()
    phase.step(footage(0.2), _Updates(phase, processes=1))
    with pytest.raises(VadError, match=r"32x48.*0\.3 px/frame \(rest\)"):
        model.eval().predict_step(footage(0.2))


def test_flow_belongs_to_first_frame():
    """7 frames have 6 flow fields, so the last frame is not used for gradients."""
    batch = footage(2)
    descriptors, _ = create_model("hog_hof_ae", SMALL).describe(batch)
    pictures = (batch.frames[:, :6, 0] * 255).round().byte().numpy()
    for window in range(4):
        expected, _ = describe(pictures[window], batch.flow[window].numpy(), cell=8, rest=0.3)
        np.testing.assert_array_equal(descriptors[window].numpy(), expected)


@pytest.mark.parametrize("score", ["max", "sum"])
def test_all_cuboid_frames_are_judged(score):
    model = create_model("hog_hof_ae", SMALL | {"score": score, "step": 3})
    assert model.score == score
    assert (model.windows.length, model.windows.step, model.windows.judged) == (7, 3, (0, 1, 2, 3, 4, 5, 6))


def test_hidden_layers_end_in_tanh():
    kinds = [type(layer).__name__ for layer in create_model("hog_hof_ae", SMALL).network]
    assert kinds == ["Linear", "Tanh"] * 3 + ["Linear"]  # 204-64-8-64-204


def test_optimizer_gets_rate_and_weight_decay():
    (phase,) = create_model("hog_hof_ae", SMALL | {"weight_decay": 0.002}).phases()
    (group,) = next(iter(phase.optimizers.values())).param_groups
    assert (group["lr"], group["weight_decay"]) == (3e-3, 0.002)
