"""Clips, and what the configurations of all data set formats have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pydantic import PositiveFloat

from vadcore.utils.errors import VadError
from vadcore.utils.schema import Section, Size

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Clip:
    """One continuous piece of footage.

    Attributes
    ----------
    split: ``train`` (normal footage only) or ``test``.
    name: unique within its split; becomes the clip's name in every store and table. Letters, digits, ``-_.`` only.
    source: the file, or the folder of image files, that holds the pictures.
    fps: frames a second of the footage as delivered.
    frames: opens the footage and yields uint8 ``[H, W]`` (grey) or ``[H, W, 3]`` (RGB) pictures in order. Raises
        :class:`vadcore.utils.errors.VadError` on unreadable, truncated or empty footage and on a changing picture size.
    labels: reads the truth: uint8 ``[T]``, 1 = abnormal. None: nobody has labelled this clip.
    masks: reads where the anomaly is: uint8 0/1 ``[T, H, W]``. None: no masks exist.
    files: every file that the pictures come from (defaults to ``source``); their bytes identify the clip.
    group: clips that show the same thing (takes of one performer, say) share it, so that none of them is held out while
        training sees another. None: the clip is alone.
    """

    split: Split
    name: str
    source: Path
    fps: float
    frames: Callable[[], Iterator[np.ndarray]]
    labels: Callable[[], np.ndarray] | None = None
    masks: Callable[[], np.ndarray] | None = None
    files: tuple[Path, ...] = field(default=())
    group: str | None = None


_FORMATS: dict[str, type[DatasetConfig]] = {}


def register_format(config: type[DatasetConfig]) -> type[DatasetConfig]:
    """Class decorator: makes ``config`` the section of the format that its field ``format`` names."""
    (name,) = get_args(config.model_fields["format"].annotation)
    if name in _FORMATS:
        raise ValueError(f"two formats are called {name!r}")
    _FORMATS[name] = config
    return config


def list_formats() -> list[str]:
    """Names of the formats whose modules were imported."""
    return list(_FORMATS)


def config_of(format: str) -> type[DatasetConfig] | None:
    """The configuration class of a format; None where it is not known so far."""
    return _FORMATS.get(format)


class DatasetConfig(Section):
    """What every data set can be told about extraction."""

    size: Size | None = None  # null keeps the footage's own size
    color: Literal["grey", "rgb"] = "grey"
    fps: PositiveFloat | None = None  # keep only as many frames a second (null: all of them)

    @property
    def truth(self) -> str:
        """Which of the labels in circulation results are measured against; goes into every table."""
        return "as delivered"


class StoredConfig(DatasetConfig):
    """Footage that lies somewhere on this machine, or can be downloaded."""

    source: str  # a folder or archive (absolute, or relative to $VAD_DATA_DIR or to the project), or "download"


class NotThere(VadError):
    """A data set's source names nothing."""


def locate(source: str) -> Path:
    """The path that ``source`` names: absolute, or inside ``$VAD_DATA_DIR``, or inside the working folder."""
    path = Path(source).expanduser()
    data_dir = os.environ.get("VAD_DATA_DIR")
    candidates = [path] if path.is_absolute() or not data_dir else [Path(data_dir).expanduser() / path, path]
    for candidate in candidates:
        if candidate.exists():
            return candidate.resolve()
    tried = " or ".join(str(candidate) for candidate in candidates)
    hint = "" if data_dir else " (VAD_DATA_DIR, the folder of data sets at hand, is not set)"
    raise NotThere(f"source {source}: not found at {tried}{hint}; correct dataset.*.source in params.yaml")
