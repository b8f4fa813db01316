"""Measure the overhead of the demo: stage start and end, imports, an up-to-date `dvc repro`, two trainings at once.

    python -m benchmarks.overhead [--out benchmarks/results/overhead.json]

Runs the demo in a fresh clone of this checkout: five to ten minutes on two cores. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median

import yaml

from benchmarks.flows_ratios import ROOT, clone, environment
from benchmarks.result import write_result

STAGES = ("prepare", "extract", "optical_flow", "train", "score", "report")
TRAINED = "conv3d_ae"  # the model for the trainings at once
WITHOUT_TURNS = """
import sys
from vadcore.evaluation import inference as score
from vadcore.training import trainer as train
train.take_turns = score.take_turns = lambda items, device: items
from tasks.__main__ import main
sys.argv[1:] = ["train", "street", sys.argv[1]]
main()
"""


def limit(name: str, value: float, wanted: float, unit: str = "s") -> dict:
    """Return a row for a ``value`` that should be at most ``wanted``."""
    row = {"name": name, "value": round(value, 3), "unit": unit, "wanted": f"<= {wanted:g}", "met": value <= wanted}
    print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def demo(folder: Path, known: dict[str, str]) -> list[dict]:
    """Run all stages; return the total time and, for each stage, its duration and that of its MLflow run.

    The duration of a stage lasts until the next stage starts. Its MLflow run begins when the stage has imported its
    modules and ends before DVC stores the outputs; the difference is the overhead.
    """
    from vadcore.utils.device import bfloat16_is_faster, choose_device

    started = time.time()
    starts: list[tuple[str, float]] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"], cwd=folder, env=known, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if stage := re.match(r"Running stage '(.+)'", line):
            starts.append((stage[1], time.time()))
            print(f"{time.time() - started:7.1f} s  {stage[1]}", flush=True)
    if process.wait():
        raise RuntimeError(f"dvc repro ended with {process.returncode}; see its messages above")
    ended = time.time()
    work = _work_seconds(folder, len(starts))
    rows = []
    for (stage, start), (_, following), seconds in zip(starts, [*starts[1:], ("", ended)], work, strict=True):
        whole = following - start
        rows.append(
            {
                "name": stage,
                "seconds": round(whole, 2),
                "work_seconds": round(seconds, 2),
                "overhead_seconds": round(whole - seconds, 2),
            }
        )
        print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    overheads = [row["overhead_seconds"] for row in rows]
    wanted = 240 if bfloat16_is_faster(choose_device("cpu"))[0] else 360
    return [
        limit("demo", ended - started, wanted),
        limit("overhead of a stage, mean", mean(overheads), 3.0),
        limit("overhead of a stage, highest", max(overheads), 3.0),
        *rows,
    ]


def _work_seconds(folder: Path, stages: int) -> list[float]:
    """Return the durations of the MLflow runs of the ``stages``, in execution order."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = (one for one in client.search_experiments() if one.name == "vad")
    runs = client.search_runs(
        [experiment.experiment_id], "tags.`vad.stage` != 'pipeline'", order_by=["start_time ASC"], max_results=1000
    )
    if len(runs) != stages:
        raise RuntimeError(f"{len(runs)} MLflow runs of {stages} stages")
    return [(run.info.end_time - run.info.start_time) / 1000 for run in runs]


def imports() -> list[dict]:
    """Measure the import time of each stage's module in a fresh interpreter, in seconds; median of five.

    Garbage collection is off, as in ``python -m tasks``.
    """
    rows = []
    for stage in STAGES:
        seconds = []
        for _ in range(5):
            program = (
                f"import gc; gc.disable(); import time; s = time.time(); import tasks.{stage}; print(time.time() - s)"
            )
            done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
            seconds.append(float(done.stdout))
        rows.append(limit(f"import tasks.{stage}", median(seconds), 1.5))
    return rows


def nothing_to_do(folder: Path, known: dict[str, str]) -> dict:
    """Time `dvc repro` with everything up to date; median of three."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "dvc", "repro"], cwd=folder, env=known, stdout=subprocess.DEVNULL, check=True
        )
        seconds.append(time.perf_counter() - started)
    return limit("dvc repro with nothing to do", median(seconds), 2.0)


def trainings(folder: Path, known: dict[str, str], rounds: int = 3) -> list[dict]:
    """Time one training with and without turns, and two trainings at once; medians of ``rounds``."""
    other = folder.with_name("other")
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("tracking", ".git", ".dvc"))
    bare, alone, two = [], [], []
    for _ in range(rounds):
        bare.append(_train([folder], known, ["-c", WITHOUT_TURNS, TRAINED]))
        alone.append(_train([folder], known, ["-m", "tasks", "train", "street", TRAINED]))
        two.append(_train([folder, other], known, ["-m", "tasks", "train", "street", TRAINED]))
    return [
        limit("a training with turns / without", median(alone) / median(bare), 1.03, "ratio"),
        limit("two trainings at once / one", median(two) / median(alone), 2.4, "ratio"),
    ]


def _train(folders: list[Path], known: dict[str, str], words: list[str]) -> float:
    """Return the seconds until all trainings have ended, one per folder."""
    for folder in folders:
        shutil.rmtree(folder / f"checkpoints/street/{TRAINED}")
    started = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env={**known, "PYTHONPATH": str(folder), "VAD_TRACKING": "off"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for folder in folders
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError(f"a training ended with {codes}")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    params = yaml.safe_load((ROOT / "profiles/demo.yaml").read_text())
    rows = imports()
    with tempfile.TemporaryDirectory() as temporary:
        folder, known = clone(Path(temporary) / "demo", params), environment()
        subprocess.run([sys.executable, "-m", "tasks.tracking", "init"], cwd=folder, env=known, check=True)
        rows += demo(folder, known)
        rows += [nothing_to_do(folder, known), *trainings(folder, known)]
    if arguments.out:
        write_result(arguments.out, rows, "demo")


if __name__ == "__main__":
    main()
