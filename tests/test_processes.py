"""Several training processes give the result of one, at the same global batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from footage_maker import make_store
from project import ROOT

from vadcore.models import load_model

pytestmark = pytest.mark.pipeline
SCRIPT = Path(__file__).with_name("train_in_processes.py")


def launch(processes: int, store: str, out: Path) -> torch.nn.Module:
    words = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
    words += [str(SCRIPT), store, str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{processes} processes" in done.stdout
    return load_model(out)


def test_two_processes_train_to_the_weights_of_one(tmp_path):
    """Summation order differs between the two, so the weights agree to rounding and not to the bit."""
    store = make_store(tmp_path)
    one, two = (launch(count, store.url, tmp_path / str(count)) for count in (1, 2))
    for name, expected in one.state_dict().items():
        torch.testing.assert_close(
            two.state_dict()[name], expected, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
