"""Embed pictures and animations written by the stages into the page."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np

from vadcore.utils.errors import VadError
from vadcore.utils.render import decode_animation, encode, encode_animation

WIDTH = 520  # maximum width of an animation in pixels
QUALITY = 72  # of WebP, 0..100
PICTURE_WIDTH, PICTURE_QUALITY = 1200, 80  # of single pictures


def film(path: Path) -> dict | None:
    """Return the animation at ``path`` and its first frame as data URIs, with width and height.

    None if the file does not exist. Raises :class:`VadError` if it cannot be read.
    """
    if not path.exists():
        return None
    data = path.read_bytes()
    try:
        pictures = decode_animation(data)
    except ValueError as error:
        raise VadError(f"{path}: {error}; run the stage that writes it again with `dvc repro --force`") from error
    if pictures[0].shape[1] > WIDTH:
        pictures = [reduced(picture, WIDTH) for picture in pictures]
        data = encode_animation(pictures)
    return {
        "uri": uri(data),
        "still": uri(encode(pictures[0], ".webp", cv2.IMWRITE_WEBP_QUALITY, QUALITY)),
        "width": pictures[0].shape[1],
        "height": pictures[0].shape[0],
    }


def picture(path: Path) -> dict:
    """Return a picture file as a WebP data URI with its size. Raises :class:`VadError` if it cannot be read."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise VadError(f"{path}: not a readable picture; run the stage that writes it again with `dvc repro --force`")
    image = reduced(image, PICTURE_WIDTH)
    data = encode(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), ".webp", cv2.IMWRITE_WEBP_QUALITY, PICTURE_QUALITY)
    return {"uri": uri(data), "width": image.shape[1], "height": image.shape[0]}


def reduced(image: np.ndarray, width: int) -> np.ndarray:
    """Shrink ``image`` ``[H, W, ...]`` to ``width`` if it is wider."""
    if image.shape[1] <= width:
        return image
    return cv2.resize(image, (width, round(image.shape[0] * width / image.shape[1])), interpolation=cv2.INTER_AREA)


def uri(webp: bytes) -> str:
    """Return WebP data as a data URI."""
    return f"data:image/webp;base64,{base64.b64encode(webp).decode('ascii')}"
