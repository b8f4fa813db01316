import numpy as np
import pytest
import torch

from vadcore.data.windows import Batch
from vadcore.models import create_model
from vadcore.models.box_speed import box_means

HEIGHT, WIDTH = 120, 160


def walkers(rng, frames: int, count: int = 3, speed: float = 2.0) -> np.ndarray:
    """Flow ``[frames, 2, H, W]`` of boxes that move to the right: a fifth of their bottom row high, half as wide."""
    flow = rng.normal(0, 0.01, (frames, 2, HEIGHT, WIDTH)).astype(np.float32)
    for lane in range(count):
        bottom = int((lane + rng.uniform(0.4, 0.9)) * HEIGHT / count)
        tall = max(8, bottom // 5)
        left = rng.uniform(5, WIDTH - tall - speed * frames - 5)
        for t in range(frames):
            at = int(left + t * speed)
            flow[t, 0, bottom - tall : bottom, at : at + tall // 2] = speed
    return flow


def batch(flow: np.ndarray) -> Batch:
    """A batch of windows ``[B, T-1, 2, H, W]``."""
    flow = torch.from_numpy(flow)
    b, t = flow.shape[:2]
    return Batch(torch.zeros(b, t + 1, 1, HEIGHT, WIDTH), torch.arange(b), torch.arange(t + 1).expand(b, t + 1), flow)


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    model = create_model("box_speed", {"pool": 1})
    for phase in model.phases():
        for _ in range(10):
            windows = [walkers(rng, phase.windows.length - 1) for _ in range(phase.batch_size)]
            phase.step(batch(np.stack(windows)), lambda name, loss: None)
    return model


def test_box_means_match_a_plain_loop():
    values = torch.rand(2, 12, 9, generator=torch.Generator().manual_seed(0))
    sizes = torch.stack([torch.linspace(1, 7, 12), torch.linspace(1, 5, 12)])
    means = box_means(values, sizes)
    for row in range(12):
        up, side = (round((float(size) - 1) / 2) for size in sizes[:, row])
        for column in range(9):
            inside = values[:, max(0, row - up) : row + up + 1, max(0, column - side) : column + side + 1]
            torch.testing.assert_close(means[:, row, column], inside.mean((1, 2)))


def test_threshold_separates_noise_from_motion(model):
    assert 0.1 < model.threshold * HEIGHT < 2.0


def test_box_sizes_follow_object_sizes(model):
    heights, widths = model.box_sizes(HEIGHT) * HEIGHT
    for centre in (50, 100):
        tall = centre / (1 - 0.1) / 5  # of an object with this centre
        assert float(heights[centre]) == pytest.approx(tall, rel=0.25)
        assert float(widths[centre]) == pytest.approx(tall / 2, rel=0.3)


def test_score_grows_with_speed(model):
    def score(speed: float) -> float:
        rng = np.random.default_rng(5)
        flow = np.stack([walkers(rng, 8, speed=speed) for _ in range(8)])
        return float(model.predict_step(batch(flow)).measures["speed"].mean())

    slow, usual, fast = score(0.5), score(2.0), score(6.0)
    assert usual == pytest.approx(1, abs=0.4)
    assert slow < 0.5 * usual
    assert fast > 2 * usual


def test_speed_is_followed_along_the_flow(model):
    """An object has its own speed at its place in the middle of the window, although it moves during the window."""
    flow = np.zeros((1, 8, 2, HEIGHT, WIDTH), np.float32)
    for t in range(8):
        flow[0, t, 0, 60:80, 40 + 5 * t : 52 + 5 * t] = 5
    along = model._along(batch(flow).flow / HEIGHT)[0] * HEIGHT  # [H, W], px/frame
    middle = 40 + 5 * 4
    assert float(along[65:75, middle + 3 : middle + 9].mean()) == pytest.approx(5, rel=0.05)
    assert float(along[65:75, 40:44].mean()) < 1


def test_footage_without_motion_has_finite_scores():
    model = create_model("box_speed")
    still = batch(np.zeros((2, 8, 2, HEIGHT, WIDTH), np.float32))
    for phase in model.phases():
        phase.step(
            batch(np.zeros((2, phase.windows.length - 1, 2, HEIGHT, WIDTH), np.float32)), lambda name, loss: None
        )
    judged = model.predict_step(still)
    assert judged.maps.isfinite().all()
    assert float(judged.measures["speed"].max()) == 0
