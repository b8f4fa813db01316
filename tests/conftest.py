"""What every test shares."""

import os
import signal

# one thread a test process: several processes that each use every core would mostly wait for one another
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a run started in the background ignores Ctrl-C, and would pass that on to the processes that tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """The long files first, so that no worker is left alone with one at the end. Tests marked ``gpu`` are skipped, with the
    reason, where torch sees no CUDA device."""
    items.sort(key=lambda item: item.get_closest_marker("pipeline") is None)  # a stable sort
    import pytest
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device here"))
