"""The command ``vad``: a thin wrapper around DVC, the stages and the services."""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from tasks.ending import one_line_errors
from vadcore.utils.errors import VadError

app = typer.Typer(
    help="Video anomaly detection: train on normal footage, score new footage, report.", no_args_is_help=True
)
PARAMS, BEFORE, PROFILES = Path("params.yaml"), Path("params.yaml.before"), Path("profiles")
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _run(*command: str) -> None:
    """Replace this process by a Python module of this environment, so that only that module receives Ctrl-C."""
    if not Path("dvc.yaml").exists():
        sys.exit("error: no dvc.yaml here; run vad in the project's folder")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # stages call `python`
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", *command], {**os.environ, "PATH": path})


@app.command()
def demo() -> None:
    """Run the pipeline on the generated scene, to reports/index.html."""
    profile("demo")


@app.command()
def repro(targets: Annotated[list[str] | None, typer.Argument(help="Stages; default: all.")] = None) -> None:
    """Run what params.yaml lists, only what has changed (dvc repro)."""
    _run("dvc", "repro", *(targets or []))


@app.command()
def profile(name: Annotated[str, typer.Argument(help="A file of profiles/, without .yaml.")]) -> None:
    """Copy a profile to params.yaml and run it. Your own params.yaml is kept as params.yaml.before."""
    with one_line_errors():
        copy_profile(name)
    _run("dvc", "repro")


def copy_profile(name: str) -> None:
    """Copy ``profiles/<name>.yaml`` to params.yaml, unless it is the same. Raises :class:`VadError` for an unknown name."""
    known = sorted(PROFILES.glob("*.yaml"))
    chosen = PROFILES / f"{name}.yaml"
    if chosen not in known:
        raise VadError(f"no {chosen}; there are: {', '.join(file.stem for file in known) or 'none'}")
    if PARAMS.exists() and not any(filecmp.cmp(file, PARAMS, shallow=False) for file in known):
        shutil.copyfile(PARAMS, BEFORE)
        print(f"your {PARAMS} is kept as {BEFORE}")
    if not PARAMS.exists() or not filecmp.cmp(chosen, PARAMS, shallow=False):
        shutil.copyfile(chosen, PARAMS)


@app.command(context_settings=PASSED_ON)
def detect(context: typer.Context) -> None:
    """Score videos with a trained system: vad detect --champion yard new/*.mp4"""
    _run("tasks.detect", *context.args)


@app.command(context_settings=PASSED_ON)
def promote(context: typer.Context) -> None:
    """Choose the champion of a data set: vad promote yard"""
    _run("tasks.promote", *context.args)


@app.command(context_settings=PASSED_ON)
def serve(context: typer.Context) -> None:
    """Start Prefect's server, MLflow and a worker on this machine, until Ctrl-C."""
    _run("flows.serve", *context.args)


@app.command()
def report() -> None:
    """Build reports/index.html and the stages that it depends on."""
    _run("dvc", "repro", "report")


@app.command()
def doctor() -> None:
    """Check this machine for what the pipeline needs. Exits with 1 if something required is missing."""
    from tasks.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'BAD ' if finding.needed else 'note'}  {finding.what}: {finding.text}")
    sys.exit(any(finding.needed and not finding.ok for finding in findings))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
