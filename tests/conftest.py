"""Shared by all tests: environment, order, skipped GPU tests, and the project of one `dvc repro`."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest

# one thread per test process: sums in the same order everywhere, and no threads that wait for one another
os.environ["OMP_NUM_THREADS"] = "1"

# a test run in the background ignores Ctrl-C, and the processes that tests interrupt would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent


def pytest_configure(config):
    if importlib.util.find_spec("tests.helpers.browser"):
        config.pluginmanager.import_plugin("tests.helpers.browser")  # reports a missing browser at the end


def pytest_collection_modifyitems(items):
    """Put long groups first, and skip tests marked ``gpu`` where torch sees no CUDA device."""
    users = {item.path for item in items if "pipeline_project" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: _rank(item, users))  # a stable sort
    gpu_tests = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_tests:
        return  # torch takes long to import
    import torch

    if not torch.cuda.is_available():
        for item in gpu_tests:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device here"))


def _rank(item: pytest.Item, users: set[Path]) -> int:
    """The group that makes ``pipeline_project`` runs first; other tests that use it run later."""
    kind = item.path.relative_to(TESTS).parts[0]
    group = item.get_closest_marker("xdist_group")
    if group and "pipeline" in (*group.args, *group.kwargs.values()):
        return 0
    if item.path in users:
        return 3
    return {"e2e": 1, "integration": 2}.get(kind, 4)


@pytest.fixture(scope="session")
def pipeline_project(tmp_path_factory):
    """A :class:`~tests.helpers.project.Project` after `dvc repro` with ``PARAMS``, including MLflow runs.

    All tests and all workers share its folder. A test that changes files works in a ``copy``.
    """
    from tests.helpers.project import pipeline_in

    base = tmp_path_factory.getbasetemp()
    return pipeline_in((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pipeline")
