"""What a system has to say about itself, so that one trainer and one scorer can run all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, model_validator
from torch import Tensor, nn

from vadcore.data.windows import Batch, Windows
from vadcore.models.components.augment import shift_windows
from vadcore.models.components.error_maps import frame_errors
from vadcore.utils.schema import Section, Size

if TYPE_CHECKING:
    from vadcore.data.loader import ClipLoader
    from vadcore.models.components.mean_image import MeanImage


class ModelConfig(Section):
    """Keys that every ``model.<name>`` section has; each system adds its own."""

    needs_flow: ClassVar[bool] = False
    # keys that do not touch training: changing one retrains nothing
    scoring_keys: ClassVar[tuple[str, ...]] = ("score",)

    image_size: Size | None = None  # [height, width] the model works at; null: the stored frames' own
    color: Literal["grey", "rgb"] = "grey"
    seed: NonNegativeInt | None = None  # null: the seed of params.yaml

    @property
    def files(self) -> tuple[str, ...]:
        """Files besides the footage that training reads; their content decides its result."""
        return ()

    @property
    def flow_made_by(self) -> dict:
        """Settings of ``optical_flow`` that stored flow should be made with, for a system that computes flow itself."""
        return {}

    @property
    def trained_first(self) -> Section | None:
        """The section of what is trained before the system, and is the same for all variants that have the same section."""
        return None

    @property
    def facts(self) -> dict[str, str | int | float]:
        """What tells a variant of the system from another, for the line of results."""
        return {}

    @property
    def channels(self) -> int:
        return 1 if self.color == "grey" else 3

    @model_validator(mode="after")
    def _windows_leave_no_gap(self):
        """Of systems that judge every frame of a window."""
        step, frames = getattr(self, "step", 1), getattr(self, "frames", 1)
        if step > frames:
            raise ValueError(
                f"step {step}: windows of {frames} frames would leave frames without a score; at most {frames}"
            )
        return self


class AutoencoderConfig(ModelConfig):
    """Keys of the systems that rebuild frames."""

    image_size: Size
    # each training window is moved by up to so many pixels, its frames alike: more to learn from than few clips show
    shift: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _shift_fits(self):
        most = min(self.image_size) - 1
        if self.shift > most:
            raise ValueError(f"shift {self.shift}: at most {most}, within image_size {list(self.image_size)}")
        return self


def check_sides(size: Size, multiple: int) -> None:
    """For validators: ValueError with the nearest size that would do, unless both sides are multiples of ``multiple``."""
    if any(side % multiple for side in size):
        near = [max(multiple, round(side / multiple) * multiple) for side in size]
        raise ValueError(f"image_size {list(size)}: sides must be multiples of {multiple}, such as {near}")


@dataclass
class Prediction:
    """A system's verdict on a batch; ``J`` frames of each window are judged (``Windows.judged`` says which).

    measures: name -> float ``[B, J]``, higher = more anomalous; NaN where this window says nothing of that frame.
    maps: float ``[B, J, h, w]``, where in the frame, higher = more anomalous, at any resolution.
    shown: makes what a person compares the input with (a reconstruction or prediction), ``[B, J, C, H, W]`` in 0..1; None
    where there is nothing to see. Scoring never asks for it.
    shown_of: makes what that is to be compared with, alike, where it is not the judged frames but something else.
    """

    measures: dict[str, Tensor]
    maps: Tensor
    shown: Callable[[], Tensor] | None = None
    shown_of: Callable[[], Tensor] | None = None


class WindowSource(Protocol):
    """What a training reads windows from: :class:`~vadcore.data.loader.ClipLoader`, or what stands in its place."""

    lengths: list[int]
    device: torch.device

    def batches(self, plan: Iterable[np.ndarray], length: int) -> Iterator[Any]: ...


class Update(Protocol):
    """Given to :attr:`Phase.step`: one optimizer step down a loss."""

    def __call__(self, optimizer: str, loss: Tensor) -> None: ...


@dataclass
class Phase:
    """One leg of a training: its windows, its optimizers, its step.

    ``step(batch, update)`` computes losses, calls ``update(name, loss)`` once for each optimizer that shall move (in the
    order it wants: a GAN calls it twice) and returns scalar tensors to log, ``loss`` first. ``val(batch)`` is what
    selection minimises on held-out normal clips; None keeps the last weights. A phase without optimizers gathers
    statistics. ``begin()`` runs when the phase starts (freeze a part, say), and again, before the saved weights are
    loaded, when a resumed process goes on in the middle of it.

    ``source(footage, dtype)`` makes what the windows are read from instead of the footage, at the phase's start (footage
    that has been encoded once, say). ``predict_step`` makes the phase's pictures, of its own windows; None: the system's.
    ``picture(batch)`` draws windows of the phase's source instead, uint8 RGB ``[H, W, 3]``.
    """

    name: str
    iterations: int
    windows: Windows
    batch_size: int
    step: Callable[[Batch, Update], dict[str, Tensor]]
    optimizers: dict[str, torch.optim.Optimizer] = field(default_factory=dict)
    schedulers: dict[str, torch.optim.lr_scheduler.LRScheduler] = field(default_factory=dict)
    clip_norm: dict[str, float] = field(default_factory=dict)
    val: Callable[[Batch], Tensor] | None = None
    begin: Callable[[], None] = lambda: None
    sampling: Literal["windows", "clips"] = "windows"
    source: Callable[[ClipLoader, torch.dtype], WindowSource] | None = None
    predict_step: Callable[[Batch], Prediction] | None = None
    picture: Callable[[Any], np.ndarray] | None = None


class Model(nn.Module, ABC):
    """A system. Subclasses set :attr:`windows` (what scoring reads) and write :meth:`phases` and :meth:`predict_step`."""

    windows: Windows
    score: str  # the measure that is the system's score unless its configuration says otherwise

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config

    @property
    def trained(self) -> bool:
        """Whether there is anything to learn (False: an untrained baseline)."""
        return any(phase.optimizers for phase in self.phases())

    @property
    def trained_first(self) -> Model | None:
        """A part of the system that is trained before it, as a system of its own, and then frozen."""
        return None

    def phases(self) -> list[Phase]:
        """The legs of the training, in order; none for a baseline."""
        return []

    @abstractmethod
    def predict_step(self, batch: Batch) -> Prediction:
        """Judge the frames ``windows.judged`` of each window. Called without gradients, in evaluation mode."""


class Autoencoder(Model):
    """A system that rebuilds its windows, trained in one phase by one optimizer; its score is the error of what it rebuilds.

    Subclasses set :attr:`windows`, :attr:`score` and :attr:`mean_image` (or write anew what uses it), have ``batch_size``,
    ``iterations``, ``learning_rate`` and ``weight_decay`` in their configuration, and write ``forward``: ``[B, T, C, H, W]``
    in -1..1 to the same, float32.
    """

    mean_image: MeanImage
    sampling: Literal["windows", "clips"] = "windows"

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.parameters(), self.config.learning_rate, weight_decay=self.config.weight_decay, fused=True
        )

    def phases(self) -> list[Phase]:
        learn = Phase(
            "autoencoder",
            self.config.iterations,
            self.windows,
            self.config.batch_size,
            self._step,
            optimizers={"optimizer": self.optimizer()},
            val=self.loss,
            sampling=self.sampling,
        )
        return [*self.statistics(), learn]

    def statistics(self) -> list[Phase]:
        """What has to be gathered from the footage before the training."""
        return self.mean_image.phases()

    def as_seen(self, batch: Batch) -> Tensor:
        """The windows as the network sees them, ``[B, T, C, H, W]`` in -1..1: centred, and in training moved about."""
        x = self.mean_image.centre(batch.frames)
        return shift_windows(x, self.config.shift) if self.training else x

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared error of the rebuilt windows, in the units of what the network sees."""
        x = self.as_seen(batch)
        return F.mse_loss(self(x), x)

    def _step(self, batch: Batch, update: Update) -> dict[str, Tensor]:
        loss = self.loss(batch)
        update("optimizer", loss)
        return {"loss": loss.detach()}

    def measures(self, rebuilt: Tensor, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """What is measured of rebuilt windows, ``[B, T]`` each, and where the errors are; see :func:`frame_errors`."""
        return frame_errors(rebuilt, x, span=self.mean_image.span)

    def predict_step(self, batch: Batch) -> Prediction:
        x = self.as_seen(batch)
        rebuilt = self(x)
        return Prediction(*self.measures(rebuilt, x), lambda: self.mean_image.uncentre(rebuilt).clamp(0, 1))
