"""Pictures: error maps as heat, frames with their error map beside them, windows as strips and as short animations,
optical flow as colour.

Pure functions on numpy arrays; every picture is uint8 RGB ``[H, W, 3]``.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vadcore.utils.files import complete

LEAST_HEIGHT = 240  # pixels; smaller frames are enlarged by a whole factor
HEAT_OPACITY = 0.9  # of the heat over the frame where the error reaches ``high``
OUTLINE = (0, 255, 255)  # the true mask; cyan does not occur in the heat map
SEPARATOR = 2  # pixels between the pictures of a strip
SEPARATOR_GREY = 128
ANIMATED_HEIGHTS = (128, 256)  # pixels of an animated frame: smaller ones are enlarged crisply, larger ones reduced
FRAMES_PER_SECOND = 8  # of animations, whatever the footage has: ten frames take more than a second
ANIMATION_QUALITY = 60  # of WebP, 0..100


def heat(error: np.ndarray, low: float, high: float) -> np.ndarray:
    """An error map as colour: ``low`` (and less) near black, over purple and orange to ``high`` (and more) in yellow.

    Parameters
    ----------
    error: float ``[h, w]``; NaN (not judged) becomes pure black.
    low, high: the values at the ends of the scale, ``high`` > ``low``; ValueError otherwise.

    Returns
    -------
    uint8 RGB ``[h, w, 3]`` in the perceptually uniform "inferno" map.
    """
    share = _share(error, low, high)
    judged = ~np.isnan(share)
    levels = np.round(np.where(judged, share, 0) * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    colours[~judged] = 0
    return colours


def beside(frame: np.ndarray, error: np.ndarray, low: float, high: float, mask: np.ndarray | None = None) -> np.ndarray:
    """The frame, and beside it the same frame under its error map.

    Parameters
    ----------
    frame: uint8 ``[H, W]`` (grey) or ``[H, W, 3]`` (RGB).
    error: float ``[h, w]``, any size; stretched over the frame. Pixels that are NaN (not judged) turn black.
    low, high: error at which the heat starts to show, and at which it covers the frame.
    mask: 0/1 ``[H, W]``, the true place of the anomaly, outlined in cyan in both pictures; None draws none.

    Returns
    -------
    uint8 RGB ``[F * H, 2 * F * W + 2, 3]``, F the smallest whole factor that makes it at least 240 pixels high.
    """
    picture = _rgb(frame)
    factor = -(-LEAST_HEIGHT // picture.shape[0])
    height, width = picture.shape[0] * factor, picture.shape[1] * factor
    picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)  # crisp: pixels stay squares

    error = np.asarray(error, dtype=np.float32)
    unjudged = np.isnan(error)
    error = cv2.resize(np.where(unjudged, low, error).astype(np.float32), (width, height))
    unjudged = cv2.resize(unjudged.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0

    # The heat's opacity grows with the error, so what is normal stays readable.
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
    """uint8 ``[H, W]`` or ``[H, W, 3]`` as RGB ``[H, W, 3]``, what is true in the mask ``[H, W]`` outlined in cyan."""
    picture = _rgb(frame)
    if mask is not None:
        outlines, _ = cv2.findContours((np.asarray(mask) > 0).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, OUTLINE, thickness=thickness)
    return picture


def strip(inputs: np.ndarray, outputs: np.ndarray, every: int = 1, error_high: float = 0.25) -> np.ndarray:
    """A window's frames in a row, what the model made of them below, their absolute error (as heat) at the bottom.

    Parameters
    ----------
    inputs, outputs: float ``[T, C, H, W]`` in 0..1 (values outside are clipped for display), C = 1 or 3.
    every: show only each ``every``-th frame, from the first on.
    error_high: the mean absolute error over C that has the brightest heat. Fixed, not taken from the picture, so
        that the strips of two check points can be compared.

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
    return _join([_join(row, axis=1) for row in rows], axis=0)


def excerpt(picture: np.ndarray, size: tuple[int, int], count: int) -> np.ndarray:
    """Of a column of :func:`strip` pictures the first, and of its frames at most ``count``, evenly spread, first and last
    among them. size: height and width of a frame. A picture that is no such column stays whole."""
    height, width = 3 * size[0] + 2 * SEPARATOR, size[1] + SEPARATOR
    frames, rest = divmod(picture.shape[1] + SEPARATOR, width)
    if rest or picture.shape[0] % height:
        return picture
    starts = np.linspace(0, frames - 1, min(count, frames)).round().astype(int) * width
    return _join([picture[:height, start : start + size[1]] for start in starts], axis=1)


def animation(windows: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """Windows beside each other in motion, each frame above what the model made of it.

    Parameters
    ----------
    windows: (inputs, outputs) of each, or more rows, float ``[T, C, H, W]`` in 0..1, all of one shape.

    Returns
    -------
    T pictures, uint8 RGB. Frames less than 128 pixels high are enlarged by the smallest whole factor that makes them so,
    pixels staying squares; frames more than 256 pixels high are reduced to that.
    """
    columns = [[_sized(row) for row in rows] for rows in windows]
    return [
        _join([_join([row[number] for row in rows], axis=0) for rows in columns], axis=1)
        for number in range(len(windows[0][0]))
    ]


def stacked(rows: tuple[np.ndarray, ...], numbers: list[int]) -> np.ndarray:
    """The frames ``numbers`` of each row, float ``[T, C, H, W]`` in 0..1, side by side, the rows one below the other."""
    return _join([_join([_rgb(_bytes(row[n].astype(np.float32))) for n in numbers], axis=1) for row in rows], axis=0)


def flow_to_rgb(flow: np.ndarray, max: float | None = None) -> np.ndarray:
    """Optical flow in the colour code of Baker et al., "A Database and Evaluation Methodology for Optical Flow"
    (IJCV 2011): the hue is the direction (right red, down yellow, left cyan, up blue), the saturation the length.

    Parameters
    ----------
    flow: float ``[2, H, W]``: displacement to the right, then downwards, in pixels.
    max: the length, in pixels, that has full saturation; longer ones are darkened. None: the longest in ``flow``.

    Returns
    -------
    uint8 RGB ``[H, W, 3]``; no motion is white, unknown flow (NaN) black.
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
    """Write uint8 RGB ``[H, W, 3]`` (or grey ``[H, W]``) as a PNG file, complete or not at all."""
    with complete(path) as temporary:
        temporary.write_bytes(encode(rgb, ".png"))


def write_animation(path: Path | str, pictures: list[np.ndarray]) -> None:
    """Write :func:`encode_animation` to a file, complete or not at all."""
    with complete(path) as temporary:
        temporary.write_bytes(encode_animation(pictures))


def encode(rgb: np.ndarray, kind: str, *settings: int) -> bytes:
    """The bytes of an image file: ``kind`` is its ending, ``settings`` are OpenCV's pairs of flag and value."""
    done, data = cv2.imencode(kind, cv2.cvtColor(_rgb(rgb), cv2.COLOR_RGB2BGR), list(settings))
    if not done:
        raise RuntimeError(f"OpenCV could not encode a {rgb.shape} picture as {kind}")
    return data.tobytes()


def encode_animation(pictures: list[np.ndarray]) -> bytes:
    """uint8 RGB pictures of one size as a WebP animation that loops for ever, which every browser plays in an ``<img>``."""
    film = cv2.Animation()
    film.frames = [cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) for picture in pictures]
    film.durations = np.full(len(pictures), round(1000 / FRAMES_PER_SECOND))  # milliseconds
    film.loop_count = 0  # for ever
    done, data = cv2.imencodeanimation(".webp", film, [cv2.IMWRITE_WEBP_QUALITY, ANIMATION_QUALITY])
    if not done:
        raise RuntimeError(f"OpenCV could not encode {len(pictures)} pictures as a WebP animation")
    return data.tobytes()


def decode_animation(data: bytes) -> list[np.ndarray]:
    """The pictures of an animation, uint8 RGB. ValueError when ``data`` is none.

    The encoder keeps equal pictures in a row once, for as long as all of them: they are repeated here. Of an animation in
    which nothing changes at all it keeps no duration, so the number of its pictures is lost.
    """
    try:
        done, film = cv2.imdecodeanimation(np.frombuffer(data, np.uint8))
    except cv2.error as error:  # what it raises for an empty buffer
        raise ValueError("not an animation that OpenCV can read") from error
    if not done:
        raise ValueError("not an animation that OpenCV can read")
    pictures = [
        cv2.cvtColor(frame, cv2.COLOR_BGRA2RGB if frame.shape[2] == 4 else cv2.COLOR_BGR2RGB) for frame in film.frames
    ]
    times = np.maximum(1, np.rint(np.asarray(film.durations) * FRAMES_PER_SECOND / 1000).astype(int))
    return [picture for picture, count in zip(pictures, times, strict=True) for _ in range(count)]


def _share(error: np.ndarray, low: float, high: float) -> np.ndarray:
    """Where between ``low`` (0) and ``high`` (1) each value lies; NaN stays NaN."""
    if not high > low:
        raise ValueError(f"the scale of an error map needs high > low, not {low} .. {high}")
    return np.clip((np.asarray(error, dtype=np.float32) - low) / (high - low), 0, 1)


def _rgb(frame: np.ndarray) -> np.ndarray:
    """uint8 ``[H, W]`` or ``[H, W, 3]`` as a fresh uint8 ``[H, W, 3]``."""
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise ValueError(f"a picture is uint8 [H, W] or [H, W, 3], not {frame.dtype} {frame.shape}")
    return np.repeat(frame[..., None], 3, axis=2) if frame.ndim == 2 else frame.copy()


def _bytes(frame: np.ndarray) -> np.ndarray:
    """float ``[C, H, W]`` in 0..1 to uint8 ``[H, W]`` or ``[H, W, 3]``."""
    levels = np.round(np.clip(frame, 0, 1) * 255).astype(np.uint8)
    return levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)


def _sized(frames: np.ndarray) -> list[np.ndarray]:
    """float ``[T, C, H, W]`` in 0..1 as pictures whose height is in :data:`ANIMATED_HEIGHTS`."""
    least, most = ANIMATED_HEIGHTS
    pictures = [_rgb(_bytes(np.asarray(frame, dtype=np.float32))) for frame in frames]
    height, width = pictures[0].shape[:2]
    if height > most:
        size = (max(1, round(width * most / height)), most)
        return [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures]
    factor = -(-least // height)
    return [picture.repeat(factor, axis=0).repeat(factor, axis=1) for picture in pictures]


def _join(pictures: list[np.ndarray], axis: int) -> np.ndarray:
    """Pictures of one size in a row (axis 1) or a column (axis 0) with a thin grey line between them."""
    shape = list(pictures[0].shape)
    shape[axis] = SEPARATOR
    line = np.full(shape, SEPARATOR_GREY, np.uint8)
    parts = [part for picture in pictures for part in (line, picture)][1:]
    return np.concatenate(parts, axis=axis)


def _colour_wheel() -> np.ndarray:
    """The 55 hues of Baker et al.: float ``[55, 3]`` RGB in 0..1, from red over yellow, green, cyan, blue, magenta."""
    # (steps to the next corner, which channel moves, whether it rises)
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
