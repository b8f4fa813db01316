"""Write files of benchmarks/results in their common format: {"run": how they were made, "rows": measurements}.

If the rows come from several runs, the format is {"runs": [...], "rows": [...]}, and ``run`` of each row is the index
of its run, starting at 0.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from vadcore.utils.provenance import run_facts


def write_result(path: Path, rows: list[dict], profile: str | None, command: str | None = None) -> None:
    """Write ``rows`` with the facts of this run. ``command`` defaults to the command line of this process."""
    if command is None:
        program = "python -m benchmarks." + Path(sys.argv[0]).stem
        command = shlex.join([*program.split(), *sys.argv[1:]])
        if data_dir := os.environ.get("VAD_DATA_DIR"):
            command = command.replace(data_dir.rstrip("/") + "/", "$VAD_DATA_DIR/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"run": run_facts(command, profile), "rows": rows}, indent=1) + "\n")
    print(f"written: {path}")


def joined(parts: list[tuple[dict, list[dict]]]) -> dict:
    """Combine runs with their rows into the file format, the inverse of :func:`vadcore.report.kept.read_kept`.

    Runs without rows are left out.
    """
    parts = [(run, rows) for run, rows in parts if rows]
    if len(parts) == 1:
        return dict(zip(("run", "rows"), parts[0], strict=True))
    rows = [{"run": number, **row} for number, (_, of_run) in enumerate(parts) for row in of_run]
    return {"runs": [run for run, _ in parts], "rows": rows}
