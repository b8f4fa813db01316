"""Localisation metrics against ground-truth masks: pixel-level AUC, RBDC and TBDC.

RBDC is the region-based and TBDC the track-based detection criterion. Error maps and masks may have different sizes. A
map value holds for its whole cell, and masks are not resampled: all areas are exact areas of mask pixels inside map cells,
so true regions of any size count. A frame with NaN in its map was not scored; it is left out together with its true regions.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from vadcore.evaluation.frame_metrics import rank_auc
from vadcore.utils.errors import VadError
from vadcore.utils.provenance import cores

LEVELS = 200  # number of thresholds for RBDC and TBDC
OVERLAP = 0.1  # minimum intersection over union of a detected region (beta of the paper)
TRACK_SHARE = 0.1  # minimum share of detected regions of a detected track (alpha of the paper)
FRAME_SHARE = 0.4  # minimum detected share of a frame's abnormal area in the pixel-level criterion
DROPPED_BITS = 12  # of a float32: values that agree in the leading 12 bits of their significand count as equal
BINS = 1 << (32 - DROPPED_BITS)
ROUNDING = 1e-9  # tolerance of the comparisons above, because areas are sums of fractions


@dataclass(frozen=True)
class Region:
    """A connected component (8-neighbourhood) of one frame's mask, on the grid of the error map.

    frame: frame number in the clip. cells: int ``[n]``, positions in the flattened map. share: ``[n]``, covered share of
    each of these cells, above 0 and at most 1; the sum is the area in cells. track: number of its track in the clip.
    """

    frame: int
    cells: np.ndarray
    share: np.ndarray
    track: int


def localisation_metrics(
    maps: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray], levels: int = LEVELS
) -> dict[str, int | float | None]:
    """Localisation metrics over the clips that have masks. Undefined metrics are None.

    Parameters
    ----------
    maps: clip -> error maps ``[T, h, w]``, higher = more anomalous, NaN = not scored.
    masks: clip -> ground truth ``[T, H, W]``, non-zero = abnormal.
    levels: number of thresholds for RBDC and TBDC.

    Both mappings may load on access, also from threads: masks are read once, maps twice. At most one clip per core is held
    in memory.

    Returns
    -------
    ``pixel_auc``: ROC AUC over all pixels of scored frames. Exact for float16 maps. For higher precision, values that
    agree in the leading 12 bits of their significand (1 part in 2048) count as ties.

    ``pixel_auc_40``: ROC AUC over frames by the pixel-level criterion of Mahadevan et al. 2010; exact. An abnormal frame
    is detected if at least 40 % of its abnormal area is detected. A normal frame is a false positive if any cell is
    detected.

    ``rbdc``, ``tbdc``: region-based and track-based detection criterion of Ramachandra & Jones 2020, "Street Scene":
    area under the curve of the share of detected true regions (tracks) against false-positive regions per frame, from 0
    to 1 false positives per frame.

    - Detected regions are the connected components (8-neighbourhood) of cells at or above the threshold.
    - A true region is detected if a detected region of the same frame overlaps it with an intersection over union of at
      least 0.1. A track is detected if at least a tenth of its regions are.
    - A detected region that overlaps every true region less than that is a false positive.
    - Masks have no track labels. Regions that share a pixel in neighbouring frames form one track, so objects that touch
      are merged into one track.
    - The ``levels`` thresholds are evenly spaced in the logarithm of the share of cells that reach them, from the
      highest map value to the lowest.
    - Detected regions merge as the threshold falls. The curve therefore uses the highest rate among all thresholds with
      at most as many false positives, linearly interpolated.

    ``regions_true``, ``tracks_true``, ``frames_localised``: numbers of true regions, tracks and scored frames.
    """
    truth: dict[str, list[Region]] = {}
    positive, negative = np.zeros(BINS), np.zeros(BINS)  # area in cells, per bin of map values
    abnormal_scores: list[float] = []
    normal_scores: list[float] = []
    for clip in masks:
        of_clip, mask = np.asarray(_map_of(maps, clip)), np.asarray(masks[clip])
        if len(mask) != len(of_clip):
            raise VadError(f"clip {clip}: {len(mask)} masks for {len(of_clip)} maps; mend its masks, or score it again")
        judged = ~np.isnan(of_clip).any(axis=(1, 2))
        truth[clip] = [region for region in true_regions(mask, of_clip.shape[1:]) if judged[region.frame]]
        abnormal: dict[int, np.ndarray] = {}  # frame -> [h * w], abnormal share of each cell
        for region in truth[clip]:
            share = abnormal.setdefault(region.frame, np.zeros(of_clip[0].size))
            share[region.cells] += region.share
        for frame in np.flatnonzero(judged).tolist():
            values = of_clip[frame].ravel().astype(np.float32)
            bins = _bins(values)
            if frame not in abnormal:
                np.add.at(negative, bins, 1.0)
                normal_scores.append(float(values.max()))
            else:
                share = abnormal[frame]
                np.add.at(positive, bins, share)
                np.add.at(negative, bins, np.maximum(1.0 - share, 0.0))
                abnormal_scores.append(_frame_score(values, share))
    frames, regions = len(abnormal_scores) + len(normal_scores), sum(map(len, truth.values()))
    rbdc, tbdc, tracks = None, None, 0
    if regions:
        false, found = _sweep(maps, truth, _thresholds(positive + negative, levels))  # [levels], [levels, regions]
        track = _number_tracks(truth)  # [regions]
        tracks = int(track.max()) + 1
        of_track = np.stack([np.bincount(track, row) for row in found]) / np.bincount(track)  # [levels, tracks]
        rbdc = curve_area(false / frames, found.mean(axis=1))
        tbdc = curve_area(false / frames, (of_track >= TRACK_SHARE - ROUNDING).mean(axis=1))
    return {
        "pixel_auc": rank_auc(positive, negative) if positive.any() and negative.any() else None,
        "pixel_auc_40": _two_sample_auc(abnormal_scores, normal_scores),
        "rbdc": rbdc,
        "tbdc": tbdc,
        "regions_true": regions,
        "tracks_true": tracks,
        "frames_localised": frames,
    }


def true_regions(mask: np.ndarray, size: tuple[int, int]) -> list[Region]:
    """True regions of one clip's ``mask`` ``[T, H, W]`` on the grid of maps of ``size`` (h, w), in order of frames."""
    from scipy.sparse import coo_array  # imported here: takes 0.25 s and is needed only for data sets with masks
    from scipy.sparse.csgraph import connected_components

    down, across = _overlaps(size[0], mask.shape[1]), _overlaps(size[1], mask.shape[2])  # [h, H], [w, W]
    found: list[tuple[int, np.ndarray, np.ndarray]] = []
    links: list[np.ndarray] = []  # [n, 2], pairs of regions that share a pixel in neighbouring frames
    earlier = np.full(mask.shape[1:], -1)  # region number of each pixel of the previous frame, -1 = none
    for frame, of_frame in enumerate(mask):
        if not of_frame.any():
            earlier.fill(-1)
            continue
        count, labels, boxes, _ = cv2.connectedComponentsWithStats((of_frame != 0).astype(np.uint8), connectivity=8)
        numbers = np.where(labels > 0, labels - 1 + len(found), -1)
        for label in range(1, count):
            left, top, width, height = boxes[label, :4]
            inside = labels[top : top + height, left : left + width] == label
            share = (down[:, top : top + height] @ inside @ across[:, left : left + width].T).ravel()
            cells = np.flatnonzero(share)
            found.append((frame, cells, share[cells]))
        both = (numbers >= 0) & (earlier >= 0)
        links.append(np.unique(np.stack([earlier[both], numbers[both]], axis=1), axis=0))
        earlier = numbers
    first, second = np.concatenate([*links, np.empty((0, 2), np.int64)]).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(found), len(found)))
    tracks = connected_components(graph, directed=False)[1] if found else []
    return [Region(*region, int(track)) for region, track in zip(found, tracks, strict=True)]


def curve_area(false_positives: np.ndarray, rate: np.ndarray) -> float:
    """Area under the curve of rate against false positives per frame, from 0 to 1 false positives per frame.

    At each operating point the curve is the highest ``rate`` reached with at most as many ``false_positives``. Points
    are joined by straight lines, starting at (0, 0); after the last point the rate is constant.

    false_positives, rate: ``[levels]``, in any order.
    """
    order = np.lexsort((rate, false_positives))
    x = np.concatenate(([0.0], false_positives[order]))
    y = np.maximum.accumulate(np.concatenate(([0.0], rate[order])))
    inside = np.flatnonzero(x <= 1)[-1]
    end = y[inside]
    if inside + 1 < len(x):
        end += (y[inside + 1] - end) * (1 - x[inside]) / (x[inside + 1] - x[inside])
    return float(np.trapezoid(np.append(y[: inside + 1], end), np.append(x[: inside + 1], 1.0)))


def _map_of(maps: Mapping[str, np.ndarray], clip: str) -> np.ndarray:
    if clip not in maps:
        raise VadError(f"clip {clip}: has masks but no error maps; score it, or remove its masks")
    return maps[clip]


def _overlaps(cells: int, pixels: int) -> np.ndarray:
    """Share of each cell that each pixel covers along one image side: ``[cells, pixels]``, rows sum to 1."""
    cell, pixel = np.arange(cells)[:, None] * pixels, np.arange(pixels)[None, :] * cells  # unit: 1 / (cells * pixels)
    return np.maximum(np.minimum(cell + pixels, pixel + cells) - np.maximum(cell, pixel), 0) / pixels


def _bins(values: np.ndarray) -> np.ndarray:
    """Bin number of each float32 value, ordered like the values: sign, exponent and leading bits of the significand."""
    bits = (values + np.float32(0)).view(np.uint32)  # the sum turns -0 into 0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> DROPPED_BITS).astype(np.int64)


def _lowest_of(bins: np.ndarray) -> np.ndarray:
    """Lowest float32 value of each bin; the inverse of :func:`_bins`."""
    ordered = (bins << DROPPED_BITS).astype(np.uint32)
    return np.where(ordered >> 31, ordered & np.uint32((1 << 31) - 1), ~ordered).view(np.float32)


def _thresholds(area: np.ndarray, levels: int) -> np.ndarray:
    """``levels`` thresholds, descending; fewer if some coincide. area: area in cells of each bin."""
    used = np.flatnonzero(area > 0)[::-1]
    reached = np.cumsum(area[used])  # area at or above the lowest value of each used bin
    wanted = np.geomspace(1.0, reached[-1], levels)
    at = np.unique(np.minimum(np.searchsorted(reached, wanted - 1e-6), len(used) - 1))
    return _lowest_of(used[at])


def _sweep(
    maps: Mapping[str, np.ndarray], truth: dict[str, list[Region]], thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(number of false-positive regions ``[levels]``, whether a true region is detected: bool ``[levels, regions]``)."""
    with ThreadPoolExecutor(cores()) as pool:
        parts = pool.map(lambda clip: _sweep_clip(np.asarray(maps[clip]), truth[clip], thresholds), truth)
        false, found = zip(*parts, strict=True)
    return np.sum(false, axis=0), np.concatenate(found, axis=1)


def _sweep_clip(maps: np.ndarray, regions: list[Region], thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`_sweep` for one clip."""
    false = np.zeros(len(thresholds))
    found = np.zeros((len(thresholds), len(regions)), bool)
    of_frame: dict[int, list[int]] = {}
    for number, region in enumerate(regions):
        of_frame.setdefault(region.frame, []).append(number)
    for frame, values in enumerate(maps):
        if np.isnan(values).any():
            continue
        reached_at = np.searchsorted(-thresholds, -values.astype(np.float32)).astype(np.uint16)  # [h, w], levels
        levels = np.unique(reached_at[reached_at < len(thresholds)])  # at which further cells are detected
        here = of_frame.get(frame, [])
        hits, false_here = _detected(reached_at, levels, [regions[number] for number in here])
        repeats = np.diff(levels, append=len(thresholds))
        false[levels[0] :] += np.repeat(false_here, repeats)
        found[levels[0] :, here] = np.repeat(hits, repeats, axis=0)
    return false, found


def _detected(reached_at: np.ndarray, levels: np.ndarray, regions: list[Region]) -> tuple[np.ndarray, np.ndarray]:
    """Detection results of one frame at each of the ``levels``.

    reached_at: ``[h, w]``, the first level at which each cell is detected. regions: the true regions of the frame.
    Returns (whether a true region is detected: bool ``[levels, regions]``, number of false-positive regions
    ``[levels]``).
    """
    height, width = reached_at.shape
    stack = np.zeros((len(levels), height + 1, width), bool)  # an empty row separates the levels
    np.less_equal(reached_at, levels[:, None, None], out=stack[:, :height])
    count, labels = cv2.connectedComponents(stack.reshape(-1, width).view(np.uint8), connectivity=8)
    labels = labels.reshape(len(levels), -1)
    last = labels.max(axis=1)  # components are numbered from 1, top to bottom, so level by level; 0 = not detected
    hits, matched = np.zeros((len(levels), len(regions)), bool), np.zeros(count, bool)
    if regions:
        areas = np.bincount(labels.ravel(), minlength=count)
    for number, region in enumerate(regions):
        at = labels[:, region.cells]  # [levels, cells]
        shared = np.bincount(at.ravel(), np.broadcast_to(region.share, at.shape).ravel(), minlength=count)
        overlaps = shared / (areas + region.share.sum() - shared) >= OVERLAP - ROUNDING
        overlaps[0] = False
        hits[:, number] = overlaps[at].any(axis=1)
        matched |= overlaps
    return hits, np.diff(last - np.cumsum(matched)[last], prepend=0)


def _number_tracks(truth: dict[str, list[Region]]) -> np.ndarray:
    """Track number of every region in the order of ``truth``; tracks of all clips are numbered without gaps."""
    names = [(clip, region.track) for clip, regions in truth.items() for region in regions]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def _frame_score(values: np.ndarray, share: np.ndarray) -> float:
    """Highest threshold at which at least FRAME_SHARE of a frame's abnormal area is detected.

    values: map values ``[h * w]``. share: abnormal share of each cell ``[h * w]``.
    """
    values, share = values[share > 0], share[share > 0]
    order = np.argsort(-values)
    covered = np.cumsum(share[order])
    return float(values[order[np.searchsorted(covered, FRAME_SHARE * covered[-1] - ROUNDING)]])


def _two_sample_auc(high: list[float], low: list[float]) -> float | None:
    if not high or not low:
        return None
    ranks = np.unique(np.array(high + low), return_inverse=True)[1]
    count = ranks.max() + 1
    return rank_auc(np.bincount(ranks[: len(high)], minlength=count), np.bincount(ranks[len(high) :], minlength=count))
