"""Segmentation network trained on pseudo-anomalies: altered objects pasted into normal footage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn

from vadcore.data.windows import Batch, Windows
from vadcore.models import register_model
from vadcore.models.base import Model, ModelConfig, Phase, Prediction, step_of
from vadcore.models.pseudo.alterations import ALTERATIONS, Alteration
from vadcore.models.pseudo.cutouts import cut_out
from vadcore.models.pseudo.scene import GRID, Scene, learn_scene
from vadcore.models.pseudo.windows import PastedBatch, PastedWindows, Pasting
from vadcore.utils.render import heat, outlined
from vadcore.utils.schema import Size

if TYPE_CHECKING:
    from vadcore.data.loader import ClipLoader

CONTRAST = 40 / 255  # divisor of the differences from the background
MOVING_WEIGHT = 20.0  # weight of the loss at places where something moves; elsewhere 1
FLOOR = -2.0  # logit above which a place belongs to a region: a probability of 12 %
MARGIN = 2  # width of the border of the anomaly map that belongs to no region, places
SCALES = (0.25, 2.0)  # range of the scale factor of pictures
NEARLY = (0.8, 1.25)  # within this range, pictures are not resized


class PseudoAnomalyConfig(ModelConfig):
    scoring_keys: ClassVar[tuple[str, ...]] = ("score", "places")

    frames: PositiveInt = Field(default=8, ge=3)  # window length; made for 8 to 10 frames per second
    every: PositiveInt = 1  # frame stride: 3 for footage of 25 to 30 frames per second
    background: PositiveInt = 300  # number of frames (every n-th one) whose median is the background
    object_height: PositiveFloat = 32.0  # pictures are resized so that the median moving object has this height, pixels
    crop: Size = (144, 176)  # height and width of training windows, in resized pixels
    unaltered: NonNegativeInt = 3  # largest number of unaltered objects pasted into a window
    altered: PositiveInt = 2  # largest number of altered objects pasted into a window
    # relative frequency of each alteration
    alterations: dict[Alteration, NonNegativeFloat] = Field(default={**dict.fromkeys(ALTERATIONS, 1.0), "frozen": 2.0})
    conv: Annotated[tuple[PositiveInt, ...], Field(min_length=3, max_length=3)] = (32, 64, 96)
    batch_size: PositiveInt = 16
    iterations: PositiveInt = 3_000
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05
    places: PositiveInt = 20  # number of highest places in the anomaly map whose mean is the value of a region
    score: Literal["region", "max"] = "region"

    @field_validator("alterations")
    @classmethod
    def _some(cls, alterations: dict[Alteration, float]):
        if not any(alterations.values()):
            raise ValueError(f"all weights are 0; give at least one of {', '.join(ALTERATIONS)} a positive weight")
        return alterations


@register_model("pseudo_anomaly", PseudoAnomalyConfig)
class PseudoAnomaly(Model):
    """Segment altered objects. Trained on normal footage with pasted moving objects, some of them altered.

    2D convolutions over a stack of frames give a map of logits for each frame, at a quarter of the picture's size. The input
    consists of the differences from the background, the difference of the background from that of all training footage, how
    often something moves at each place (occupancy), and the row, because sizes and speeds depend on it.

    In the anomaly map, each connected region has one value, the mean of its ``places`` highest logits. The score of a frame
    is the value of its highest region, averaged over the windows that contain the frame.
    """

    config: PseudoAnomalyConfig
    scale: Tensor  # scale factor of pictures; 0 before training
    usual: Tensor  # [C, H, W] in 0..1, the background of all training footage; 1x1 before training
    occupancy: Tensor  # logarithm of how often something moves at each place, on a grid

    def __init__(self, config: PseudoAnomalyConfig):
        super().__init__(config)
        self.middle = config.frames // 2
        judged = tuple(range(0, config.frames * config.every, config.every))
        step = 2 if config.every % 2 else 1  # with an even stride, an even step would leave frames without a score
        self.windows = Windows(judged[-1] + 1, judged=judged, step=step, background=config.background * config.every)
        self.register_buffer("scale", torch.zeros(()))
        self.register_buffer("usual", torch.zeros(config.channels, 1, 1))
        self.register_buffer("occupancy", torch.zeros(GRID))
        a, b, c = config.conv
        self.network = nn.Sequential(
            *_block((config.frames + 1) * config.channels + 2, a, stride=2),
            *_block(a, a),
            *_block(a, b, stride=2),
            *_block(b, b),
            *_block(b, c),
            *_block(c, c, dilation=2),
            nn.Conv2d(c, config.frames, 1),
        )
        nn.init.constant_(self.network[-1].get_parameter("bias"), -3.0)  # most places are normal

    def phases(self) -> list[Phase]:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        return [
            Phase(
                "segmentation",
                config.iterations,
                self.windows,
                config.batch_size,
                step_of(self.loss),
                optimizers={"optimizer": optimizer},
                schedulers={"optimizer": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.iterations)},
                val=self.loss,
                source=self._pasted,
                picture=self._picture,
            )
        ]

    def _pasted(self, footage: ClipLoader, dtype: torch.dtype) -> PastedWindows:
        config = self.config
        cutouts = cut_out(footage, config.frames, config.every)
        if not float(self.scale):
            heights = torch.tensor([float(cutout.height) for cutout in cutouts])
            scale = float((config.object_height / heights.median()).clamp(*SCALES))
            self.scale.fill_(1.0 if NEARLY[0] <= scale <= NEARLY[1] else scale)
            scene = learn_scene(footage, config.every)
            self.usual = (
                torch.from_numpy(scene.background.transpose(2, 0, 1).copy()).to(self.scale.device).float() / 255
            )
            self.occupancy.copy_(torch.from_numpy(scene.logarithm))
        height, width = (
            min(full, round(side / float(self.scale))) for full, side in zip(footage.size, config.crop, strict=True)
        )
        rows, columns = (-(-side // 4) for side in self._resized((height, width)))
        pasting = Pasting(
            crop=(height, width),
            map_size=(rows, columns),
            length=config.frames,
            middle=self.middle,
            every=config.every,
            unaltered=config.unaltered,
            altered=config.altered,
            weights=config.alterations,
        )
        return PastedWindows(footage, cutouts, self.scene, pasting, torch.initial_seed())

    @property
    def scene(self) -> Scene:
        """Background and occupancy of the training footage."""
        background = (self.usual * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        return Scene.of(background, self.occupancy.cpu().numpy())

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Resize the buffer ``usual`` to the stored one, which has the size of the training footage."""
        if f"{prefix}usual" in state_dict:
            self.usual = torch.empty_like(state_dict[f"{prefix}usual"], device=self.usual.device)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _resized(self, size: Sequence[int]) -> tuple[int, int]:
        """Size of the network's input for pictures of ``size``."""
        scale = float(self.scale) or 1.0
        height, width = (max(8, round(side * scale)) for side in size)
        return height, width

    def forward(
        self, frames: Tensor, background: Tensor, usual: Tensor | None = None, view: Tensor | None = None
    ) -> Tensor:
        """Logits ``[B, T, h, w]`` of frames ``[B, T, C, H, W]`` and their background ``[B, C, H, W]``, in 0..1.

        usual: background of the training footage at the same place, ``[B, C, H, W]``. view: top, bottom, left and right of
        the windows, ``[B, 4]`` in picture heights and widths; left and right are swapped in mirrored windows. None: the
        windows are whole pictures.
        """
        x = self._seen(frames, background, usual, view)
        return self.network(x.contiguous(memory_format=torch.channels_last)).float()

    def _seen(
        self, frames: Tensor, background: Tensor, usual: Tensor | None = None, view: Tensor | None = None
    ) -> Tensor:
        """Input of the network, ``[B, (T + 1) * C + 2, H, W]``.

        Differences of the frames from the background, difference of the background from the usual one, occupancy, and the
        row from -1 to 1.
        """
        b, _, _, *size = frames.shape
        if usual is None:
            usual = F.interpolate(self.usual[None], size, mode="bilinear", antialias=True)
        if view is None:
            view = torch.tensor([[0.0, 1.0, 0.0, 1.0]], device=frames.device)
        change = background - usual
        change = change - change.flatten(2).median(2).values[..., None, None]
        # [B, (T + 1) * C, H, W]
        x = torch.cat([(frames - background[:, None]).flatten(1, 2), change], dim=1) / CONTRAST
        shown = self._resized(size)
        if list(shown) != size:
            x = F.interpolate(x, shown, mode="bilinear", antialias=True)
        rows, columns = (
            first + (last - first) * (torch.arange(side, device=x.device) + 0.5) / side
            for first, last, side in zip(view[:, ::2].T[..., None], view[:, 1::2].T[..., None], shown, strict=True)
        )  # [B or 1, H], [B or 1, W]
        row = (2 * rows - 1)[:, :, None].expand(b, *shown)
        grid = torch.stack([(2 * columns - 1)[:, None].expand(b, *shown), row], dim=-1)
        occupancy = F.grid_sample(self.occupancy.expand(b, 1, *GRID), grid, padding_mode="border", align_corners=False)
        return torch.cat([x, occupancy, row[:, None]], dim=1)

    def loss(self, batch: PastedBatch) -> Tensor:
        """Binary cross-entropy with :data:`MOVING_WEIGHT` times the weight at places where something moves."""
        weight = 1 + (MOVING_WEIGHT - 1) * batch.moving
        losses = F.binary_cross_entropy_with_logits(
            self(batch.frames, batch.background, batch.usual, batch.view), batch.target, reduction="none"
        )
        return (losses * weight).sum() / weight.sum()

    def _picture(self, batch: PastedBatch) -> np.ndarray:
        """Draw the middle frames of windows, with altered objects outlined, beside the predicted probabilities."""
        frames = (batch.frames[:, self.middle] * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()  # [B, H, W, C]
        logits = self(batch.frames, batch.background, batch.usual, batch.view)[:, self.middle]
        probability, targets = logits.sigmoid().cpu().numpy(), batch.target[:, self.middle].cpu().numpy()
        size = frames.shape[2:0:-1]
        rows = []
        for frame, target, found in zip(frames, targets, probability, strict=True):
            mask = (cv2.resize(target, size) > 0.5).astype(np.uint8)
            rgb = np.broadcast_to(frame, (*frame.shape[:2], 3))
            rows.append(np.hstack([outlined(rgb, mask, 1), heat(cv2.resize(found, size), 0, 1)]))
        return np.vstack(rows)

    def predict_step(self, batch: Batch) -> Prediction:
        logits = self(batch.frames[:, :: self.config.every], batch.background)
        maps = by_region(logits.flatten(0, 1), self.config.places).view_as(logits)  # [B, T, h, w]
        return Prediction({"region": maps.amax((2, 3)), "max": logits.amax((2, 3))}, maps)


def by_region(logits: Tensor, places: int) -> Tensor:
    """Replace the logits of each region of maps ``[B, h, w]`` by the mean of its ``places`` highest logits.

    A region is a connected component of the logits above :data:`FLOOR`. A region with fewer places is padded with the floor.
    Logits outside of regions do not change, except at the border: there, where objects are cut off, a strip of
    :data:`MARGIN` places is limited to the floor. All places of an object thus have the same value, without a peak.
    """
    maps = logits.detach().cpu().numpy().copy()
    outside = np.ones(maps.shape[1:], bool)
    outside[MARGIN:-MARGIN, MARGIN:-MARGIN] = False
    maps[:, outside] = maps[:, outside].clip(max=FLOOR)
    for of_frame in maps:
        count, labels = cv2.connectedComponents((of_frame > FLOOR).astype(np.uint8), connectivity=8)
        for number in range(1, count):
            inside = labels == number
            values = np.sort(of_frame[inside])[-places:]
            of_frame[inside] = FLOOR + (values - FLOOR).sum() / places
    return torch.from_numpy(maps).to(logits.device)


def _block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(inplace=True),
    ]
