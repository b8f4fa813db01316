"""Autoencoder on HOG and HOF: the second variant of Hasan et al. 2016, "Learning Temporal Regularity in Video Sequences"."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from vadcore.data.windows import Batch, Windows
from vadcore.models import register_model
from vadcore.models.base import Autoencoder, ModelConfig, Phase, Prediction
from vadcore.models.components.hog_hof import DIRECTIONS, HOF, HOG, SPATIAL, TEMPORAL, describe
from vadcore.utils.errors import VadError
from vadcore.utils.schema import Size

BRIGHT = (TEMPORAL * SPATIAL**2) ** 0.5  # in pictures: what one direction would have if each cell had only one is white


class HogHofConfig(ModelConfig):
    """Layers are the published ones as commonly given; cuboids as in dense trajectories: 32 pixels wide, 15 frames long."""

    needs_flow: ClassVar[bool] = True
    scoring_keys: ClassVar[tuple[str, ...]] = ("score", "step")

    image_size: Size = (240, 320)
    cell: PositiveInt = Field(default=16, ge=4)  # pixels; a cuboid is 2 cells wide and high
    frames: PositiveInt = 15  # length of a cuboid, in 3 cells
    rest: PositiveFloat = 0.4  # px/frame; slower pixels are at rest
    # cuboids with a smaller share of moving pixels are passed over
    least_motion: float = Field(default=0.05, ge=0, lt=1)
    layers: tuple[PositiveInt, ...] = Field(default=(2000, 1000, 500, 30), min_length=1)  # from 204 down, and mirrored
    batch_size: PositiveInt = 4  # windows; each has some hundreds of cuboids
    iterations: PositiveInt = 5_000
    learning_rate: PositiveFloat = 1e-4
    weight_decay: float = Field(default=0.0, ge=0)
    step: PositiveInt = 5  # distance between the starts of scoring windows
    score: Literal["max", "sum"] = "max"  # the worst cuboid of a frame, or all together (grows with the crowd)

    @field_validator("frames")
    @classmethod
    def _whole_cells_in_time(cls, frames: int) -> int:
        if frames % TEMPORAL:
            near = max(TEMPORAL, round(frames / TEMPORAL) * TEMPORAL)
            raise ValueError(
                f"frames {frames}: a cuboid has {TEMPORAL} cells in time; a multiple of it would do, such as {near}"
            )
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
class HogHofAutoencoder(Autoencoder):
    """Reconstructs the descriptor of every cuboid in which something moves.

    Fully connected, 204-2000-1000-500-30 and mirrored. A cuboid's error is the squared distance of descriptor and
    reconstruction; cuboids at rest have none. A frame's score comes from the cuboids that hold it. Descriptors are made by
    OpenCV on the CPU, wherever the network runs.
    """

    def __init__(self, config: HogHofConfig):
        super().__init__(config)
        self.score = config.score
        # one frame more than a cuboid is long, because flow leads from a frame to the next
        self.windows = Windows(config.frames + 1, judged=tuple(range(config.frames + 1)), step=config.step, flow=True)
        widths = (HOG + HOF, *config.layers)
        both = list(pairwise((*widths, *reversed(widths[:-1]))))
        layers: list[nn.Module] = []
        for number, (a, b) in enumerate(both):
            layers += [nn.Linear(a, b)] + ([nn.Tanh()] if number < len(both) - 1 else [])
        self.network = nn.Sequential(*layers)
        self.register_buffer("seen", torch.zeros(2, dtype=torch.long))  # in training: windows, cuboids that moved

    def describe(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Descriptors of a batch's cuboids, ``[B, rows, columns, 204]``, and which of them move, bool alike."""
        config = self.config
        frames = (batch.frames[:, :-1].mean(2) * 255).round().byte().cpu().numpy()  # [B, T, H, W]
        flow = batch.flow.float().cpu().numpy()  # [B, T, 2, H, W]
        found = [describe(f, v, config.cell, config.rest) for f, v in zip(frames, flow, strict=True)]
        device = batch.frames.device
        descriptors = torch.from_numpy(np.stack([descriptor for descriptor, _ in found])).to(device)
        moving = torch.from_numpy(np.stack([share for _, share in found])).to(device)
        return descriptors, moving > config.least_motion

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct descriptors ``[..., 204]``."""
        return self.network(x).float()

    def statistics(self) -> list[Phase]:
        return []

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared distance over the cuboids that move."""
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
            shown=lambda: self._roses(rebuilt * moving[..., None]),
            shown_of=lambda: self._roses(x * moving[..., None]),
        )

    def _roses(self, descriptors: Tensor) -> Tensor:
        """Descriptors as pictures in 0..1, HOG left, HOF right, ``[B, J, C, 3 rows, 6 columns]``.

        A square of 3 x 3 pixels a cuboid, of which its first cell is shown: each outer pixel is the direction it lies in
        (right is right), the middle one is rest. A descriptor has length 1, and so its parts are small: :data:`BRIGHT`.
        """
        b, rows, columns, _ = descriptors.shape
        hog = descriptors[..., :HOG].unflatten(-1, (TEMPORAL, SPATIAL**2, DIRECTIONS))[..., 0, :]  # [B, r, c, 3, 8]
        hof = descriptors[..., HOG:].unflatten(-1, (TEMPORAL, SPATIAL**2, DIRECTIONS + 1))[..., 0, :]
        hog = torch.cat([hog, torch.zeros_like(hog[..., :1])], dim=-1)  # [.., 9]: nothing in the middle
        around = [5, 6, 7, 4, 8, 0, 3, 2, 1]  # the bin at each pixel, row by row
        squares = torch.stack([hog, hof], dim=1)[..., around]  # [B, 2, r, c, 3, 9]
        squares = squares.unflatten(-1, (3, 3)).permute(0, 4, 2, 5, 1, 3, 6)  # [B, 3, r, 3, 2, c, 3]
        pictures = squares.reshape(b, TEMPORAL, 1, 3 * rows, 6 * columns).mul(BRIGHT).clamp(0, 1)
        times = torch.arange(len(self.windows.judged), device=descriptors.device) * TEMPORAL // self.config.frames
        return pictures[:, times.clamp(max=TEMPORAL - 1)].expand(-1, -1, self.config.channels, -1, -1)
