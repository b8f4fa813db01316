"""`make serve` and `make deploy` as a person uses them: server, pool, limit, worker and MLflow, a scheduled deployment, a
worker that is killed while a model is trained."""

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
import yaml

from flows.serve import PROVEN_SECONDS
from tests.helpers.flow_project import FlowProject, Rest, free_port
from tests.helpers.project import LONG_ENOUGH, PARAMS, ROOT

pytestmark = pytest.mark.xdist_group("serve")  # one served Prefect; later tests go on from earlier ones


class Served(Rest):
    """`python -m flows.serve` in a project, on free ports."""

    def __init__(self, project: FlowProject):
        self.project = project
        ports = free_port(), free_port()
        self.api, self.mlflow = f"http://127.0.0.1:{ports[0]}/api", f"http://127.0.0.1:{ports[1]}"
        quick = {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}
        project.environment |= {"PREFECT_API_URL": self.api, **quick}
        words = ["--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]
        self.process = project.start(sys.executable, "-m", "flows.serve", *words)
        self.said: list[str] = []
        self._reader = threading.Thread(target=lambda: self.said.extend(self.process.stdout), daemon=True)
        self._reader.start()
        self.wait_for("In other shells:")

    def wait_for(self, text: str, seconds: float = LONG_ENOUGH) -> None:
        end = time.monotonic() + seconds
        while not any(text in line for line in list(self.said)):
            assert self.process.poll() is None, "".join(self.said)
            assert time.monotonic() < end, "".join(self.said)
            time.sleep(0.1)

    def run(self, deployment: str, flow: str = "pipeline", **parameters) -> str:
        """Trigger a deployment, as the button on its page does; the id of its flow run."""
        found = self.ask("GET", f"deployments/name/{flow}/{deployment}")
        return self.post(f"deployments/{found['id']}/create_flow_run", parameters=parameters)["id"]

    def state(self, run: str) -> dict:
        return self.ask("GET", f"flow_runs/{run}")["state"]

    def wait(self, run: str, seconds: float = LONG_ENOUGH) -> dict:
        """The state in which a flow run ends."""
        end = time.monotonic() + seconds
        while (state := self.state(run))["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            assert time.monotonic() < end, "".join(self.said)
            assert self.process.poll() is None, "".join(self.said)
            time.sleep(0.3)
        return state

    def log(self, run: str) -> str:
        """What Prefect has of the flow run's log; it arrives a moment after the run's state."""
        time.sleep(2.5)
        found = self.post("logs/filter", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC", limit=200)
        return "\n".join(line["message"] for line in found)

    def wait_for_log(self, run: str, text: str) -> None:
        """Until Prefect has ``text`` in the log of a flow run; a process that is ended may not get its last words there."""
        end = time.monotonic() + LONG_ENOUGH
        while text not in (log := self.log(run)):
            assert time.monotonic() < end, log

    def worker(self) -> psutil.Process:
        below = psutil.Process(self.process.pid).children(recursive=True)
        return next(one for one in below if one.cmdline()[1:5] == ["-m", "prefect", "worker", "start"])

    def kill_worker(self) -> None:
        """kill -9, when it has run for long enough to be started again; until it is."""
        worker = self.worker()
        time.sleep(max(0.0, worker.create_time() + PROVEN_SECONDS + 2 - time.time()))
        before = self.restarts()
        worker.kill()
        end = time.monotonic() + LONG_ENOUGH
        while self.restarts() == before:
            assert time.monotonic() < end, "".join(self.said)
            time.sleep(0.1)

    def restarts(self) -> int:
        return sum("it is started again" in line for line in list(self.said))

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
    params["models"], params["flow_models"] = ["frame_diff", "convlstm_ae"], []
    project = FlowProject(tmp_path_factory.mktemp("served"), params)
    project.commit()
    served = Served(project)
    project.run(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all")
    # it comes round every five minutes, and would come in between
    (inbox,) = served.post("deployments/filter", deployments={"name": {"any_": ["inbox"]}})
    (schedule,) = inbox["schedules"]
    assert schedule["schedule"]["interval"] == 300
    served.post(f"deployments/{inbox['id']}/pause_deployment")
    yield served
    served.stop()


def mlflow_runs(served: Served, where: str) -> list[dict]:
    answer = httpx.post(
        f"{served.mlflow}/api/2.0/mlflow/runs/search",
        json={"experiment_ids": ["1"], "filter": where, "max_results": 100},
        timeout=LONG_ENOUGH,
    )
    answer.raise_for_status()
    return answer.json().get("runs", [])


def tags(run: dict) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def test_the_nightly_deployment_comes_round_every_night(served):
    (nightly,) = served.post("deployments/filter", deployments={"name": {"any_": ["nightly"]}})
    assert nightly["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    assert nightly["work_pool_name"] == "gpu"
    assert nightly["parameters"] == {"refresh": True, "wait_hours": 6}
    end = time.monotonic() + LONG_ENOUGH  # the server's scheduler makes its round
    mine = {"state": {"name": {"any_": ["Scheduled"]}}, "deployment_id": {"any_": [nightly["id"]]}}
    while not (planned := served.post("flow_runs/filter", flow_runs=mine)):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert {run["expected_start_time"][11:19] for run in planned} == {"02:00:00"}


def test_the_nightly_run_ends_in_a_report_and_in_mlflow_and_each_leads_to_the_other(served):
    said = served.project.run(sys.executable, "-m", "prefect", "deployment", "run", "pipeline/nightly")
    run = re.search(r"UUID: (\S+)", said)[1]
    state = served.wait(run)
    assert state["type"] == "COMPLETED", served.log(run)
    assert state["message"].startswith("8 ran, 0 cached")
    folder = served.project.folder
    assert "convlstm_ae" in (folder / "reports/index.html").read_text()

    name = served.ask("GET", f"flow_runs/{run}")["name"]
    (pipeline,) = mlflow_runs(served, f"tags.`vad.pipeline` = '{name}/{run}' and tags.`vad.stage` = 'pipeline'")
    below = mlflow_runs(served, f"tags.`mlflow.parentRunId` = '{pipeline['info']['run_id']}'")
    assert {one["info"]["run_name"] for one in below} == {
        "prepare street",
        "extract street",
        "optical_flow street",
        *(f"{model} {stage} street" for stage in ("train", "score") for model in ("frame_diff", "convlstm_ae")),
        "report",
    }
    assert {one["info"]["status"] for one in below} == {"FINISHED"}
    assert tags(pipeline)["vad.flow_run"].endswith(f"/runs/flow-run/{run}")
    assert run in tags(pipeline)["mlflow.note.content"]

    left = {one["key"]: one for one in served.post("artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})}
    assert f"{served.mlflow}/#/experiments/1/runs/{pipeline['info']['run_id']}" in left["mlflow-run"]["data"]
    assert '"model": "convlstm_ae"' in left["results"]["data"]
    (report,) = (one for one in below if one["info"]["run_name"] == "report")
    page = re.search(r"\((\S+)\)", left["report"]["data"])[1]
    assert page == f"{served.mlflow}/#/experiments/1/runs/{report['info']['run_id']}/artifacts/index.html"
    assert "Run train" not in served.log(run)
    assert "street convlstm_ae" not in state["message"]


def test_a_second_night_with_the_same_footage_trains_nothing(served):
    run = served.run("nightly")
    assert served.wait(run)["message"].startswith("1 ran, 7 cached")  # it has looked at the source again


def test_promotion_says_what_it_compared(served):
    run = served.run("promote", "promote", dataset="street", by="auc_micro")
    state = served.wait(run)
    assert state["type"] == "COMPLETED", served.log(run)
    assert re.fullmatch(r"(frame_diff|convlstm_ae) \(version \d+\) is champion of street", state["message"])
    (shown,) = served.post("artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}})
    assert re.search(r"system +version +auc_micro", shown["data"])
    refused = served.run("promote", "promote", dataset="elsewhere")
    assert served.wait(refused)["message"] == "elsewhere: not listed under datasets; there are: street"


def test_a_worker_killed_while_it_scores_an_inbox_and_every_video_is_scored_once(served):
    folder = served.project.folder
    inbox, out = folder / "inbox", folder / "detections"
    inbox.mkdir()
    videos = sorted((folder / "data/raw/street").glob("*/*.avi"))
    for number, video in enumerate(videos):
        shutil.copy(video, inbox / f"{number}.avi")
    (inbox / "broken.mp4").write_bytes(b"no video")
    for path in inbox.iterdir():
        os.utime(path, (time.time() - 60,) * 2)  # nobody writes to it any more
    killed = served.run("inbox", "footage")
    end = time.monotonic() + LONG_ENOUGH
    while not any(out.glob(".*.partial")):
        assert time.monotonic() < end, served.log(killed)
        time.sleep(0.005)
    served.kill_worker()
    assert served.state(killed)["type"] == "RUNNING"  # nobody was there to say otherwise
    state = served.wait(served.run("inbox", "footage"))
    assert state["type"] == "COMPLETED"
    assert re.fullmatch(r"[1-5] videos scored, \d+ events, 1 set aside", state["message"])
    assert served.state(killed)["type"] == "CRASHED"
    names = {str(number) for number in range(len(videos))}
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == names
    assert {path.stem for path in (inbox / "done").iterdir()} == names
    assert (inbox / "failed" / "broken.mp4.reason.txt").exists()
    runs = mlflow_runs(served, "tags.`vad.stage` = 'detect'")
    assert {tags(one)["vad.video"] for one in runs} == {"broken.mp4", *(f"{name}.avi" for name in names)}
    scored = Counter(tags(one)["vad.video"] for one in runs if one["info"]["status"] == "FINISHED")
    assert max(scored.values()) == 1
    assert len(scored) >= len(names) - 1  # that of the killed process may not have ended
    assert len(runs) <= len(names) + 2  # broken.mp4, and one more where the killed process was at work
    assert served.wait(served.run("inbox", "footage"))["name"] == "NothingNew"


def test_a_worker_killed_while_it_trains_comes_back_and_training_goes_on_from_its_checkpoint(served):
    params = yaml.safe_load((served.project.folder / "params.yaml").read_text())
    params["model"]["convlstm_ae"]["iterations"] = 1000
    served.project.write(params)
    known = set(served.project.folder.glob("checkpoints/street/convlstm_ae/train-*/state.pt"))
    run = served.run("on-demand", targets=["train@street-convlstm_ae"])
    end = time.monotonic() + LONG_ENOUGH
    while not set(served.project.folder.glob("checkpoints/street/convlstm_ae/train-*/state.pt")) - known:
        assert time.monotonic() < end, "".join(served.said)
        time.sleep(0.05)
    stages = [one for one in psutil.process_iter(["cmdline"]) if trains(one, served.project.folder)]
    assert stages
    worker = served.worker()
    started = worker.children(recursive=True)  # the process of the flow run, and all below it
    assert {one.pid for one in stages} < {one.pid for one in started}
    served.kill_worker()
    served.wait_for("was killed; it goes on from there")
    wait_until_gone(started)
    state = served.wait(run)
    assert state["type"] == "COMPLETED", served.log(run)
    served.wait_for_log(run, "resuming from checkpoints/street/convlstm_ae")


def trains(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.info["cmdline"][1:4] == ["-m", "tasks", "train"] and process.cwd() == str(folder)
    except (psutil.Error, TypeError):
        return False


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Ended, though nobody may have asked for their exit code yet."""
    end = time.monotonic() + LONG_ENOUGH
    while alive := [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < end, alive
        time.sleep(0.1)


def test_a_run_cancelled_in_prefect_ends_its_stage(served):
    params = yaml.safe_load((served.project.folder / "params.yaml").read_text())
    params["model"]["convlstm_ae"]["iterations"] = 100_000
    served.project.write(params)
    run = served.run("on-demand", targets=["train@street-convlstm_ae"])
    end = time.monotonic() + LONG_ENOUGH
    while not (stages := [p for p in psutil.process_iter(["cmdline"]) if trains(p, served.project.folder)]):
        assert time.monotonic() < end, "".join(served.said)
        time.sleep(0.1)
    time.sleep(2)
    served.post(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    assert served.wait(run)["type"] == "CANCELLED"
    wait_until_gone(stages)


def test_ctrl_c_ends_all_of_it(served):
    below = psutil.Process(served.process.pid).children(recursive=True)
    assert len(below) >= 6  # three services, each within its guard
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(LONG_ENOUGH) == 0
    _, alive = psutil.wait_procs(below, timeout=LONG_ENOUGH)
    assert not alive


def test_a_port_that_is_taken_is_one_line(served):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = served.project.run(sys.executable, "-m", "flows.serve", "--prefect-port", str(port), code=1)
    assert line.strip() == f"error: port {port} of 127.0.0.1 is taken; choose another: --prefect-port"


def test_prefect_yaml_names_flows_and_settings_that_exist():
    import importlib
    import inspect

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    for deployment in deployments:
        file, name = deployment["entrypoint"].split(":")
        flow = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), name)
        assert set(deployment.get("parameters", {})) <= set(inspect.signature(flow.fn).parameters)
        assert deployment["work_pool"]["name"] == "gpu"
