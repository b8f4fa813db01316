"""Check points of a training: pictures, animations, quality of held-out frames, and their time."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.training import SETTINGS, Split, make_split, run, small
from vadcore.data.windows import Windows
from vadcore.models.base import Model, ModelConfig, Phase, Prediction
from vadcore.report.media import decode_animation
from vadcore.training.trainer import spread


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    return make_split(tmp_path_factory.mktemp("footage"))


def test_strips_and_animations(split, tmp_path):
    drawn = []
    run(small(), split, tmp_path, picture=drawn.append)
    stems = ["autoencoder-000004", "autoencoder-000008", "autoencoder-000010"]
    assert [path.name for path in drawn] == [f"{stem}.{kind}" for stem in stems for kind in ("png", "webp")]
    assert cv2.imread(str(drawn[0])).shape == (3 * (3 * 24 + 4), 4 * 34 - 2, 3)  # three windows of four frames, 24 x 32
    for path in drawn[1::2]:
        film = decode_animation(path.read_bytes())
        assert len(film) == 4
        # enlarged six times, the least whole factor that makes 24 pixels 128; three windows, input above output
        assert film[0].shape == (2 * 144 + 2, 3 * 192 + 4, 3)


def test_pictures_show_same_held_out_windows(split, tmp_path):
    drawn = []
    run(small(), split, tmp_path, picture=drawn.append)
    first, last = (cv2.imread(str(path)) for path in (drawn[0], drawn[-2]))
    assert (first[:24] == last[:24]).all()  # the inputs of the first window
    assert (first[26:50] != last[26:50]).any()  # what the model makes of them
    true = split[1].batch(spread(split[1].lengths, Windows(4), 6)[[0]], 4).frames[0, :, 0]
    assert (first[:24, :32, 0] == np.round(true[0].numpy() * 255)).all()


@pytest.fixture
def clock(monkeypatch):
    """A clock for the trainer that only moves when a test sets ``now``."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("vadcore.training.trainer.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


class Shows(Model):
    """Shows the frames at positions 1 and 2 of a window, scaled by a learned factor."""

    windows = Windows(3, judged=(1, 2))
    score = "error"

    def __init__(self, selects: bool = True):
        super().__init__(ModelConfig())
        self.selects = selects
        self.kept = nn.Parameter(torch.tensor(0.5))
        self.judged_batches = 0

    def phases(self):
        sgd = {"sgd": torch.optim.SGD([self.kept], 0.1)}
        val = self._loss if self.selects else None
        return [Phase("learn", 8, self.windows, 4, self._step, sgd, val=val)]

    def _loss(self, batch):
        return (self.kept - 1).square()

    def _step(self, batch, update):
        loss = self._loss(batch)
        update("sgd", loss)
        return {"loss": loss.detach()}

    def predict_step(self, batch):
        self.judged_batches += 1
        frames = batch.frames[:, 1:3]
        return Prediction({"error": frames.mean((2, 3, 4))}, frames[:, :, 0], lambda: frames * self.kept)


def test_quality_at_every_check_point(split, tmp_path):
    model, seen = Shows(), []
    result = run(model, split, tmp_path, metrics=lambda phase, iteration, values: seen.append((iteration, values)))
    rows = {row["iteration"]: row for row in result.history if "psnr" in row}
    assert list(rows) == [4, 8]
    picks = spread(split[1].lengths, model.windows, SETTINGS.val_windows)
    frames = split[1].batch(picks, 3).frames[:, 1:3].flatten(0, 1)  # [2 * 6, 1, H, W]
    # gradient descent on (k - 1)^2 at rate 0.1: 1 - k shrinks by 1 - 2 * 0.1 = 0.8 a step, from 0.5
    for iteration, row in rows.items():
        lost = 0.5 * 0.8**iteration
        expected = (-10 * (frames * lost).square().mean((1, 2, 3)).log10()).mean().item()
        assert row["psnr"] == pytest.approx(expected, abs=1e-3)
        assert row["sharpness"] == pytest.approx(1 - lost, abs=1e-5)
        assert 0 < row["ssim"] < 1
        reported = {key: row[key] for key in ("val", "psnr", "ssim", "sharpness")}
        assert (iteration, reported) in seen
    assert rows[8]["ssim"] > rows[4]["ssim"]
    assert result.quality == {key: rows[8][key] for key in ("psnr", "ssim", "sharpness")}


def test_held_out_windows_are_judged_once(split, tmp_path):
    model = Shows()
    run(model, split, tmp_path)
    assert model.judged_batches == 2 * 2  # two check points, six windows in batches of at most four


def test_quality_of_kept_weights(split, tmp_path):
    class Worsens(Shows):
        def phases(self):
            (phase,) = super().phases()
            phase.val = lambda batch: self.kept.detach()[None]  # grows while the pictures improve
            return [phase]

    result = run(Worsens(), split, tmp_path)
    first, last = (row for row in result.history if "psnr" in row)
    assert result.best_iteration == first["iteration"] == 4
    assert result.quality == {key: first[key] for key in ("psnr", "ssim", "sharpness")}
    assert result.quality["psnr"] < last["psnr"]


def test_quality_without_selection(split, tmp_path):
    result = run(Shows(selects=False), split, tmp_path)
    assert result.best_iteration is None
    assert result.quality == {key: result.history[-1][key] for key in ("psnr", "ssim", "sharpness")}
    assert "val" not in result.history[-1]


def test_model_without_pictures_has_no_quality(split, tmp_path):
    class Blind(Shows):
        def predict_step(self, batch):
            judged = super().predict_step(batch)
            return Prediction(judged.measures, judged.maps)

    model = Blind()
    result = run(model, split, tmp_path, picture=lambda path: pytest.fail(f"made {path}"))
    assert not any("psnr" in row for row in result.history)
    assert result.quality == {}
    assert model.judged_batches == 2  # one batch for each check point


def test_single_judged_frame_makes_no_animation(split, tmp_path):
    class Predicts(Shows):
        windows = Windows(3, judged=(2,))

        def predict_step(self, batch):
            frames = batch.frames[:, 2:3]
            return Prediction({"error": frames.mean((2, 3, 4))}, frames[:, :, 0], lambda: frames * self.kept)

    drawn = []
    run(Predicts(), split, tmp_path, picture=drawn.append)
    assert [path.name for path in drawn] == ["learn-000004.png", "learn-000008.png"]
    assert cv2.imread(str(drawn[0])).shape == (3 * 24 + 4, 3 * 34 - 2, 3)  # three windows side by side


class Timed(Shows):
    """Takes 1 s for a step and 100 s to judge a batch."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def _step(self, batch, update):
        self.clock.now += 1
        return super()._step(batch, update)

    def predict_step(self, batch):
        self.clock.now += 100
        return super().predict_step(batch)


def test_time_of_check_points(split, tmp_path, clock):
    result = run(Timed(clock), split, tmp_path)  # 8 steps, two check points of two batches
    assert result.seconds == pytest.approx(8 + 4 * 100)
    assert result.step_seconds == pytest.approx(8)


def test_time_of_phases_without_optimizers(split, tmp_path, clock):
    class Gathering(Timed):
        def phases(self):
            return [Phase("gather", 4, self.windows, 2, self._gather), *super().phases()]

        def _gather(self, batch, update):
            self.clock.now += 10
            return {"loss": batch.frames.mean()}

    result = run(Gathering(clock), split, tmp_path)
    assert result.seconds - result.step_seconds >= 4 * 10 + 4 * 100
    assert result.step_seconds == pytest.approx(8)
