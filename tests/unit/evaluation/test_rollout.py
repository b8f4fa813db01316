"""Rollouts: sequences, quality by step, baselines and pictures."""

from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from tasks.scoring.pictures import draw_rollouts
from tests.helpers.footage import make_store
from vadcore.data.loader import ClipLoader
from vadcore.data.windows import Segment
from vadcore.evaluation.image_quality import psnr
from vadcore.evaluation.rollout import (
    MEAN,
    RECONSTRUCTION,
    REPEAT,
    VELOCITY,
    Rollout,
    RollsOut,
    constant_velocity,
    marked,
    mean_frame,
    per_step,
    roll_outs,
    strip_steps,
)
from vadcore.models.base import ModelConfig


class Shifted:
    """Predicts the previous frame, darker with each step; reconstructs exactly."""

    class Config(ModelConfig):
        frame_skip: int = 1

    def __init__(self, skip: int = 1):
        self.config = self.Config(frame_skip=skip)

    def roll_out(self, frames, steps):
        own = torch.stack([frames[:, -1] * 0.9 ** (step + 1) for step in range(steps)], dim=1)
        return torch.cat((frames[:, :-1], own), dim=1)

    def reconstruct(self, frames):
        return frames


@pytest.fixture
def footage(tmp_path):
    store = make_store(tmp_path, test=2, frames=30)
    return ClipLoader(store, [Segment(clip, 0, 30) for clip in store.clips("test")])


def square(at: float, size=(32, 48), side: int = 8) -> np.ndarray:
    """A bright textured square with its left edge at ``at`` on a dark background: ``[1, H, W]``."""
    texture = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 2, (side, side)), (0, 0), 1)
    frame = np.zeros((1, *size), np.float32)
    frame[0, 12 : 12 + side, int(at) : int(at) + side] = texture
    return frame


def test_sequences_are_spread_over_all_clips(footage):
    model = Shifted()
    assert isinstance(model, RollsOut)
    done = roll_outs(model, footage, prime=5, steps=4, count=6)
    assert len(done) == 6
    assert (done[0].clip, done[0].start) == ("01", 0)
    assert (done[-1].clip, done[-1].start) == ("02", 30 - 9)
    for rollout in done:
        number = int(rollout.clip) - 1
        true = footage.batch(np.array([[number, rollout.start, 1]]), 9).frames[0].numpy()
        assert np.array_equal(rollout.truth, true)
        assert np.array_equal(rollout.prediction[0], true[0])
        assert np.array_equal(rollout.prediction[1:5], true[:4])
        np.testing.assert_allclose(rollout.prediction[5:], [true[4] * 0.9**step for step in (1, 2, 3, 4)], rtol=1e-5)


def test_frame_skip_sets_the_frame_distance(footage):
    (rollout,) = roll_outs(Shifted(skip=3), footage, prime=4, steps=5, count=1)
    true = footage.batch(np.array([[0, rollout.start, 3]]), 9).frames[0].numpy()
    assert np.array_equal(rollout.truth, true)


def test_too_short_clips_give_no_sequences(footage):
    assert roll_outs(Shifted(), footage, prime=20, steps=11, count=4) == []
    assert roll_outs(Shifted(skip=4), footage, prime=4, steps=5, count=4) == []


def test_mean_and_deviation_over_sequences():
    rng = np.random.default_rng(1)
    done = [Rollout("01", n, 3, *rng.uniform(0, 1, (3, 7, 1, 16, 24)).astype(np.float32)) for n in range(5)]
    mean = rng.uniform(0, 1, (1, 16, 24)).astype(np.float32)
    table = per_step(done, mean)
    assert set(table["what"]) == {"prediction", REPEAT, VELOCITY, MEAN, RECONSTRUCTION}
    assert list(table[table["what"] == "prediction"]["step_ahead"]) == [1, 2, 3, 4]
    assert set(table["sequences"]) == {5}
    for step in (1, 4):
        true = torch.from_numpy(np.stack([rollout.truth[2 + step] for rollout in done]))
        for what, shown in (
            ("prediction", [rollout.prediction[2 + step] for rollout in done]),
            (REPEAT, [rollout.truth[2] for rollout in done]),
            (MEAN, [mean for _ in done]),
            (RECONSTRUCTION, [rollout.reconstruction[2 + step] for rollout in done]),
        ):
            expected = psnr(torch.from_numpy(np.stack(shown)), true)
            (row,) = table[(table["what"] == what) & (table["step_ahead"] == step)].to_dict("records")
            assert row["psnr"] == pytest.approx(float(expected.mean()), rel=1e-5)
            assert row["psnr_std"] == pytest.approx(float(expected.std(correction=0)), rel=1e-4)


def test_mean_frame_averages_all_footage(footage):
    clips = [footage.batch(np.array([[n, 0, 1]]), length).frames[0].numpy() for n, length in enumerate(footage.lengths)]
    np.testing.assert_allclose(mean_frame(footage), np.concatenate(clips).mean(0), atol=1e-6)


def test_rollouts_are_logged_to_the_run(footage, tmp_path):
    logged, files, lines = {}, [], []
    run = SimpleNamespace(
        metrics=lambda values, step: logged.update({(name, step): value for name, value in values.items()}),
        artifact=lambda path, under: files.append((under, path.name)),
    )
    settings = SimpleNamespace(prime=4, steps=3, sequences=5, shown=2)
    params = SimpleNamespace(score=SimpleNamespace(rollouts=settings))
    stage = SimpleNamespace(params=params, run=run, say=lines.append)
    draw_rollouts(stage, tmp_path / "rollouts", Shifted(), footage, torch.float32)
    table = pd.read_csv(tmp_path / "rollouts/steps.csv")
    assert len(logged) == 2 * len(table) == 2 * 5 * 3
    normal = ClipLoader(footage.frames, [Segment(clip, 0, 30) for clip in footage.frames.clips("train")])
    expected = per_step(roll_outs(Shifted(), footage, 4, 3, 5), mean_frame(normal))
    assert list(table["psnr"]) == pytest.approx(
        list(expected["psnr"])
    )  # the mean frame is computed from training clips
    for row in table.to_dict("records"):
        for figure in ("psnr", "ssim"):
            assert logged[f"rollout/{figure} {row['what']}", row["step_ahead"]] == pytest.approx(row[figure])
    assert {under for under, _ in files} == {"rollouts"}
    assert [name.partition(".")[2] for _, name in sorted(files)] == ["png", "png", "webp", "csv"]


class TestConstantVelocity:
    def test_motion_continues_and_uncovers_background(self):
        given = np.stack([square(4 + 2 * t) for t in range(5)])
        ahead = constant_velocity(given, 3)
        for step in (1, 2, 3):
            true, stands = square(12 + 2 * step), given[-1]
            assert np.abs(ahead[step - 1] - true).mean() < 0.3 * np.abs(stands - true).mean()
            assert ahead[step - 1][0, 14:18, 12 : 10 + 2 * step].max(initial=0) < 0.2  # where it was last

    def test_still_scene_stays(self):
        given = np.stack([square(10)] * 3)
        np.testing.assert_allclose(constant_velocity(given, 2), np.stack([square(10)] * 2), atol=0.02)

    def test_motion_out_of_the_picture(self):
        given = np.stack([square(4 + 2 * t) for t in range(13)])  # right edge at 36 of 48
        assert constant_velocity(given, 14)[-1].sum() < 0.05 * given[-1].sum()

    def test_colour_moves_with_its_pixels(self):
        given = np.stack(
            [np.concatenate([square(4 + 2 * t), 0.5 * square(4 + 2 * t), 0 * square(0)]) for t in range(4)]
        )
        ahead = constant_velocity(given, 1)[0]
        assert ahead.shape == (3, 32, 48)
        np.testing.assert_allclose(ahead[1], 0.5 * ahead[0], atol=0.02)
        assert ahead[2].max() == 0


def test_strip_steps_widen_towards_the_end():
    assert strip_steps(30, 60) == [28, 29, 30, 31, 32, 33, 34, 36, 39, 44, 49, 59]
    assert strip_steps(1, 4) == [0, 1, 2, 3]


def test_bar_marks_given_and_predicted_frames():
    picture = np.zeros((10, 20, 3), np.uint8)
    given, own = marked(picture, own=False), marked(picture, own=True)
    assert given.shape == own.shape == (16, 20, 3)
    assert (given[0, 0] == 128).all()
    assert tuple(own[0, 0]) == (255, 140, 0)
