import numpy as np
import pytest

from vadcore.models.pseudo.cutouts import cut_out

HEIGHT, WIDTH, LENGTH = 80, 120, 60
TALL, WIDE, SPEED = 20, 8, 1.5  # pixels, pixels, pixels a frame


class Clips:
    """What :class:`vadcore.data.loader.ClipLoader` offers, of arrays ``[T, H, W, C]``."""

    device = "cpu"

    def __init__(self, *clips: np.ndarray):
        import torch

        self.clips, self.lengths, self.size = clips, [len(clip) for clip in clips], clips[0].shape[1:3]
        self._torch = torch

    def raw(self, picks, length):
        frames = [
            self.clips[n][start : start + (length - 1) * stride + 1 : stride] for n, start, stride in picks[:, :3]
        ]
        return self._torch.from_numpy(np.stack(frames)).permute(0, 1, 4, 2, 3), None

    def background(self, number, start):
        return np.median(self.clips[number], axis=0).astype(np.uint8).transpose(2, 0, 1)


def street(seed: int = 0, objects=((30, 10.0),), speed: float = SPEED, channels: int = 1) -> np.ndarray:
    """Dark boxes that move to the right in front of a textured background; ``objects``: row and column of their corners."""
    rng = np.random.default_rng(seed)
    still = rng.integers(120, 200, (HEIGHT, WIDTH, channels)).astype(np.uint8)
    frames = np.repeat(still[None], LENGTH, axis=0)
    for top, left in objects:
        for t in range(LENGTH):
            at = round(left + t * speed)
            frames[t, top : top + TALL, max(0, at) : at + WIDE] = 30
    return frames


@pytest.fixture(scope="session")
def footage():
    return Clips(street(0), street(1, objects=((50, 5.0), (10, 40.0))))


@pytest.fixture(scope="session")
def cutouts(footage):
    return cut_out(footage, 8)
