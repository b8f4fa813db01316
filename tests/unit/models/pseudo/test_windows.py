from dataclasses import fields, replace

import numpy as np
import pytest

from vadcore.models.pseudo.alterations import ALTERATIONS
from vadcore.models.pseudo.cutouts import Cutout
from vadcore.models.pseudo.scene import GRID, Scene, learn_scene
from vadcore.models.pseudo.windows import PastedWindows, Pasting, _Canvas, _perspective, _relight, typical_sizes

ALL = dict.fromkeys(ALTERATIONS, 1.0)


def pasted(footage, cutouts, unaltered=2, altered=2, weights=ALL) -> PastedWindows:
    pasting = Pasting((48, 64), (12, 16), 8, 4, 1, unaltered, altered, weights)
    return PastedWindows(footage, cutouts, learn_scene(footage, 1), pasting, seed=1)


@pytest.fixture(scope="module")
def windows(footage, cutouts):
    return pasted(footage, cutouts)


def pick(number: int) -> np.ndarray:
    return np.array([0, 10, 1, number])


def test_window_depends_on_its_pick_alone(windows):
    first, again, other = (windows.make(pick(n)) for n in (0, 0, 1))
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(first[0], other[0])


def test_batches_hold_the_windows_of_the_plan_in_order(windows):
    plan = [np.stack([pick(n), pick(n + 1)]) for n in range(0, 12, 2)]
    for picks, batch in zip(plan, windows.batches(plan, 8), strict=True):
        for number, at in enumerate(picks):
            for field, part in zip(fields(batch), windows.make(at), strict=True):
                np.testing.assert_array_equal(getattr(batch, field.name)[number], part)


def test_windows_have_the_shapes_and_ranges_of_a_batch(windows):
    frames, background, usual, view, target, moving = windows.make(pick(3))
    assert frames.shape == (8, 1, 48, 64)
    assert background.shape == usual.shape == (1, 48, 64)
    assert np.allclose(view[1::2] - view[::2], (48 / 80, 64 / 120))
    assert {part.dtype for part in (frames, background, usual, view, target, moving)} == {np.dtype(np.float32)}
    assert 0 <= frames.min() < frames.max() <= 1
    assert target.shape == moving.shape == (8, 12, 16)


def test_altered_objects_are_targets_and_count_as_moving(windows):
    made = [windows.make(pick(n))[4:] for n in range(30)]
    shares = [target.max() > 0.5 for target, _ in made]
    assert 0.3 < np.mean(shares) < 0.95  # up to two of them in a window
    assert all((moving >= target - 0.01).all() for target, moving in made)


def test_unaltered_objects_are_no_targets(footage, cutouts):
    windows = pasted(footage, cutouts, unaltered=3, altered=0)
    made = [windows.make(pick(n)) for n in range(10)]
    assert all(target.max() == 0 for *_, target, _ in made)
    plain = [pasted(footage, cutouts, unaltered=0, altered=0).make(pick(n)) for n in range(10)]
    assert sum(m[5].sum() for m in made) > 1.2 * sum(m[5].sum() for m in plain)


def test_only_alterations_with_a_weight_are_drawn(footage, cutouts):
    windows = pasted(footage, cutouts, weights={**dict.fromkeys(ALTERATIONS, 0.0), "glide": 1.0, "tall": 3.0})
    assert windows._kinds == ["glide", "tall"]
    np.testing.assert_allclose(windows._shares, (0.25, 0.75))


def of_height(row: float, height: int, width: int = 4) -> Cutout:
    size = (8, height + 6, width + 6)
    return Cutout(np.zeros((*size, 1), np.uint8), np.zeros(size, np.uint8), np.full((8, 2), row), height, 0.1)


def test_typical_size_is_the_most_frequent_in_the_row():
    people = [of_height(row, 20 if row < 300 else 40, 10 if row < 300 else 20) for row in range(600)]
    groups = [of_height(row, 90, width=90) for row in range(0, 600, 3)]
    typical, heights = typical_sizes([*people, *groups])
    assert typical[:200].all()
    assert typical[400:600].all()
    assert not typical[600:].any()
    np.testing.assert_allclose(heights[[50, 600 + 20]], 20)
    np.testing.assert_allclose(heights[[550, 600 + 190]], 40)


def test_parts_of_objects_are_not_pasted(footage):
    people, parts = [of_height(row, 20) for row in range(80)], [of_height(row, 8) for row in range(0, 80, 9)]
    assert [cutout.height for cutout in pasted(footage, [*people, *parts]).cutouts] == [20] * 80


def test_few_objects_are_all_pasted(footage):
    assert len(pasted(footage, [of_height(10, 8), of_height(20, 20), of_height(30, 40)]).cutouts) == 3


def test_windows_of_any_size_get_noise():
    window = np.full((1, 1500, 1500, 3), 128, np.float32)  # more pixels than the noise that smaller windows share
    _relight(window, np.random.default_rng(0))
    assert 1.0 < 255 * window.std() < 20


def test_windows_are_mirrored_only_where_objects_move_both_ways(footage, cutouts):
    back = [replace(cutout, path=cutout.path[::-1]) for cutout in cutouts]
    assert not pasted(footage, cutouts).mirrored
    both = pasted(footage, [*cutouts, *back])
    assert both.mirrored
    views = [both.make(pick(n))[3] for n in range(20)]
    assert {bool(left < right) for _, _, left, right in views} == {True, False}


def test_mirrored_window_keeps_its_parts_together(footage, cutouts):
    plain, mirrored = pasted(footage, cutouts), pasted(footage, cutouts)
    mirrored.mirrored = True
    n = next(n for n in range(20) if np.diff(mirrored.make(pick(n))[3][2:]) < 0)
    one, other = plain.make(pick(n)), mirrored.make(pick(n))
    for number in (0, 1, 2, 4, 5):
        np.testing.assert_array_equal(one[number], other[number][..., ::-1])
    np.testing.assert_array_equal(one[3][[0, 1, 3, 2]], other[3])


def test_objects_that_stay_may_be_part_of_the_background(footage, cutouts):
    weights = {**dict.fromkeys(ALTERATIONS, 0.0), "left": 1.0}
    windows = pasted(footage, cutouts, unaltered=0, altered=1, weights=weights)
    kinds = set()
    for n in range(80):
        frames, background, _, _, target, _ = windows.make(pick(n))
        if target[4].max() > 0.9:
            still = np.kron(target[4] > 0.9, np.ones((4, 4), bool))
            kinds.add(bool(np.abs(frames[4] - background)[0][still].mean() < 0.2))
    assert kinds == {True, False}


def test_misplaced_objects_are_pasted_where_nothing_moves(footage, cutouts):
    weights = {**dict.fromkeys(ALTERATIONS, 0.0), "misplaced": 1.0}
    windows = pasted(footage, cutouts, unaltered=0, altered=1, weights=weights)
    occupancy = np.ones(GRID, np.float32)
    occupancy[:, 24:] = 0  # nothing moves in the right half
    windows.scene = Scene(windows.scene.background, occupancy)
    for n in range(40):
        _, _, _, view, target, _ = windows.make(pick(n))
        columns = view[2] + (view[3] - view[2]) * (np.nonzero(target[4] > 0.9)[1] + 0.5) / target.shape[2]
        assert (columns > 0.45).all()
    windows.scene = Scene(windows.scene.background, np.ones(GRID, np.float32))
    assert all(windows.make(pick(n))[4].max() == 0 for n in range(20))  # no place is rare: as it was, so normal


def test_objects_grow_towards_the_bottom(footage, cutouts):
    windows = pasted(footage, cutouts)
    pictures = np.zeros((8, 80, 120, 1), np.float32)
    canvas = _Canvas(pictures, pictures[:1], np.zeros(2), np.array([80, 120]), np.random.default_rng(0))
    cutout = windows.cutouts[0]
    scales = {row: [_perspective(canvas, cutout, (row, 60.0)) for _ in range(50)] for row in (5.0, cutout.row, 75.0)}
    upper, same, lower = scales.values()
    assert 0.5 <= min(upper) < max(upper) <= 1
    assert set(same) == {1.0}
    assert 1 <= min(lower) < max(lower) <= 2
