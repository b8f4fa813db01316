"""Paths of real data, for tests that use it if it exists."""

import os
from pathlib import Path

import pytest

from tests.helpers.project import ROOT


def data_dir(*parts: str) -> Path:
    """A path below ``$VAD_DATA_DIR`` (default: ``../shared/data``). Skips the test if the path does not exist."""
    fallback = ROOT.parent / "shared" / "data"
    root = Path(os.environ.get("VAD_DATA_DIR", fallback))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no real data at {path}; set VAD_DATA_DIR to a folder that holds {'/'.join(parts)}")
    return path
