"""The input of a stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.tracking import StageRun

if TYPE_CHECKING:
    from vadcore.config import Params


@dataclass(frozen=True)
class Stage:
    """The input of a stage.

    Attributes
    ----------
    params: the checked params.yaml.
    run: logs to MLflow.
    dataset: its name; empty if the stage has none.
    model: name of the model, fusion or FlowNet; empty if the stage has none.
    quiet: print nothing, in the further processes of a training.
    """

    params: Params
    run: StageRun
    dataset: str = ""
    model: str = ""
    quiet: bool = False

    def say(self, text: str) -> None:
        """Print a line, unless ``quiet``."""
        if not self.quiet:
            print(text, flush=True)
