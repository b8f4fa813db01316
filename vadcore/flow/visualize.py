"""Visualize optical flow: arrows on the frame, with the colour-coded flow next to it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vadcore.data.store import ClipId, ClipStore, flow_from_fixed
from vadcore.utils.images import resize_flow
from vadcore.utils.render import flow_to_rgb
from vadcore.utils.spaced import spaced

LEAST_HEIGHT = 240  # pixels; smaller frames are enlarged by an integer factor
CELL = 12  # side of the square cell of an arrow, pixels of the picture
LONGEST_ARROW = 24  # pixels of the picture
STILL = 0.05  # share of the longest motion below which no arrow is drawn
ARROW = (255, 210, 0)
KEY = 26  # radius of the colour key, pixels of the picture
LOOKED_AT = 8  # candidate pairs per clip; the pair with the most motion is shown


@dataclass(frozen=True)
class Shown:
    """Frame ``frame`` of ``clip`` and its flow ``[2, H, W]`` to the next frame, in pixels of the frame."""

    clip: ClipId
    frame: int
    picture: np.ndarray
    flow: np.ndarray


def pairs_with_most_motion(frames: ClipStore, flow: ClipStore, count: int) -> list[Shown]:
    """Choose pairs of frames with much motion: one pair from each of up to ``count`` clips.

    The clips are spread evenly over training and test clips.
    """
    known = set(flow.clips())
    clips = [clip for clip in frames.clips() if clip in known]
    shown = []
    for clip in (clips[n] for n in spaced(len(clips), count)):
        fields = {
            t: flow_from_fixed(flow.read(clip, t, t + 1))[0] for t in spaced(flow.length(clip), LOOKED_AT).tolist()
        }
        best = max(fields, key=lambda t: np.percentile(np.hypot(*fields[t]), 99))
        picture = frames.read(clip, best, best + 1)[0]
        shown.append(Shown(clip, best, picture, resize_flow(fields[best], picture.shape[:2])))
    return shown


def fastest(shown: list[Shown]) -> float:
    """Return the common maximum of the scale for several pairs, pixels: the largest 99.9th percentile of motion."""
    lengths = [np.percentile(np.hypot(*pair.flow), 99.9) for pair in shown]
    return float(max(lengths, default=0.0))


def draw(pair: Shown, longest: float) -> np.ndarray:
    """Draw the frame with an arrow for every moving cell, and next to it the colour-coded flow with a colour key.

    ``longest``: motion in pixels that gets an arrow of 24 pixels and full saturation. Returns uint8 RGB.
    """
    factor = -(-LEAST_HEIGHT // pair.picture.shape[0])
    height, width = (side * factor for side in pair.picture.shape[:2])
    picture = np.repeat(pair.picture, 3 // pair.picture.shape[2], axis=2)  # grey as RGB
    picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    # Mean motion of each cell, by area interpolation.
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
            tail, head = (point.round().astype(int).tolist() for point in (start, end))
            cv2.arrowedLine(picture, tail, head, ARROW, 1, cv2.LINE_AA, tipLength=0.35)
    colours = flow_to_rgb(pair.flow, longest).repeat(factor, axis=0).repeat(factor, axis=1)
    y, x = np.mgrid[-KEY : KEY + 1, -KEY : KEY + 1].astype(np.float32) / KEY
    inside = np.hypot(x, y) <= 1
    corner = colours[-2 * KEY - 5 : -4, -2 * KEY - 5 : -4]
    corner[inside] = flow_to_rgb(np.stack((x, y)), 1.0)[inside]
    return np.concatenate((picture, np.full((height, 2, 3), 128, np.uint8), colours), axis=1)
