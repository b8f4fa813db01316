"""Where real footage lies on this machine, for tests that can use it."""

import os
from pathlib import Path

import pytest

from tests.helpers.project import ROOT


def data_dir(*parts: str) -> Path:
    """The path of real data below ``$VAD_DATA_DIR`` (else ``../shared/data``); skips the test where it is absent."""
    fallback = ROOT.parent / "shared" / "data"
    root = Path(os.environ.get("VAD_DATA_DIR", fallback))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no real data at {path}; set VAD_DATA_DIR to a folder that holds {'/'.join(parts)}")
    return path
