"""Autoencoder on HOG and HOF descriptors.

Second variant of Hasan et al. 2016, "Learning Temporal Regularity in Video Sequences", on handcrafted features.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from vadcore.data.windows import Batch, Windows
from vadcore.models import register_model
from vadcore.models.base import MapScore, OnePhaseConfig, OnePhaseModel, Prediction, stored_flow
from vadcore.models.components.hog_hof import DIRECTIONS, HOF, HOG, SPATIAL, TEMPORAL, describe
from vadcore.utils.errors import VadError
from vadcore.utils.schema import Size

BRIGHT = (TEMPORAL * SPATIAL**2) ** 0.5  # display factor: a bin is white if each cell has a single direction


class HogHofConfig(OnePhaseConfig):
    """Layers as commonly given for the paper. Cuboids as in dense trajectories: 32 pixels wide, 15 frames long."""

    needs_flow: ClassVar[bool] = True
    scoring_keys: ClassVar[tuple[str, ...]] = ("score", "step")

    image_size: Size = (240, 320)
    cell: PositiveInt = Field(default=16, ge=4)  # side of a cell, pixels; a cuboid is 2 cells wide and high
    frames: PositiveInt = 15  # length of a cuboid, split into 3 cells
    rest: PositiveFloat = 0.4  # largest speed, px/frame, of a pixel at rest
    # share of moving pixels up to which a cuboid is ignored
    least_motion: float = Field(default=0.05, ge=0, lt=1)
    # widths of the encoder layers after the input of 204 values; the decoder mirrors them
    layers: tuple[PositiveInt, ...] = Field(default=(2000, 1000, 500, 30), min_length=1)
    batch_size: PositiveInt = 4  # windows, each with some hundreds of cuboids
    iterations: PositiveInt = 5_000
    learning_rate: PositiveFloat = 1e-4
    weight_decay: float = Field(default=0.0, ge=0)
    step: PositiveInt = 5  # distance between the starts of scoring windows
    score: Literal["max", "sum"] | MapScore = "max"  # error of the worst cuboid, or sum over all (grows with the crowd)

    @field_validator("frames")
    @classmethod
    def _whole_cells_in_time(cls, frames: int) -> int:
        if frames % TEMPORAL:
            near = max(TEMPORAL, round(frames / TEMPORAL) * TEMPORAL)
            raise ValueError(f"frames {frames}: must be a multiple of {TEMPORAL}, such as {near}")
        return frames

    @model_validator(mode="after")
    def _whole_cells_in_space(self):
        if any(side % self.cell or side < SPATIAL * self.cell for side in self.image_size):
            near = [max(SPATIAL, round(side / self.cell)) * self.cell for side in self.image_size]
            raise ValueError(
                f"image_size {list(self.image_size)}: sides must be multiples of cell {self.cell}, at least "
                f"{SPATIAL * self.cell}, such as {near}"
            )
        return self


@register_model("hog_hof_ae", HogHofConfig)
class HogHofAutoencoder(OnePhaseModel):
    """Fully connected autoencoder, 204-2000-1000-500-30 and mirrored, on descriptors of cuboids with motion.

    The error of a cuboid is the squared distance between descriptor and reconstruction; cuboids at rest have error 0. The
    score of a frame is the maximum or sum over the cuboids that contain it. OpenCV computes the descriptors on the CPU, also
    when the network runs on a GPU.
    """

    config: HogHofConfig
    seen: Tensor  # counts in training: windows, moving cuboids

    def __init__(self, config: HogHofConfig):
        super().__init__(config)
        # one frame more than the cuboid length: flow leads from each frame to the next
        self.windows = Windows(config.frames + 1, judged=tuple(range(config.frames + 1)), step=config.step, flow=True)
        widths = (HOG + HOF, *config.layers)
        both = list(pairwise((*widths, *reversed(widths[:-1]))))
        layers: list[nn.Module] = []
        for number, (a, b) in enumerate(both):
            layers += [nn.Linear(a, b)] + ([nn.Tanh()] if number < len(both) - 1 else [])
        self.network = nn.Sequential(*layers)
        self.register_buffer("seen", torch.zeros(2, dtype=torch.long))

    def describe(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Descriptors of all cuboids, ``[B, rows, columns, 204]``, and whether each moves, bool ``[B, rows, columns]``."""
        config = self.config
        frames = (batch.frames[:, :-1].mean(2) * 255).round().byte().cpu().numpy()  # [B, T, H, W]
        flow = stored_flow(batch).float().cpu().numpy()  # [B, T, 2, H, W]
        found = [describe(f, v, config.cell, config.rest) for f, v in zip(frames, flow, strict=True)]
        device = batch.frames.device
        descriptors = torch.from_numpy(np.stack([descriptor for descriptor, _ in found])).to(device)
        moving = torch.from_numpy(np.stack([share for _, share in found])).to(device)
        return descriptors, moving > config.least_motion

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct descriptors ``[..., 204]``."""
        return self.network(x).float()

    def loss(self, batch: Batch) -> Tensor:
        """Mean over the moving cuboids of the squared distance between descriptor and reconstruction."""
        x, moving = self.describe(batch)
        chosen = x[moving]  # [n, 204]
        if self.training:
            self.seen += torch.tensor([len(x), len(chosen)], device=self.seen.device)
        return (self(chosen) - chosen).square().sum() / max(1, len(chosen))

    def predict_step(self, batch: Batch) -> Prediction:
        x, moving = self.describe(batch)
        if self.seen[0] and not self.seen[1]:
            h, w = self.config.image_size
            raise VadError(
                f"model.hog_hof_ae: in {int(self.seen[0])} training windows of {h}x{w} pixels no cuboid has a share of "
                f"{self.config.least_motion} (least_motion) that moves faster than {self.config.rest} px/frame (rest), so "
                "nothing was learned; lower them or enlarge image_size"
            )
        rebuilt = self(x)
        maps = (rebuilt - x).square().sum(-1) * moving  # [B, rows, columns]
        frames = len(self.windows.judged)
        measures = {"max": maps.amax((1, 2)), "sum": maps.sum((1, 2))}
        return Prediction(
            {name: values[:, None].expand(-1, frames) for name, values in measures.items()},
            maps[:, None].expand(-1, frames, -1, -1),
            reconstruction=lambda: self._roses(rebuilt * moving[..., None]),
            target=lambda: self._roses(x * moving[..., None]),
        )

    def _roses(self, descriptors: Tensor) -> Tensor:
        """Draw descriptors as pictures in 0..1, HOG left, HOF right, ``[B, J, C, 3 * rows, 6 * columns]``.

        Each cuboid is a square of 3 x 3 pixels that shows its first cell. Each outer pixel is the bin of the direction in
        which it lies, the middle pixel the bin at rest. Descriptors have length 1 and thus small values, scaled by
        :data:`BRIGHT`.
        """
        b, rows, columns, _ = descriptors.shape
        hog = descriptors[..., :HOG].unflatten(-1, (TEMPORAL, SPATIAL**2, DIRECTIONS))[..., 0, :]  # [B, r, c, 3, 8]
        hof = descriptors[..., HOG:].unflatten(-1, (TEMPORAL, SPATIAL**2, DIRECTIONS + 1))[..., 0, :]
        hog = torch.cat([hog, torch.zeros_like(hog[..., :1])], dim=-1)  # [.., 9]: HOG has no bin at rest
        around = [5, 6, 7, 4, 8, 0, 3, 2, 1]  # the bin at each pixel, row by row
        squares = torch.stack([hog, hof], dim=1)[..., around]  # [B, 2, r, c, 3, 9]
        squares = squares.unflatten(-1, (3, 3)).permute(0, 4, 2, 5, 1, 3, 6)  # [B, 3, r, 3, 2, c, 3]
        pictures = squares.reshape(b, TEMPORAL, 1, 3 * rows, 6 * columns).mul(BRIGHT).clamp(0, 1)
        times = torch.arange(len(self.windows.judged), device=descriptors.device) * TEMPORAL // self.config.frames
        return pictures[:, times.clamp(max=TEMPORAL - 1)].expand(-1, -1, self.config.channels, -1, -1)
