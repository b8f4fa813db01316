"""Names of fusions, and the folders of systems and of fusions below models/ and scores/."""

from __future__ import annotations

from pathlib import Path

FUSION = "fusion"  # the system that `model.fusion` and its variants, `model.fusion-<variant>`, configure
FUSED = "fused"  # its score among its measures; also the folder of fusions below models/ and scores/


def is_fusion(name: str) -> bool:
    """Whether ``model.<name>`` configures a fusion."""
    return name.partition("-")[0] == FUSION


def folder_of(root: Path, dataset: str, name: str) -> Path:
    """The folder below ``root`` (models/ or scores/) of what is trained or fused as ``name`` on a data set. Those of fusions
    are apart, because the stage that makes them depends on all else of the data set."""
    return (root / FUSED if is_fusion(name) else root) / dataset / name
