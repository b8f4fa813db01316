"""The :class:`Clip` type and the base classes of all data set configurations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

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
    name: name of the clip in every store and table, unique within its split. Only letters, digits and ``-_.``.
    source: the video file or the folder of image files.
    fps: frame rate of the original footage, frames per second. None: the video file states it.
    frames: function that returns an iterable over the frames in order, uint8 ``[H, W]`` (grey) or ``[H, W, 3]`` (RGB):
        a :class:`vadcore.data.video.VideoReader` if frames have times or can be missing. Iteration raises
        :class:`vadcore.utils.errors.VadError` if the footage is unreadable, truncated or empty, or its picture size
        changes.
    labels: function that reads the frame labels, uint8 ``[T]``, 1 = abnormal, with those of missing frames. None: the
        clip is unlabelled.
    masks: function that reads the pixel masks of anomalies, uint8 0/1 ``[T, H, W]``. None: no masks exist.
    files: all files of the footage (default: ``source``). Their bytes identify the clip.
    group: common name of clips with the same content, such as recordings of one performer. All clips of a group go to
        training or all go to validation. None: the clip has no group.
    """

    split: Split
    name: str
    source: Path
    fps: float | None
    frames: Callable[[], Iterable[np.ndarray]]
    labels: Callable[[], np.ndarray] | None = None
    masks: Callable[[], np.ndarray] | None = None
    files: tuple[Path, ...] = field(default=())
    group: str | None = None


_FORMATS: dict[str, type[DatasetConfig]] = {}


def register_format(config: type[DatasetConfig]) -> type[DatasetConfig]:
    """Class decorator: register ``config`` as the configuration class of the format in its field ``format``."""
    (name,) = get_args(config.model_fields["format"].annotation)
    if name in _FORMATS:
        raise ValueError(f"two formats are called {name!r}")
    _FORMATS[name] = config
    return config


def list_formats() -> list[str]:
    """List the names of the formats whose modules are imported."""
    return list(_FORMATS)


def config_of(format: str) -> type[DatasetConfig] | None:
    """Return the configuration class of a format, or None if it is not registered."""
    return _FORMATS.get(format)


class DatasetConfig(Section):
    """Extraction settings common to all data sets."""

    if TYPE_CHECKING:  # every format has its own Literal
        format: str

    size: Size | None = None  # [height, width] to resize frames to, pixels; null: original size
    color: Literal["grey", "rgb"] = "grey"
    fps: PositiveFloat | None = None  # frame rate to reduce the footage to, frames per second; null: keep all frames

    @property
    def truth(self) -> str:
        """Name of the label set used for evaluation. It is printed in every result table."""
        return "as delivered"


class StoredConfig(DatasetConfig):
    """Footage that is stored on this machine or can be downloaded."""

    source: str  # folder or archive (absolute path, or relative to $VAD_DATA_DIR or the project), or "download"


class NotThere(VadError):
    """The source of a data set does not exist."""


def locate(source: str) -> Path:
    """Resolve ``source``: an absolute path, or relative to ``$VAD_DATA_DIR``, or relative to the working directory.

    Raises :class:`NotThere` if it does not exist.
    """
    path = Path(source).expanduser()
    data_dir = os.environ.get("VAD_DATA_DIR")
    candidates = [path] if path.is_absolute() or not data_dir else [Path(data_dir).expanduser() / path, path]
    for candidate in candidates:
        if candidate.exists():
            return candidate.resolve()
    tried = " or ".join(str(candidate) for candidate in candidates)
    hint = "" if data_dir else " (VAD_DATA_DIR, the folder of data sets at hand, is not set)"
    raise NotThere(f"source {source}: not found at {tried}{hint}; correct dataset.*.source in params.yaml")
