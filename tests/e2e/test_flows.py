"""The pipeline flow as real processes on a Prefect server: DVC, kills, Ctrl-C, a remote and clones."""

import json
import os
import signal
import sys

import pytest
import yaml

from flows.stage import NICE
from tests.helpers.flow_project import FlowProject, Server
from tests.helpers.processes import running
from tests.helpers.project import LONG_ENOUGH
from tests.helpers.toy import changed
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.xdist_group("flow-server")
EVERY = {"prepare@a", "prepare@b", "train@a-m-1", "train@a-m2", "train@b-m-1", "train@b-m2", "report"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, server) -> FlowProject:
    """A project in which nothing has run yet."""
    project = FlowProject(tmp_path_factory.mktemp("fresh"), toy=True, api=server.api)
    project.commit()
    return project


@pytest.fixture(scope="module")
def first_run(fresh, server, tmp_path_factory) -> tuple[FlowProject, str, dict]:
    """A project in which every stage has run, the flow's output, and its flow run."""
    project = fresh.duplicate(tmp_path_factory.mktemp("first") / "p")
    output = project.flow()
    return project, output, server.last_flow_run()


@pytest.fixture
def project(first_run, tmp_path) -> FlowProject:
    """A copy of the project of ``first_run``."""
    return first_run[0].duplicate(tmp_path / "p")


@pytest.fixture
def trains(project):
    """A function that starts a flow whose stage train@a-m-1 runs until go.txt exists.

    It returns the process of the flow and the PID of the stage.
    """
    started = []

    def start() -> tuple:
        project.write(changed(m_1="wait go.txt"))
        before = project.begun().count("models/a/m-1")
        process = project.start(sys.executable, "-m", "flows.pipeline", "--target", "train@a-m-1")
        started.append(process)
        wait_until(lambda: project.begun().count("models/a/m-1") > before)
        return process, project.pid_of("models/a/m-1")

    yield start
    (project.folder / "go.txt").touch()
    for process in started:
        process.kill()
        process.wait()


def lock_is_whole(project: FlowProject) -> bool:
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())
    return all(stage["outs"][0]["md5"] for stage in lock["stages"].values())


def test_first_run(first_run, server):
    project, output, run = first_run
    assert "Completed: 7 ran, 0 cached" in output
    assert server.wait_for_tasks(run["id"], 7) == dict.fromkeys(EVERY, "Completed")
    assert "Task run 'train@a-m-1' - say for models/a/m-1" in output  # live
    assert f"say for raw/a: nice {min(19, os.nice(0) + NICE)}, " in output
    assert f"say for models/a/m-1: nice {os.nice(0)}, " in output
    assert f"{run['name']}/{run['id']}" in output  # in the stages' environment, so that MLflow's runs link to it
    assert server.used_slots() == 0
    assert lock_is_whole(project)


def test_changed_and_restored_params(project, server):
    project.write(changed(m2="say something new"))
    assert "Completed: 3 ran, 4 cached" in project.flow()
    shown = server.wait_for_tasks(server.last_flow_run()["id"], 7)
    new = {"train@a-m2", "train@b-m2", "report"}
    assert shown == {address: "Completed" if address in new else "Cached" for address in EVERY}

    before = project.begun()
    project.write(changed())  # DVC's run cache has these results
    assert "Completed: 2 ran, 5 cached" in project.flow("--refresh")  # the sources are checked and unchanged
    assert sorted(project.begun()[len(before) :]) == ["raw/a", "raw/b"]
    assert server.wait_for_tasks(server.last_flow_run()["id"], 7)["report"] == "Cached"
    assert project.run("dvc", "status").strip() == "Data and pipelines are up to date."


def test_next_run_resumes_killed_run(project, server, trains):
    process, stage = trains()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not running(stage))
    killed = server.last_flow_run()
    assert killed["state"]["type"] == "RUNNING"  # no process is left to change it
    before = project.begun()
    (project.folder / "go.txt").touch()
    output = project.flow("--target", "train@a-m-1")
    assert f"continues {killed['name']}" in output
    assert "Completed: 1 ran, 1 cached" in output
    assert project.begun()[len(before) :] == ["models/a/m-1"]
    assert server.flow_run(killed["id"])["state"]["type"] == "CRASHED"
    assert server.used_slots() == 0
    assert lock_is_whole(project)


def test_ctrl_c(project, server, trains):
    process, stage = trains()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=LONG_ENOUGH)
    assert process.returncode == 130, output
    assert output.splitlines()[-1].startswith("stopped")
    assert not running(stage)
    assert server.used_slots() == 0
    assert "continues" not in project.flow("--target", "prepare")  # it stopped cleanly: nothing to resume


def test_flow_waits_for_dvc_repro(project, server):
    project.write(changed(m_1="wait go.txt"))
    before = project.begun().count("models/a/m-1")
    repro = project.start("dvc", "repro", "train@a-m-1")
    wait_until(lambda: project.begun().count("models/a/m-1") > before)
    flow = project.start(sys.executable, "-m", "flows.pipeline", "--target", "train@a-m-1")
    assert any(
        f"(PID {repro.pid})" in line or "dvc repro" in line for line in flow.stdout
    )  # it waits and names the other process
    (project.folder / "go.txt").touch()
    assert "Completed: 0 ran, 2 cached" in flow.communicate(timeout=LONG_ENOUGH)[0]
    repro.communicate(timeout=LONG_ENOUGH)
    assert repro.returncode == 0
    assert project.begun().count("models/a/m-1") == before + 1
    assert lock_is_whole(project)


def test_flow_starts_missing_server(fresh, tmp_path):
    project = fresh.duplicate(tmp_path / "p")
    del project.environment["PREFECT_API_URL"]
    project.environment["PREFECT_HOME"] = str(project.folder / ".prefect")
    output = project.flow("--dry")
    assert output.count("PREFECT_API_URL is not set") == 1
    assert "7 of 7 stages would run" in output


def test_clones_share_a_remote(fresh, server, tmp_path):
    """A worker on another machine, here a clone, uses the results of the first one."""
    first = fresh.duplicate(tmp_path / "first")
    store = tmp_path / "store"
    first.run("dvc", "remote", "add", "-d", "store", str(store))
    first.commit()

    store.write_text("no folder")  # a file, so a push fails
    last = away(first, "prepare@a").splitlines()[-1]
    assert last.startswith("NotPushed: 1 ran, 0 cached")
    assert "prepare@a" in last
    assert "dvc push --run-cache" in last
    store.unlink()
    assert "Completed: 1 ran, 1 cached" in first.flow("--target", "train@a-m-1")
    assert json.loads((first.folder / ".dvc/tmp/vad-unpushed.json").read_text()) == []
    assert len([file for file in (store / "files").rglob("*") if file.is_file()]) == 2

    second = first.clone(tmp_path / "second")  # dvc.lock was not committed: DVC finds the training in the remote
    assert not (second.folder / "dvc.lock").exists()
    assert "Completed: 2 ran, 1 cached" in second.flow("--dataset", "a")
    assert sorted(second.begun()) == ["models/a/m2", "raw/a"]
    second.commit()

    third = second.clone(tmp_path / "third")  # with dvc.lock: only the requested results are pulled
    assert "Completed: 0 ran, 3 cached" in third.flow("--dataset", "a")
    assert (third.folder / "models/a/m2").exists()
    assert not (third.folder / "raw/a").exists()
    third.write(changed(m2="say something new"))
    assert "Completed: 1 ran, 2 cached" in third.flow("--dataset", "a")
    assert third.begun() == ["models/a/m2"]
    assert (third.folder / "raw/a").exists()  # a stage needed it


def away(project: FlowProject, target: str) -> str:
    """The output of a flow that cannot push to its remote, without pauses between retries."""
    program = (
        "import sys; from flows import pipeline, remote; remote.AGAIN_SECONDS = (0.0, 0.0); sys.exit(pipeline.main())"
    )
    return project.run(sys.executable, "-c", program, "--target", target, code=1)
