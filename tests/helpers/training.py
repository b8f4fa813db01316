"""Short trainings of a small model."""

from pathlib import Path

import torch
from torch import nn

from tests.helpers.footage import make_store
from vadcore.data.loader import ClipLoader
from vadcore.data.windows import Segment
from vadcore.models import create_model
from vadcore.models.base import Model
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.training.trainer import Callback, Trained, TrainSettings, train

SETTINGS = TrainSettings(seed=5, check_every=4, val_windows=6, log_every=3, save_seconds=1e9)
ALWAYS = -1.0  # as ``save_seconds``: a checkpoint after every iteration

Split = tuple[ClipLoader, ClipLoader]


class Killed(BaseException):
    """Simulates SIGKILL: no handler catches it."""


def make_split(folder: Path) -> Split:
    """Training and held-out footage."""
    store = make_store(folder, test=0)
    whole = [Segment(clip, 0, store.length(clip)) for clip in store.clips("train")]
    return ClipLoader(store, whole[:2]), ClipLoader(store, whole[2:])


def small(iterations: int = 10, **changes) -> Model:
    """A small model, always with the same weights."""
    torch.manual_seed(0)
    section = {
        "subtract_mean": False,
        "image_size": (24, 32),
        "frames": 4,
        "conv": (8, 8),
        "lstm": (8,),
        "batch_size": 4,
        "learning_rate": 1e-3,
    }
    return create_model("convlstm_ae", {**section, "iterations": iterations, **changes})


def run(model: Model, split: Split, folder: Path, settings: TrainSettings = SETTINGS, **watching) -> Trained:
    """Train ``model``; ``watching`` are fields of the callback."""
    callback = Callback(**{"say": lambda text: None, **watching})
    return train(model, *split, settings, CheckpointFolder(folder, "train-x"), callback)


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models have the same weights."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
