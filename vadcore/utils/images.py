"""Resize pictures and convert their colours. Does not import torch, so that processes that only decode start faster."""

from __future__ import annotations

import cv2
import numpy as np


def resize_picture(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize ``[H, W, C]`` to ``[*size, C]``: area average to shrink, bilinear to enlarge."""
    if picture.shape[:2] == size:
        return picture
    shrinking = size[0] <= picture.shape[0] and size[1] <= picture.shape[1]
    resized = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    return resized.reshape(*size, picture.shape[2])


def resize_flow(field: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize flow ``[2, H, W]`` in pixels of its size to float32 ``[2, *size]`` in pixels of the new size."""
    scale = np.array([size[1] / field.shape[2], size[0] / field.shape[1]], np.float32)
    return (resize_picture(field.transpose(1, 2, 0).astype(np.float32), size) * scale).transpose(2, 0, 1)


def to_color(picture: np.ndarray, channels: int) -> np.ndarray:
    """Convert RGB ``[H, W, 3]`` to grey ``[H, W, 1]`` if ``channels`` is 1. Callers must not request grey to RGB."""
    return picture if picture.shape[2] == channels else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]


def reduced(picture: np.ndarray, width: int) -> np.ndarray:
    """Shrink an RGB picture ``[H, W, 3]`` to ``width`` by area averaging if it is wider."""
    height, wide = picture.shape[:2]
    if wide <= width:
        return picture
    return cv2.resize(picture, (width, max(1, round(height * width / wide))), interpolation=cv2.INTER_AREA)
