"""Checkpoints: save the training state, so that an interrupted training resumes with the same result."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from vadcore.utils.errors import VadError
from vadcore.utils.files import complete


class CheckpointFolder:
    """Folder of the checkpoint of one training, ``root/<key>/state.pt``.

    ``key`` is ``<name>-<digest>``, with a digest of everything that determines the result (configuration, data, code).
    States with the same name and another digest are stale: they are deleted here and never loaded.
    """

    def __init__(self, root: Path | str, key: str):
        self.folder = Path(root) / key
        self.file = self.folder / "state.pt"
        if Path(root).is_dir():
            for other in Path(root).iterdir():
                if other.is_dir() and other.name.split("-")[0] == key.split("-")[0] and other.name != key:
                    shutil.rmtree(other)
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` atomically: the previous one remains until the new one is complete."""
        with complete(self.file) as temporary:
            torch.save(state, temporary)

    def load(self) -> dict[str, Any] | None:
        """Load the last state, tensors on the CPU; None if there is none. Raises :class:`VadError` if it is unreadable."""
        if not self.file.exists():
            return None
        try:
            return torch.load(self.file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can raise any exception
            raise VadError(f"{self.file}: not a readable checkpoint; delete it to train from the start") from error


def random_state() -> dict[str, torch.Tensor]:
    """State of torch's random generators, CPU and, if available, CUDA."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    """Restore a state from :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
