"""Small footage: a square moves over a textured background, faster in abnormal frames."""

from pathlib import Path

import numpy as np

from vadcore.data.store import ClipId, ClipStore, flow_to_fixed, intervals


def pictures(
    frames: int, size: tuple[int, int] = (24, 32), channels: int = 1, seed: int = 0, speed: int = 1
) -> np.ndarray:
    """A clip, uint8 ``[T, H, W, C]``."""
    rng = np.random.default_rng(seed)
    clip = np.repeat(rng.integers(60, 120, (1, *size, channels), dtype=np.uint8), frames, axis=0)
    for t in range(frames):
        room = size[1] - 6
        x = room - abs((t * speed + seed) % (2 * room) - room)  # reverses at the edges
        clip[t, 8:14, x : x + 6] = 220
    return clip


def make_store(
    folder: Path, train: int = 3, test: int = 2, frames: int = 40, size=(24, 32), channels: int = 1, flow: bool = False
) -> ClipStore:
    """A frames store, and with ``flow`` a flow store beside it. Frames 20 to 29 of the test clips are abnormal."""
    store = ClipStore(folder / "frames.zarr", "frames", write=True)
    fields = ClipStore(folder / "flow.zarr", "flow", write=True) if flow else None
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            clip = ClipId(split, f"{number + 1:02d}")
            shown = pictures(frames, size, channels, seed=number + 10 * (split == "test"))
            labels = np.zeros(frames, np.uint8)
            if split == "test":
                labels[20:30] = 1
                shown[20:30] = pictures(frames, size, channels, seed=99, speed=5)[20:30]
            with store.writer(clip) as writer:
                writer.append(shown)
                writer.update(
                    {
                        "fps": 10.0,
                        "source_sha256": f"{split}{number}",
                        "extraction": "test",
                        "labelled": True,
                        "abnormal": intervals(labels),
                    }
                )
            if fields:
                speed = np.zeros((frames - 1, 2, *size), np.float32)
                speed[:, 0, 8:14] = np.where(labels[:-1], 5, 1)[:, None, None]
                with fields.writer(clip) as writer:
                    writer.append(flow_to_fixed(speed))
                    writer.update({"fps": 10.0})
    return ClipStore(folder / "frames.zarr", "frames")
