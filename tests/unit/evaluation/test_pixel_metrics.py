"""Localisation metrics: compared with hand-computed values, scikit-learn and a pixel-by-pixel implementation."""

import json
import math

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from tests.helpers.data import data_dir
from vadcore.evaluation.pixel_metrics import curve_area, localisation_metrics, true_regions
from vadcore.utils.errors import VadError

EIGHT = np.ones((3, 3))


def blank(frames=1, size=(10, 10)):
    return np.zeros((frames, *size), np.float32)


def measured(of_map, mask, levels=50):
    return localisation_metrics({"a": of_map}, {"a": mask}, levels)


def finer(array, size):
    """``[T, h, w]`` on a finer grid of ``size``: each cell becomes a block."""
    return array.repeat(size[0] // array.shape[1], axis=1).repeat(size[1] // array.shape[2], axis=2)


# pixel-level AUC


@pytest.mark.parametrize(
    ("map_size", "mask_size"),
    [((6, 8), (6, 8)), ((6, 8), (24, 32)), ((4, 6), (6, 9)), ((7, 5), (16, 9)), ((12, 10), (6, 5)), ((9, 9), (6, 15))],
)
def test_pixel_auc_counts_blocks_of_pixels(map_size, mask_size):
    rng = np.random.default_rng(0)
    masks = {clip: rng.random((5, *mask_size)) < 0.3 for clip in "ab"}
    maps = {clip: rng.normal(0, 3, (5, *map_size)).round(1).astype(np.float16) for clip in "ab"}
    common = tuple(map(math.lcm, map_size, mask_size))
    label = np.concatenate([finer(masks[clip], common).ravel() for clip in "ab"])
    score = np.concatenate([finer(maps[clip], common).ravel() for clip in "ab"])
    assert localisation_metrics(maps, masks, 5)["pixel_auc"] == pytest.approx(roc_auc_score(label, score), abs=1e-9)


def test_pixel_auc_orders_every_float16():
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)  # all float16 values, with both zeros and infinities
    of_map = values[~np.isnan(values)][:63488].reshape(1, 248, 256)
    mask = np.random.default_rng(1).random(of_map.shape) < 1 / (1 + np.exp(-of_map.astype(np.float32).clip(-20, 20)))
    # the infinities as numbers beyond the largest float16, 65504: scikit-learn refuses infinities
    expected = roc_auc_score(mask.ravel(), of_map.astype(np.float64).clip(-1e5, 1e5).ravel())
    assert measured(of_map, mask, 2)["pixel_auc"] == pytest.approx(expected, abs=1e-9)


def test_pixel_auc_of_float32_maps_is_close():
    rng = np.random.default_rng(2)
    of_map = rng.lognormal(0, 1, (4, 64, 64)).astype(np.float32)
    mask = rng.random(of_map.shape) < of_map / (1 + of_map)
    exact = roc_auc_score(mask.ravel(), of_map.ravel())
    # half of the values lie in 1/2 to 2, two octaves of 2048 bins each: far fewer than 1 pair in 1000 is tied
    assert measured(of_map, mask, 2)["pixel_auc"] == pytest.approx(exact, abs=1e-4)


# the 40 % criterion


def test_40_percent_criterion():
    of_map, mask = blank(3), np.zeros((3, 10, 10), bool)
    mask[:2, 0, :5] = True
    of_map[0, 0, :5] = [9, 8, 3, 2, 1]  # 2 of 5 cells reach 8
    of_map[1, 0, :5] = [9, 4, 4, 4, 4]  # 2 of 5 cells reach 4, not more
    of_map[2, 5, 5] = 6  # the normal frame alarms from 6 down: 8 > 6 is right, 4 > 6 is wrong
    assert measured(of_map, mask)["pixel_auc_40"] == 0.5
    of_map[2, 5, 5] = 4  # 8 > 4 is right, 4 = 4 is half right
    assert measured(of_map, mask)["pixel_auc_40"] == 0.75


# regions


def test_perfect_map_finds_everything():
    mask = np.zeros((4, 20, 20), np.uint8)
    mask[1:, 3:6, 3:6] = 1
    mask[2:, 12:15, 12:15] = 1
    found = measured(mask.astype(np.float32), mask)
    assert [found[key] for key in ("pixel_auc", "pixel_auc_40", "rbdc", "tbdc")] == [1, 1, 1, 1]
    assert (found["regions_true"], found["tracks_true"], found["frames_localised"]) == (5, 2, 4)


@pytest.mark.parametrize(("cells", "found"), [(10, 1.0), (11, 0.0)])
def test_region_needs_iou_of_one_tenth(cells, found):
    of_map, mask = blank(size=(16, 16)), np.zeros((1, 16, 16), bool)
    mask[0, 2, 2] = True
    of_map[0, 2, 2 : 2 + cells] = 1  # intersection 1, union ``cells``; the whole frame overlaps 1/256
    assert measured(of_map, mask)["rbdc"] == found


def test_region_in_two_pieces():
    of_map, mask = blank(), np.zeros((1, 10, 10), bool)
    mask[0, 1, :5] = True
    of_map[0, 1, [0, 1, 3, 4]] = 1  # two pieces of 2 cells: 2/5 each
    assert measured(of_map, mask)["rbdc"] == 1


def test_pixels_below_the_threshold_are_not_detected():
    of_map, mask = blank(2, (20, 20)), np.zeros((2, 20, 20), bool)
    mask[0, 1, :15] = True
    of_map[0, 3:] = 1  # all but 60 cells around the anomaly of 15, which are no detection though 15/60 would be enough
    assert measured(of_map, mask)["rbdc"] == 0


def test_stronger_false_region_lowers_rbdc():
    of_map, mask = blank(4, (12, 12)), np.zeros((4, 12, 12), bool)
    mask[0, 2:4, 2:4] = True
    of_map[0, 2:4, 2:4] = 1
    of_map[1, 8, 8] = 2
    # Thresholds 2: nothing found, 1/4 false regions a frame; 1: all found, 1/4; 0: whole frames, of which the first
    # overlaps 4/144: nothing found, 1. The curve is 0 up to 1/4 and 1 from there on.
    assert measured(of_map, mask)["rbdc"] == pytest.approx(3 / 4, abs=1e-12)


@pytest.mark.parametrize(("frames", "found"), [(10, 1.0), (11, 0.0)])
def test_track_needs_tenth_of_its_regions(frames, found):
    of_map, mask = blank(frames), np.zeros((frames, 10, 10), bool)
    mask[:, 2, 2] = True
    of_map[3, 2, 2] = 1
    metrics = measured(of_map, mask)
    assert (metrics["tracks_true"], metrics["tbdc"]) == (1, found)
    assert metrics["rbdc"] == pytest.approx(1 / frames, abs=1e-12)


def test_overlapping_regions_form_a_track():
    mask = np.zeros((6, 10, 20), bool)
    for frame in range(6):
        mask[frame, 2:5, frame : frame + 2] = True  # moves one pixel a frame, two wide
        mask[frame, 7:9, 3 * frame : 3 * frame + 2] = True  # moves three: shares no pixel with itself
    tracks = [region.track for region in true_regions(mask, (10, 20))]
    assert len(tracks) == 12
    assert len(set(tracks)) == 1 + 6


def test_gaps_and_merges_of_tracks():
    gap = np.zeros((3, 8, 8), bool)
    gap[[0, 2], 4, 4] = True
    assert len({region.track for region in true_regions(gap, (8, 8))}) == 2
    touch = np.zeros((2, 8, 8), bool)
    touch[0, 2, [1, 5]] = True
    touch[1, 2, 1:6] = True
    assert len({region.track for region in true_regions(touch, (8, 8))}) == 1


def test_tracks_are_connected_components():
    link = np.zeros((3, 3, 3))
    link[1], link[0, 1, 1], link[2, 1, 1] = EIGHT, 1, 1
    for seed in range(20):
        mask = np.random.default_rng(seed).random((6, 12, 12)) < 0.12
        tracks = {region.track for region in true_regions(mask, (6, 6))}
        assert len(tracks) == ndimage.label(mask, link)[1]


def test_small_region_keeps_its_area():
    mask = np.zeros((1, 40, 40), bool)
    mask[0, 10, 11:13] = True  # 2 pixels of 1/16 cell, one in each of two cells of a 10 x 10 map
    (region,) = true_regions(mask, (10, 10))
    assert region.cells.tolist() == [22, 23]
    np.testing.assert_allclose(region.share, 1 / 16)


# the curve


@pytest.mark.parametrize(
    ("false_positives", "rate", "area"),
    [
        ([0], [1], 1),  # all found without a false positive
        ([0.5], [0.4], 0.1 + 0.2),  # a triangle, then level
        ([0.5, 2], [0.4, 1], 0.1 + 0.25),  # cut at 1, where the line from (.5, .4) to (2, 1) is at .6
        ([0.6, 0.2], [0.3, 0.8], 0.08 + 0.64),  # falls back: the highest rate so far holds
        ([2], [1], 0.25),  # half way up at 1
        ([0, 0], [0.2, 0.6], 0.6),
    ],
)
def test_curve_area(false_positives, rate, area):
    assert curve_area(np.array(false_positives, float), np.array(rate, float)) == pytest.approx(area, abs=1e-12)


def by_pixel(maps, masks):
    """RBDC and TBDC from the definition, every distinct value a threshold, every region a set of pixels."""
    link = np.zeros((3, 3, 3))
    link[1], link[0, 1, 1], link[2, 1, 1] = EIGHT, 1, 1
    points = []
    for threshold in np.unique(np.concatenate([of_map.ravel() for of_map in maps.values()]))[::-1]:
        false, found, frames = 0, {}, 0
        for clip, of_map in maps.items():
            tracks = ndimage.label(masks[clip], link)[0]
            for values, mask, track in zip(of_map, masks[clip], tracks, strict=True):
                frames += 1
                detected, count = ndimage.label(values >= threshold, EIGHT)
                true, regions = ndimage.label(mask, EIGHT)
                iou = np.zeros((regions, count))
                for r, d in np.ndindex(iou.shape):
                    one, other = true == r + 1, detected == d + 1
                    iou[r, d] = (one & other).sum() / (one | other).sum()
                false += int((iou < 0.1).all(axis=0).sum())
                for r in range(regions):
                    found.setdefault((clip, track[true == r + 1][0]), []).append(bool((iou[r] >= 0.1).any()))
        every = [hit for hits in found.values() for hit in hits]
        points.append((false / frames, np.mean(every), np.mean([np.mean(hits) >= 0.1 for hits in found.values()])))
    x, region_rate, track_rate = np.array(sorted(points)).T
    areas = []
    for rate in (region_rate, track_rate):
        grid = np.concatenate(([0.0], x, [max(1.0, x[-1])]))
        best = np.array([0.0, *(max(rate[x <= at]) for at in x)])
        best = np.append(best, best[-1])
        within = grid < 1
        knots, values = np.append(grid[within], 1.0), np.append(best[within], np.interp(1.0, grid, best))
        areas.append(np.trapezoid(values, knots))
    return areas


@pytest.mark.parametrize("seed", range(6))
def test_rbdc_and_tbdc_match_the_definition(seed):
    rng = np.random.default_rng(seed)
    masks, maps = {}, {}
    for clip in "ab":
        mask = np.zeros((5, 24, 30), bool)
        for frame in range(5):
            mask[frame, 4:12, 2 * frame : 2 * frame + 9] = True
            mask[frame, 16:21, 20:26] = frame > 1
        near = mask[:, ::2, ::3] + rng.random((5, 12, 10)) * 1.2
        masks[clip], maps[clip] = mask, (near * 6).round().astype(np.float16)  # about a dozen distinct values
    found = localisation_metrics(maps, masks, 3000)  # thresholds enough for every value
    at_pixels = {clip: finer(of_map, (24, 30)) for clip, of_map in maps.items()}
    np.testing.assert_allclose([found["rbdc"], found["tbdc"]], by_pixel(at_pixels, masks), rtol=0, atol=1e-9)


def test_monotonic_transform_changes_nothing():
    rng = np.random.default_rng(3)
    mask = np.zeros((6, 30, 30), bool)
    mask[2:, 5:15, 5:15] = True
    of_map = ((mask[:, ::3, ::3] + 4 * rng.random((6, 10, 10))) * 8).round().astype(np.float16)  # 0 to 40
    found = measured(of_map, mask)
    assert 0 < found["rbdc"] < 1
    assert measured(3 * of_map - 70, mask) == pytest.approx(found, abs=1e-12)


# excluded frames and clips


def test_unjudged_frames_are_left_out():
    rng = np.random.default_rng(4)
    mask = np.zeros((6, 12, 12), bool)
    mask[1:5, 3:7, 3:7] = True
    of_map = rng.random((6, 12, 12)).astype(np.float16)
    holes = np.concatenate([of_map, np.full((2, 12, 12), np.nan, np.float16)])
    assert measured(holes, np.concatenate([mask, mask[2:4]])) == measured(of_map, mask)


def test_clips_without_masks_are_left_out():
    mask = np.zeros((2, 6, 6), bool)
    mask[0, 1, 1] = True
    of_map = np.random.default_rng(5).random((2, 6, 6))
    assert localisation_metrics({"a": of_map, "b": of_map + 9}, {"a": mask}) == measured(of_map, mask, 200)


@pytest.mark.parametrize("abnormal", [False, True])
def test_undefined_metrics_are_none(abnormal):
    found = measured(np.random.default_rng(6).random((2, 4, 4)), np.full((2, 4, 4), abnormal))
    assert found["pixel_auc"] is found["pixel_auc_40"] is None
    assert (found["rbdc"] is None) == (not abnormal)
    json.dumps(found, allow_nan=False)
    nothing = {"regions_true": 0, "tracks_true": 0, "frames_localised": 0}
    empty = {"pixel_auc": None, "pixel_auc_40": None, "rbdc": None, "tbdc": None, **nothing}
    assert localisation_metrics({}, {}) == empty
    assert measured(np.full((2, 4, 4), np.nan), np.ones((2, 4, 4))) == empty


def test_mismatched_masks_are_refused():
    with pytest.raises(VadError, match=r"clip a: .*3 masks.*2 maps"):
        measured(blank(2), np.zeros((3, 10, 10)))
    with pytest.raises(VadError, match=r"clip a: .*masks"):
        localisation_metrics({}, {"a": np.zeros((3, 10, 10))})


def test_real_ped2_masks_as_maps():
    with np.load(data_dir("ped2", "pixel_masks.npz")) as masks:
        mask = masks["Test001"][50:90]
    found = measured(mask.astype(np.float16), mask)
    assert [found[key] for key in ("pixel_auc", "pixel_auc_40", "rbdc", "tbdc")] == [1, 1, 1, 1]
    assert found["regions_true"] == sum(ndimage.label(frame, EIGHT)[1] for frame in mask)
