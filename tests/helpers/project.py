"""A small project in a folder of its own, for tests that run stages as the processes that they are."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LONG_ENOUGH = 600.0  # seconds to wait for what has to happen; only a failure takes so long, however slow the machine

# the last one: the many processes of a project compile its code once
NOT_INHERITED = ("MLFLOW", "VAD_", "DVC_", "PYTHONDONTWRITEBYTECODE")

PARAMS = {
    "profile": "test",
    "seed": 3,
    "datasets": ["street"],
    "models": ["frame_diff", "convlstm_ae"],
    "flow_models": ["flow_magnitude"],
    "flownets": [],
    "machine": {"workers": 1},
    "extract": {"on_error": "stop"},
    "optical_flow": {"estimator": "dis", "preset": "fast"},
    "report": {"title": "A test's report"},
    "train": {"held_out": 0.3, "check_every": 20, "held_out_windows": 4, "save_seconds": 0.2},
    "calibrate": {"false_alarms_per_hour": 200},
    "score": {"worst": 2},
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
    """A folder with the project's code and a params.yaml of its own. tracked: its stages log to MLflow, which takes as
    much time as a short stage's own work."""

    def __init__(self, folder: Path, params: dict = PARAMS, tracked: bool = False):
        self.folder = folder
        for name in ("benchmarks/results", "tasks", "vadcore", "weights"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("dvc.yaml", "pyproject.toml", ".dvcignore", ".gitignore"):
            shutil.copy(ROOT / name, folder)
        self.write(params)
        tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(NOT_INHERITED)},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "OMP_NUM_THREADS": "1",  # same sums in the same order, however many tests run beside this one
            **(tracking if tracked else {"VAD_TRACKING": "off"}),
        }

    def write(self, params: dict) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def start(self, *words: str) -> subprocess.Popen:
        """Start a command in the project, in a process group of its own."""
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
        """Run a command to its end; its output. Fails when it does not exit with ``code``, or takes longer than ``seconds``,
        and then nothing of it is left running."""
        process = self.start(*words)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert process.returncode == code, f"{' '.join(words)} exited with {process.returncode}:\n{output}"
        return output

    def stage(self, *words: str, code: int = 0) -> str:
        """``python -m tasks <stage> ...``."""
        return self.run(sys.executable, "-m", "tasks", *words, code=code)
