"""Render pictures: error maps as heat maps, frames with error maps, strips and animations of windows, optical flow.

The functions work on numpy arrays. Every picture is uint8 RGB ``[H, W, 3]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from vadcore.utils.files import complete

LEAST_HEIGHT = 240  # pixels; smaller frames are enlarged by an integer factor
HEAT_OPACITY = 0.9  # opacity of the heat map on the frame where the error reaches ``high``
OUTLINE = (0, 255, 255)  # colour of the true mask: cyan, which does not occur in the heat map
SEPARATOR = 2  # pixels between the pictures of a strip
SEPARATOR_GREY = 128
ANIMATED_HEIGHTS = (128, 256)  # min and max height in animations, pixels; smaller frames are enlarged without smoothing
FRAMES_PER_SECOND = 8  # frame rate of animations, for any footage, so that ten frames take more than a second
ANIMATION_QUALITY = 60  # of WebP, 0..100


def heat(error: np.ndarray, low: float, high: float) -> np.ndarray:
    """Convert an error map to a heat map, from near black (``low`` or less) to yellow (``high`` or more).

    Parameters
    ----------
    error: float ``[h, w]``; NaN (no error measured) becomes pure black.
    low, high: ends of the scale. Raises ValueError unless ``high`` > ``low``.

    Returns
    -------
    uint8 RGB ``[h, w, 3]`` in the perceptually uniform "inferno" colour map (black, purple, orange, yellow).
    """
    share = _share(error, low, high)
    judged = ~np.isnan(share)
    levels = np.round(np.where(judged, share, 0) * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    colours[~judged] = 0
    return colours


def beside(frame: np.ndarray, error: np.ndarray, low: float, high: float, mask: np.ndarray | None = None) -> np.ndarray:
    """Draw a frame, and next to it the same frame with its error map as an overlay.

    Parameters
    ----------
    frame: uint8 ``[H, W]`` (grey) or ``[H, W, 3]`` (RGB).
    error: float ``[h, w]``, any size; resized to the frame. NaN pixels (no error measured) are black.
    low, high: error at which the overlay starts to be visible, and error with the highest opacity.
    mask: 0/1 ``[H, W]``, true location of the anomaly, outlined in cyan in both pictures; None: no outline.

    Returns
    -------
    uint8 RGB ``[F * H, 2 * F * W + 2, 3]``, where F is the smallest integer factor for a height of at least 240 pixels.
    """
    picture = _rgb(frame)
    factor = -(-LEAST_HEIGHT // picture.shape[0])
    height, width = picture.shape[0] * factor, picture.shape[1] * factor
    picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)  # without smoothing

    error = np.asarray(error, dtype=np.float32)
    unjudged = np.isnan(error)
    error = cv2.resize(np.where(unjudged, low, error).astype(np.float32), (width, height))
    unjudged = cv2.resize(unjudged.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0

    # The opacity grows with the error, so that normal regions stay visible.
    opacity = HEAT_OPACITY * np.sqrt(_share(error, low, high))[..., None]
    overlay = picture * (1 - opacity) + heat(error, low, high) * opacity
    overlay = np.round(overlay).astype(np.uint8)
    overlay[unjudged] = 0

    if mask is not None:
        if mask.shape != frame.shape[:2]:
            raise ValueError(f"the mask is {mask.shape}, the frame {frame.shape[:2]}")
        area = np.asarray(mask).repeat(factor, axis=0).repeat(factor, axis=1)
        picture, overlay = (outlined(part, area, max(2, factor // 2)) for part in (picture, overlay))
    gap = np.full((height, SEPARATOR, 3), SEPARATOR_GREY, np.uint8)
    return np.concatenate((picture, gap, overlay), axis=1)


def outlined(frame: np.ndarray, mask: np.ndarray | None, thickness: int = 2) -> np.ndarray:
    """Outline the mask ``[H, W]`` in cyan on a frame uint8 ``[H, W]`` or ``[H, W, 3]``. Returns RGB ``[H, W, 3]``."""
    picture = _rgb(frame)
    if mask is not None:
        outlines, _ = cv2.findContours((np.asarray(mask) > 0).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, OUTLINE, thickness=thickness)
    return picture


def strip(inputs: np.ndarray, outputs: np.ndarray, every: int = 1, error_high: float = 0.25) -> np.ndarray:
    """Draw a window as three rows: input frames, model outputs, and the absolute error as a heat map.

    Parameters
    ----------
    inputs, outputs: float ``[T, C, H, W]`` in 0..1 (values outside are clipped for display), C = 1 or 3.
    every: show only every ``every``-th frame, starting with the first.
    error_high: mean absolute error over C with the brightest colour. It is fixed, so that strips of different checkpoints
        are comparable.

    Returns
    -------
    uint8 RGB ``[3H + 4, n(W + 2) - 2, 3]`` with n = ceil(T / every).
    """
    if inputs.shape != outputs.shape or inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
        raise ValueError(f"inputs {inputs.shape} and outputs {outputs.shape} must be the same [T, 1 or 3, H, W]")
    inputs, outputs = (np.asarray(part[::every], dtype=np.float32) for part in (inputs, outputs))
    errors = np.abs(inputs - outputs).mean(axis=1)  # [n, H, W]
    rows = (
        [_rgb(_bytes(frame)) for frame in inputs],
        [_rgb(_bytes(frame)) for frame in outputs],
        [heat(error, 0, error_high) for error in errors],
    )
    return join([join(row, axis=1) for row in rows], axis=0)


def animation(windows: Sequence[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """Create the frames of an animation of several windows side by side, each with the inputs above the outputs.

    Parameters
    ----------
    windows: (inputs, outputs) of each window, or more rows, float ``[T, C, H, W]`` in 0..1, all of the same shape.

    Returns
    -------
    T pictures, uint8 RGB. Frames less than 128 pixels high are enlarged without smoothing by the smallest integer factor
    that reaches 128 pixels. Frames more than 256 pixels high are reduced to 256 pixels.
    """
    columns = [[_sized(row) for row in rows] for rows in windows]
    return [
        join([join([row[number] for row in rows], axis=0) for rows in columns], axis=1)
        for number in range(len(windows[0][0]))
    ]


def stacked(rows: tuple[np.ndarray, ...], numbers: list[int]) -> np.ndarray:
    """Draw the frames ``numbers`` of each row, float ``[T, C, H, W]`` in 0..1, side by side, with the rows stacked."""
    return join([join([_rgb(_bytes(row[n].astype(np.float32))) for n in numbers], axis=1) for row in rows], axis=0)


def flow_to_rgb(flow: np.ndarray, max: float | None = None) -> np.ndarray:
    """Convert optical flow to colours.

    Uses the colour code of Baker et al., "A Database and Evaluation Methodology for Optical Flow" (IJCV 2011): hue is the
    direction (right red, down yellow, left cyan, up blue), saturation is the length.

    Parameters
    ----------
    flow: float ``[2, H, W]``: displacement to the right, then downwards, in pixels.
    max: length in pixels with full saturation; longer flow is darkened. None: the longest in ``flow``.

    Returns
    -------
    uint8 RGB ``[H, W, 3]``; no motion is white, unknown flow (NaN) is black.
    """
    right, down = np.asarray(flow, dtype=np.float64)
    known = np.isfinite(right) & np.isfinite(down)
    right, down = np.where(known, right, 0), np.where(known, down, 0)
    length = np.hypot(right, down)
    largest = length.max(initial=0) if max is None else max
    radius = length / largest if largest > 0 else np.zeros_like(length)

    wheel = _colour_wheel()
    position = (np.arctan2(-down, -right) / np.pi + 1) / 2 * (len(wheel) - 1)  # 0 .. 54
    first = position.astype(int)
    fraction = (position - first)[..., None]
    colour = (1 - fraction) * wheel[first] + fraction * wheel[(first + 1) % len(wheel)]  # [H, W, 3] in 0..1
    radius = radius[..., None]
    colour = np.where(radius <= 1, 1 - radius * (1 - colour), colour * 0.75)
    return np.where(known[..., None], np.floor(255 * colour), 0).astype(np.uint8)


def write_png(path: Path | str, rgb: np.ndarray) -> None:
    """Write uint8 RGB ``[H, W, 3]`` (or grey ``[H, W]``) atomically as a PNG file."""
    with complete(path) as temporary:
        temporary.write_bytes(encode(rgb, ".png"))


def write_animation(path: Path | str, pictures: list[np.ndarray]) -> None:
    """Write the output of :func:`encode_animation` atomically to a file."""
    with complete(path) as temporary:
        temporary.write_bytes(encode_animation(pictures))


def encode(rgb: np.ndarray, kind: str, *settings: int) -> bytes:
    """Encode an image file. ``kind``: file extension. ``settings``: pairs of flag and value for OpenCV."""
    done, data = cv2.imencode(kind, cv2.cvtColor(_rgb(rgb), cv2.COLOR_RGB2BGR), list(settings))
    if not done:
        raise RuntimeError(f"OpenCV could not encode a {rgb.shape} picture as {kind}")
    return data.tobytes()


def encode_animation(pictures: list[np.ndarray]) -> bytes:
    """Encode uint8 RGB pictures of one size as an endlessly looping WebP animation. Browsers play it in an ``<img>``."""
    film = cv2.Animation()
    film.frames = [cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) for picture in pictures]
    film.durations = [round(1000 / FRAMES_PER_SECOND)] * len(pictures)  # milliseconds
    film.loop_count = 0  # endless
    done, data = cv2.imencodeanimation(".webp", film, [cv2.IMWRITE_WEBP_QUALITY, ANIMATION_QUALITY])
    if not done:
        raise RuntimeError(f"OpenCV could not encode {len(pictures)} pictures as a WebP animation")
    return data.tobytes()


def _share(error: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale values from ``low``..``high`` to 0..1, clipped. NaN stays NaN."""
    if not high > low:
        raise ValueError(f"the scale of an error map needs high > low, not {low} .. {high}")
    return np.clip((np.asarray(error, dtype=np.float32) - low) / (high - low), 0, 1)


def _rgb(frame: np.ndarray) -> np.ndarray:
    """Convert uint8 ``[H, W]`` or ``[H, W, 3]`` to a new uint8 ``[H, W, 3]``."""
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise ValueError(f"a picture is uint8 [H, W] or [H, W, 3], not {frame.dtype} {frame.shape}")
    return np.repeat(frame[..., None], 3, axis=2) if frame.ndim == 2 else frame.copy()


def _bytes(frame: np.ndarray) -> np.ndarray:
    """Convert float ``[C, H, W]`` in 0..1 to uint8 ``[H, W]`` or ``[H, W, 3]``."""
    levels = np.round(np.clip(frame, 0, 1) * 255).astype(np.uint8)
    return levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)


def _sized(frames: np.ndarray) -> list[np.ndarray]:
    """Convert float ``[T, C, H, W]`` in 0..1 to pictures with a height in the range :data:`ANIMATED_HEIGHTS`."""
    least, most = ANIMATED_HEIGHTS
    pictures = [_rgb(_bytes(np.asarray(frame, dtype=np.float32))) for frame in frames]
    height, width = pictures[0].shape[:2]
    if height > most:
        size = (max(1, round(width * most / height)), most)
        return [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures]
    factor = -(-least // height)
    return [picture.repeat(factor, axis=0).repeat(factor, axis=1) for picture in pictures]


def join(pictures: list[np.ndarray], axis: int) -> np.ndarray:
    """Join pictures of one size in a row (axis 1) or a column (axis 0), separated by thin grey lines."""
    shape = list(pictures[0].shape)
    shape[axis] = SEPARATOR
    line = np.full(shape, SEPARATOR_GREY, np.uint8)
    parts = [part for picture in pictures for part in (line, picture)][1:]
    return np.concatenate(parts, axis=axis)


def _colour_wheel() -> np.ndarray:
    """The 55 hues of Baker et al.: float ``[55, 3]`` RGB in 0..1; red, yellow, green, cyan, blue, magenta."""
    # (steps to the next corner, channel that changes, whether it increases)
    arcs = ((15, 1, True), (6, 0, False), (4, 2, True), (11, 1, False), (13, 0, True), (6, 2, False))
    colour = np.array([255.0, 0, 0])
    hues = []
    for steps, channel, rises in arcs:
        ramp = np.floor(255 * np.arange(steps) / steps)
        block = np.tile(colour, (steps, 1))
        block[:, channel] = ramp if rises else 255 - ramp
        hues.append(block)
        colour[channel] = 255 if rises else 0
    return np.concatenate(hues) / 255
