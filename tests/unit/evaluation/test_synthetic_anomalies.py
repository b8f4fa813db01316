"""Artificial anomalies: which frames and pixels they change, and reproducibility."""

import numpy as np
import pytest

from tests.helpers.footage import pictures
from vadcore.evaluation.synthetic_anomalies import KINDS, alter

CLIP = pictures(60, (48, 64), seed=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_only_abnormal_frames_change(kind, seed, channels):
    clip = np.repeat(CLIP, channels, axis=3)
    before = clip.copy()
    altered = alter(clip, kind, seed)
    assert np.array_equal(clip, before)
    assert altered.frames.shape == clip.shape
    assert altered.frames.dtype == np.uint8
    assert np.array_equal(altered.frames[~altered.abnormal], clip[~altered.abnormal])
    changed = (altered.frames != clip).any((1, 2, 3))
    assert changed[altered.abnormal].mean() > 0.8
    edges = np.flatnonzero(np.diff(altered.abnormal.astype(int)))
    assert 1 <= len(edges) <= 2  # one anomaly, possibly until the end
    assert altered.abnormal.mean() == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_anomalies_depend_on_the_seed(kind):
    first, again, other = (alter(CLIP, kind, seed).frames for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def changed(altered):
    """Row and column of the centre of the changed pixels of every abnormal frame, ``[n, 2]``, and their share, ``[n]``."""
    pixels = (altered.frames != CLIP).any(-1)[altered.abnormal]
    return np.array([np.argwhere(frame).mean(0) for frame in pixels]), pixels.mean((1, 2))


def test_erratic_patch_turns():
    places, share = changed(alter(CLIP, "erratic", 2))
    assert share.max() < 0.3
    steps = np.diff(places, axis=0)
    angles = np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))
    assert np.ptp(angles) > 1.5


def test_smoke_grows():
    _, share = changed(alter(CLIP, "smoke", 2))
    assert share[-3:].mean() > 2 * share[:3].mean()


@pytest.mark.parametrize("kind", KINDS)
def test_short_clips_and_small_pictures(kind):
    clip = pictures(6, (24, 32), seed=2)
    altered = alter(clip, kind, 0)
    assert altered.abnormal.any()
    assert not altered.abnormal[0]
