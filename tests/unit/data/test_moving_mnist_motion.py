"""Moving MNIST: the motion of digits and how they are drawn."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.mnist import config, glyphs
from vadcore.data.formats.moving_mnist import bounce, draw, film, fly


def flight(frames=60, seed=0, **fields) -> np.ndarray:
    return fly(config("scikit-learn", **fields), np.random.default_rng(seed), frames)


def step_by_step(start: float, velocity: float, room: float, frames: int) -> list[float]:
    """One coordinate of a digit, moved frame by frame and reflected at every wall."""
    places, place = [], start
    for _ in range(frames):
        places.append(place)
        place += velocity
        while not 0 <= place <= room:
            place = -place if place < 0 else 2 * room - place
            velocity = -velocity
    return places


@given(st.integers(1, 300), st.floats(0, 1), st.floats(-20, 20), st.integers(1, 50))
@example(room=1, share=0.5, velocity=6.0, frames=50)  # several reflections a frame
def test_bounce_reflects_position_and_velocity(room, share, velocity, frames):
    start = share * room
    way = start + velocity * np.arange(frames)[:, None] * [1, 0]
    expected = step_by_step(start, velocity, room, frames)
    np.testing.assert_allclose(bounce(way, np.array([room, room]))[:, 0], expected, atol=1e-6)


@given(st.integers(28, 90), st.integers(28, 90), st.integers(0, 1000))
def test_digits_stay_inside_the_picture(height, width, seed):
    corners = flight(seed=seed, height=height, width=width, digits=3)
    assert corners.shape == (60, 3, 2)
    assert corners.min() >= 0
    assert (corners <= [height - 28, width - 28]).all()


def test_digits_stand_still_without_room():
    assert not flight(height=28, width=28).any()


def test_step_length_is_the_speed():
    corners = flight(height=5000, width=5000, speeds=(5, 5), seed=3)  # no wall is reached in 60 frames
    assert corners.min() > 0
    assert corners.max() < 5000 - 28
    steps = np.diff(corners, axis=0)
    np.testing.assert_allclose(np.hypot(*steps.T), 5)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:1], steps.shape))


def test_speeds_are_uniform_integers():
    speeds = []
    for seed in range(100):
        steps = np.diff(flight(2, seed, height=5000, width=5000), axis=0)[0]
        speeds += np.hypot(*steps.T).tolist()
    np.testing.assert_allclose(speeds, np.rint(speeds))
    counts = np.bincount(np.rint(speeds).astype(int))
    assert counts[:2].sum() == 0
    assert len(counts) == 7
    # 200 draws from five speeds: 40 of each, with a standard deviation of sqrt(200 * 0.2 * 0.8) = 5.7
    assert (np.abs(counts[2:] - 40) < 4 * 5.7).all()


def test_directions_are_uniform():
    steps = np.concatenate([np.diff(flight(2, seed, height=5000, width=5000), axis=0)[0] for seed in range(200)])
    octants = np.bincount(((np.arctan2(*steps.T) + np.pi) // (np.pi / 4)).astype(int), minlength=8)
    # 400 draws into eight: 50 each, with a standard deviation of sqrt(400 * 1/8 * 7/8) = 6.6
    assert (np.abs(octants - 50) < 4 * 6.6).all()


def test_overlapping_digits_are_added_and_clipped():
    shown = np.array([np.full((28, 28), 100), np.full((28, 28), 200)], np.uint8)
    (frame,) = draw(shown, np.array([[[0, 0], [10, 20]]]), (40, 50))
    expected = np.zeros((40, 50), int)
    expected[:28, :28] += 100
    expected[10:38, 20:48] += 200
    assert expected.max() == 300
    np.testing.assert_array_equal(frame, np.minimum(expected, 255))


def test_positions_are_rounded_to_pixels():
    settings = config("scikit-learn", digits=1, test_frames=30)
    corners = fly(settings, np.random.default_rng([0, 1, 7]), 30)[:, 0]
    for frame, (y, x) in zip(film(settings, glyphs(1), "test", 7), np.rint(corners).astype(int), strict=True):
        np.testing.assert_array_equal(frame[y : y + 28, x : x + 28], glyphs(1)[0])
        assert frame.sum() == glyphs(1).sum()
