"""Reports for the tests that only read them."""

import pytest

from tests.helpers.report_data import MODELS, build, write_system, write_systems


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """The folder with ``scores``, ``models`` and, where ``page`` is used, ``reports``."""
    return write_systems(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def page(results):
    return build(results)


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory):
    """A folder with the report of footage without labels."""
    root = tmp_path_factory.mktemp("unlabelled")
    for model in MODELS:
        write_system(root, "yard", model, labelled=False)
    build(root, ["yard"])
    return root


@pytest.fixture(scope="session")
def unlabelled_page(unlabelled):
    return (unlabelled / "reports" / "index.html").read_text(encoding="utf-8")
