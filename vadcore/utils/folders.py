"""Names of fusions, and folders of models and fusions below models/ and scores/."""

from __future__ import annotations

from pathlib import Path

FUSION = "fusion"  # name of a fusion in params.yaml: `fusion.fusion` or a variant `fusion.fusion-<variant>`
FUSED = "fused"  # name of the fused score, and folder of fusions below models/ and scores/


def is_fusion(name: str) -> bool:
    """Whether ``name`` is that of a fusion."""
    return name.partition("-")[0] == FUSION


def folder_of(root: Path, dataset: str, name: str) -> Path:
    """Return the folder of model or fusion ``name`` on a data set, below ``root`` (models/ or scores/).

    Fusions have a separate folder, because their stage depends on the results of all models on the data set.
    """
    return (root / FUSED if is_fusion(name) else root) / dataset / name
