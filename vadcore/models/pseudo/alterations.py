"""Alterations of pasted objects, and drawing an object into a window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import cv2
import numpy as np

from vadcore.models.pseudo.cutouts import Cutout

Alteration = Literal[
    "fast",
    "glide",
    "frozen",
    "wide",
    "large",
    "tall",
    "rotated",
    "direction",
    "texture",
    "foreign",
    "left",
    "misplaced",
]
ALTERATIONS: tuple[Alteration, ...] = get_args(Alteration)

RELIT = 0.7  # share of the objects whose brightness, contrast and sharpness change
GAINS, OFFSET = (0.75, 1.3), 12.0  # range of the contrast factor; standard deviation of the brightness, grey levels
BLUR = 0.9  # largest standard deviation of the blur, pixels
MIDDLE = 110  # grey level that a change of contrast does not change


@dataclass(frozen=True)
class Paste:
    """One object to draw into a window of ``T`` frames.

    numbers: int ``[T]``, index of the picture of ``cutout`` that each frame shows. path: float ``[T, 2]``, row and column of
    the centre, relative to the middle frame. shape: float ``[2, 2]``, maps (column, row) offsets of the patch to those in
    the window. texture: uint8 ``[h, w, C]``, drawn instead of the object's pictures, or None.
    """

    cutout: Cutout
    numbers: np.ndarray
    path: np.ndarray
    shape: np.ndarray
    texture: np.ndarray | None = None


def as_it_was(cutout: Cutout, length: int, middle: int, scale: float, rng: np.random.Generator) -> Paste:
    """Paste ``length`` consecutive frames of the object without alteration, from a random frame on.

    middle: position of the middle frame in the window. scale: factor of the object's size.
    """
    first = int(rng.integers(len(cutout) - length + 1))
    numbers = first + np.arange(length)
    path = cutout.path[numbers]
    return Paste(cutout, numbers, (path - path[middle]) * scale, np.eye(2) * scale)


def altered(
    paste: Paste,
    kinds: list[Alteration],
    middle: int,
    usual_speed: float,
    others: list[Cutout],
    rng: np.random.Generator,
) -> Paste:
    """Apply the alterations ``kinds`` to ``paste``.

    usual_speed: a high speed of normal objects in the same row, pixels per frame of the footage; the alteration "fast"
    exceeds it. others: objects from which textures are taken.
    """
    for kind in kinds:
        paste = _APPLY[kind](paste, middle, usual_speed, others, rng=rng)
    return paste


def _fast(paste: Paste, middle: int, usual_speed: float, others: list[Cutout], rng: np.random.Generator) -> Paste:
    """Play 2 to 3 times as fast. An object that is slow or has too few frames glides instead."""
    length, cutout = len(paste.numbers), paste.cutout
    factor = rng.uniform(2, 3)
    most = (len(cutout) - 1) / (length - 1)
    if most < 2 or cutout.speed * min(factor, most) < 1.3 * usual_speed:
        return _glide(paste, middle, usual_speed, others, rng)
    factor = min(factor, most)
    first = rng.uniform(0, len(cutout) - 1 - factor * (length - 1))
    at = first + factor * np.arange(length)
    path = np.stack([np.interp(at, np.arange(len(cutout)), cutout.path[:, axis]) for axis in (0, 1)], axis=1)
    scale = np.linalg.norm(paste.path[-1] - paste.path[0]) / max(
        1e-6, float(np.linalg.norm(cutout.path[paste.numbers[-1]] - cutout.path[paste.numbers[0]]))
    )
    kept = scale if 0.2 < scale < 5 else 1.0
    return replace(paste, numbers=np.rint(at).astype(int), path=(path - path[middle]) * kept)


def _glide(paste: Paste, middle: int, usual_speed: float, others: list[Cutout], rng: np.random.Generator) -> Paste:
    """Move 1.4 to 4 times as fast, at 0.8 times the usual speed or more. Half of the objects show a frozen picture."""
    velocity = _velocity(paste.cutout, rng)
    least = 0.8 * usual_speed / np.linalg.norm(velocity)
    velocity = velocity * max(rng.uniform(1.4, 4), least) * _scale(paste)
    steps = np.arange(len(paste.numbers))[:, None] - middle
    if rng.random() < 0.5:
        return _still(paste, middle, steps * velocity)
    own = (paste.path[-1] - paste.path[0]) / (len(steps) - 1)
    return replace(
        paste, path=paste.path + steps * (velocity - own)
    )  # keeps the sway of the path in step with the pictures


def _frozen(paste: Paste, middle: int, usual_speed: float, others: list[Cutout], rng: np.random.Generator) -> Paste:
    """Move a frozen picture along a straight line, at the object's speed, but at least 0.45 times the usual speed."""
    velocity = _velocity(paste.cutout, rng)
    velocity = velocity * max(1, 0.45 * usual_speed / np.linalg.norm(velocity)) * _scale(paste)
    return _still(paste, middle, (np.arange(len(paste.numbers))[:, None] - middle) * velocity)


def _still(paste: Paste, middle: int, path: np.ndarray) -> Paste:
    """Show the picture of the middle frame along ``path``, which must be straight: sway would identify frozen objects."""
    return replace(paste, numbers=np.full(len(paste.numbers), paste.numbers[middle]), path=path)


def _velocity(cutout: Cutout, rng: np.random.Generator) -> np.ndarray:
    """Mean velocity of the object, ``[2]`` in pixels per frame. If it hardly moves: random, slow and mostly sideways."""
    velocity = (cutout.path[-1] - cutout.path[0]).astype(np.float64) / max(1, len(cutout) - 1)
    if np.linalg.norm(velocity) >= 0.003 * cutout.height:
        return velocity
    angle = rng.uniform(0, 2 * np.pi)
    return 0.003 * cutout.height * np.array([0.4 * np.sin(angle), np.cos(angle)])


def _scale(paste: Paste) -> float:
    """Factor of the object's size, the square root of the area factor."""
    return float(np.sqrt(abs(np.linalg.det(paste.shape))))


def _wide(paste: Paste, *_, rng: np.random.Generator) -> Paste:
    """Make 1.3 to 2.6 times as wide."""
    return replace(paste, shape=np.diag([rng.uniform(1.3, 2.6), 1]) @ paste.shape)


def _large(paste: Paste, *_, rng: np.random.Generator) -> Paste:
    """Make 1.3 to 2.3 times as large."""
    return replace(paste, shape=rng.uniform(1.3, 2.3) * paste.shape)


def _tall(paste: Paste, *_, rng: np.random.Generator) -> Paste:
    """Make 1.4 to 2 times as tall."""
    return replace(paste, shape=np.diag([1, rng.uniform(1.4, 2)]) @ paste.shape)


def _rotated(paste: Paste, *_, rng: np.random.Generator) -> Paste:
    """Rotate by 45 to 110 degrees in either direction."""
    angle = np.deg2rad(rng.uniform(45, 110)) * rng.choice((-1, 1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return replace(paste, shape=turn @ paste.shape)


def _direction(paste: Paste, middle: int, usual_speed: float, others: list[Cutout], rng: np.random.Generator) -> Paste:
    """Turn the direction of motion by 60 to 300 degrees, without changing the pictures or the sway of the path."""
    angle = np.deg2rad(rng.uniform(60, 300))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    step = (paste.path[-1] - paste.path[0]) / (len(paste.path) - 1)
    steps = np.arange(len(paste.path))[:, None]
    path = paste.path + steps * (turn @ step - step)
    return replace(paste, path=path - path[middle])


def _left(paste: Paste, middle: int, *_, rng: np.random.Generator) -> Paste:
    """Show one picture at one place."""
    return _still(paste, middle, np.zeros_like(paste.path))


def _misplaced(paste: Paste, *_, rng: np.random.Generator) -> Paste:
    """Do not change the object. The caller pastes it at a place where normally nothing moves."""
    return paste


def _texture(paste: Paste, middle: int, usual_speed: float, others: list[Cutout], rng: np.random.Generator) -> Paste:
    """Show the texture of another object, upside down, within the outline of this one."""
    other = others[int(rng.integers(len(others)))]
    height, width = paste.cutout.pictures.shape[1:3]
    surface = cv2.resize(other.pictures[int(rng.integers(len(other)))][::-1], (width, height))
    surface = surface.reshape(height, width, -1).astype(np.float32)
    surface = np.clip(surface * rng.uniform(0.6, 1.5) + rng.uniform(-40, 40), 0, 255).astype(np.uint8)
    return replace(paste, texture=surface)


def _foreign(paste: Paste, middle: int, usual_speed: float, others: list[Cutout], rng: np.random.Generator) -> Paste:
    """Replace the object by a shape of random outline and texture that moves at up to 3 times the usual speed."""
    paste = _texture(paste, middle, usual_speed, others, rng)
    height, width = paste.cutout.alpha.shape[1:]
    coarse = rng.standard_normal((4, 3)).astype(np.float32)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    outline = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5 + 1.2 - 1.6 * np.hypot(y, x)
    alpha = (np.clip(outline * 6, 0, 1) * 255).astype(np.uint8)[None]
    blob = Cutout(paste.cutout.pictures[:1], alpha, paste.cutout.path[:1], paste.cutout.height, paste.cutout.speed)
    angle = rng.uniform(0, 2 * np.pi)
    step = rng.uniform(0, 3) * usual_speed * _scale(paste) * np.array([0.4 * np.sin(angle), np.cos(angle)])
    length = len(paste.numbers)
    return replace(paste, cutout=blob, numbers=np.zeros(length, int), path=(np.arange(length) - middle)[:, None] * step)


_APPLY: dict[Alteration, Callable[..., Paste]] = {
    "fast": _fast,
    "glide": _glide,
    "frozen": _frozen,
    "wide": _wide,
    "large": _large,
    "tall": _tall,
    "rotated": _rotated,
    "direction": _direction,
    "texture": _texture,
    "foreign": _foreign,
    "left": _left,
    "misplaced": _misplaced,
}


def relit(paste: Paste, rng: np.random.Generator) -> Paste:
    """Vary brightness, contrast and sharpness at random.

    Without this, the network could recognise enlarged objects by their blur alone.
    """
    if rng.random() > RELIT:
        return paste
    gain, offset, blur = rng.uniform(*GAINS), rng.normal(0, OFFSET), rng.uniform(0, BLUR)
    offset += MIDDLE * (1 - gain)

    def change(picture: np.ndarray) -> np.ndarray:
        changed = cv2.convertScaleAbs(np.maximum(picture * gain + offset, 0))
        if blur > 0.25:
            changed = cv2.GaussianBlur(changed, (0, 0), blur)
        return changed.reshape(picture.shape)

    if paste.texture is not None:
        return replace(paste, texture=change(paste.texture))
    shown, numbers = np.unique(paste.numbers, return_inverse=True)
    cutout = paste.cutout
    changed = replace(cutout, pictures=np.stack([change(cutout.pictures[n]) for n in shown]), alpha=cutout.alpha[shown])
    return replace(paste, cutout=changed, numbers=numbers)


def draw(window: np.ndarray, paste: Paste, centre: tuple[float, float]) -> np.ndarray:
    """Blend ``paste`` into ``window`` float32 ``[T, h, w, C]``, in place. Returns its soft mask ``[T, h, w]``.

    centre: row and column of the object's centre in the middle frame. The object may lie partly outside the window.
    """
    height, width = paste.cutout.alpha.shape[1:]
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) / 2 @ paste.shape.T
    half = np.ceil(np.abs(corners).max(0)).astype(int) + 1  # columns, rows
    size = (2 * half[0] + 1, 2 * half[1] + 1)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    shown = np.zeros(window.shape[:3], np.float32)
    for t, number in enumerate(paste.numbers):
        y, x = np.asarray(centre) + paste.path[t]
        top, left = int(np.floor(y)) - half[1], int(np.floor(x)) - half[0]
        offset = np.array([x - left, y - top]) - paste.shape @ middle
        matrix = np.column_stack([paste.shape, offset]).astype(np.float64)
        rows = slice(max(0, top), min(window.shape[1], top + size[1]))
        columns = slice(max(0, left), min(window.shape[2], left + size[0]))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        part = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        picture = paste.cutout.pictures[number] if paste.texture is None else paste.texture
        drawn = cv2.warpAffine(picture, matrix, size, borderMode=cv2.BORDER_REPLICATE).reshape(size[1], size[0], -1)
        alpha = cv2.warpAffine(paste.cutout.alpha[number], matrix, size).astype(np.float32)[part] / 255
        place = window[t, rows, columns]
        place += alpha[..., None] * (drawn[part] - place)
        shown[t, rows, columns] = alpha
    return shown
