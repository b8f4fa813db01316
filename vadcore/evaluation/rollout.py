"""Prediction of many frames ahead from a model's own predictions, measured step by step beside three baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vadcore.data.loader import ClipLoader
from vadcore.data.windows import Windows, training_windows
from vadcore.evaluation.image_quality import psnr, ssim
from vadcore.flow.estimators import dis
from vadcore.models.base import ModelConfig
from vadcore.utils.device import autocast
from vadcore.utils.images import resize_flow, resize_picture

AT_ONCE = 4  # sequences rolled out together
MOVING = 1e3  # weight of a pixel that moves by one pixel over one that stands still, where both arrive
LEAST_HEIGHT = 128  # pixels that flow is estimated at: smaller pictures are enlarged by a whole factor
SEED = 0  # of rollouts whose points are drawn
REPEAT, VELOCITY, MEAN = "repeat last frame", "constant velocity", "mean training frame"
RECONSTRUCTION = "reconstruction"
MEAN_OF = 500  # frames


@runtime_checkable
class RollsOut(Protocol):
    """A model that can go on from its own predictions."""

    config: ModelConfig

    def roll_out(self, frames: Tensor, steps: int) -> Tensor:
        """``[B, P, C, H, W]`` in 0..1 to the predicted frames 1 to P - 1 + steps, ``[B, P - 1 + steps, C, H, W]``."""
        ...

    def reconstruct(self, frames: Tensor) -> Tensor:
        """``[B, T, C, H, W]`` in 0..1 to the same through the model's own representation."""
        ...


@dataclass
class Rollout:
    """One sequence: ``prime`` frames given, the rest predicted from predictions.

    truth, reconstruction, prediction: float ``[T, C, H, W]`` in 0..1; frame 0 of the last, which nothing predicts, is the
    reconstruction.
    """

    clip: str
    start: int
    prime: int
    truth: np.ndarray
    reconstruction: np.ndarray
    prediction: np.ndarray

    @property
    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As pictures show them, from the top."""
        return self.truth, self.reconstruction, self.prediction


def roll_outs(
    model: RollsOut, footage: ClipLoader, prime: int, steps: int, count: int, dtype: torch.dtype = torch.float32
) -> list[Rollout]:
    """At most ``count`` sequences, evenly spread over all that ``footage`` has; none where every clip is too short.

    Frames lie ``frame_skip`` apart. Draws, where the model draws, are the same every time.
    """
    windows = Windows(prime + steps, (model.config.frame_skip,))
    if max(footage.lengths, default=0) < windows.span(*windows.strides):
        return []
    every = training_windows(footage.lengths, windows)
    picks = every[np.unique(np.linspace(0, len(every) - 1, count).round().astype(int))]
    done = []
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(SEED)
        for group in np.array_split(picks, -(-len(picks) // AT_ONCE)):
            truth = footage.batch(group, windows.length).frames  # [B, T, C, H, W]
            with autocast(footage.device, dtype):
                rebuilt = model.reconstruct(truth).float()
                predicted = torch.cat((rebuilt[:, :1], model.roll_out(truth[:, :prime], steps).float()), dim=1)
            for (clip, start, _), *parts in zip(group, truth, rebuilt, predicted, strict=True):
                name = footage.segments[clip].clip.name
                done.append(Rollout(name, int(start), prime, *(part.clamp(0, 1).cpu().numpy() for part in parts)))
    return done


def mean_frame(footage: ClipLoader) -> np.ndarray:
    """The mean of at most :data:`MEAN_OF` frames, evenly spread over all that ``footage`` has: ``[C, H, W]`` in 0..1."""
    every = training_windows(footage.lengths, Windows(1))
    picks = every[np.unique(np.linspace(0, len(every) - 1, MEAN_OF).round().astype(int))]
    groups = np.array_split(picks, -(-len(picks) // 50))
    total = sum(footage.batch(group, 1).frames.double().sum(dim=(0, 1)) for group in groups)  # [C, H, W]
    return (total / len(picks)).float().cpu().numpy()


def per_step(rollouts: list[Rollout], mean: np.ndarray) -> pd.DataFrame:
    """How close each comes to the truth, by step ahead: what, step_ahead (from 1), psnr, psnr_std, ssim, ssim_std (mean and
    standard deviation over the sequences; dB; -1..1), sequences.

    what: ``prediction``; ``repeat last frame``: the last frame given; ``constant velocity``: that frame, moved on as it
    moved before; ``mean training frame``: ``mean`` ``[C, H, W]``, at every step; ``reconstruction``: the true frame through
    the model's representation, which no prediction can surpass.
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
        for what, shown in others.items():
            pictures = torch.from_numpy(np.ascontiguousarray(shown))
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
    """What follows when everything goes on as it moved between the last two frames.

    Parameters
    ----------
    given: float ``[P, C, H, W]`` in 0..1, P > 1.

    Returns
    -------
    ``[steps, C, H, W]``: each pixel of the last frame carried along its optical flow (DIS), from the last frame to the one
    before and turned round. Where several arrive, what moves covers what stands still; where none does, there is the
    median of the frames given.
    """
    last = given[-1]
    times = -(-LEAST_HEIGHT // last.shape[1])
    pair = [np.round(frame * 255).astype(np.uint8).transpose(1, 2, 0) for frame in (last, given[-2])]
    larger = (last.shape[1] * times, last.shape[2] * times)
    flow = dis()(*(resize_picture(picture, larger)[None] for picture in pair))[0]
    velocity = -resize_flow(flow, last.shape[1:])  # [2, H, W], px a frame
    behind = np.median(given, axis=0)
    weight = 1 + MOVING * np.hypot(*velocity)
    return np.stack([_carried(last, step * velocity, weight, behind) for step in range(1, steps + 1)])


def _carried(frame: np.ndarray, way: np.ndarray, weight: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """The pixels of ``frame`` ``[C, H, W]`` moved by ``way`` ``[2, H, W]``, each shared among the four it falls between."""
    channels, height, width = frame.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x + way[0], y + way[1]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    total, filled = np.zeros((channels, height * width)), np.zeros(height * width)
    arrived = np.zeros(height * width)  # how much of a pixel's area
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


def shown_steps(prime: int, length: int) -> list[int]:
    """The frames of a sequence that its strip shows: the last two given, then ever wider apart, the last among them."""
    ahead = [1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100]
    chosen = [prime - 1 + step for step in ahead if prime - 1 + step < length]
    return sorted({*range(max(0, prime - 2), prime), *chosen, length - 1})


def marked(picture: np.ndarray, own: bool) -> np.ndarray:
    """A picture of an animation with a bar above it: grey while frames are given, orange once they are the model's own."""
    bar = np.full((6, picture.shape[1], 3), (255, 140, 0) if own else (128, 128, 128), np.uint8)
    return cv2.vconcat([bar, picture])
