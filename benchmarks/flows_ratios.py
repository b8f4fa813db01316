"""Compare the Prefect flow with plain ``dvc repro`` on the same stages: time ratio.

    python -m benchmarks.flows_ratios [--out benchmarks/results/flows-ratios.json]

Two cases, each in two fresh clones of this checkout, with empty caches and with a Prefect server and an MLflow server
already running: the complete demo; and preparing and extracting three generated scenes, whose branches can run in
parallel. The two variants run one after the other. Takes 15 minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from benchmarks.result import write_result

ROOT = Path(__file__).resolve().parents[1]
WANTED_DEMO, WANTED_SIDE_BY_SIDE = 1.15, 1.0
SCENES = ("street", "lane", "square")


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment with ``more``, without settings of another Prefect, MLflow or project."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "MLFLOW", "PYTHONPATH"))}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", **more}


def clone(folder: Path, params: dict) -> Path:
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Run ``python -m flows.serve server`` in a checkout and yield the environment of its clients."""
    ports = free_port(), free_port()
    words = ["server", "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.serve", *words],
        cwd=folder,
        env=environment(PREFECT_HOME=str(folder / ".prefect")),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("In other shells"):
                break
        else:
            raise RuntimeError("".join(said))
        threading.Thread(target=process.stdout.read, daemon=True).start()  # a full pipe would block the server
        yield environment(
            PREFECT_HOME=str(folder / ".prefect"),
            PREFECT_API_URL=f"http://127.0.0.1:{ports[0]}/api",
            MLFLOW_TRACKING_URI=f"http://127.0.0.1:{ports[1]}",
        )
    finally:
        process.terminate()
        process.wait()


def seconds(command: list[str], folder: Path, known: dict[str, str]) -> float:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=known,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:])
    return time.monotonic() - started


def case(name: str, params: dict, target: str | None, wanted: float, folder: Path, known: dict[str, str]) -> dict:
    """Return a row with the time under the flow divided by the time under ``dvc repro``."""
    plain = seconds(["dvc", "repro", *([target] if target else [])], clone(folder / "plain", params), known)
    words = ["flows.pipeline", *(["--target", target] if target else [])]
    flow = seconds(words, clone(folder / "flow", params), known)
    found = {
        "name": name,
        "value": round(flow / plain, 3),
        "dvc_seconds": round(plain, 1),
        "flow_seconds": round(flow, 1),
    }
    found |= {"wanted": f"<= {wanted:g}", "met": flow / plain <= wanted}
    print(", ".join(f"{key} {value}" for key, value in found.items()), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    demo = yaml.safe_load((ROOT / "profiles/demo.yaml").read_text())
    scenes = {**demo, "datasets": list(SCENES)}
    scenes["dataset"] = {name: {"format": "street", "seed": seed} for seed, name in enumerate(SCENES)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with servers(clone(folder / "servers", demo)) as known:
            name = "footage of three scenes: flow / dvc repro"
            rows = [case(name, scenes, "extract", WANTED_SIDE_BY_SIDE, folder / "scenes", known)]
            rows.append(case("demo: flow / dvc repro", demo, None, WANTED_DEMO, folder / "demo", known))
    if arguments.out:
        write_result(arguments.out, rows, profile="demo")


if __name__ == "__main__":
    main()
