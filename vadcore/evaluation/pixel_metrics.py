"""Localisation: where in the frame, against the true masks. Pixel-level AUC, RBDC and TBDC.

Error maps are smaller (or larger) than masks. A map's value holds in the whole of its cell, and truth is never resampled:
every area below is the exact area of mask pixels inside map cells, whatever the two sizes, and every true region counts,
however small. A frame with NaN in its map was not judged; it is left out, its true regions with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from vadcore.evaluation.frame_metrics import rank_auc
from vadcore.utils.errors import VadError

LEVELS = 200  # thresholds that RBDC and TBDC sweep
OVERLAP = 0.1  # intersection over union from which a region is found (beta of the paper)
TRACK_SHARE = 0.1  # share of its regions from which a track is found (alpha of the paper)
FRAME_SHARE = 0.4  # share of a frame's abnormal area from which the pixel-level criterion holds
DROPPED_BITS = 12  # of a float32: values that agree in the leading 12 bits of their significand are one value
BINS = 1 << (32 - DROPPED_BITS)
ROUNDING = 1e-9  # areas are sums of fractions: a tenth reached but for rounding is reached


@dataclass(frozen=True)
class Region:
    """A connected piece (8 neighbours) of one frame's mask, on the grid of the map.

    frame: its number in the clip. cells: int ``[n]``, positions in the flattened map. share: ``[n]``, how much of each
    of these cells it covers, above 0 to 1; the sum is its area in cells. track: number of its track in the clip.
    """

    frame: int
    cells: np.ndarray
    share: np.ndarray
    track: int


def localisation_metrics(
    maps: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray], levels: int = LEVELS
) -> dict[str, int | float | None]:
    """Localisation over the clips that have masks. A figure that is undefined is None.

    maps: clip -> ``[T, h, w]``, higher = more anomalous, NaN = not judged. masks: clip -> ``[T, H, W]``, non-zero =
    abnormal. Both may load on access: masks are read once, maps twice, and one clip at a time is held.

    ``pixel_auc``: area under the ROC curve over all pixels of judged frames. Exact for float16 maps; for finer ones
    values that agree in the leading 12 bits of their significand (1 part in 2048) count as ties.

    ``pixel_auc_40``: the pixel-level criterion of Mahadevan et al. 2010: an abnormal frame is found where at least 40 %
    of its abnormal area is, a normal frame is a false positive where any cell is. AUC over frames, exact.

    ``rbdc``, ``tbdc``: Ramachandra & Jones 2020, "Street Scene". At a threshold the connected cells (8 neighbours) that
    reach it are detected regions. A true region is found when a detected region of its frame overlaps it with an
    intersection over union of at least 0.1; a track is found when at least a tenth of its regions are; a detected
    region that overlaps no true region that much is a false positive. The figure is the area under the rate of found
    regions (tracks) against false positive regions per frame, from 0 to 1. Masks name no tracks: regions that share a
    pixel in neighbouring frames are one track, so objects that touch become one. The sweep takes ``levels`` thresholds,
    evenly spaced in the logarithm of the share of cells that reach them, from the highest value to the lowest. Since
    detected regions merge as the threshold falls, the curve takes the highest rate among the thresholds with no more
    false positives, and straight lines between.
    """
    truth: dict[str, list[Region]] = {}
    positive, negative = np.zeros(BINS), np.zeros(BINS)  # area in cells, by value
    abnormal_scores: list[float] = []
    normal_scores: list[float] = []
    for clip in masks:
        of_clip, mask = np.asarray(_map_of(maps, clip)), np.asarray(masks[clip])
        if len(mask) != len(of_clip):
            raise VadError(f"clip {clip}: {len(mask)} masks for {len(of_clip)} maps; mend its masks, or score it again")
        judged = ~np.isnan(of_clip).any(axis=(1, 2))
        truth[clip] = [region for region in true_regions(mask, of_clip.shape[1:]) if judged[region.frame]]
        abnormal: dict[int, np.ndarray] = {}  # frame -> [h * w], how much of each cell is abnormal
        for region in truth[clip]:
            share = abnormal.setdefault(region.frame, np.zeros(of_clip[0].size))
            share[region.cells] += region.share
        for frame in np.flatnonzero(judged).tolist():
            values = of_clip[frame].ravel().astype(np.float32)
            bins = _bins(values)
            share = abnormal.get(frame)
            if share is None:
                np.add.at(negative, bins, 1.0)
                normal_scores.append(float(values.max()))
            else:
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
    """The true regions of one clip's ``mask`` ``[T, H, W]`` on the grid of maps of ``size`` (h, w), frame by frame."""
    from scipy.sparse import coo_array  # here: a quarter of a second, for data sets with masks only
    from scipy.sparse.csgraph import connected_components

    down, across = _overlaps(size[0], mask.shape[1]), _overlaps(size[1], mask.shape[2])  # [h, H], [w, W]
    found: list[tuple[int, np.ndarray, np.ndarray]] = []
    links: list[np.ndarray] = []  # [n, 2], regions that share a pixel in neighbouring frames
    earlier = np.full(mask.shape[1:], -1)  # number of the region that each pixel of the frame before belongs to
    for frame, of_frame in enumerate(mask):
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
    """Area from 0 to 1 under the highest ``rate`` reached with at most so many ``false_positives`` per frame.

    Both ``[levels]``, in any order. Operating points are joined by straight lines, from (0, 0); after the last one the
    rate stays what it is.
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
    """How much of each cell each pixel covers when both divide the same side: ``[cells, pixels]``, rows sum to 1."""
    cell, pixel = np.arange(cells)[:, None] * pixels, np.arange(pixels)[None, :] * cells  # in 1 / (cells * pixels)
    return np.maximum(np.minimum(cell + pixels, pixel + cells) - np.maximum(cell, pixel), 0) / pixels


def _bins(values: np.ndarray) -> np.ndarray:
    """Bin of each float32 value, in the order of the values: sign, exponent and the leading bits of the significand."""
    bits = (values + np.float32(0)).view(np.uint32)  # the sum turns -0 into 0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> DROPPED_BITS).astype(np.int64)


def _lowest_of(bins: np.ndarray) -> np.ndarray:
    """The lowest float32 value of each bin, the inverse of :func:`_bins`."""
    ordered = (bins << DROPPED_BITS).astype(np.uint32)
    return np.where(ordered >> 31, ordered & np.uint32((1 << 31) - 1), ~ordered).view(np.float32)


def _thresholds(area: np.ndarray, levels: int) -> np.ndarray:
    """``levels`` thresholds (fewer where they coincide), falling, from the cells in each bin."""
    used = np.flatnonzero(area > 0)[::-1]
    reached = np.cumsum(area[used])  # cells that reach the lowest value of each used bin
    wanted = np.geomspace(1.0, reached[-1], levels)
    at = np.unique(np.minimum(np.searchsorted(reached, wanted - 1e-6), len(used) - 1))
    return _lowest_of(used[at])


def _sweep(
    maps: Mapping[str, np.ndarray], truth: dict[str, list[Region]], thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(false positive regions ``[levels]``, which true regions are found: bool ``[levels, regions]``)."""
    false = np.zeros(len(thresholds))
    found = np.zeros((len(thresholds), sum(map(len, truth.values()))), bool)
    first = 0
    for clip, regions in truth.items():
        of_clip = np.asarray(maps[clip])
        of_frame: dict[int, list[int]] = {}
        for number, region in enumerate(regions):
            of_frame.setdefault(region.frame, []).append(number)
        for frame, values in enumerate(of_clip):
            if np.isnan(values).any():
                continue
            reached_at = np.searchsorted(-thresholds, -values.astype(np.float32)).astype(np.uint16)  # [h, w], levels
            levels = np.unique(reached_at[reached_at < len(thresholds)])  # at which other cells are reached than before
            here = of_frame.get(frame, [])
            hits, false_here = _detected(reached_at, levels, [regions[number] for number in here])
            repeats = np.diff(levels, append=len(thresholds))
            false[levels[0] :] += np.repeat(false_here, repeats)
            found[levels[0] :, [first + number for number in here]] = np.repeat(hits, repeats, axis=0)
        first += len(regions)
    return false, found


def _detected(reached_at: np.ndarray, levels: np.ndarray, regions: list[Region]) -> tuple[np.ndarray, np.ndarray]:
    """Of one frame, whose cells are reached at the levels ``reached_at`` ``[h, w]``: (which of its true ``regions`` are
    found at each of the ``levels``: bool ``[levels, regions]``, false positive regions ``[levels]``)."""
    height, width = reached_at.shape
    stack = np.zeros((len(levels), height + 1, width), bool)  # an empty row keeps the levels apart
    np.less_equal(reached_at, levels[:, None, None], out=stack[:, :height])
    count, labels = cv2.connectedComponents(stack.reshape(-1, width).view(np.uint8), connectivity=8)
    labels = labels.reshape(len(levels), -1)
    last = labels.max(axis=1)  # regions are numbered from 1, downwards, so level by level; 0 is what was not reached
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
    """Track of every region, in the order of ``truth``, numbered over all clips without gaps."""
    names = [(clip, region.track) for clip, regions in truth.items() for region in regions]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def _frame_score(values: np.ndarray, share: np.ndarray) -> float:
    """The highest threshold that FRAME_SHARE of a frame's abnormal area reaches. Both ``[h * w]``."""
    order = np.argsort(-values)
    covered = np.cumsum(share[order])
    return float(values[order[np.searchsorted(covered, FRAME_SHARE * covered[-1] - ROUNDING)]])


def _two_sample_auc(high: list[float], low: list[float]) -> float | None:
    if not high or not low:
        return None
    ranks = np.unique(np.array(high + low), return_inverse=True)[1]
    count = ranks.max() + 1
    return rank_auc(np.bincount(ranks[: len(high)], minlength=count), np.bincount(ranks[len(high) :], minlength=count))
