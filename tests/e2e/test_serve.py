"""`make serve` and `make deploy`: servers, worker, a nightly run, footage and a killed worker."""

import copy
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from tests.helpers.flow_project import ENDED, FlowProject, Rest, free_port, on_free_port
from tests.helpers.project import LONG_ENOUGH, PARAMS
from tests.helpers.videos import make_video
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.xdist_group("serve")  # the tests share one server; later tests build on earlier ones
STREET = {"train_clips": 2, "train_frames": 30, "test_clips": 1, "test_frames": 60}
LONG, SHORT = "0.avi", "1.avi"  # new videos; the first one takes seconds


class Served(Rest):
    """`python -m flows.serve` in a project, on free ports."""

    def __init__(self, project: FlowProject):
        self.project = project
        self.said: list[str] = []
        quick = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}
        project.environment |= quick
        on_free_port(self._start)

    def _start(self) -> bool:
        ports = free_port(), free_port()
        self.api, self.mlflow = f"http://127.0.0.1:{ports[0]}/api", f"http://127.0.0.1:{ports[1]}"
        self.project.environment["PREFECT_API_URL"] = self.api
        words = ["--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1]), "--proven-seconds", "0"]
        self.process = self.project.start(sys.executable, "-m", "flows.serve", *words)
        self.said.clear()
        threading.Thread(target=lambda: self.said.extend(self.process.stdout), daemon=True).start()
        wait_until(lambda: self.says("In other shells:") or self.process.poll() is not None, self.output)
        if self.process.poll() is not None:
            assert re.search("taken|in use", self.output()), self.output()
            return False
        return True

    def output(self) -> str:
        return "".join(self.said)

    def says(self, text: str) -> bool:
        return any(text in line for line in list(self.said))

    def wait_for(self, condition):
        """Wait until ``condition()`` is true, and return its value. Fails if a service has ended."""

        def met():
            assert self.process.poll() is None, self.output()
            return condition()

        return wait_until(met, self.output, pause=0.1)

    def run(self, deployment: str, flow: str = "pipeline", **parameters) -> str:
        """Trigger a deployment, like the button on its page, and return the id of its flow run."""
        found = self.ask("GET", f"deployments/name/{flow}/{deployment}")
        return self.post(f"deployments/{found['id']}/create_flow_run", parameters=parameters)["id"]

    def state(self, run: str) -> dict:
        return self.flow_run(run)["state"]

    def wait(self, run: str) -> dict:
        """Wait until a flow run has ended, and return its state."""
        self.wait_for(lambda: self.state(run)["type"] in ENDED)
        return self.state(run)

    def log(self, run: str) -> str:
        """The part of the flow run's log that Prefect has so far. It arrives late, in batches."""
        lines, page = [], None
        while page is None or len(page) == 200:
            wanted = {"flow_run_id": {"any_": [run]}}
            page = self.post("logs/filter", logs=wanted, sort="TIMESTAMP_ASC", limit=200, offset=len(lines))
            lines += [line["message"] for line in page]
        return "\n".join(lines)

    def worker(self) -> psutil.Process:
        below = psutil.Process(self.process.pid).children(recursive=True)
        return next(one for one in below if one.cmdline()[1:5] == ["-m", "prefect", "worker", "start"])

    def kill(self, worker: psutil.Process) -> None:
        """Kill the worker with ``kill -9`` and wait until it is restarted."""
        before = self.restarts()
        worker.kill()
        self.wait_for(lambda: self.restarts() > before)

    def restarts(self) -> int:
        return sum("restarting it" in line for line in list(self.said))

    def mlflow_runs(self, where: str) -> list[dict]:
        """MLflow's runs. Also empty if MLflow is too busy to answer."""
        query = {"experiment_ids": ["1"], "filter": where, "max_results": 100}
        answer = httpx.post(f"{self.mlflow}/api/2.0/mlflow/runs/search", json=query, timeout=LONG_ENOUGH)
        return answer.json().get("runs", []) if answer.is_success else []

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(LONG_ENOUGH)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    params = copy.deepcopy(PARAMS)
    params["models"] = ["convlstm_ae"]
    params["dataset"]["street"] |= STREET
    project = FlowProject(tmp_path_factory.mktemp("served"), params)
    project.commit()
    served = Served(project)
    try:
        project.run(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all")
        # it runs every five minutes and would disturb the tests
        (inbox,) = served.post("deployments/filter", deployments={"name": {"any_": ["inbox"]}})
        (schedule,) = inbox["schedules"]
        assert schedule["schedule"]["interval"] == 300
        served.post(f"deployments/{inbox['id']}/pause_deployment")
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def nightly(served) -> tuple[str, dict]:
    """The flow run of the nightly deployment, and its final state."""
    said = served.project.run(sys.executable, "-m", "prefect", "deployment", "run", "pipeline/nightly")
    run = re.search(r"UUID: (\S+)", said)[1]
    return run, served.wait(run)


@pytest.fixture(scope="module")
def champion(served, nightly) -> tuple[str, dict]:
    """The flow run that made the system champion, and its final state."""
    run = served.run("promote", "promote", dataset="street", by="auc_micro")
    return run, served.wait(run)


def tags(run: dict) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def test_nightly_schedule(served):
    (nightly,) = served.post("deployments/filter", deployments={"name": {"any_": ["nightly"]}})
    assert nightly["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    assert nightly["work_pool_name"] == "gpu"
    assert nightly["parameters"] == {"refresh": True, "wait_hours": 6}
    mine = {"state": {"name": {"any_": ["Scheduled"]}}, "deployment_id": {"any_": [nightly["id"]]}}
    planned = served.wait_for(lambda: served.post("flow_runs/filter", flow_runs=mine))
    assert {run["expected_start_time"][11:19] for run in planned} == {"02:00:00"}


def test_nightly_run_links_report_and_mlflow(served, nightly):
    run, state = nightly
    assert state["type"] == "COMPLETED", served.log(run)
    assert state["message"].startswith("7 ran, 0 cached")
    assert "convlstm_ae" in (served.project.folder / "reports/index.html").read_text()

    name = served.flow_run(run)["name"]
    (pipeline,) = served.mlflow_runs(f"tags.`vad.pipeline` = '{name}/{run}' and tags.`vad.stage` = 'pipeline'")
    whole = pipeline["info"]["run_id"]
    below = served.mlflow_runs(f"tags.`mlflow.parentRunId` = '{whole}'")
    assert {one["info"]["run_name"] for one in below} == {
        *("prepare street", "extract street", "optical_flow street", "report"),
        *("convlstm_ae train street", "convlstm_ae score street"),
    }
    assert {one["info"]["status"] for one in below} == {"FINISHED"}
    assert tags(pipeline)["vad.flow_run"].endswith(f"/runs/flow-run/{run}")
    assert run in tags(pipeline)["mlflow.note.content"]

    left = served.artifacts(run)
    assert f"{served.mlflow}/#/experiments/1/runs/{whole}" in left["mlflow-run"]
    assert '"model": "convlstm_ae"' in left["results"]
    (report,) = (one["info"]["run_id"] for one in below if one["info"]["run_name"] == "report")
    page = re.search(r"\((\S+)\)", left["report"])[1]
    assert page == f"{served.mlflow}/#/experiments/1/runs/{report}/artifacts/index.html"
    assert "Run train" not in served.log(run)


def test_promotion(served, champion):
    run, state = champion
    assert state["type"] == "COMPLETED", served.log(run)
    assert re.search(r"convlstm_ae .*champion.* street", state["message"])
    assert re.search(r"system +version +auc_micro", served.artifacts(run)["promotion"])


def test_kill_while_scoring_footage(served, champion):
    """Every video is scored once, at whatever moment the worker is killed."""
    folder = served.project.folder
    inbox, out = folder / "inbox", folder / "detections"
    make_video(folder / LONG, 600)
    (video,) = (folder / "data/raw/street").glob("test/*.avi")
    inbox.mkdir()
    shutil.move(folder / LONG, inbox)
    shutil.copy(video, inbox / SHORT)
    (inbox / "broken.mp4").write_bytes(b"no video")
    for path in inbox.iterdir():
        os.utime(path, (time.time() - 60,) * 2)  # old enough to be complete
    worker = served.worker()
    killed = served.run("inbox", "footage")
    served.wait_for(lambda: any(out.glob(".*.partial")) or any(out.glob("[!.]*")))
    served.kill(worker)
    assert served.state(killed)["type"] == "RUNNING"  # no process is left to change it

    state = served.wait(served.run("inbox", "footage"))
    assert state["type"] == "COMPLETED"
    assert state["name"] == "NothingNew" or re.match(r"[0-2] videos scored, \d+ events", state["message"])
    assert served.state(killed)["type"] == "CRASHED"
    names = {Path(LONG).stem, Path(SHORT).stem}
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == names
    assert {path.stem for path in (inbox / "done").iterdir()} == names
    assert (inbox / "failed/broken.mp4.reason.txt").exists()

    def ended() -> list[dict]:  # unsent events of the killed process are sent later
        runs = served.mlflow_runs("tags.`vad.stage` = 'detect'")
        known = {tags(one)["vad.video"] for one in runs} == {"broken.mp4", LONG, SHORT}
        return runs if known and all(one["info"]["status"] != "RUNNING" for one in runs) else []

    runs = served.wait_for(ended)
    scored = Counter(tags(one)["vad.video"] for one in runs if one["info"]["status"] == "FINISHED")
    assert max(scored.values()) == 1
    assert len(scored) >= len(names) - 1  # the run of the video being scored at the kill may be unfinished
    # plus broken.mp4, and a second run of the interrupted video
    assert len(runs) <= len(names) + 2, [(tags(one)["vad.video"], one["info"]["status"]) for one in runs]
    assert served.wait(served.run("inbox", "footage"))["name"] == "NothingNew"


def test_kill_while_training_then_cancel(served, nightly):
    """The new worker resumes the run from its checkpoint. Cancelling the run ends its stage."""
    params = served.project.params
    params["model"]["convlstm_ae"]["iterations"] = 1_000_000
    served.project.write(params)
    pattern = "checkpoints/street/convlstm_ae/train-*/state.pt"
    known = set(served.project.folder.glob(pattern))
    run = served.run("on-demand", targets=["train@street-convlstm_ae"])
    served.wait_for(lambda: set(served.project.folder.glob(pattern)) - known)
    worker = served.worker()
    # the flow run's process and its children, except the uploader, which also sends for the next stage
    started = [one for one in worker.children(recursive=True) if "tasks.tracking" not in one.cmdline()]
    assert {one.pid for one in trainings(served.project.folder)} & {one.pid for one in started}
    served.kill(worker)
    name = served.flow_run(run)["name"]
    served.wait_for(lambda: served.says(f"{name} was killed"))
    wait_until_gone(started)
    served.wait_for(lambda: "resuming from checkpoints/street/convlstm_ae" in served.log(run))

    stages = trainings(served.project.folder)
    assert stages
    served.post(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    assert served.wait(run)["type"] == "CANCELLED"
    wait_until_gone(stages)


def trainings(folder: Path) -> list[psutil.Process]:
    """The processes of the train stage in the project."""

    def trains(process: psutil.Process) -> bool:
        try:
            return process.cmdline()[1:4] == ["-m", "tasks", "train"] and process.cwd() == str(folder)
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if trains(process)]


def alive(process: psutil.Process) -> bool:
    """Whether the process is running and not a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(processes: list[psutil.Process]) -> None:
    wait_until(lambda: not any(map(alive, processes)), lambda: [one for one in processes if alive(one)], pause=0.1)


def test_ctrl_c_ends_all_processes(served):
    below = psutil.Process(served.process.pid).children(recursive=True)
    assert len(below) >= 6  # three services, each with its guard process
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(LONG_ENOUGH) == 0
    wait_until_gone(below)
