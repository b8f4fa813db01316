"""Projects for tests that run the flows as processes, and a Prefect server for them."""

import copy
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from flows.serve import QUIET
from tests.helpers.project import LONG_ENOUGH, PARAMS, ROOT, Project
from tests.helpers.toy import DVC_YAML, TOY, WORK
from tests.helpers.waiting import wait_until

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}  # final state types of flow runs


class FlowProject(Project):
    """A checkout with flows/, prefect.yaml, git and DVC. With ``toy`` its stages are those of toy.py."""

    def __init__(self, folder: Path, params: dict | None = None, toy: bool = False, api: str | None = None):
        super().__init__(folder, params or (TOY if toy else PARAMS), tracked=not toy)
        shutil.copytree(ROOT / "flows", folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "prefect.yaml", folder)
        shutil.copy(ROOT / ".gitignore", folder)
        if toy:
            (folder / "dvc.yaml").write_text(DVC_YAML)
            (folder / "work.py").write_text(WORK)
            with (folder / ".gitignore").open("a") as file:
                file.write("/begun.txt\n/go*.txt\n")
        mine = {**QUIET, "DVC_NO_ANALYTICS": "1", "PREFECT_HOME": str(folder / ".prefect")}
        self.environment = {
            key: value for key, value in self.environment.items() if not key.startswith("PREFECT")
        } | mine
        if api:
            self.environment["PREFECT_API_URL"] = api
        self.run("git", "init", "-q")
        self.run("dvc", "init", "-q")

    def at(self, folder: Path) -> "FlowProject":
        """The same project in another folder: a copy or a clone."""
        other = copy.copy(self)
        other.folder = folder
        mine = {"PYTHONPATH": str(folder), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        other.environment = {**self.environment, **mine}
        return other

    def duplicate(self, folder: Path) -> "FlowProject":
        shutil.copytree(self.folder, folder, symlinks=True)
        return self.at(folder)

    def clone(self, folder: Path) -> "FlowProject":
        self.run("git", "clone", "-q", str(self.folder), str(folder))
        return self.at(folder)

    def flow(self, *words: str, code: int = 0) -> str:
        """``python -m flows.pipeline ...``."""
        return self.run(sys.executable, "-m", "flows.pipeline", *words, code=code)

    def begun(self) -> list[str]:
        """The outs of the toy stages that have begun, in order."""
        file = self.folder / "begun.txt"
        return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []

    def pid_of(self, out: str) -> int:
        """Wait until the toy stage that makes ``out`` has begun, and return its PID."""
        wait_until(lambda: out in self.begun())
        lines = (self.folder / "begun.txt").read_text().splitlines()
        return int(next(line for line in reversed(lines) if line.startswith(f"{out} ")).split()[1])

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "all")


def free_port() -> int:
    """A port that is free now. Callers try another one if it is taken before their server starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Rest:
    """Prefect's REST API at ``api``. Retries if the server is too busy (503), like Prefect's client."""

    api: str

    def ask(self, method: str, path: str, **body) -> list | dict:
        def answered():
            answer = httpx.request(method, f"{self.api}/{path}", json=body or None, timeout=LONG_ENOUGH)
            return None if answer.status_code == 503 else answer

        answer = wait_until(answered, pause=0.5)
        answer.raise_for_status()
        return answer.json() if answer.content else {}

    def post(self, path: str, **body) -> list | dict:
        return self.ask("POST", path, **body)

    def flow_run(self, run: str) -> dict:
        return self.ask("GET", f"flow_runs/{run}")

    def last_flow_run(self) -> dict:
        return self.post("flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]

    def wait_for_tasks(self, run: str, count: int) -> dict[str, str]:
        """Wait until ``count`` task runs have ended, and return task run -> name of its state.

        The server shows the end of a task run with a delay. A task run that never began (NotReady) counts too.
        """
        found = {}

        def ended() -> bool:
            found.clear()
            for one in self.post("task_runs/filter", flow_runs={"id": {"any_": [run]}}, limit=100):
                found[one["name"]] = (one.get("state") or {}).get("name", "Pending")
            return len(found) == count and not {"Running", "Pending"} & set(found.values())

        wait_until(ended, lambda: found, pause=0.2)
        return found

    def used_slots(self) -> int:
        return self.ask("GET", "v2/concurrency_limits/gpu")["active_slots"]

    def artifacts(self, run: str) -> dict[str, str]:
        """The artifacts of a flow run: key -> data."""
        found = self.post("artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})
        return {one["key"]: one["data"] for one in found}


class Server(Rest):
    """A Prefect server on a free loopback port, with its database in ``folder`` and a limit ``gpu`` of one slot."""

    def __init__(self, folder: Path):
        self.folder = folder
        on_free_port(self._start)
        self.post("v2/concurrency_limits/", name="gpu", limit=1)

    def _start(self) -> bool:
        port = free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
        environment |= {**QUIET, "PREFECT_HOME": str(self.folder), "PREFECT_API_URL": self.api}
        words = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
        with (self.folder / "server.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        return wait_until(self._answers_or_ended, self.said, pause=0.2) == "answers"

    def _answers_or_ended(self) -> str | None:
        if self.process.poll() is not None:
            if "in use" in self.said():
                return "in use"
            raise AssertionError(self.said())
        try:
            return "answers" if httpx.get(f"{self.api}/health", timeout=10).is_success else None
        except httpx.TransportError:
            return None

    def said(self) -> str:
        return (self.folder / "server.log").read_text()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def on_free_port(start: Callable[[], bool]) -> None:
    """Call ``start`` until it returns True. It returns False if its free ports were taken meanwhile."""
    end = time.monotonic() + LONG_ENOUGH
    while not start():
        assert time.monotonic() < end, "no free port"
