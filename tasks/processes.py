"""Training on several processes: the stage starts itself again under ``accelerate launch``, a process for each.

The first one logs and writes; the others only train. Gradients are averaged, so that N processes see a batch as one would.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from vadcore.utils.provenance import cores


def rank() -> int:
    """The number of this process among those that train together; 0 for one alone."""
    return int(os.environ.get("RANK", "0"))


def together() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Whether a launcher has started this process."""
    return "RANK" in os.environ


def launch(count: int, words: Sequence[str]) -> NoReturn:
    """Take this process's place with ``count`` processes of ``python -m tasks <words>``, on the GPUs or else the cores."""
    options = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    # --multi_gpu is the launcher's word for several processes, with or without a GPU
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        str(count),
        *options,
    ]
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    os.execv(sys.executable, [*command, "--module", "tasks", *words])
