"""The commit that results are recorded with."""

import subprocess

import pytest

from vadcore.utils.provenance import commit


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for name in (
        "README.md",
        "params.yaml",
        "dvc.lock",
        "vadcore/evaluation/inference.py",
        "benchmarks/results/demo.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("as committed\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "all")):
        subprocess.run(("git", *words), check=True)
    return tmp_path


def head() -> str:
    return subprocess.run(("git", "rev-parse", "HEAD"), capture_output=True, text=True, check=True).stdout.strip()


def test_commit_of_a_clean_folder(repository):
    assert commit() == head()


def test_changed_code_is_marked(repository):
    (repository / "vadcore/evaluation/inference.py").write_text("changed\n")
    assert commit() == head() + "+changes"


@pytest.mark.parametrize("name", ["README.md", "params.yaml", "dvc.lock", "benchmarks/results/demo.json"])
def test_changed_results_are_not_marked(repository, name):
    """Results can be kept and the next run started without a commit between them."""
    (repository / name).write_text("changed\n")
    assert commit() == head()


def test_no_commit_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() is None
