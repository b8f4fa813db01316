"""Data set formats with a common interface.

Each format is a module with the format's name. It has two functions:

``prepare(config, raw, say)``
    generates, downloads or copies the original footage into the folder ``raw``. Does nothing if the footage is already
    there and complete. Can be interrupted and called again.
``clips(config, raw)``
    lists the content of ``raw`` as :class:`Clip` objects, without decoding anything.

It also has a configuration class decorated with ``@register_format``. The class derives from
:class:`vadcore.data.formats.base.DatasetConfig`, or from ``StoredConfig`` if the footage comes from a source.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from vadcore.data.formats.base import Clip, DatasetConfig, config_of, list_formats
from vadcore.utils.errors import VadError

SHIPPED = frozenset(module.name for module in pkgutil.iter_modules(__path__)) - {"base", "clip_files"}  # formats


def format_module(name: str) -> ModuleType:
    """Import and return the module of the format ``name``."""
    return importlib.import_module(f"{__name__}.{name}")


def dataset_config(section: dict | DatasetConfig) -> DatasetConfig:
    """Validate a ``dataset.<name>`` section. Raises :class:`VadError` if its format is missing or unknown."""
    if isinstance(section, DatasetConfig):
        return section
    name = section.get("format")
    if name in SHIPPED and config_of(name) is None:
        format_module(name)  # registers its configuration
    config = None if name is None else config_of(name)
    if config is None:
        known = ", ".join(sorted({*SHIPPED, *list_formats()}))
        raise VadError(
            f"format: missing; add one of {known}" if name is None else f"format: {name!r} is none of {known}"
        )
    return config(**section)


def prepare(config, raw: Path, say: Callable[[str], None] = print) -> None:
    """Bring the footage of ``config`` into the folder ``raw``. See the module docstring."""
    format_module(config.format).prepare(config, Path(raw), say)


def clips(config, raw: Path) -> list[Clip]:
    """List the clips in ``raw``: train before test, each split sorted by name.

    Raises :class:`VadError` if two clips of a split have the same name.
    """
    found = format_module(config.format).clips(config, Path(raw))
    sources: dict[tuple, Path] = {}
    for clip in found:
        other = sources.setdefault((clip.split, clip.name), clip.source)
        if other != clip.source:
            raise VadError(f"{clip.source}: has the clip name {clip.name} like {other}; rename one of them")
    return sorted(found, key=lambda clip: (clip.split != "train", clip.name))
