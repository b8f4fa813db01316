"""The command vad: profiles, doctor."""

import pytest
from typer.testing import CliRunner

from tasks import cli, doctor
from vadcore.utils.errors import VadError


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with two profiles."""
    (tmp_path / "profiles").mkdir()
    for name in ("demo", "own"):
        (tmp_path / f"profiles/{name}.yaml").write_text(f"profile: {name}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_profile_is_copied(project):
    cli.copy_profile("own")
    assert (project / "params.yaml").read_text() == "profile: own\n"
    assert not (project / "params.yaml.before").exists()


def test_own_params_are_kept(project):
    (project / "params.yaml").write_text("profile: mine\n")
    cli.copy_profile("own")
    assert (project / "params.yaml.before").read_text() == "profile: mine\n"
    cli.copy_profile("demo")
    assert (project / "params.yaml.before").read_text() == "profile: mine\n"


def test_unknown_profile_lists_known_ones(project):
    with pytest.raises(VadError, match=r"nope\.yaml; there are: demo, own"):
        cli.copy_profile("nope")


def test_commands_need_the_project_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["repro"])
    assert done.exit_code == 1
    assert "no dvc.yaml here" in done.output


def test_doctor_lists_missing_commands(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == 1
    assert "BAD   commands: missing: git, make" in done.output
    assert "note  Chromium: missing" in done.output
