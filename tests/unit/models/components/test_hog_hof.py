"""HOG and HOF descriptors of dense cuboids."""

import cv2
import numpy as np
import pytest

from vadcore.models.components.hog_hof import HOF, HOG, describe, gradients, orientation_histograms

DIAGONAL = np.sqrt(0.5)
COMPASS = [(1, 0), (DIAGONAL, DIAGONAL), (0, 1), (-DIAGONAL, DIAGONAL), (-1, 0), (-DIAGONAL, -DIAGONAL), (0, -1)]
COMPASS.append((DIAGONAL, -DIAGONAL))  # from right in steps of 45 degrees; down is positive


def field(x: float, y: float, size=(8, 8)) -> tuple[np.ndarray, np.ndarray]:
    return np.full((1, *size), x, np.float32), np.full((1, *size), y, np.float32)


def slow_histograms(x, y, cell, rest):
    """The definition, pixel by pixel."""
    n, height, width = x.shape
    out = np.zeros((n, height // cell, width // cell, 8 + (rest is not None)))
    for t, r, c in np.ndindex(n, height, width):
        length = np.hypot(x[t, r, c], y[t, r, c])
        target = out[t, r // cell, c // cell]
        if rest is not None and length <= rest:
            target[8] += 1 / cell**2
            continue
        at = (np.arctan2(y[t, r, c], x[t, r, c]) % (2 * np.pi)) / (np.pi / 4)
        low = int(at) % 8
        target[low] += (1 - at % 1) * length / cell**2
        target[(low + 1) % 8] += at % 1 * length / cell**2
    return out


@pytest.mark.parametrize("direction", range(8))
def test_vector_counts_in_its_direction_bin(direction):
    x, y = COMPASS[direction]
    histogram = orientation_histograms(*field(3 * x, 3 * y), cell=4)
    expected = np.zeros((1, 2, 2, 8))
    expected[..., direction] = 3
    np.testing.assert_allclose(histogram, expected, atol=2e-3)  # the angles of OpenCV are accurate to 0.01 degrees


def test_length_is_shared_between_neighbouring_bins():
    """30 degrees are two thirds of the way from 0 to 45."""
    histogram = orientation_histograms(*field(np.cos(np.pi / 6), np.sin(np.pi / 6)), cell=8)
    np.testing.assert_allclose(histogram[0, 0, 0], [1 / 3, 2 / 3, 0, 0, 0, 0, 0, 0], atol=2e-3)


def test_rest_counts_in_the_ninth_bin():
    histogram = orientation_histograms(*field(0.3, 0.0), cell=8, rest=0.4)
    np.testing.assert_allclose(histogram[0, 0, 0], [0] * 8 + [1])


@pytest.mark.parametrize("rest", [None, 0.7])
def test_histograms_match_the_definition(rest):
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (2, 3, 12, 16)).astype(np.float32)
    np.testing.assert_allclose(orientation_histograms(x, y, 4, rest), slow_histograms(x, y, 4, rest), atol=5e-4)


def test_rotation_shifts_bins():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, (2, 1, 8, 8)).astype(np.float32)
    turned = orientation_histograms(-y, x, 8)
    np.testing.assert_allclose(turned, np.roll(orientation_histograms(x, y, 8), 2, axis=-1), atol=2e-3)


def test_gradients_are_central_differences():
    frame = np.random.default_rng(2).integers(0, 256, (1, 6, 7), np.uint8)
    x, y = gradients(frame)
    padded = cv2.copyMakeBorder(frame[0], 1, 1, 1, 1, cv2.BORDER_REFLECT_101).astype(float)
    np.testing.assert_allclose(x[0], (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2)
    np.testing.assert_allclose(y[0], (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2)


def moving_footage(shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """15 frames of 64 x 96 with a textured square that moves right by 2 px a frame, and its flow."""
    rng = np.random.default_rng(3)
    texture = rng.integers(0, 256, (16, 16), np.uint8)
    frames, flow = np.full((15, 64, 96), 90, np.uint8), np.zeros((15, 2, 64, 96), np.float32)
    for t in range(15):
        place = np.s_[24:40, 10 + shift + 2 * t : 26 + shift + 2 * t]
        frames[t][place], flow[t, 0][place] = texture, 2
    return frames, flow


def test_descriptor_length_and_norms():
    descriptors, moving = describe(*moving_footage(), cell=8, rest=0.5)
    assert HOG + HOF == 96 + 108 == 204
    assert descriptors.shape == (7, 11, 204)
    assert moving.shape == (7, 11)
    np.testing.assert_allclose(np.linalg.norm(descriptors[..., HOG:], axis=-1), 1, atol=1e-5)
    assert np.linalg.norm(descriptors[..., :HOG], axis=-1).max() <= 1 + 1e-5


def test_descriptor_order():
    """Only cell (time 1, row 0, column 1) moves, upwards: bin 6 of 9."""
    flow = np.zeros((6, 2, 8, 8), np.float32)
    flow[2:4, 1, 0:4, 4:8] = -2
    descriptors, _ = describe(np.full((6, 8, 8), 50, np.uint8), flow, cell=4, rest=0.5)
    hof = descriptors[0, 0, HOG:].reshape(3, 2, 2, 9)
    length = np.sqrt(11 * 1**2 + 2**2)  # eleven cells at rest, one with 2 px/frame
    assert hof[1, 0, 1, 6] == pytest.approx(2 / length, abs=1e-3)
    assert hof[0, 0, 1, 8] == pytest.approx(1 / length)
    assert hof[1, 0, 1, 8] == 0


def test_share_of_moving_pixels():
    flow = np.zeros((3, 2, 8, 8), np.float32)
    flow[:, 0, :, :2] = 1  # a quarter of the width
    _, moving = describe(np.full((3, 8, 8), 50, np.uint8), flow, cell=4, rest=0.5)
    np.testing.assert_allclose(moving, [[0.25]])


def test_hog_ignores_light_and_contrast():
    frames, flow = moving_footage()
    brighter = (frames // 2 + 60).astype(np.uint8)
    (a, moving), (b, _) = describe(frames, flow, 8, 0.5), describe(brighter, flow, 8, 0.5)
    strong = moving > 0.3
    assert strong.any()
    np.testing.assert_allclose(a[strong][:, :HOG], b[strong][:, :HOG], atol=0.02)  # half levels are rounded away


def test_shift_by_a_cell_shifts_descriptors():
    a, b = (describe(*moving_footage(shift), cell=8, rest=0.5)[0] for shift in (0, 8))
    np.testing.assert_allclose(a[:, :-1], b[:, 1:], atol=1e-6)


def test_added_light_changes_no_descriptor():
    rng = np.random.default_rng(4)
    frames = rng.integers(40, 160, (6, 16, 24)).astype(np.uint8)
    flow = rng.normal(0, 1, (6, 2, 16, 24)).astype(np.float32)
    np.testing.assert_array_equal(describe(frames, flow, 4, 0.5)[0], describe(frames + np.uint8(60), flow, 4, 0.5)[0])


@pytest.mark.parametrize(("slope", "length"), [(1, np.sqrt(12) / 10), (2, 2 * np.sqrt(12) / 10), (4, 1)])
def test_weak_gradients_stay_below_unit_length(slope, length):
    """A ramp of ``slope`` grey levels a pixel fills one bin of each of 12 cells; the norm is divided by at least 10.

    The cuboid is away from the left and right borders, where the mirrored picture has no gradient.
    """
    frames = np.broadcast_to(np.arange(24, dtype=np.uint8) * slope, (3, 8, 24)).copy()
    descriptors, _ = describe(frames, np.zeros((3, 2, 8, 24), np.float32), cell=4, rest=0.5)
    hog = descriptors[0, 2, :HOG].reshape(12, 8)
    assert np.linalg.norm(hog) == pytest.approx(length, rel=1e-4)
    np.testing.assert_allclose(hog[:, 0], length / np.sqrt(12), rtol=1e-4)  # all of it to the right
