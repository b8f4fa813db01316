"""Optical flow estimators with a common interface.

An estimator is a function of two uint8 arrays ``[N, H, W, C]`` (C = 1 or 3, RGB). It returns float32 ``[N, 2, H, W]``: the
motion (right, down) in pixels of each pixel of the first pictures to the second. Only the functions that need torch
import it, so that processes that only decode start faster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vadcore.utils.errors import VadError, one_line
from vadcore.utils.files import sha256_files

if TYPE_CHECKING:
    from torch import Tensor

Estimator = Callable[[np.ndarray, np.ndarray], np.ndarray]
AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 22}  # pixels per network call; more is slower on a CPU


def dis(preset: str = "medium") -> Estimator:
    """Dense Inverse Search (Kroeger et al. 2016) from OpenCV. ``preset``: ultrafast, fast or medium."""
    search = cv2.DISOpticalFlow.create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))
    # None: no initial flow; missing in OpenCV's type stub
    return _pair_by_pair(lambda first, second: search.calc(first, second, None))  # type: ignore[call-overload]


def farneback(
    pyr_scale: float = 0.5,
    levels: int = 3,
    winsize: int = 15,
    iterations: int = 3,
    poly_n: int = 5,
    poly_sigma: float = 1.2,
) -> Estimator:
    """Polynomial expansion (Farneback 2003) from OpenCV, with OpenCV's argument names and usual values."""

    def estimate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        # None: no initial flow; missing in OpenCV's type stub
        return cv2.calcOpticalFlowFarneback(  # type: ignore[call-overload]
            first, second, None, pyr_scale, levels, winsize, iterations, poly_n, poly_sigma, 0
        )

    return _pair_by_pair(estimate)


def flownet(weights: str, enlarge: tuple[float, float] = (1, 1), device: str = "cpu") -> Estimator:
    """FlowNet2-SD in float32.

    ``weights``: path of the weights. ``enlarge``: scale factors (height, width) of the network's input, see
    :func:`vadcore.flow.flownet.flow_between`.
    """
    from vadcore.flow.flownet import flow_between, load_flownet

    net = _kept(load_flownet, weights, device)

    def estimate(first: Tensor, second: Tensor) -> Tensor:
        return flow_between(net, first, second, enlarge)

    return _batched(estimate, device, enlarge[0] * enlarge[1])


def raft(weights: str, network: str = "small", device: str = "cpu") -> Estimator:
    """RAFT (Teed & Deng 2020) from torchvision. ``weights``: path of its state dict. ``network``: small or large."""
    from vadcore.flow.flownet import at_size

    net = _kept(_RAFT[network], weights, device)

    def estimate(first: Tensor, second: Tensor) -> Tensor:  # float [N, C, H, W] in 0..1
        first, second = (picture.expand(-1, 3, -1, -1) * 2 - 1 for picture in (first, second))
        # torchvision needs sides of at least 128 that are multiples of 8. It returns the flow of every refinement step.
        inner = [max(128, -(-side // 8) * 8) for side in first.shape[2:]]
        return at_size(lambda a, b: net(a, b)[-1], first, second, inner)

    return _batched(estimate, device)


_ESTIMATORS: dict[str, Callable[..., Estimator]] = {
    "dis": dis,
    "farneback": farneback,
    "flownet": flownet,
    "raft": raft,
}
NETWORKS = ("flownet", "raft")  # estimators with a device and weights


def create_estimator(name: str, device: str = "cpu", **options) -> Estimator:
    """Create the estimator ``name``: dis, farneback, flownet or raft.

    ``device``: device of network estimators. ``options``: arguments of the estimator. Raises :class:`VadError` if the name
    is unknown, the weights are missing or belong to another network, or torchvision is missing for raft.
    """
    if name not in _ESTIMATORS:
        raise VadError(f"optical_flow.estimator: unknown {name!r}; there are: {', '.join(_ESTIMATORS)}")
    return _ESTIMATORS[name](**options, **({"device": device} if name in NETWORKS else {}))


def identity(name: str, options: dict) -> dict:
    """Return the name and options of an estimator, with a digest of the weights file instead of its path."""
    # lists instead of tuples, as in JSON
    known = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    if "weights" in options:
        known["weights"] = _digest(*_version(options["weights"]))
    return {"estimator": name, "options": known}


def _pair_by_pair(estimate: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Estimator:
    """Wrap an OpenCV function: two grey pictures ``[H, W]`` to flow ``[H, W, 2]``."""

    def over_all(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        fields = [estimate(_grey(a), _grey(b)) for a, b in zip(first, second, strict=True)]
        return np.ascontiguousarray(np.stack(fields).transpose(0, 3, 1, 2))

    return over_all


def _grey(picture: np.ndarray) -> np.ndarray:
    """Convert uint8 ``[H, W, C]`` to grey ``[H, W]``."""
    return picture[..., 0] if picture.shape[2] == 1 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def _batched(estimate: Callable, device: str, pixels: float = 1) -> Estimator:
    """Wrap a function of two tensors ``[N, C, H, W]`` in 0..1 on ``device`` that returns flow ``[N, 2, H, W]``.

    ``pixels``: number of network input pixels per picture pixel.
    """
    import torch

    def over_all(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        fields = []
        height, width = first.shape[1:3]
        at_once = max(1, int(AT_ONCE[torch.device(device).type] / (height * width * pixels)))
        with torch.inference_mode():
            for start in range(0, len(first), at_once):
                part = slice(start, start + at_once)
                pair = (torch.from_numpy(np.ascontiguousarray(p[part])).to(device) for p in (first, second))
                fields.append(estimate(*(p.permute(0, 3, 1, 2).float() / 255 for p in pair)).cpu().numpy())
        return np.concatenate(fields)

    return over_all


def _raft(network: str, weights: str):
    import torch

    try:
        from torchvision.models import optical_flow
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch version
        raise VadError(
            f"optical_flow.estimator: raft needs torchvision, which cannot be imported here ({error}); install the release "
            f"that fits torch {torch.__version__}, or choose dis, farneback or flownet"
        ) from error
    net = getattr(optical_flow, network)(weights=None)
    try:
        net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load can raise any exception for other files
        reason = one_line(error)
        raise VadError(f"{weights}: not torchvision's weights of {network} ({reason}); fetch them again") from error
    return net.eval().requires_grad_(False)


_RAFT = {network: partial(_raft, f"raft_{network}") for network in ("small", "large")}  # one object each, for the cache


def _kept(load: Callable, weights: str, device: str):
    """Return the network ``load(weights)`` on ``device``. It is cached while the weights file is unchanged."""
    return _loaded(load, device, *_version(weights))


@lru_cache(maxsize=1)
def _loaded(load: Callable, device: str, weights: str, size: int, modified: int):
    import torch

    return load(weights).to(device, memory_format=torch.channels_last)  # twice as fast on a CPU


def _version(weights: str) -> tuple[str, int, int]:
    """Return path, size and modification time of the weights file, to detect changes."""
    try:
        found = Path(weights).stat()
    except OSError as error:
        raise VadError(
            f"optical_flow.weights: {weights}: cannot be read ({error.strerror}); correct the path"
        ) from error
    return weights, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=4)
def _digest(weights: str, size: int, modified: int) -> str:
    return sha256_files([Path(weights)])
