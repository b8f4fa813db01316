"""Train on several processes: the stage restarts itself under ``accelerate launch``, once per process.

Only the first process logs and writes. Gradients are averaged, so that N processes see a batch as one process would.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from vadcore.utils.provenance import cores


def rank() -> int:
    """Return the rank of this process among those that train together; 0 if it trains alone."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Return True if a launcher started this process."""
    return "RANK" in os.environ


def launch(count: int, words: Sequence[str]) -> NoReturn:
    """Replace this process by ``count`` processes of ``python -m tasks <words>``, on the GPUs or else the CPU cores."""
    options = ["--multi_gpu", "--num_processes", str(count)]  # several processes, with or without a GPU
    options += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    os.execv(
        sys.executable, [sys.executable, "-m", "accelerate.commands.launch", *options, "--module", "tasks", *words]
    )
