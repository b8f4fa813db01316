"""Training state on disk, so that a killed training continues as if it had not been stopped."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from vadcore.utils.errors import VadError
from vadcore.utils.files import complete


class CheckpointFolder:
    """``root/<key>/state.pt``: the resume state of one training.

    ``key`` is a digest of everything that decides the result (configuration, data, code): a state made under another key
    is never taken, and is deleted here.
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
        """Write ``state``; the previous one stays until the new one is whole."""
        with complete(self.file) as temporary:
            torch.save(state, temporary)

    def load(self) -> dict[str, Any] | None:
        """The last state, tensors on the CPU; None when there is none."""
        if not self.file.exists():
            return None
        try:
            return torch.load(self.file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file makes the reader raise whatever its bytes lead it to
            raise VadError(f"{self.file}: not a readable checkpoint; delete it to train from the start") from error


def random_state() -> dict[str, torch.Tensor]:
    """The state of torch's generators."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
