"""Estimators of optical flow behind one interface.

An estimator is a function of two uint8 arrays ``[N, H, W, C]`` (C = 1 or 3, RGB) that returns float32 ``[N, 2, H, W]``: the
motion (right, down) in pixels of each pixel of the first pictures to the second. torch is imported by those that need it
alone: the processes that only decode start faster so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from vadcore.utils.errors import VadError
from vadcore.utils.files import sha256_files

Estimator = Callable[[np.ndarray, np.ndarray], np.ndarray]
AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 22}  # pixels that go through a network together; a CPU is slower with more


def dis(preset: str = "medium") -> Estimator:
    """Dense Inverse Search (Kroeger et al. 2016) as OpenCV has it. preset: ultrafast, fast or medium."""
    search = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))
    return _pair_by_pair(lambda first, second: search.calc(first, second, None))


def farneback(
    pyr_scale: float = 0.5,
    levels: int = 3,
    winsize: int = 15,
    iterations: int = 3,
    poly_n: int = 5,
    poly_sigma: float = 1.2,
) -> Estimator:
    """Polynomial expansion (Farneback 2003) as OpenCV has it, with the names and usual values of its arguments."""
    settings = (pyr_scale, levels, winsize, iterations, poly_n, poly_sigma, 0)
    return _pair_by_pair(lambda first, second: cv2.calcOpticalFlowFarneback(first, second, None, *settings))


def flownet(weights: str, enlarge: tuple[float, float] = (1, 1), device: str = "cpu") -> Estimator:
    """FlowNet2-SD with the weights at this path, in float32. enlarge: how many times as high and as wide as they are the
    network sees the pictures; see :func:`vadcore.flow.flownet.flow_between`."""
    from vadcore.flow.flownet import flow_between, load_flownet

    net = _kept(load_flownet, weights, device)

    def estimate(first, second):
        return flow_between(net, first, second, enlarge)

    return _batched(estimate, device, enlarge[0] * enlarge[1])


def raft(weights: str, network: str = "small", device: str = "cpu") -> Estimator:
    """RAFT (Teed & Deng 2020) of torchvision. weights: path of its state dict. network: small or large."""
    from vadcore.flow.flownet import at_size

    net = _kept({"small": _raft_small, "large": _raft_large}[network], weights, device)

    def estimate(first, second):  # float [N, C, H, W] in 0..1
        first, second = (picture.expand(-1, 3, -1, -1) * 2 - 1 for picture in (first, second))
        # torchvision refuses sides under 128 and sides that are no multiples of 8; it returns every refinement
        inner = [max(128, -(-side // 8) * 8) for side in first.shape[2:]]
        return at_size(lambda a, b: net(a, b)[-1], first, second, inner)

    return _batched(estimate, device)


_ESTIMATORS = {"dis": dis, "farneback": farneback, "flownet": flownet, "raft": raft}
NETWORKS = ("flownet", "raft")  # run on a device, from weights


def create_estimator(name: str, device: str = "cpu", **options) -> Estimator:
    """The estimator called ``name``: dis, farneback, flownet or raft.

    options: its arguments; ``device`` goes to those that are networks. Raises :class:`VadError` for weights that are not
    there or are another network's, and where raft is wanted without torchvision.
    """
    if name not in _ESTIMATORS:
        raise VadError(f"optical_flow.estimator: {name!r} is none; there are: {', '.join(_ESTIMATORS)}")
    return _ESTIMATORS[name](**options, **({"device": device} if name in NETWORKS else {}))


def identity(name: str, options: dict) -> dict:
    """The name and options of an estimator; a weights file by its content, not its path."""
    known = {
        key: list(value) if isinstance(value, tuple) else value for key, value in options.items()
    }  # as JSON has it
    if "weights" in known:
        known["weights"] = _digest(*_version(known["weights"]))
    return {"estimator": name, "options": known}


def _pair_by_pair(estimate: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Estimator:
    """From OpenCV's interface: grey ``[H, W]`` twice, to ``[H, W, 2]``."""

    def over_all(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        fields = [estimate(_grey(a), _grey(b)) for a, b in zip(first, second, strict=True)]
        return np.ascontiguousarray(np.stack(fields).transpose(0, 3, 1, 2))

    return over_all


def _grey(picture: np.ndarray) -> np.ndarray:
    """uint8 ``[H, W, C]`` to ``[H, W]``."""
    return picture[..., 0] if picture.shape[2] == 1 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def _batched(estimate: Callable, device: str, pixels: float = 1) -> Estimator:
    """From a function of tensors ``[N, C, H, W]`` in 0..1 on ``device``, to ``[N, 2, H, W]``. pixels: how many the network
    sees for each of the pictures'."""
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


def _raft_small(weights: str):
    return _raft("raft_small", weights)


def _raft_large(weights: str):
    return _raft("raft_large", weights)


def _raft(network: str, weights: str):
    import torch

    try:
        from torchvision.models import optical_flow
    except (ImportError, RuntimeError) as error:  # RuntimeError: one that was built for another torch
        raise VadError(
            f"optical_flow.estimator: raft needs torchvision, which cannot be imported here ({error}); install the release "
            f"that fits torch {torch.__version__}, or choose dis, farneback or flownet"
        ) from error
    net = getattr(optical_flow, network)(weights=None)
    try:
        net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # a foreign file makes the reader raise whatever its bytes lead it to
        reason = " ".join(str(error).split())[:200]
        raise VadError(f"{weights}: not torchvision's weights of {network} ({reason}); fetch them again") from error
    return net.eval().requires_grad_(False)


def _kept(load: Callable, weights: str, device: str):
    """The network that ``load(weights)`` gives, on ``device``; kept for the next clip while the file stays the same."""
    return _loaded(load, device, *_version(weights))


@lru_cache(maxsize=1)
def _loaded(load: Callable, device: str, weights: str, size: int, modified: int):
    import torch

    return load(weights).to(device, memory_format=torch.channels_last)  # twice as fast on a CPU


def _version(weights: str) -> tuple[str, int, int]:
    """The file's path, size and time: whether it is still the one that was read."""
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
