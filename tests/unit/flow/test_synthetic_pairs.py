"""Generated image pairs: exact flow, small motions, each pair determined by its seed and number."""

import cv2
import numpy as np
import pytest

from vadcore.flow.layers import coverage
from vadcore.flow.synthetic_pairs import PairGenerator, Pairs, affine, displacement

SIZE = (96, 128)
pytestmark = pytest.mark.usefixtures("few_textures")


@pytest.fixture(scope="module")
def plain(few_textures):
    """Twenty pairs without camera effects."""
    return without_camera(SIZE, seed=3).batch(np.arange(20))


def without_camera(*args, **settings) -> PairGenerator:
    """A generator of pairs without camera effects."""
    generator = PairGenerator(*args, **settings)
    generator._film = lambda rng, frames: frames
    return generator


def visible(pairs: Pairs) -> np.ndarray:
    """Mask of the pixels of the first frame that move to a pixel of the same layer in the second, bool ``[N, H, W]``."""
    n, _, height, width = pairs.flow.shape
    to = np.rint(pairs.flow + np.mgrid[:height, :width][::-1]).astype(int)  # x, y
    x, y = to[:, 0], to[:, 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    shown = pairs.layers[np.arange(n)[:, None, None], 1, y.clip(0, height - 1), x.clip(0, width - 1)]
    return inside & (shown == pairs.layers[:, 0])


def warped(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """``frame`` ``[H, W, 3]`` warped back along ``flow`` ``[2, H, W]``: float32."""
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
    return cv2.remap(frame.astype(np.float32), x + flow[0], y + flow[1], cv2.INTER_CUBIC)


def test_flow_warps_second_frame_onto_first(plain):
    errors, still = [], []
    for n, seen in enumerate(visible(plain)):
        inner = cv2.erode(seen.astype(np.uint8), np.ones((5, 5)), borderValue=0) > 0
        first, second = plain.frames[n].astype(np.float32)
        errors.append(np.abs(warped(second, plain.flow[n]) - first)[inner])
        still.append(np.abs(second - first)[inner])
    errors, still = np.concatenate(errors), np.concatenate(still)
    assert len(errors) > 100_000
    assert np.median(errors) <= 1  # grey level: both frames are rounded to whole ones
    assert errors.mean() < 1
    assert errors.mean() < 0.12 * still.mean()


def test_flow_of_a_layer_is_affine(plain):
    """Six parameters fit the flow of each layer exactly."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    fitted = 0
    for flow, (layers, _) in zip(plain.flow, plain.layers, strict=True):
        for layer in np.unique(layers):
            here = layers == layer
            if here.sum() < 30:
                continue
            places = np.stack([x[here], y[here], np.ones(here.sum())], axis=1)  # [n, 3]
            linear, *_ = np.linalg.lstsq(places, flow[:, here].T.astype(np.float64), rcond=None)
            assert np.abs(places @ linear - flow[:, here].T).max() < 1e-4
            fitted += 1
    assert fitted > 60


def test_displacement_of_a_rotation():
    """A quarter turn about (10, 20) moves a pixel 3 to the right of it to 3 below it."""
    motion = np.array([[0, -1, 10 + 20], [1, 0, 20 - 10], [0, 0, 1.0]])
    flow = displacement(motion, slice(20, 21), slice(13, 14))
    assert flow[:, 0, 0] == pytest.approx([-3, 3])


def test_affine_moves_centre_by_given_length():
    rng = np.random.default_rng(0)
    for _ in range(20):
        centre, length = rng.uniform(0, 100, 2), rng.exponential(3)
        moved = affine(rng, centre, length, turn=5, zoom=0.1) @ [*centre, 1]
        assert np.linalg.norm(moved[:2] - centre) == pytest.approx(length)


def test_front_layers_occlude_back_layers(plain):
    """Layers are numbered from the back in both frames; the flow of a moving shape differs from the background's."""
    for layers in plain.layers:
        assert layers[0].max() >= 1
    moving = [
        np.abs(flow[:, layers[0] > 0].mean(1) - flow[:, layers[0] == 0].mean(1)).max()
        for flow, layers in zip(plain.flow, plain.layers, strict=True)
    ]
    assert np.mean(np.array(moving) > 0.05) > 0.9
    hidden = 1 - visible(plain).mean()
    assert 0.01 < hidden < 0.25


def test_coverage_of_a_rectangle():
    """A rectangle from x = 2.25 to 5.75 and y = 1.5 to 3.5; pixel n reaches from n - 0.5 to n + 0.5."""
    box = np.array([[2.25, 1.5], [5.75, 1.5], [5.75, 3.5], [2.25, 3.5]])
    alpha, rows, columns = coverage([box], (10, 12))
    whole = np.zeros((10, 12), np.float32)
    whole[rows, columns] = alpha
    expected = np.zeros((10, 12))
    expected[2:4, 2:7] = [0.25, 1, 1, 1, 0.25]
    assert np.abs(whole - expected).max() <= 0.5  # OpenCV counts the points on the outline as inside
    assert np.array_equal(whole[2:4, 3:6], np.ones((2, 3)))
    assert whole[5:].max() == whole[:, 8:].max() == 0


def test_coverage_of_holes_and_shapes_outside():
    square = np.array([[0, 0], [20, 0], [20, 20], [0, 20.0]])
    alpha, rows, columns = coverage([square, (square - 10) / 2 + 10], (21, 21))
    assert alpha[10 - rows.start, 10 - columns.start] == 0
    assert alpha[2 - rows.start, 2 - columns.start] == 1
    assert coverage([square + 100], (21, 21)) is None


def test_displacements_are_small():
    """As in ChairsSDHom, most displacements are under 10 px and many under 1 px."""
    pairs = without_camera(SIZE, seed=5).batch(np.arange(60))
    lengths = np.linalg.norm(pairs.flow, axis=1)
    assert (lengths < 1).mean() > 0.3
    assert (lengths < 10).mean() > 0.97
    assert (lengths > 2).mean() > 0.15
    assert (lengths > 5).mean() > 0.01


@pytest.mark.parametrize(("still", "low", "high"), [(0.0, 0, 0), (0.5, 0.3, 0.7), (1.0, 1, 1)])
def test_share_of_still_backgrounds(still, low, high):
    pairs = without_camera((64, 64), seed=1, still=still).batch(np.arange(60))
    standing = [not flow[:, layers[0] == 0].any() for flow, layers in zip(pairs.flow, pairs.layers, strict=True)]
    assert low <= np.mean(standing) <= high


def test_pair_depends_on_seed_and_number():
    generator = PairGenerator((64, 64), seed=7)
    together, alone = generator.batch(np.array([3, 8, 5])), PairGenerator((64, 64), seed=7).batch(np.array([5]))
    for name in ("frames", "flow", "layers"):
        assert np.array_equal(getattr(together, name)[2], getattr(alone, name)[0])
    other = PairGenerator((64, 64), seed=8).batch(np.array([5]))
    assert not np.array_equal(other.flow, alone.flow)
    assert not np.array_equal(together.flow[0], together.flow[1])


def test_camera_adds_noise_and_light_changes():
    clean = without_camera(SIZE, seed=3).batch(np.arange(8))
    filmed = PairGenerator(SIZE, seed=3).batch(np.arange(8))
    assert np.array_equal(clean.flow, filmed.flow)
    residue = [
        np.abs(warped(p.frames[n, 1], p.flow[n]) - p.frames[n, 0])[visible(p)[n]].mean()
        for p in (clean, filmed)
        for n in range(8)
    ]
    assert np.mean(residue[8:]) > 1.5 * np.mean(residue[:8])
    brightness = np.abs(filmed.frames.mean((1, 2, 3, 4)) - clean.frames.mean((1, 2, 3, 4)))
    assert brightness.max() > 5
