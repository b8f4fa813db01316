"""Artificial anomalies: which frames and pixels they change, and reproducibility."""

import numpy as np
import pytest

from tests.helpers.footage import pictures
from vadcore.evaluation.synthetic_anomalies import KINDS, SPEED, alter

CLIP = pictures(60, (48, 64), seed=1)
OTHERS = pictures(60, (48, 64), seed=5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_only_abnormal_frames_change(kind, seed, channels):
    clip, others = (np.repeat(part, channels, axis=3) for part in (CLIP, OTHERS))
    before = clip.copy()
    altered = alter(clip, others, kind, seed)
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
    first, again, other = (alter(CLIP, OTHERS, kind, seed).frames for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_haste_multiplies_the_speed():
    altered = alter(CLIP, OTHERS, "speedup", 3)
    start = int(np.flatnonzero(altered.abnormal)[0])
    for step in range(5):
        assert np.array_equal(altered.frames[start + step], CLIP[start + SPEED * step])


def test_intruder_is_small_and_moves():
    altered = alter(CLIP, OTHERS, "intruder", 2)
    abnormal = np.flatnonzero(altered.abnormal)
    places = []
    for number in abnormal[2:-2]:
        rows, columns = np.nonzero((altered.frames[number] != CLIP[number]).any(-1))
        assert len(rows) < 0.3 * 48 * 64
        places.append(columns.mean())
    assert np.ptp(places) > 0.25 * 64


@pytest.mark.parametrize("kind", KINDS)
def test_short_clips_and_small_pictures(kind):
    clip = pictures(6, (24, 32), seed=2)
    altered = alter(clip, clip, kind, 0)
    assert altered.abnormal.any()
    assert not altered.abnormal[0]
