"""Sources of footage behind one interface.

Each format is one module of its name, with two functions:

``prepare(config, raw, say)``
    brings the footage, as delivered, into the folder ``raw`` (generate, download or copy); does nothing when it is
    already there and whole; can be killed and called again.
``clips(config, raw)``
    lists what ``raw`` holds as :class:`Clip` objects, without decoding anything.

and a configuration class under ``@register_format``, a :class:`vadcore.datasets.config.Stored` or ``Footage``: in the
module or, for those that come with the project, in ``config.py``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np

from vadcore.datasets.config import Footage, config_of, list_formats
from vadcore.errors import VadError

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
        :class:`vadcore.errors.VadError` on unreadable, truncated or empty footage and on a changing picture size.
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


def format_module(name: str) -> ModuleType:
    """The module that implements the format ``name``."""
    return importlib.import_module(f"{__name__}.{name}")


def dataset_config(section: dict | Footage) -> Footage:
    """The validated ``dataset.<name>`` section. VadError where its format is missing or unknown."""
    if isinstance(section, Footage):
        return section
    name = section.get("format")
    if config_of(name) is None and name in (module.name for module in pkgutil.iter_modules(__path__)):
        format_module(name)  # registers its configuration
    config = config_of(name)
    if config is None:
        known = ", ".join(list_formats())
        raise VadError(
            f"format: missing; add one of {known}" if name is None else f"format: {name!r} is none of {known}"
        )
    return config(**section)


def prepare(config, raw: Path, say: Callable[[str], None] = print) -> None:
    """Bring the footage of ``config`` into the folder ``raw``. See the module's docstring."""
    format_module(config.format).prepare(config, Path(raw), say)


def clips(config, raw: Path) -> list[Clip]:
    """What ``raw`` holds, train before test, each split sorted by name."""
    found = format_module(config.format).clips(config, Path(raw))
    return sorted(found, key=lambda clip: (clip.split != "train", clip.name))
