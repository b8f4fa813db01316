"""Baseline without training: how fast boxes of the size of a moving object move, over some frames."""

from __future__ import annotations

from typing import ClassVar, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from vadcore.data.windows import Batch, Windows
from vadcore.models import register_model
from vadcore.models.base import Model, ModelConfig, Phase, Prediction, Update, stored_flow

BATCHES, BATCH_SIZE = 32, 16  # number and size of the batches of windows for each statistic
ROWS = 16  # number of bands of rows, each with its own object sizes
SIZES = 64  # bins of object heights and widths, spaced evenly in the logarithm from SMALLEST to 1 picture heights
SMALLEST = 0.01
ALONE = 0.7  # largest width / height of a single person; wider objects are mostly groups
LEAST_OBJECTS = 20  # fewest objects in a band for its size to count
LEAST_SHARE = 0.01  # smallest share of all moving boxes in a band for its speed to count
HIGH = 0.9  # quantile of the fastest box per row in windows of normal footage that is speed 1
SPEEDS = 120  # bins of speeds, spaced evenly in the logarithm from 1e-6 to 1 picture heights a frame
SLOWEST, STILL = 1e-6, 0.001  # pixels slower than STILL, in picture heights a frame, never count as moving


class BoxSpeedConfig(ModelConfig):
    needs_flow: ClassVar[bool] = True

    pool: PositiveInt = 2  # side of the blocks over which the flow is averaged first, pixels
    frames: PositiveInt = Field(default=9, ge=3)  # length of a box in time; its middle frame is scored
    # a pixel moves if it is faster than this times the lower quartile of all speeds (noise)
    moving: PositiveFloat = 20.0
    perspective: bool = True  # separate box sizes and usual speeds for each row; false: the same for all rows
    score: Literal["speed", "mean"] = "speed"


@register_model("box_speed", BoxSpeedConfig)
class BoxSpeed(Model):
    """The highest mean speed of a box that follows the flow and has the size of the scene's moving objects.

    The size comes from normal training footage: connected pixels that move are an object, and a line over the rows is
    fitted to the median height (and width) of the objects in each band of rows. Speeds are relative to a high speed in the
    same row of normal footage. Only high speeds are anomalous, not low ones.
    """

    config: BoxSpeedConfig
    # number of objects by band of rows (of their centre) and bin of size: all objects, and narrow ones
    heights: Tensor
    widths: Tensor
    speeds: Tensor  # number of pixels by bin of speed
    moving: Tensor  # number of the fastest boxes by band of rows and by bin of speed

    def __init__(self, config: BoxSpeedConfig):
        super().__init__(config)
        middle = config.frames // 2
        self.windows = Windows(length=config.frames, judged=(middle,), flow=True)
        self.register_buffer("heights", torch.zeros(2, ROWS, SIZES, dtype=torch.float64))
        self.register_buffer("widths", torch.zeros(2, ROWS, SIZES, dtype=torch.float64))
        self.register_buffer("speeds", torch.zeros(SPEEDS, dtype=torch.float64))
        self.register_buffer("moving", torch.zeros(ROWS, SPEEDS, dtype=torch.float64))

    def phases(self) -> list[Phase]:
        windows = Windows(2, flow=True)
        return [
            Phase("noise", BATCHES, windows, BATCH_SIZE, self._gather_speeds, sampling="clips"),
            Phase("object_sizes", BATCHES, windows, BATCH_SIZE, self._gather_sizes, sampling="clips"),
            Phase("box_speeds", BATCHES, self.windows, BATCH_SIZE, self._gather_boxes, sampling="clips"),
        ]

    def _gather_speeds(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        speed = _length(self._pooled(stored_flow(batch)[:, 0]), 1)
        self.speeds += torch.bincount(_place(speed.flatten(), SLOWEST, SPEEDS), minlength=SPEEDS)
        return {"loss": speed.mean()}  # for the log only: mean speed, picture heights per frame

    def _gather_sizes(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        speed = _length(self._pooled(stored_flow(batch)[:, 0]), 1)  # [B, h, w]
        moving = speed > self.threshold
        boxes = torch.tensor([box for of_frame in moving.byte().cpu().numpy() for box in _objects(of_frame)])
        if len(boxes):
            centre, height, width = boxes.to(speed.device).T / speed.shape[1]  # in picture heights
            for kept, size in ((self.heights, height), (self.widths, width)):
                place = (centre * ROWS).long() * SIZES + _place(size, SMALLEST, SIZES)
                for number, chosen in enumerate((place, place[width <= ALONE * height])):
                    kept[number] += torch.bincount(chosen, minlength=ROWS * SIZES).view(ROWS, SIZES)
        return {"loss": torch.tensor(len(boxes) / len(speed))}  # for the log only: objects per frame

    def _gather_boxes(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        fastest = self._boxes(batch).amax(2)  # [B, h]
        rows = fastest.shape[1]
        band = torch.arange(rows, device=fastest.device) * ROWS // rows
        place = band * SPEEDS + _place(fastest, SLOWEST, SPEEDS)  # [B, h]
        moving = place[fastest > self.threshold]
        self.moving += torch.bincount(moving, minlength=ROWS * SPEEDS).view(ROWS, SPEEDS)
        return {"loss": fastest.mean()}  # for the log only: picture heights per frame

    @property
    def threshold(self) -> float:
        """The speed, in picture heights a frame, from which a pixel belongs to a moving object."""
        return max(STILL, self.config.moving * _quantile(self.speeds, 0.25, SLOWEST))

    def _pooled(self, flow: Tensor) -> Tensor:
        """Flow ``[N, 2, H, W]`` in pixels, averaged over blocks: ``[N, 2, h, w]`` in picture heights."""
        return F.avg_pool2d(flow, self.config.pool, ceil_mode=True) / flow.shape[2]

    def box_sizes(self, rows: int) -> Tensor:
        """Height and width of a box whose centre is in each of ``rows`` rows, ``[2, rows]`` in picture heights."""
        heights, widths = self.heights.cpu(), self.widths.cpu()
        narrow = int((heights[1].sum(1) >= LEAST_OBJECTS).any())
        sizes = [self._by_row(sizes[narrow], LEAST_OBJECTS, 0.5, SMALLEST, rows) for sizes in (heights, widths)]
        return torch.stack(sizes)

    def usual_speeds(self, rows: int) -> Tensor:
        """A high speed of boxes in normal footage, by row: ``[rows]`` in picture heights a frame."""
        moving = self.moving.cpu()
        return self._by_row(moving, LEAST_SHARE * float(moving.sum()), HIGH, SLOWEST, rows)

    def _by_row(self, histogram: Tensor, least: float, share: float, lowest: float, rows: int) -> Tensor:
        """Fit a line over the rows to the quantile ``share`` of each band of ``histogram`` ``[ROWS, bins]``.

        Uses the bands with at least ``least`` entries. The line is constant beyond them.
        """
        known = histogram.sum(1) >= max(least, 1)
        if not known.any():  # nothing moved: a tenth of the picture
            return torch.full((rows,), 0.1, dtype=torch.float64)
        whole = _quantile(histogram.sum(0), share, lowest)
        if not self.config.perspective or known.sum() < 3:
            return torch.full((rows,), whole, dtype=torch.float64)
        found = torch.tensor([_quantile(band, share, lowest) for band in histogram[known]], dtype=torch.float64)
        bands = (torch.arange(ROWS, dtype=torch.float64)[known] + 0.5) / ROWS
        weights = histogram[known].sum(1) / histogram[known].sum()
        mean = (weights * bands).sum()
        slope = (weights * (bands - mean) * found).sum() / (weights * (bands - mean) ** 2).sum()
        centres = ((torch.arange(rows, dtype=torch.float64) + 0.5) / rows).clamp(bands[0], bands[-1])
        return ((weights * found).sum() + slope * (centres - mean)).clamp(whole / 3, whole * 3)

    def predict_step(self, batch: Batch) -> Prediction:
        boxes = self._boxes(batch)
        boxes = boxes / self.usual_speeds(boxes.shape[1]).to(boxes)[:, None]
        measures = {"speed": boxes.amax((1, 2)), "mean": boxes.mean((1, 2))}
        return Prediction({name: values[:, None] for name, values in measures.items()}, maps=boxes[:, None])

    def _boxes(self, batch: Batch) -> Tensor:
        """Mean speed of the box around each place, ``[B, h, w]`` in picture heights per frame."""
        speed = self._along(self._pooled_windows(batch))  # [B, h, w]
        rows = speed.shape[1]
        return box_means(speed, self.box_sizes(rows).to(speed.device) * rows)

    def _pooled_windows(self, batch: Batch) -> Tensor:
        """Pooled flow of the windows, ``[B, T-1, 2, h, w]`` in picture heights.

        Windows share most of their flow fields; each field is pooled once.
        """
        flow = stored_flow(batch)
        b, t = flow.shape[:2]
        fields = torch.stack([batch.clip[:, None].expand(b, t), batch.numbers[:, :-1]], dim=-1).reshape(-1, 2)
        _, which = fields.unique(dim=0, return_inverse=True)  # [B * (T-1)], the number of each field
        first = torch.full((int(which.max()) + 1,), len(which), device=which.device)
        first = first.scatter_reduce(0, which, torch.arange(len(which), device=which.device), "amin")
        pooled = self._pooled(flow.flatten(0, 1)[first.to(flow.device)])
        return pooled[which.to(pooled.device)].view(b, t, *pooled.shape[1:])

    def _along(self, flow: Tensor) -> Tensor:
        """Mean speed over the window along the motion path through each place of the judged frame, ``[B, h, w]``.

        Speeds in earlier frames are warped forward along the flow, those in later frames backward.
        """
        middle = self.windows.judged[0]
        speed = _length(flow, 2)  # [B, T-1, h, w]
        past = torch.zeros_like(speed[:, 0])
        for t in range(middle):
            past = _moved(past + speed[:, t], flow[:, t + 1], -1)  # back along the motion out of the place
        future = torch.zeros_like(past)
        for t in reversed(range(middle, flow.shape[1])):
            future = _moved(future, flow[:, t], 1) + speed[:, t]
        return (past + future) / flow.shape[1]


def _length(flow: Tensor, dim: int) -> Tensor:
    """Length of the vectors in ``dim``; ``Tensor.norm`` takes 30 times as long on a CPU."""
    return torch.hypot(*flow.unbind(dim))


def _moved(values: Tensor, flow: Tensor, sign: int) -> Tensor:
    """``values`` ``[B, h, w]`` read at each place plus ``sign`` times the flow there (``[B, 2, h, w]``, picture heights)."""
    h, w = values.shape[1:]
    rows, columns = torch.meshgrid(
        torch.arange(h, device=values.device), torch.arange(w, device=values.device), indexing="ij"
    )
    x = (columns + sign * flow[:, 0] * h + 0.5) * 2 / w - 1
    y = (rows + sign * flow[:, 1] * h + 0.5) * 2 / h - 1
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(values[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def _objects(moving: np.ndarray) -> list[tuple[float, int, int]]:
    """Centre row, height and width of each connected component of ``moving`` ``[h, w]`` that does not touch the border."""
    height, width = moving.shape
    _, _, boxes, _ = cv2.connectedComponentsWithStats(moving, connectivity=8)
    return [
        (top + tall / 2, tall, wide)
        for left, top, wide, tall, _ in boxes[1:].tolist()
        if left > 0 and top > 0 and left + wide < width and top + tall < height and tall >= 2 * SMALLEST * height
    ]


def box_means(values: Tensor, sizes: Tensor) -> Tensor:
    """Mean of ``values`` ``[B, h, w]`` over the box around each place. At the border, over its part inside the picture.

    sizes: ``[2, h]``, height and width of the box by row, in places.
    """
    _, h, w = values.shape
    total = F.pad(values.double().cumsum(1).cumsum(2), (1, 0, 1, 0))  # [B, h+1, w+1]
    half = ((sizes - 1) / 2).clamp(min=0).round().long()
    rows, columns = torch.arange(h, device=values.device), torch.arange(w, device=values.device)
    top, bottom = (rows - half[0]).clamp(min=0), (rows + half[0] + 1).clamp(max=h)  # [h]
    left = (columns - half[1][:, None]).clamp(min=0)  # [h, w]
    right = (columns + half[1][:, None] + 1).clamp(max=w)
    band = total[:, bottom] - total[:, top]  # [B, h, w+1]
    sums = band.gather(2, right.expand(len(values), -1, -1)) - band.gather(2, left.expand(len(values), -1, -1))
    return (sums / ((bottom - top)[:, None] * (right - left))).float()


def _place(values: Tensor, lowest: float, bins: int) -> Tensor:
    """Bin of each value; bins are spaced evenly in the logarithm from ``lowest`` to 1."""
    return ((1 - values.clamp(lowest, 1).log() / np.log(lowest)) * bins).long().clamp(max=bins - 1)


def _quantile(histogram: Tensor, share: float, lowest: float) -> float:
    """Quantile ``share`` of the values of a ``histogram`` with the bins of :func:`_place`."""
    place = torch.searchsorted(histogram.cumsum(0), share * histogram.sum())
    return float(lowest ** (1 - (float(place) + 0.5) / len(histogram)))
