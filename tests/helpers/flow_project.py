"""Projects for the tests of flows, and a Prefect server of their own. Not a test file."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

from flows.serve import QUIET
from tests.helpers.project import LONG_ENOUGH, PARAMS, ROOT, Project

DVC_YAML = """
stages:
  prepare:
    matrix:
      dataset: ${datasets}
    cmd: python work.py raw/${item.dataset} raw ${item.dataset}
    params:
      - raw.${item.dataset}
    outs:
      - raw/${item.dataset}:
          persist: true
  train:
    matrix: &both
      dataset: ${datasets}
      model: ${models}
    cmd: python work.py models/${item.dataset}/${item.model} model ${item.model}
    deps:
      - raw/${item.dataset}
    params:
      - model.${item.model}
    outs:
      - models/${item.dataset}/${item.model}
  report:
    cmd: python work.py report report
    deps:
      - models
    params:
      - report
    outs:
      - report
"""
# what a stage does: `sleep <seconds>`, `wait <file>`, `meet <out>` (until the stage that makes it has begun), `fail`,
# `crash [<times>]`, `say <text>`; then it writes its out
WORK = """
import os, sys, time
from pathlib import Path
import yaml
out, params = Path(sys.argv[1]), yaml.safe_load(Path("params.yaml").read_text())
for key in sys.argv[2:]:
    params = params[key]
verb, *words = params.split()
print(f"{verb} for {out}: nice {os.nice(0)}, {os.environ.get('VAD_PIPELINE')}", flush=True)
with open("begun.txt", "a") as file:
    print(out, os.getpid(), time.time(), file=file)
if verb == "sleep":
    for second in range(int(10 * float(words[0]))):
        time.sleep(0.1)
elif verb == "wait":
    while not os.path.exists(words[0]):
        time.sleep(0.05)
elif verb == "meet":
    end = time.monotonic() + 600
    while not any(line.startswith(f"{words[0]} ") for line in open("begun.txt")):
        if time.monotonic() > end:
            sys.exit(f"error: {words[0]} has not begun beside {out}; one of the two waits for the other")
        time.sleep(0.05)
elif verb == "fail":
    sys.exit("error: params.yaml: no good; write something better")
elif verb == "crash":
    before = len([line for line in open("begun.txt") if line.startswith(f"{out} ")])
    if not words or before <= int(words[0]):
        raise RuntimeError("something unforeseen")
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(" ".join([str(out), verb, *words]))
with open("ended.txt", "a") as file:
    print(out, time.time(), file=file)
"""
TOY = {
    "datasets": ["a", "b"],
    "models": ["m-1", "m2"],
    "raw": {"a": "say a", "b": "say b"},
    "model": {"m-1": "say one", "m2": "say two"},
    "report": "say done",
}


class FlowProject(Project):
    """A checkout with flows/ and prefect.yaml, its own git and DVC; with ``toy`` params the stages are a line of Python."""

    def __init__(self, folder: Path, params: dict = PARAMS, toy: bool = False, api: str | None = None):
        super().__init__(folder, params, tracked=not toy)
        shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "prefect.yaml", folder)
        shutil.copy(ROOT / ".gitignore", folder)
        if toy:
            (folder / "dvc.yaml").write_text(DVC_YAML)
            (folder / "work.py").write_text(WORK)
            with (folder / ".gitignore").open("a") as file:
                file.write("/begun.txt\n/ended.txt\n")
        mine = {**QUIET, "DVC_NO_ANALYTICS": "1", "PREFECT_HOME": str(folder / ".prefect")}
        self.environment = {
            key: value for key, value in self.environment.items() if not key.startswith("PREFECT")
        } | mine
        if api:
            self.environment["PREFECT_API_URL"] = api
        self.run("git", "init", "-q")
        self.run("dvc", "init", "-q")

    def flow(self, *words: str, code: int = 0) -> str:
        """``python -m flows.pipeline ...``."""
        return self.run(sys.executable, "-m", "flows.pipeline", *words, code=code)

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "all")


def wait_until(condition, seconds: float = LONG_ENOUGH) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Rest:
    """Prefect's REST interface at ``api``. Asked again where it is too busy for an answer (503), as its own client does."""

    api: str

    def ask(self, method: str, path: str, **body) -> list | dict:
        end = time.monotonic() + LONG_ENOUGH
        while (
            answer := httpx.request(method, f"{self.api}/{path}", json=body or None, timeout=LONG_ENOUGH)
        ).status_code == 503:
            assert time.monotonic() < end, answer.text
            time.sleep(0.5)
        answer.raise_for_status()
        return answer.json() if answer.content else {}

    def post(self, path: str, **body) -> list | dict:
        return self.ask("POST", path, **body)


class Server(Rest):
    """A Prefect server on a free port of loopback, with its database in ``folder``."""

    def __init__(self, folder: Path):
        port = free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
        self.environment |= {**QUIET, "PREFECT_HOME": str(folder), "PREFECT_API_URL": self.api}
        words = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        with (folder / "server.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words], env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + LONG_ENOUGH
        while time.monotonic() < end:
            assert self.process.poll() is None, (folder / "server.log").read_text()
            try:
                if httpx.get(f"{self.api}/health", timeout=2).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError((folder / "server.log").read_text())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
