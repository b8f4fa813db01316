"""Copy the strips of pictures into one flat folder, for tools that show folders of pictures (``dvc plots show``)."""

from __future__ import annotations

import shutil
from pathlib import Path

from vadcore.report.load import System


def first_and_last(samples: list[Path]) -> list[Path]:
    """Return the first and last sample of every training phase."""
    phases: dict[str, list[Path]] = {}
    for path in samples:
        phases.setdefault(path.stem.rpartition("-")[0], []).append(path)
    return [path for of_phase in phases.values() for path in dict.fromkeys((of_phase[0], of_phase[-1]))]


def write_strips(folder: Path, systems: list[System]) -> None:
    """Replace ``folder`` with the strips of every system. Its previous content is removed.

    Names: ``<dataset>-<model>-check-point-<phase>-<iteration>.png`` and
    ``<dataset>-<model>-rollout-<clip>-<frame>.png``.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for system in systems:
        kinds = {
            "check-point": first_and_last(system.samples),
            "rollout": sorted(system.rollout_folder.glob("*.png")),
        }
        for kind, strips in kinds.items():
            for strip in strips:
                shutil.copy(strip, folder / f"{system.dataset}-{system.model}-{kind}-{strip.name}")
