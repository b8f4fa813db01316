"""Model interface: what the trainer and the scorer need from every model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

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
    from vadcore.models.components.mean_image import MeanImage


MapScore = Literal["map_box", "map_moving_box"]  # computed from the error maps, vadcore/evaluation/box_scores.py


class ModelConfig(Section):
    """Configuration keys common to all ``model.<name>`` sections. Each model adds its own."""

    needs_flow: ClassVar[bool] = False
    # keys that affect only scoring: changing one does not cause retraining
    scoring_keys: ClassVar[tuple[str, ...]] = ("score",)

    image_size: Size | None = None  # [height, width] of the model's input; null: the size of the stored frames
    color: Literal["grey", "rgb"] = "grey"
    seed: NonNegativeInt | None = None  # random seed; null: the seed of params.yaml
    if TYPE_CHECKING:  # not a field: a model with a single measure has no such key
        score: str

    @property
    def files(self) -> tuple[str, ...]:
        """Files besides the footage that training reads. Training runs again when their content changes."""
        return ()

    @property
    def flow_made_by(self) -> dict:
        """``optical_flow`` settings that stored flow should have, for a model that also computes flow itself."""
        return {}

    @property
    def trained_first(self) -> Section | None:
        """Section of the submodel that is trained first, or None. Variants with equal sections share that submodel."""
        return None

    @property
    def facts(self) -> dict[str, str | int | float]:
        """Properties that distinguish this variant of the model, shown with its results."""
        return {}

    @property
    def channels(self) -> int:
        return 1 if self.color == "grey" else 3

    @model_validator(mode="after")
    def _windows_leave_no_gap(self):
        """Check that consecutive scoring windows cover all frames, for models that score every frame of a window."""
        step, frames = getattr(self, "step", 1), getattr(self, "frames", 1)
        if step > frames:
            raise ValueError(
                f"step {step}: windows of {frames} frames would leave frames without a score; at most {frames}"
            )
        return self


class FixedSizeConfig(ModelConfig):
    """Configuration of models whose input has a fixed size."""

    image_size: Size


class OnePhaseConfig(FixedSizeConfig):
    """Configuration of models that are trained in one phase. Subclasses define these keys with their own defaults."""

    if TYPE_CHECKING:  # no fields here: every section has its own order of keys
        batch_size: int
        iterations: int
        learning_rate: float
        weight_decay: float


class AutoencoderConfig(OnePhaseConfig):
    """Configuration keys of autoencoders that reconstruct frames."""

    # data augmentation for few clips: shift each training window by up to this many pixels, all its frames alike
    shift: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _shift_fits(self):
        most = min(self.image_size) - 1
        if self.shift > most:
            raise ValueError(f"shift {self.shift}: at most {most}, within image_size {list(self.image_size)}")
        return self


def check_sides(size: Size, multiple: int) -> None:
    """Raise ValueError, naming the nearest valid size, unless both sides are multiples of ``multiple``. For validators."""
    if any(side % multiple for side in size):
        near = [max(multiple, round(side / multiple) * multiple) for side in size]
        raise ValueError(f"image_size {list(size)}: sides must be multiples of {multiple}, such as {near}")


def stored_flow(batch: Batch) -> Tensor:
    """Flow of the windows, ``[B, T-1, 2, H, W]``. Raises ValueError if they were loaded without it."""
    if batch.flow is None:
        raise ValueError("these windows have no flow; load them with the store of the flow")
    return batch.flow


@dataclass
class Prediction:
    """Anomaly scores and maps of a batch, for the ``J`` frames of each window that ``Windows.judged`` names.

    measures: name -> float ``[B, J]``, higher = more anomalous. NaN: this window gives no score for that frame.
    maps: anomaly maps, float ``[B, J, h, w]`` at any resolution, higher = more anomalous.
    reconstruction: function that returns the reconstructed or predicted frames, ``[B, J, C, H, W]`` in 0..1, for pictures.
    None: the model makes none.
    target: function that returns what ``reconstruction`` should equal, in the same format. None: the judged frames.
    """

    measures: dict[str, Tensor]
    maps: Tensor
    reconstruction: Callable[[], Tensor] | None = None
    target: Callable[[], Tensor] | None = None


BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


class WindowSource(Protocol[BatchT_co]):
    """Source of training windows, as batches of one class."""

    lengths: list[int]
    device: torch.device

    def batches(self, plan: Iterable[np.ndarray], length: int) -> Iterator[BatchT_co]: ...


Update = Callable[[str, Tensor], None]  # passed to Phase.step: one step of the named optimizer on a loss


def step_of(losses: Callable[[BatchT], Tensor | dict[str, Tensor]]) -> Callable[[BatchT, Update], dict[str, Tensor]]:
    """Return the training step of a phase with one optimizer, which is named ``optimizer``.

    losses: returns the loss of a batch, or a dict of scalars to log whose first one, ``loss``, is the loss.
    """

    def step(batch: BatchT, update: Update) -> dict[str, Tensor]:
        found = losses(batch)
        named = {"loss": found} if isinstance(found, Tensor) else found
        update("optimizer", named["loss"])
        return {name: value.detach() for name, value in named.items()}

    return step


@dataclass
class Phase(Generic[BatchT]):
    """One training phase: its windows, optimizers and training step. A phase without optimizers gathers statistics.

    ``step(batch, update)`` computes the losses, calls ``update(name, loss)`` once per optimizer, in any order (a GAN calls
    it twice), and returns scalar tensors to log, ``loss`` first.
    ``val(batch)`` is the validation loss on held-out normal clips. The weights with the lowest loss are kept; with None, the
    last weights.
    ``begin()`` runs when the phase starts, for example to freeze layers. When training resumes in the middle of the phase,
    it runs again before the saved weights are loaded.
    ``source(footage, dtype)`` is called at the start of the phase and returns the source of its windows, for example
    encoded footage. None: the footage itself. Its first argument has the class of the footage in training.
    ``predict_step`` makes the sample pictures from the phase's windows. None: the ``predict_step`` of the model.
    ``picture(batch)`` replaces these pictures: it draws windows of the phase's source, uint8 RGB ``[H, W, 3]``.
    """

    name: str
    iterations: int
    windows: Windows
    batch_size: int
    step: Callable[[BatchT, Update], dict[str, Tensor]]
    optimizers: Mapping[str, torch.optim.Optimizer] = field(default_factory=dict)
    schedulers: Mapping[str, torch.optim.lr_scheduler.LRScheduler] = field(default_factory=dict)
    clip_norm: Mapping[str, float] = field(default_factory=dict)
    val: Callable[[BatchT], Tensor] | None = None
    begin: Callable[[], None] = lambda: None
    sampling: Literal["windows", "clips"] = "windows"
    source: Callable[[Any, torch.dtype], WindowSource[BatchT]] | None = None
    predict_step: Callable[[Batch], Prediction] | None = None
    picture: Callable[[BatchT], np.ndarray] | None = None


class Learner(nn.Module, ABC):
    """What the trainer needs: :attr:`windows` (for scoring), :meth:`phases` and :meth:`predict_step`."""

    windows: Windows

    @property
    def trained(self) -> bool:
        """Whether the model is trained with an optimizer. False for a baseline without training."""
        return any(phase.optimizers for phase in self.phases())

    @property
    def trained_first(self) -> Learner | None:
        """Submodel that is trained first, as a model of its own, and then frozen. None: no submodel."""
        return None

    def phases(self) -> list[Phase[Any]]:
        """Training phases in order. Empty for a baseline without training."""
        return []

    @abstractmethod
    def predict_step(self, batch: Batch) -> Prediction:
        """Score the frames ``windows.judged`` of each window. Called in evaluation mode without gradients."""


class Model(Learner):
    """Base class of all models that are named in params.yaml. Subclasses annotate ``config`` with their section."""

    config: ModelConfig

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config

    @property
    def score(self) -> str:
        """Name of the measure that is the anomaly score: the key ``score`` of the configuration."""
        return self.config.score


class OnePhaseModel(Model):
    """Base class of models that are trained in one phase with one optimizer. Subclasses implement :meth:`loss`."""

    config: OnePhaseConfig
    sampling: Literal["windows", "clips"] = "windows"

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.parameters(), self.config.learning_rate, weight_decay=self.config.weight_decay, fused=True
        )

    def phases(self) -> list[Phase[Any]]:
        learn = Phase(
            "autoencoder",
            self.config.iterations,
            self.windows,
            self.config.batch_size,
            step_of(self.loss),
            optimizers={"optimizer": self.optimizer()},
            val=self.loss,
            sampling=self.sampling,
        )
        return [*self.statistics(), learn]

    def statistics(self) -> list[Phase[Any]]:
        """Phases that gather statistics of the footage before training."""
        return []

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Training and validation loss of a batch, a scalar."""


class Autoencoder(OnePhaseModel):
    """Base class of autoencoders: reconstruct windows, with the reconstruction error as anomaly score.

    Subclasses set :attr:`windows`, :attr:`score` and :attr:`mean_image`. They implement ``forward``: ``[B, T, C, H, W]`` in
    -1..1 to a reconstruction of the same shape and range, float32.
    """

    config: AutoencoderConfig
    mean_image: MeanImage

    def statistics(self) -> list[Phase[Any]]:
        return self.mean_image.phases()

    def as_seen(self, batch: Batch) -> Tensor:
        """Network input ``[B, T, C, H, W]`` in -1..1: centred windows, randomly shifted in training."""
        x = self.mean_image.centre(batch.frames)
        return shift_windows(x, self.config.shift) if self.training else x

    def loss(self, batch: Batch) -> Tensor:
        """Mean squared reconstruction error, in units of the network input."""
        x = self.as_seen(batch)
        return F.mse_loss(self(x), x)

    def measures(self, rebuilt: Tensor, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Measures of each frame, ``[B, T]`` each, and error maps; see :func:`frame_errors`."""
        return frame_errors(rebuilt, x, span=self.mean_image.span)

    def predict_step(self, batch: Batch) -> Prediction:
        x = self.as_seen(batch)
        rebuilt = self(x)
        return Prediction(*self.measures(rebuilt, x), lambda: self.mean_image.uncentre(rebuilt).clamp(0, 1))
