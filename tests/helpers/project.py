"""A small project in its own folder, for tests that run stages and commands."""

import copy
import hashlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import yaml

ROOT = Path(__file__).resolve().parents[2]
LONG_ENOUGH = 600.0  # time limit in seconds; only a failure reaches it, even on a slow machine

# PYTHONDONTWRITEBYTECODE: without it, the processes of a project compile its code only once
NOT_INHERITED = ("MLFLOW", "VAD_", "DVC_", "PYTHONDONTWRITEBYTECODE")

PARAMS = {
    "profile": "test",
    "seed": 3,
    "datasets": ["street"],
    "models": ["frame_diff", "convlstm_ae", "flow_magnitude"],
    "machine": {"workers": 1},
    "extract": {"on_error": "stop"},
    "optical_flow": {"estimator": "dis", "preset": "fast"},
    "report": {"title": "A test's report"},
    "train": {"val_share": 0.3, "check_every": 20, "val_windows": 4, "save_seconds": 0.2},
    "calibrate": {"target_far_per_hour": 200},
    "score": {"worst": 2, "snapshots": 12},
    "dataset": {
        "street": {
            "format": "street",
            "height": 48,
            "width": 64,
            "train_clips": 3,
            "train_frames": 30,
            "test_clips": 2,
            "test_frames": 60,
        }
    },
    "model": {
        "frame_diff": {},
        "flow_magnitude": {},
        "convlstm_ae": {
            "image_size": [24, 32],
            "frames": 4,
            "conv": [8, 8],
            "lstm": [8],
            "batch_size": 4,
            "iterations": 40,
            "learning_rate": 0.001,
        },
    },
}


class Project:
    """A folder with the project's code and its own params.yaml.

    Stages run in this process (:meth:`stage`, :meth:`repro`); :meth:`run` and :meth:`start` start real processes.
    tracked: stages log to MLflow, which takes as long as a short stage.
    """

    def __init__(self, folder: Path, params: dict = PARAMS, tracked: bool = False):
        for name in ("tasks", "vadcore", "weights"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("dvc.yaml", "pyproject.toml", ".dvcignore", ".gitignore"):
            shutil.copy(ROOT / name, folder)
        self._move_to(folder, tracked)
        self.write(params)

    def _move_to(self, folder: Path, tracked: bool) -> None:
        self.folder = folder
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(NOT_INHERITED)},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "OMP_NUM_THREADS": "1",  # sums in the same order, however many tests run in parallel
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        }
        self.track(tracked)

    def track(self, on: bool) -> None:
        """Switch MLflow logging of later stages on or off."""
        if on:
            self.environment.pop("VAD_TRACKING", None)
        else:
            self.environment["VAD_TRACKING"] = "off"

    def copy(self, folder: Path, *outs: str, tracked: bool = False) -> "Project":
        """A copy with all files. With ``outs``: only the code, params.yaml and these outs."""
        made = copy.copy(self)
        made._move_to(folder, tracked)
        code = ("tasks", "vadcore", "weights", "dvc.yaml", "pyproject.toml", ".dvcignore", ".gitignore")
        every = {path.name for path in self.folder.iterdir()} - {"tracking"}  # the outbox is of one folder
        for name in sorted({*code, "params.yaml", *outs} if outs else every):
            if (self.folder / name).is_dir():
                shutil.copytree(self.folder / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.folder / name, folder / name)
        return made

    @property
    def params(self) -> dict:
        return yaml.safe_load((self.folder / "params.yaml").read_text())

    def write(self, params: dict) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def start(self, *words: str) -> subprocess.Popen:
        """Start a command in the project, in its own process group."""
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, code: int = 0, seconds: float = LONG_ENOUGH) -> str:
        """Run a command and return its output.

        Fails if the exit code is not ``code``. After ``seconds`` it kills the whole process group and fails.
        """
        process = self.start(*words)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode == code, f"{' '.join(words)} exited with {process.returncode}:\n{output}"
        return output

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Run this process in the project's folder, with its environment."""
        folder, environment = Path.cwd(), dict(os.environ)
        try:
            os.chdir(self.folder)
            os.environ.clear()
            os.environ.update(self.environment)
            yield
        finally:
            if "mlflow" in sys.modules:
                sys.modules["mlflow"].set_tracking_uri(None)  # a command may have set it for the whole process
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)

    def call(self, main: Callable[[], None], *words: str, code: int = 0) -> str:
        """Run a command's ``main`` in this process with the arguments ``words``, and return its output.

        Fails if the exit code is not ``code``.
        """
        output = io.StringIO()
        with self.inside(), redirect_stdout(output), redirect_stderr(output), patch.object(sys, "argv", ["", *words]):
            try:
                main()
                ended = 0
            except SystemExit as end:
                if isinstance(end.code, str):
                    print(end.code)
                ended = 1 if isinstance(end.code, str) else end.code or 0
            except BaseException as error:
                error.add_note(f"{' '.join(words)} said before:\n{output.getvalue()}")
                raise
        assert ended == code, f"{' '.join(words)} exited with {ended}:\n{output.getvalue()}"
        return output.getvalue()

    def stage(self, *words: str, code: int = 0) -> str:
        """``python -m tasks <stage> ...`` in this process."""
        from tasks.__main__ import main

        return self.call(main, *words, code=code)

    def promote(self, *words: str, code: int = 0) -> str:
        """``python -m tasks.promote ...`` in this process."""
        from tasks.promote import main

        return self.call(main, *words, code=code)

    def detect(self, *words: str | Path, code: int = 0) -> str:
        """``python -m tasks.detect ...`` in this process."""
        from tasks.detect import main

        return self.call(main, *map(str, words), code=code)

    def repro(self, *targets: str, **options) -> tuple[list[str], str]:
        """Run ``dvc repro`` and its stages in this process. Returns the names of the stages that ran, and their output.

        options: those of ``dvc.repo.Repo.reproduce``, such as ``dry`` and ``force``.
        """
        import dvc.stage.run
        from dvc.repo import Repo

        ran, outputs = [], []

        def run_stage(stage, dry: bool = False, run_env: dict | None = None) -> None:
            ran.append(stage.addressing)
            python, option, package, *words = shlex.split(stage.cmd)
            assert (python, option, package) == ("python", "-m", "tasks")
            if not dry:
                outputs.append(self.stage(*words))

        with self.inside():
            if not (self.folder / ".dvc").exists():
                Repo.init(no_scm=True).close()
            with warnings.catch_warnings(), patch.object(dvc.stage.run, "cmd_run", run_stage), Repo() as repo:
                warnings.simplefilter("ignore", DeprecationWarning)  # from libraries that DVC uses
                repo.reproduce(list(targets) or None, **options)
        return ran, "".join(outputs)


def contents(folder: Path) -> dict[str, str]:
    """The files below ``folder``: path -> digest of the bytes."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def make_pipeline(folder: Path) -> Project:
    """Run ``dvc repro`` with its stages as processes, from nothing to a report and MLflow runs."""
    project = Project(folder, tracked=True)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    project.run("dvc", "repro")
    return project


def pipeline_in(folder: Path) -> Project:
    """The project of :func:`make_pipeline` in ``folder``. The first process that calls this makes it."""
    from filelock import FileLock

    done, failed = folder.with_name("pipeline-done"), folder.with_name("pipeline-failed.txt")
    with FileLock(f"{folder}.lock"):
        if failed.exists():
            raise AssertionError(failed.read_text())
        if done.exists():
            project = Project.__new__(Project)
            project._move_to(folder, tracked=False)
            return project
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        folder.mkdir(parents=True)
        try:
            project = make_pipeline(folder)
        except Exception as error:
            failed.write_text(f"dvc repro failed:\n{error}")
            raise
        done.touch()
    project.track(False)
    return project
