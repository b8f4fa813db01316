"""The one form of a file in benchmarks/results: {"run": where it comes from, "rows": what was measured}."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from vadcore.provenance import run_facts


def write_result(path: Path, rows: list[dict], profile: str | None, command: str | None = None) -> None:
    """Write ``rows`` with the facts of this run; ``command`` defaults to the command line of this process."""
    if command is None:
        program = "python -m benchmarks." + Path(sys.argv[0]).stem
        command = shlex.join([*program.split(), *sys.argv[1:]])
        if data_dir := os.environ.get("VAD_DATA_DIR"):
            command = command.replace(data_dir.rstrip("/") + "/", "$VAD_DATA_DIR/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run": run_facts(command, profile), "rows": rows}, indent=1) + "\n")
    print(f"written: {path}")
