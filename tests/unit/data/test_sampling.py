"""The frames that bring footage of a constant or varying rate to a lower one."""

import numpy as np
import pytest

from vadcore.data.sampling import Subsampling, peak_rate

VARYING = np.concatenate([np.arange(20) * 0.2, 4 + np.arange(40) * 0.04])  # 5 a second to 4 s, then 25 a second
IDLE = np.concatenate([np.arange(200) * 0.2, 40 + np.arange(100) * 0.04])  # 5 a second to 40 s, then 25 a second


def test_subsampling_of_a_constant_rate():
    for fps, wanted in ((25, 10), (30, 7.5), (29.97, 12), (25, 25), (10, 25)):
        sampling = Subsampling(fps, wanted)
        kept = [number for number in range(200) if sampling.takes(number / fps)]
        every = max(1, fps / wanted)
        assert kept == [n for n in (int(np.floor(k * every + 0.5)) for k in range(200)) if n < 200]
        assert sampling.fps == min(fps, wanted)


def test_subsampling_of_a_varying_rate():
    times = np.concatenate([VARYING, 100 + np.arange(50) / 25])  # a pause of 94 s before the last part
    sampling = Subsampling(25.0, 5.0)
    kept = np.array([second for second in times if sampling.takes(second)])
    steps = np.diff(kept)
    assert steps.min() > 0.15
    assert len(kept) == pytest.approx(20 + 8 + 10, abs=1)


@pytest.mark.parametrize("wanted", [2.0, 5.0, 8.0, 10.0, 12.5])
def test_fast_stretches_of_idle_footage_are_reduced(wanted):
    sampling = Subsampling(5.0, wanted, IDLE)
    kept = np.array([second for second in IDLE if sampling.takes(second)])
    idle, busy = kept[kept < 40], kept[kept >= 40]
    assert len(idle) == 40 * min(5, wanted)
    assert len(busy) == pytest.approx(4 * wanted, abs=1)
    assert np.abs(busy - 40 - np.arange(len(busy)) / wanted).max() <= 0.021
    assert "mostly 5 frames a second, up to 25" in sampling.remark
    assert not sampling.is_constant(np.flatnonzero(np.isin(IDLE, kept)), kept)


def test_idle_footage_keeps_all_frames_where_no_rate_is_asked():
    for wanted in (None, 25.0, 30.0):
        sampling = Subsampling(5.0, wanted, IDLE)
        assert all(sampling.takes(second) for second in IDLE)


def test_uneven_steps_are_no_faster_rate():
    rng = np.random.default_rng(0)
    times = (np.arange(500) + rng.uniform(-0.4, 0.4, 500)) / 25
    assert peak_rate(times, 25.0) == 25.0
    assert peak_rate(np.arange(500) / 25 + np.repeat([0, 60], 250), 25.0) == 25.0  # a pause
    assert Subsampling(25.0, 10.0, times).remark is None
