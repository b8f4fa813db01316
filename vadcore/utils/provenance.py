"""Record the provenance of a result: hardware, package versions, git commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

PACKAGES = ("torch", "numpy", "zarr", "numcodecs", "opencv-python", "dvc", "mlflow", "prefect", "scikit-learn")
# Files that are written by a run or when results are stored. They do not count as changes to the code.
RESULTS = ("dvc.lock", "params.yaml", "README.md", "docs/results.md", "benchmarks/results")


def processor() -> str:
    """Name of the processor, number of cores that this process may use, and bfloat16 extensions."""
    name = platform.processor() or platform.machine()
    flags: set[str] = set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
                break
    extras = [label for flag, label in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX512-BF16")) if flag in flags]
    return f"{name}, {cores()} cores" + (f", {'+'.join(extras)}" if extras else "")


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> str:
    """Description of the processor, and of the GPU if torch can use one."""
    import torch

    gpu = f"; {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else ""
    return processor() + gpu


def versions() -> dict[str, str]:
    """Installed versions of Python and the packages that can affect results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the git commit of the working directory, or None outside a repository.

    ``+changes`` is appended if there are changes to tracked files that can affect results.
    """

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(("git", *words), capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    if not head:
        return None
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *(f":!{path}" for path in RESULTS))
    return head + ("+changes" if changed else "")


def run_facts(command: str, profile: str | None) -> dict:
    """Return the ``run`` section of a result file."""
    return {
        "command": command,
        "profile": profile,
        "commit": commit(),
        "hardware": hardware(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
