import numpy as np
import pytest

from vadcore.models.pseudo.alterations import ALTERATIONS, altered, as_it_was, draw, relit

LENGTH, MIDDLE, USUAL = 8, 4, 2.0  # frames, position, pixels a frame


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def long(cutouts):
    return max(cutouts, key=len)


def change(cutout, cutouts, rng, *kinds):
    plain = as_it_was(cutout, LENGTH, MIDDLE, 1.0, rng)
    return plain, altered(plain, list(kinds), MIDDLE, USUAL, cutouts, rng)


def speed(paste) -> float:
    """Pixels a frame."""
    return float(np.linalg.norm(paste.path[-1] - paste.path[0])) / (LENGTH - 1)


def test_unaltered_object_keeps_pictures_path_and_shape(long, rng):
    paste = as_it_was(long, LENGTH, MIDDLE, 1.0, rng)
    assert (np.diff(paste.numbers) == 1).all()
    np.testing.assert_array_equal(paste.path, long.path[paste.numbers] - long.path[paste.numbers[MIDDLE]])
    np.testing.assert_array_equal(paste.shape, np.eye(2))


def test_enlarged_object_moves_by_as_much_more(long, rng):
    state = rng.bit_generator.state
    paste = as_it_was(long, LENGTH, MIDDLE, 1.0, rng)
    rng.bit_generator.state = state
    larger = as_it_was(long, LENGTH, MIDDLE, 1.5, rng)
    np.testing.assert_allclose(larger.path, 1.5 * paste.path)


def test_fast_object_plays_two_to_three_times_as_fast(long, cutouts, rng):
    plain, fast = change(long, cutouts, rng, "fast")
    assert 1.9 < speed(fast) / speed(plain) < 3.2
    assert fast.numbers[-1] - fast.numbers[0] >= 2 * (LENGTH - 1) - 1


def test_short_object_glides_instead_of_playing_fast(cutouts, rng):
    short = min(cutouts, key=len)
    assert len(short) < 2 * LENGTH - 1
    _, fast = change(short, cutouts, rng, "fast")
    assert speed(fast) >= 0.8 * USUAL - 1e-6


def test_gliding_object_is_faster(long, cutouts, rng):
    pairs = [change(long, cutouts, rng, "glide") for _ in range(20)]
    assert all(speed(glide) >= 0.8 * USUAL - 1e-6 for _, glide in pairs)
    assert {len(set(glide.numbers)) for _, glide in pairs} == {1, LENGTH}  # frozen or not


def test_gliding_object_keeps_the_sway_of_its_path(long, cutouts, rng):
    """Its pictures are not centred; a straight path would make them tremble, which no object does."""
    steps = np.arange(LENGTH)[:, None] - MIDDLE
    for _ in range(20):
        plain, glide = change(long, cutouts, rng, "glide")
        if len(set(glide.numbers)) > 1:
            added = glide.path - plain.path
            np.testing.assert_allclose(added, steps * added[-1] / steps[-1], atol=1e-5)


def test_frozen_object_moves_straight(long, cutouts, rng):
    _, frozen = change(long, cutouts, rng, "frozen")
    assert len(set(frozen.numbers)) == 1
    np.testing.assert_allclose(
        np.diff(frozen.path, axis=0), np.broadcast_to(frozen.path[1] - frozen.path[0], (LENGTH - 1, 2))
    )


@pytest.mark.parametrize(
    ("kind", "wide", "tall"),
    [("wide", (1.3, 2.6), (1, 1)), ("tall", (1, 1), (1.4, 2)), ("large", (1.3, 2.3), (1.3, 2.3))],
)
def test_size_changes_within_its_range(long, cutouts, rng, kind, wide, tall):
    for _ in range(10):
        _, changed = change(long, cutouts, rng, kind)
        assert wide[0] <= changed.shape[0, 0] <= wide[1]
        assert tall[0] <= changed.shape[1, 1] <= tall[1]


def test_rotation_keeps_the_size(long, cutouts, rng):
    _, rotated = change(long, cutouts, rng, "rotated")
    assert np.isclose(np.linalg.det(rotated.shape), 1)
    assert abs(rotated.shape[0, 0]) <= np.cos(np.deg2rad(45)) + 1e-6


def test_other_direction_keeps_the_speed(long, cutouts, rng):
    plain, turned = change(long, cutouts, rng, "direction")
    assert np.isclose(speed(plain), speed(turned))
    cosine = np.dot(plain.path[-1] - plain.path[0], turned.path[-1] - turned.path[0])
    assert cosine / np.linalg.norm(plain.path[-1] - plain.path[0]) ** 2 <= 0.5 + 1e-6


@pytest.mark.parametrize("kind", [kind for kind in ALTERATIONS if kind != "misplaced"])
def test_every_alteration_changes_what_is_drawn(long, cutouts, rng, kind):
    plain = as_it_was(long, LENGTH, MIDDLE, 1.0, rng)
    changed = altered(plain, [kind], MIDDLE, USUAL, cutouts, rng)
    windows = np.full((2, LENGTH, 80, 120, 1), 150, np.float32)
    shown = [draw(window, paste, (40, 60)) for window, paste in zip(windows, (plain, changed), strict=True)]
    assert np.abs(windows[0] - windows[1]).max() > 20
    assert all(alpha.max() > 0.9 for alpha in shown)


def test_drawn_object_lies_where_its_mask_says(long, rng):
    window = np.full((LENGTH, 80, 120, 1), 150, np.float32)
    alpha = draw(window, as_it_was(long, LENGTH, MIDDLE, 1.0, rng), (40, 60))[MIDDLE]
    changed = np.abs(window[MIDDLE, ..., 0] - 150) > 60
    assert (alpha[changed] > 0.5).all()
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - 40) < 2
    assert abs(columns.mean() - 60) < 2


@pytest.mark.parametrize("centre", [(0, 0), (79, 119), (-500, 60), (40, 1000)])
def test_object_may_lie_outside(long, rng, centre):
    window = np.full((LENGTH, 80, 120, 1), 150, np.float32)
    alpha = draw(window, as_it_was(long, LENGTH, MIDDLE, 1.0, rng), centre)
    assert alpha.shape == (LENGTH, 80, 120)


def test_left_object_stays_where_it_is(long, cutouts, rng):
    _, left = change(long, cutouts, rng, "left")
    assert not left.path.any()
    assert len(set(left.numbers)) == 1


def test_another_direction_keeps_speed_and_sway(long, cutouts, rng):
    plain, turned = change(long, cutouts, rng, "direction")
    assert speed(turned) == pytest.approx(speed(plain), rel=1e-3)
    np.testing.assert_allclose(turned.path[MIDDLE], 0, atol=1e-6)
    added = np.diff(turned.path - plain.path, axis=0)
    np.testing.assert_allclose(added, np.broadcast_to(added[0], added.shape), atol=1e-4)


def test_relit_objects_keep_shape_and_path(long, rng):
    plain = as_it_was(long, LENGTH, MIDDLE, 1.0, rng)
    made = [relit(plain, np.random.default_rng(n)) for n in range(20)]
    changed = [paste for paste in made if paste is not plain]
    assert 5 < len(changed) < 20
    for paste in changed:
        assert paste.path is plain.path
        np.testing.assert_array_equal(paste.cutout.alpha[paste.numbers], plain.cutout.alpha[plain.numbers])
        before, after = (one.cutout.pictures[one.numbers].astype(float) for one in (plain, paste))
        assert after.shape == before.shape
        assert not np.array_equal(before, after)
        assert np.abs(before - after).max() < 120
