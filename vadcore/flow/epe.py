"""End-point error of optical flow estimators on data sets with known flow."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vadcore.data.formats.street import StreetConfig, clips, true_flow
from vadcore.flow.estimators import Estimator
from vadcore.flow.synthetic_pairs import TEST_SEED, PairGenerator
from vadcore.utils.errors import VadError
from vadcore.utils.images import to_color

MAGIC = 202021.25  # the first four bytes of a .flo file as a little-endian float: "PIEH"
UNKNOWN = 1e9  # larger values in a .flo file mean unknown flow


@dataclass(frozen=True)
class FlowSet:
    """Pairs of frames with known optical flow.

    Attributes
    ----------
    name: name of the set.
    first, second: frames, uint8 ``[N, H, W, C]``.
    flow: float32 ``[N, 2, H, W]``, right and down, in pixels.
    valid: bool ``[N, H, W]``, the pixels to evaluate; None: all pixels.
    """

    name: str
    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    valid: np.ndarray | None = None


def end_point_error(estimated: np.ndarray, true: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Mean end-point error in pixels: the length of the difference of two flows.

    ``estimated``, ``true``: ``[..., 2, H, W]`` in pixels. ``valid``: bool ``[..., H, W]``, the pixels to average over; None:
    all pixels.
    """
    error = np.linalg.norm(estimated - true, axis=-3)
    return float(error.mean() if valid is None else error[valid].mean())


def table(estimators: dict[str, Estimator], sets: Iterable[FlowSet]) -> list[dict]:
    """Evaluate all estimators on all sets.

    Each row has ``estimator``, ``set``, ``epe`` (pixels) and ``fps`` (pairs per second). The first row of every set is the
    baseline: zero flow.
    """
    rows = []
    for pairs in sets:
        still = end_point_error(np.zeros_like(pairs.flow), pairs.flow, pairs.valid)
        rows.append({"estimator": "no motion", "set": pairs.name, "epe": still, "fps": None})
        for name, estimate in estimators.items():
            estimate(pairs.first[:1], pairs.second[:1])  # warm-up
            started = time.perf_counter()
            flow = estimate(pairs.first, pairs.second)
            seconds = time.perf_counter() - started
            error = end_point_error(flow, pairs.flow, pairs.valid)
            rows.append({"estimator": name, "set": pairs.name, "epe": error, "fps": len(flow) / seconds})
    return rows


def generated_pairs(size: tuple[int, int], count: int = 64) -> FlowSet:
    """Generate test pairs. They are used neither for training nor for model selection of FlowNets."""
    pairs = PairGenerator(size, TEST_SEED).batch(np.arange(count))
    return FlowSet("generated", pairs.frames[:, 0], pairs.frames[:, 1], pairs.flow)


def street_pairs(config: StreetConfig, raw: Path | str, every: int = 10) -> list[FlowSet]:
    """Load every ``every``-th pair of the test clips of a prepared ``street`` data set, at its original size.

    Returns two sets: one with all pixels, most of which do not move, and one with only the moving pixels.
    """
    pairs = []
    for clip in clips(config, Path(raw)):
        if clip.split == "test":
            frames = np.stack([to_color(frame, 1 if config.color == "grey" else 3) for frame in clip.frames()])
            pairs.append((frames[:-1:every], frames[1::every], true_flow(Path(raw), clip.split, clip.name)[::every]))
    first, second, flow = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return [
        FlowSet("street", first, second, flow),
        FlowSet("street, moving pixels", first, second, flow, (flow != 0).any(1)),
    ]


def chairs_pairs(folder: Path | str, numbers: Iterable[int] | None = None) -> FlowSet:
    """Load FlyingChairs pairs (Dosovitskiy et al. 2015): ``NNNNN_img1.ppm``, ``_img2.ppm``, ``_flow.flo``.

    ``numbers``: numbers of the pairs; None: all pairs in the folder. Raises :class:`VadError` if the folder has no pairs,
    or a file is missing or unreadable.
    """
    folder = Path(folder)
    names = [f"{n:05d}" for n in numbers] if numbers else sorted(p.name[:5] for p in folder.glob("*_flow.flo"))
    if not names:
        raise VadError(f"{folder}: no *_flow.flo here; give the FlyingChairs folder that contains them")
    first, second = (np.stack([_read_rgb(folder / f"{name}_img{n}.ppm") for name in names]) for n in (1, 2))
    flow = np.stack([read_flo(folder / f"{name}_flow.flo") for name in names])
    valid = np.isfinite(flow).all(1)
    return FlowSet("FlyingChairs", first, second, np.nan_to_num(flow), None if valid.all() else valid)


def read_flo(path: Path | str) -> np.ndarray:
    """Read a Middlebury ``.flo`` file: float32 ``[2, H, W]`` in pixels, NaN where the flow is unknown.

    Raises :class:`VadError` if the file cannot be read or is damaged.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VadError(
            f"{path}: cannot be read ({error.strerror}); correct the path or fetch the file again"
        ) from error
    if len(data) < 12 or struct.unpack("<f", data[:4])[0] != MAGIC:
        raise VadError(f"{path}: not a .flo file (it does not start with {MAGIC}); fetch it again")
    width, height = struct.unpack("<ii", data[4:12])
    if width < 1 or height < 1 or len(data) != 12 + 8 * width * height:
        raise VadError(
            f"{path}: {len(data)} bytes are not the 12 + 8 x {width} x {height} that its header says; fetch it again"
        )
    flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).transpose(2, 0, 1).astype(np.float32)
    flow[:, (np.abs(flow) > UNKNOWN).any(0)] = np.nan
    return flow


def _read_rgb(path: Path) -> np.ndarray:
    """Read a picture as uint8 RGB ``[H, W, 3]``."""
    if not path.is_file():
        raise VadError(f"{path}: not found; fetch it again")
    picture = cv2.imread(str(path))
    if picture is None:
        raise VadError(f"{path}: not a picture that OpenCV can read; fetch it again")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
