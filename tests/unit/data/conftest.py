"""Shared fixtures of the dataset tests."""

import gzip
from pathlib import Path

import pytest

from tests.helpers.mnist import TEST, TRAIN, glyphs, idx


@pytest.fixture
def mnist_source(tmp_path) -> Path:
    """A folder with both files of MNIST: 20 training digits of brightness 1 to 20, 10 test digits of 101 to 110."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / TRAIN).write_bytes(idx(glyphs(20)))
    (folder / f"{TEST}.gz").write_bytes(gzip.compress(idx(glyphs(10, first=101)), mtime=0))
    return folder
