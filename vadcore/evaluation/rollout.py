"""Roll-out: predict many frames ahead from a model's own predictions; PSNR and SSIM per step, with three baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vadcore.data.loader import ClipLoader
from vadcore.data.windows import Windows, training_windows
from vadcore.evaluation.image_quality import psnr, ssim
from vadcore.flow.estimators import dis
from vadcore.utils.device import autocast
from vadcore.utils.images import resize_flow, resize_picture
from vadcore.utils.spaced import spaced

AT_ONCE = 4  # sequences in one batch
MOVING = 1e3  # weight added per pixel of motion where several pixels arrive; a static pixel has weight 1
LEAST_HEIGHT = 128  # minimum height for flow estimation, pixels; smaller pictures are enlarged by an integer factor
SEED = 0  # for models that sample
REPEAT, VELOCITY, MEAN = "repeat last frame", "constant velocity", "mean training frame"
RECONSTRUCTION = "reconstruction"
MEAN_OF = 500  # maximum number of frames in the mean frame


@runtime_checkable
class RollsOut(Protocol):
    """A model that can predict further frames from its own predictions."""

    config: Any  # with ``frame_skip``, the distance between the frames of a sequence

    def roll_out(self, frames: Tensor, steps: int) -> Tensor:
        """Predict frames 1 to P - 1 + steps: ``[B, P, C, H, W]`` in 0..1 to ``[B, P - 1 + steps, C, H, W]``."""
        ...

    def reconstruct(self, frames: Tensor) -> Tensor:
        """Encode and decode frames ``[B, T, C, H, W]`` in 0..1; the result has the same shape."""
        ...


@dataclass
class Rollout:
    """One sequence: ``prime`` given frames, then frames predicted from predictions.

    clip, start: clip name and first frame. truth, reconstruction, prediction: float ``[T, C, H, W]`` in 0..1. Frame 0 of
    ``prediction`` is the reconstruction, because no prediction of it exists.
    """

    clip: str
    start: int
    prime: int
    truth: np.ndarray
    reconstruction: np.ndarray
    prediction: np.ndarray

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the displayed picture, from the top."""
        return self.truth, self.reconstruction, self.prediction


def roll_outs(
    model: RollsOut, footage: ClipLoader, prime: int, steps: int, count: int, dtype: torch.dtype = torch.float32
) -> list[Rollout]:
    """Roll out at most ``count`` sequences, evenly spread over ``footage``; none if every clip is too short.

    prime: number of given frames. steps: number of frames to predict. Frames are ``frame_skip`` apart. The random seed
    is fixed, so models that sample give the same result every time.
    """
    windows = Windows(prime + steps, (model.config.frame_skip,))
    if max(footage.lengths, default=0) < windows.span(*windows.strides):
        return []
    every = training_windows(footage.lengths, windows)
    picks = every[spaced(len(every), count)]
    done = []
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(SEED)
        for group in np.array_split(picks, -(-len(picks) // AT_ONCE)):
            truth = footage.batch(group, windows.length).frames  # [B, T, C, H, W]
            with autocast(footage.device, dtype):
                rebuilt = model.reconstruct(truth).float()
                predicted = torch.cat((rebuilt[:, :1], model.roll_out(truth[:, :prime], steps).float()), dim=1)
            for (clip, start, _), *parts in zip(group, truth, rebuilt, predicted, strict=True):
                segment = footage.segments[clip]
                pictures = (part.clamp(0, 1).cpu().numpy() for part in parts)
                done.append(Rollout(segment.clip.name, segment.start + int(start), prime, *pictures))
    return done


def mean_frame(footage: ClipLoader) -> np.ndarray:
    """Mean of at most :data:`MEAN_OF` frames, evenly spread over ``footage``: ``[C, H, W]`` in 0..1."""
    every = training_windows(footage.lengths, Windows(1))
    picks = every[spaced(len(every), MEAN_OF)]
    groups = np.array_split(picks, -(-len(picks) // 50))
    sums = (footage.batch(group, 1).frames.double().sum(dim=(0, 1)) for group in groups)
    total = sum(sums, start=torch.zeros((), dtype=torch.float64))  # [C, H, W]
    return (total / len(picks)).float().cpu().numpy()


def per_step(rollouts: list[Rollout], mean: np.ndarray) -> pd.DataFrame:
    """PSNR and SSIM of predictions and baselines per step ahead.

    Columns: what, step_ahead (from 1), psnr, psnr_std (dB), ssim, ssim_std (-1..1), sequences. Mean and standard
    deviation are over the sequences.

    Values of ``what``:

    - ``prediction``: the model's roll-out.
    - ``repeat last frame``: the last given frame.
    - ``constant velocity``: see :func:`constant_velocity`.
    - ``mean training frame``: ``mean`` ``[C, H, W]`` at every step.
    - ``reconstruction``: the true frame, encoded and decoded by the model; an upper bound for its predictions.
    """
    figures: dict[str, list[np.ndarray]] = {}
    for rollout in rollouts:
        given, truth = rollout.truth[: rollout.prime], rollout.truth[rollout.prime :]
        steps = len(truth)
        others = {
            "prediction": rollout.prediction[rollout.prime :],
            REPEAT: np.repeat(given[-1:], steps, axis=0),
            VELOCITY: constant_velocity(given, steps),
            MEAN: np.repeat(mean[None], steps, axis=0),
            RECONSTRUCTION: rollout.reconstruction[rollout.prime :],
        }
        true = torch.from_numpy(truth)
        for what, predicted in others.items():
            pictures = torch.from_numpy(np.ascontiguousarray(predicted))
            both = torch.stack((psnr(pictures, true), ssim(pictures, true)), dim=1)  # [S, 2]
            figures.setdefault(what, []).append(both.numpy())
    rows = []
    for what, each in figures.items():
        values = np.stack(each)  # [N, S, 2]
        level, spread = values.mean(0), values.std(0)
        rows += [
            {
                "what": what,
                "step_ahead": step + 1,
                "psnr": level[step, 0],
                "psnr_std": spread[step, 0],
                "ssim": level[step, 1],
                "ssim_std": spread[step, 1],
                "sequences": len(values),
            }
            for step in range(len(level))
        ]
    return pd.DataFrame(rows)


def constant_velocity(given: np.ndarray, steps: int) -> np.ndarray:
    """Predict frames under the assumption that the motion between the last two frames continues.

    Each pixel of the last frame is moved along its velocity: the negative of the optical flow (DIS) from the last frame
    to the one before it. Where several pixels arrive, moving pixels cover static ones. Where no pixel arrives, the
    median of the given frames is used.

    Parameters
    ----------
    given: float ``[P, C, H, W]`` in 0..1, P > 1.
    steps: number of frames to predict.

    Returns
    -------
    float ``[steps, C, H, W]``.
    """
    last = given[-1]
    times = -(-LEAST_HEIGHT // last.shape[1])
    pair = [np.round(frame * 255).astype(np.uint8).transpose(1, 2, 0) for frame in (last, given[-2])]
    larger = (last.shape[1] * times, last.shape[2] * times)
    flow = dis()(*(resize_picture(picture, larger)[None] for picture in pair))[0]
    velocity = -resize_flow(flow, last.shape[1:])  # [2, H, W], pixels per frame
    behind = np.median(given, axis=0)
    weight = 1 + MOVING * np.hypot(*velocity)
    return np.stack([_carried(last, step * velocity, weight, behind) for step in range(1, steps + 1)])


def _carried(frame: np.ndarray, way: np.ndarray, weight: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """Move the pixels of ``frame`` ``[C, H, W]`` by ``way`` ``[2, H, W]`` with bilinear splatting.

    weight: ``[H, W]``, weight of each pixel where several arrive. behind: ``[C, H, W]``, used where none arrives.
    """
    channels, height, width = frame.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x + way[0], y + way[1]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    total, filled = np.zeros((channels, height * width)), np.zeros(height * width)
    arrived = np.zeros(height * width)  # share of each target pixel's area that is covered
    for across in (0, 1):
        for down in (0, 1):
            column, row = left + across, top + down
            share = (1 - np.abs(x - column)) * (1 - np.abs(y - row))
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = (row * width + column)[inside]
            amount = (share * weight)[inside]
            filled += np.bincount(place, amount, height * width)
            arrived += np.bincount(place, share[inside], height * width)
            for channel in range(channels):
                total[channel] += np.bincount(place, amount * frame[channel][inside], height * width)
    known = np.minimum(arrived, 1)
    mixed = known * total / np.maximum(filled, 1e-12) + (1 - known) * behind.reshape(channels, -1)
    return mixed.reshape(frame.shape).astype(np.float32)


def strip_steps(prime: int, length: int) -> list[int]:
    """Frame indices in the strip of a sequence: the last two given frames, then predictions at growing distances.

    prime: number of given frames. length: frames in the sequence; the last frame is always included.
    """
    ahead = [1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100]
    chosen = [prime - 1 + step for step in ahead if prime - 1 + step < length]
    return sorted({*range(max(0, prime - 2), prime), *chosen, length - 1})


def marked(picture: np.ndarray, own: bool) -> np.ndarray:
    """Add a bar above a picture of an animation: grey for given frames, orange for predicted frames (``own``)."""
    bar = np.full((6, picture.shape[1], 3), (255, 140, 0) if own else (128, 128, 128), np.uint8)
    return cv2.vconcat([bar, picture])
