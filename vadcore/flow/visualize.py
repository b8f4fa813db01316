"""Optical flow to look at: arrows on the frame, and beside it the colour code of the field."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vadcore.data.store import ClipId, ClipStore, flow_from_fixed
from vadcore.utils.images import resize_flow
from vadcore.utils.render import flow_to_rgb

LEAST_HEIGHT = 240  # pixels; smaller frames are enlarged by a whole factor
CELL = 12  # side of the square, pixels of the picture, that has one arrow
LONGEST_ARROW = 24  # pixels of the picture
STILL = 0.05  # of the longest motion: what is slower has no arrow
ARROW = (255, 210, 0)
KEY = 26  # radius of the colour key, pixels of the picture
LOOKED_AT = 8  # pairs of frames of a clip, of which the liveliest is shown


@dataclass(frozen=True)
class Shown:
    """A pair of frames worth a picture: frames ``frame`` and ``frame + 1`` of ``clip``, and their flow ``[2, H, W]`` in
    pixels of the frame."""

    clip: ClipId
    frame: int
    picture: np.ndarray
    flow: np.ndarray


def liveliest(frames: ClipStore, flow: ClipStore, count: int) -> list[Shown]:
    """A pair of frames of each of up to ``count`` clips, evenly spread over training and test clips."""
    known = set(flow.clips())
    clips = [clip for clip in frames.clips() if clip in known]
    chosen = sorted({int(n) for n in np.linspace(0, len(clips) - 1, count).round()}) if clips else []
    shown = []
    for clip in (clips[n] for n in chosen):
        length = flow.length(clip)
        fields = {
            int(t): flow_from_fixed(flow.read(clip, int(t), int(t) + 1))[0]
            for t in np.linspace(0, length - 1, min(length, LOOKED_AT)).round()
        }
        best = max(fields, key=lambda t: np.percentile(np.hypot(*fields[t]), 99))
        picture = frames.read(clip, best, best + 1)[0]
        shown.append(Shown(clip, best, picture, resize_flow(fields[best], picture.shape[:2])))
    return shown


def fastest(shown: list[Shown]) -> float:
    """The length in pixels that pictures of several pairs have in common as the longest: all but 0.1 % are shorter."""
    lengths = [np.percentile(np.hypot(*pair.flow), 99.9) for pair in shown]
    return float(max(lengths, default=0.0))


def draw(pair: Shown, longest: float) -> np.ndarray:
    """uint8 RGB: the frame with an arrow for every cell that moves, and the field in colour with the key to it.

    longest: motion in pixels that has an arrow of 24 pixels and full colour.
    """
    factor = -(-LEAST_HEIGHT // pair.picture.shape[0])
    height, width = (side * factor for side in pair.picture.shape[:2])
    picture = np.repeat(pair.picture, 3 // pair.picture.shape[2], axis=2)  # grey as RGB
    picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    # mean motion of each cell; area interpolation to whole cells is just that
    cells = [
        cv2.resize(
            np.ascontiguousarray(part, np.float32), (width // CELL, height // CELL), interpolation=cv2.INTER_AREA
        )
        for part in pair.flow
    ]
    for (row, column), length in np.ndenumerate(np.hypot(*cells)):
        if longest > 0 and length > STILL * longest:
            start = np.array([(column + 0.5) * width / cells[0].shape[1], (row + 0.5) * height / cells[0].shape[0]])
            end = start + np.array([cells[0][row, column], cells[1][row, column]]) / longest * LONGEST_ARROW
            ends = [tuple(int(value) for value in point.round()) for point in (start, end)]
            cv2.arrowedLine(picture, *ends, ARROW, 1, cv2.LINE_AA, tipLength=0.35)
    colours = flow_to_rgb(pair.flow, longest).repeat(factor, axis=0).repeat(factor, axis=1)
    y, x = np.mgrid[-KEY : KEY + 1, -KEY : KEY + 1].astype(np.float32) / KEY
    inside = np.hypot(x, y) <= 1
    corner = colours[-2 * KEY - 5 : -4, -2 * KEY - 5 : -4]
    corner[inside] = flow_to_rgb(np.stack((x, y)), 1.0)[inside]
    return np.concatenate((picture, np.full((height, 2, 3), 128, np.uint8), colours), axis=1)
