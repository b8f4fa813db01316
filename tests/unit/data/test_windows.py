"""Windows within clips, batches determined by the iteration, and the held-out split."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadcore.data.store import ClipId
from vadcore.data.windows import (
    Sampler,
    Windows,
    background_frames,
    hold_out,
    median_picture,
    scoring_windows,
    training_windows,
)
from vadcore.utils.errors import VadError

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=6)


@given(LENGTHS, st.integers(1, 12), st.sampled_from([(1,), (1, 2, 3, 4), (2,)]))
def test_training_windows_fit_into_one_clip(lengths, length, strides):
    windows = Windows(length, strides)
    expected = {
        (clip, start, stride)
        for clip, frames in enumerate(lengths)
        for stride in strides
        for start in range(frames)
        if start + (length - 1) * stride <= frames - 1
    }
    if not expected:
        with pytest.raises(VadError, match="window"):
            training_windows(lengths, windows)
    else:
        found = [tuple(row) for row in training_windows(lengths, windows).tolist()]
        assert len(found) == len(set(found))
        assert set(found) == expected


@given(st.integers(0, 100), st.integers(1, 12), st.integers(1, 20))
def test_scoring_windows_cover_the_clip(frames, length, step):
    starts = scoring_windows(frames, Windows(length, step=step))
    if frames < length:
        assert len(starts) == 0
        return
    assert starts[0] == 0
    assert starts[-1] == frames - length
    assert (np.diff(starts) <= step).all()


@given(LENGTHS.filter(lambda lengths: max(lengths) >= 4), st.integers(1, 9), st.sampled_from(["windows", "clips"]))
def test_batch_depends_on_its_iteration_only(lengths, batch_size, sampling):
    straight = Sampler(lengths, Windows(4), batch_size, sampling, seed=3)
    resumed = Sampler(lengths, Windows(4), batch_size, sampling, seed=3)
    forward = [straight.batch(n) for n in range(7)]
    for n in (6, 2, 5):
        np.testing.assert_array_equal(resumed.batch(n), forward[n])


def test_one_pass_shows_every_window_once():
    sampler = Sampler([10, 12], Windows(4), batch_size=4, sampling="windows", seed=0)
    seen = np.concatenate([sampler.batch(n) for n in range(4)])  # 7 + 9 windows
    assert (seen[:, 3] == np.arange(16)).all()
    assert sorted(map(tuple, seen[:, :3].tolist())) == sorted(
        map(tuple, training_windows([10, 12], Windows(4)).tolist())
    )


def test_clip_sampling_weights_clips_equally():
    sampler = Sampler([10, 1000], Windows(4), batch_size=4, sampling="clips", seed=0)
    clips = np.concatenate([sampler.batch(n)[:, 0] for n in range(50)])
    assert (clips == 0).sum() == (clips == 1).sum() == 100


def test_half_of_each_batch_has_motion():
    quiet = np.zeros(200, bool)
    moving = [quiet, np.isin(np.arange(200), [50, 51])]
    sampler = Sampler([200, 200], Windows(4), batch_size=8, sampling="windows", seed=0, moving=moving)
    assert sampler.active_share == pytest.approx(5 / (2 * 197))  # windows that start at frames 47 to 51
    picks = np.concatenate([sampler.batch(n) for n in range(50)])
    active = (picks[:, 0] == 1) & (picks[:, 1] >= 47) & (picks[:, 1] <= 51)
    assert active[1::2].all()
    assert active[::2].mean() < 0.1
    assert (np.bincount(picks[active][1::2, 1] - 47) > 0).all()  # each of them in turn


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_motion_everywhere_or_nowhere_changes_nothing(share):
    moving = [np.arange(100) < share * 100]
    with_motion = Sampler([100], Windows(4), batch_size=8, sampling="windows", seed=0, moving=moving)
    without = Sampler([100], Windows(4), batch_size=8, sampling="windows", seed=0)
    np.testing.assert_array_equal(with_motion.batch(3), without.batch(3))


def test_flow_windows_have_stride_one():
    with pytest.raises(ValueError, match="stride 1"):
        Windows(5, strides=(1, 2), flow=True)


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 5))
def test_no_training_on_held_out_clips(count, share, seed):
    lengths = {ClipId("train", f"{n:02d}"): 50 for n in range(count)}
    kept, held = hold_out(lengths, share, seed)
    assert kept
    assert held
    assert sorted(segment.clip for segment in kept + held) == sorted(lengths)


@given(st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=2, max_size=20), st.floats(0.01, 0.99))
def test_groups_are_held_out_together(labels, share):
    clips = [ClipId("train", f"{n:02d}") for n in range(len(labels))]
    groups = dict(zip(clips, labels, strict=True))
    kept, held = ({segment.clip for segment in part} for part in hold_out(dict.fromkeys(clips, 9), share, 0, groups))
    assert kept
    assert held
    assert kept | held == set(clips)
    shared = {groups[clip] for clip in kept} & {groups[clip] for clip in held} - {None}
    assert not shared or len(set(labels)) == 1  # a single group is split by clips


def test_long_footage_holds_out_blocks_of_all_hours():
    day = {ClipId("train", f"hour {n}"): 36_000 for n in range(6)}
    kept, held = hold_out(day, 0.2, seed=0)
    assert {segment.clip for segment in held} == set(day)
    assert sum(map(len, held)) / sum(day.values()) == pytest.approx(0.2, abs=0.01)
    frames = sorted((segment.clip, segment.start, segment.stop) for segment in kept + held)
    for (clip, _, stop), (following, start, _) in pairwise(frames):  # every frame is in exactly one part
        assert (start == stop) if clip == following else (stop == day[clip] and start == 0)


def test_single_clip_holds_out_its_end():
    clip = ClipId("train", "only")
    (kept,), (held,) = hold_out({clip: 100}, 0.2, seed=0)
    assert (kept.start, kept.stop, held.start, held.stop) == (0, 80, 80, 100)


def test_missing_training_footage_is_an_error():
    with pytest.raises(VadError, match="train"):
        hold_out({}, 0.2, seed=0)


def test_single_short_clip_is_refused():
    with pytest.raises(VadError, match=r"train/only.*\b3 frames"):
        hold_out({ClipId("train", "only"): 3}, 0.15, seed=0)


def test_background_frames():
    np.testing.assert_array_equal(background_frames(0, 90, 30), np.arange(30))
    np.testing.assert_array_equal(background_frames(29, 90, 30), np.arange(30))
    np.testing.assert_array_equal(background_frames(47, 90, 30), np.arange(10, 40))
    np.testing.assert_array_equal(background_frames(0, 20, 30), np.arange(20))  # a short clip


def test_background_has_at_most_sixty_frames():
    for start in range(0, 1000, 37):
        numbers = background_frames(start, 1000, 300)
        assert len(numbers) == 60
        assert set(numbers % 5) == {0}


def test_median_picture_is_the_lower_median():
    pictures = np.random.default_rng(0).integers(256, size=(4, 5, 6)).astype(np.uint8)
    np.testing.assert_array_equal(median_picture(pictures), np.sort(pictures, axis=0)[1])
    assert median_picture(pictures).dtype == np.uint8
