"""What a stage is given to work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.tracking import StageRun

if TYPE_CHECKING:
    from vadcore.config import Params


@dataclass(frozen=True)
class Stage:
    """What a stage is asked to do. ``dataset``, ``model`` and ``flownet`` are empty where the stage has none; ``quiet``: it
    works beside the process that speaks."""

    params: Params
    run: StageRun
    dataset: str = ""
    model: str = ""
    flownet: str = ""
    quiet: bool = False

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        if not self.quiet:
            print(text, flush=True)
