"""Small files in MNIST format, and settings of Moving MNIST."""

import struct
from pathlib import Path

import numpy as np

from vadcore.data.formats.moving_mnist import MovingMnistConfig

TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"


def glyphs(count: int, first: int = 1) -> np.ndarray:
    """Digits of different brightness: digit i is a square of brightness ``first`` + i with a dark hole.

    uint8 ``[N, 28, 28]``.
    """
    made = np.zeros((count, 28, 28), np.uint8)
    made[:, 4:24, 4:24] = np.arange(first, first + count, dtype=np.uint8)[:, None, None]
    made[:, 12:16, 12:16] = 0
    return made


def idx(pictures: np.ndarray, magic: int = 0x803) -> bytes:
    """The idx file of ``pictures``."""
    return struct.pack(">4I", magic, *pictures.shape) + pictures.tobytes()


def config(source: Path | str, **fields) -> MovingMnistConfig:
    """Settings for a few short clips."""
    small = {"train_clips": 3, "test_clips": 2, "train_frames": 5, "test_frames": 8}
    return MovingMnistConfig(format="moving_mnist", source=str(source), **{**small, **fields})
