"""State of other processes, for tests."""

import json
from pathlib import Path


def running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def scheduler_address(file: Path) -> str | None:
    """The address in the file that a dask scheduler writes. None until the file is complete."""
    try:
        return json.loads(file.read_text())["address"]
    except (FileNotFoundError, json.JSONDecodeError):
        return None
