"""The pipeline as a Prefect flow, on real processes and a real server: what runs, what Prefect shows, what a kill leaves."""

import copy
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from flows.kinds import NICE
from tests.helpers.flow_project import TOY, FlowProject, Server, wait_until
from tests.helpers.project import LONG_ENOUGH

pytestmark = pytest.mark.pipeline
EVERY = {"prepare@a", "prepare@b", "train@a-m-1", "train@a-m2", "train@b-m-1", "train@b-m2", "report"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def limit(server):
    """The concurrency limit ``gpu``, of one slot."""
    server.post("v2/concurrency_limits/", name="gpu", limit=1)
    yield
    server.ask("DELETE", "v2/concurrency_limits/gpu")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, server) -> FlowProject:
    """A project in which nothing has run yet."""
    project = FlowProject(tmp_path_factory.mktemp("fresh"), TOY, toy=True, api=server.api)
    project.commit()
    return project


@pytest.fixture
def project(fresh, tmp_path) -> FlowProject:
    """A copy of it."""
    shutil.copytree(fresh.folder, tmp_path / "p", symlinks=True)
    project = copy.copy(fresh)
    project.folder = tmp_path / "p"
    project.environment = {
        **fresh.environment,
        "PYTHONPATH": str(project.folder),
        "MLFLOW_TRACKING_URI": f"sqlite:///{project.folder}/mlflow.db",
    }
    return project


def changed(**changes: str) -> dict:
    """The toy's params with other work for some of its stages: ``m2="fail"``, ``a="sleep 3"``, ``report=...``."""
    params = copy.deepcopy(TOY)
    for name, work in changes.items():
        name = name.replace("_", "-")
        section = params["raw"] if name in params["raw"] else params["model"] if name in params["model"] else params
        section[name] = work
    return params


def flow_run(server: Server) -> dict:
    """The flow run that was started last."""
    return server.post("flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]


def states(server: Server, run: dict, count: int) -> dict[str, str]:
    """Task run -> name of its state, when ``count`` task runs have come to an end: Prefect hears of them a moment later.
    One that never began (NotReady) counts, too."""
    end = time.monotonic() + LONG_ENOUGH
    while True:
        runs = server.post("task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}}, limit=100)
        found = {one["name"]: one["state"]["name"] for one in runs}
        if len(found) == count and not {"Running", "Pending"} & set(found.values()):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.2)


def begun(project: FlowProject) -> list[str]:
    file = project.folder / "begun.txt"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.exists() else []


def times(project: FlowProject) -> dict[str, tuple[float, float]]:
    """What each stage made -> when it began and when it ended."""
    began = {line.split()[0]: float(line.split()[-1]) for line in (project.folder / "begun.txt").open()}
    ended = {line.split()[0]: float(line.split()[-1]) for line in (project.folder / "ended.txt").open()}
    return {out: (began[out], ended[out]) for out in began}


def lock_is_whole(project: FlowProject) -> bool:
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())
    return all(stage["outs"][0]["md5"] for stage in lock["stages"].values())


def start_and_wait_for(project: FlowProject, out: str, *words: str):
    """Start the flow and wait until the stage that makes ``out`` has begun; the process, and that of the stage."""
    process = project.start(sys.executable, "-m", "flows.pipeline", *words)
    wait_until(lambda: out in begun(project))
    line = next(line for line in (project.folder / "begun.txt").read_text().splitlines() if line.startswith(f"{out} "))
    return process, int(line.split()[1])


def test_all_of_it_runs_then_none_of_it_and_prefect_shows_which(server, limit, project):
    project.write(changed(a="meet raw/b", b="meet raw/a", m_1="sleep 0.7", m2="sleep 0.7"))
    output = project.flow()
    assert "Completed: 7 ran, 0 cached" in output
    assert states(server, flow_run(server), 7) == dict.fromkeys(EVERY, "Completed")
    assert "Task run 'train@a-m-1' - sleep for models/a/m-1" in output  # live, and what DVC says to a person is not
    assert "git add" not in output

    # light stages side by side (they met) and with the lowest priority; heavy ones, one slot, one after another
    when = times(project)
    heavy = sorted(when[out] for out in when if out.startswith("models/"))
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(heavy))
    assert f"meet for raw/a: nice {os.nice(0) + NICE}, " in output
    assert f"sleep for models/a/m-1: nice {os.nice(0)}, " in output

    # the stages know whose they are, so that MLflow's runs lead here
    run = flow_run(server)
    assert f"{run['name']}/{run['id']}" in output

    project.write(changed(a="meet raw/b", b="meet raw/a", m_1="sleep 0.7", m2="say something new"))
    output = project.flow()
    assert "Completed: 3 ran, 4 cached" in output
    shown = states(server, flow_run(server), 7)
    assert {name for name, state in shown.items() if state == "Cached"} == EVERY - {
        "train@a-m2",
        "train@b-m2",
        "report",
    }

    before = begun(project)
    project.write(changed(a="meet raw/b", b="meet raw/a", m_1="sleep 0.7", m2="sleep 0.7"))  # as it was: DVC remembers
    assert "Completed: 0 ran, 7 cached" in project.flow()
    assert states(server, flow_run(server), 7) == dict.fromkeys(EVERY, "Cached")
    assert begun(project) == before
    assert project.run("dvc", "status").strip() == "Data and pipelines are up to date."


def test_a_choice_of_stages_and_what_a_dry_run_says_of_it(server, limit, project):
    (project.folder / "reports").mkdir()
    (project.folder / "reports/results.csv").write_text("model,auc\nm2,0.5\n")
    output = project.flow("--dry", "--dataset", "a")
    assert "report is left out: it also needs prepare@b, train@b-m-1, train@b-m2" in output
    assert "Completed: dry run: 3 of 3 stages would run" in output
    assert begun(project) == []
    (plan,) = server.post("artifacts/filter", artifacts={"key": {"any_": ["plan"]}}, limit=1)
    assert json.loads(plan["data"])[0] == {"stage": "prepare@a", "now": "changed", "would": "run"}
    project.flow("--target", "train@a-m2")
    assert begun(project) == ["raw/a", "models/a/m2"]
    shown = server.post("artifacts/filter", artifacts={"flow_run_id": {"any_": [flow_run(server)["id"]]}})
    assert shown == []  # the results that lie here are those of another run
    assert "Completed: 1 ran, 0 cached" in project.flow("--target", "prepare@a", "--force")
    assert "1 ran, 1 cached" in project.flow("--target", "train@a-m2", "--refresh")  # looked anew, and saw the same
    assert project.flow("--model", "m3", code=1).splitlines()[-1] == (
        "Failed: no stage has the model m3; params.yaml lists: m-1, m2"
    )


def test_a_run_has_one_heavy_stage_at_a_time_however_many_slots_there_are_unless_it_is_given_more(
    server, limit, project
):
    """The slots are those of all machines: with two, each of two machines trains one system."""
    server.ask("PATCH", "v2/concurrency_limits/gpu", limit=2)

    project.write(changed(m_1="sleep 1.5", m2="sleep 1.5"))
    project.flow("--dataset", "a")
    first, second = sorted(times(project)[f"models/a/{model}"] for model in ("m-1", "m2"))
    assert first[1] <= second[0]
    (project.folder / "begun.txt").unlink()
    project.write(changed(m_1="meet models/a/m2", m2="meet models/a/m-1"))  # fails unless they run side by side
    output = project.flow("--dataset", "a", "--heavy-at-once", "3")
    assert "heavy_at_once is 3, the limit gpu has 2 slots: prefect gcl update gpu --limit 3" in output
    assert project.flow("--heavy-at-once", "0", code=1).splitlines()[-1] == (
        "Failed: heavy_at_once: 0: at least one heavy stage runs at a time"
    )


def test_a_stage_that_says_what_is_wrong_is_not_tried_again_and_the_others_go_on(server, limit, project):
    project.write(changed(m2="fail"))
    output = project.flow(code=1)
    last = output.splitlines()[-1]
    assert last.startswith("Failed: 4 ran, 0 cached, 2 failed, 1 not run; ")
    assert "train@a-m2: params.yaml: no good; write something better" in last
    assert begun(project).count("models/a/m2") == 1
    shown = states(server, flow_run(server), 7)
    assert shown["train@a-m2"] == shown["train@b-m2"] == "Failed"
    assert shown["train@a-m-1"] == "Completed"
    assert shown["report"] == "NotReady"
    assert "Traceback" not in output


QUICK = """
import sys
from dataclasses import replace
from flows import kinds
from flows.pipeline import pipeline
kinds.KINDS["train"] = replace(kinds.KINDS["train"], pause=(0.5,))
state = pipeline(targets=["train@a-m2"], hours={hours}, return_state=True)
sys.exit(f"{{state.name}}: {{state.message}}" if not state.is_completed() else 0)
"""


def test_a_stage_that_crashes_is_tried_again_as_often_as_its_kind_allows(server, limit, project):
    project.write(changed(m2="crash 1"))
    project.run(sys.executable, "-c", QUICK.format(hours={}))
    assert begun(project).count("models/a/m2") == 2
    project.write(changed(m2="crash"))
    output = project.run(sys.executable, "-c", QUICK.format(hours={}), code=1)
    assert begun(project).count("models/a/m2") == 2 + 3  # and two retries
    assert "train@a-m2: RuntimeError: something unforeseen" in output.splitlines()[-1]


def test_a_stage_is_stopped_at_its_time_limit_and_not_tried_again(server, limit, project):
    project.write(changed(m2="sleep 600"))
    output = project.run(sys.executable, "-c", QUICK.format(hours={"train": 3 / 3600}), code=1)
    assert "train@a-m2: stopped after 0.000833333 hours, the limit of train" in output.splitlines()[-1]
    run = flow_run(server)
    assert states(server, run, 2)["train@a-m2"] == "TimedOut"
    shown = server.post("task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    assert {one["name"]: one["run_count"] for one in shown}["train@a-m2"] == 1
    assert begun(project).count("models/a/m2") <= 1  # 0 where DVC takes longer than the limit to come to it


def test_killed_with_9_its_stage_ends_its_slot_is_free_and_the_next_run_goes_on(server, limit, project):
    project.write(changed(m_1="sleep 60"))
    process, stage = start_and_wait_for(project, "models/a/m-1", "--dataset", "a")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not psutil.pid_exists(stage))
    killed = flow_run(server)
    assert killed["state"]["type"] == "RUNNING"  # nobody was there to say otherwise
    project.write(changed())
    output = project.flow()
    assert f"goes on from {killed['name']}, which was killed" in output
    assert begun(project).count("raw/a") == 1
    assert server.ask("GET", f"flow_runs/{killed['id']}")["state"]["type"] == "CRASHED"
    assert lock_is_whole(project)


def test_ctrl_c_stops_the_stage_and_says_how_to_go_on(server, limit, project):
    project.write(changed(m_1="sleep 60"))
    process, stage = start_and_wait_for(project, "models/a/m-1", "--target", "train@a-m-1")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=LONG_ENOUGH)
    assert process.returncode == 130
    assert output.splitlines()[-1] == "stopped; the same command goes on from here"
    assert not psutil.pid_exists(stage)
    assert "goes on from" not in project.flow("--target", "prepare")  # it was not killed, and has left nothing behind


def test_two_at_once_the_second_is_refused_and_the_first_ends_well(server, limit, project):
    project.write(changed(m_1="wait go.txt"))
    first, _ = start_and_wait_for(project, "models/a/m-1", "--dataset", "a")
    refused = project.flow(code=1).splitlines()[-1]
    (project.folder / "go.txt").touch()
    name = flow_run_named_in(refused)
    assert refused.startswith("Refused: refused: pipeline run ")
    output, _ = first.communicate(timeout=LONG_ENOUGH)
    assert first.returncode == 0, output
    assert name in output
    assert lock_is_whole(project)


def flow_run_named_in(line: str) -> str:
    return re.search(r"pipeline run (\S+) \(process \d+ on \S+, since [\d :-]+\) is at work in", line)[1]


def test_beside_a_persons_own_dvc_repro_it_waits_its_turn(server, limit, project):
    project.write(changed(m_1="wait go.txt"))
    project.run("dvc", "repro", "-q", "prepare")
    persons = project.start("dvc", "repro", "train@a-m-1")
    wait_until(lambda: "models/a/m-1" in begun(project))
    flow = project.start(sys.executable, "-m", "flows.pipeline", "--target", "train@a-m-1")
    assert any("which is at work on the same files" in line for line in flow.stdout)
    (project.folder / "go.txt").touch()
    assert "Completed: 0 ran, 2 cached" in flow.communicate(timeout=LONG_ENOUGH)[0]
    persons.communicate(timeout=LONG_ENOUGH)
    assert persons.returncode == 0
    assert begun(project).count("models/a/m-1") == 1
    assert lock_is_whole(project)


def test_without_the_limit_the_line_says_how_to_create_it(server, project):
    last = project.flow(code=1).splitlines()[-1]
    assert last.startswith("Failed: Prefect has no concurrency limit 'gpu'; create it")
    assert last.endswith("prefect gcl create gpu --limit 1")
    assert begun(project) == []
    assert "1 ran" in project.flow("--target", "prepare@a")  # which takes no slot


def test_without_a_server_it_starts_one_and_says_so(project):
    del project.environment["PREFECT_API_URL"]
    project.environment["PREFECT_HOME"] = str(project.folder / ".prefect")
    output = project.flow("--dry")
    assert output.count("PREFECT_API_URL is not set") == 1
    assert "7 of 7 stages would run" in output


class TestARemote:
    """A DVC remote: a worker on another machine, here a second clone, goes on where the first one stopped."""

    @pytest.fixture
    def first(self, project, tmp_path) -> FlowProject:
        project.run("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
        project.commit()
        return project

    def clone(self, first: FlowProject, folder: Path) -> FlowProject:
        first.run("git", "clone", "-q", str(first.folder), str(folder))
        second = copy.copy(first)
        second.folder = folder
        second.environment = {
            **first.environment,
            "PYTHONPATH": str(folder),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        }
        return second

    def test_what_a_stage_needs_is_pulled_and_what_it_made_is_pushed(self, server, limit, first, tmp_path):
        first.flow()
        assert json.loads((first.folder / ".dvc/tmp/vad-unpushed.json").read_text()) == []
        first.commit()

        second = self.clone(first, tmp_path / "second")
        assert "Completed: 0 ran, 7 cached" in second.flow()
        assert (second.folder / "report").exists()  # that is what the person wants to see
        assert not (second.folder / "raw/a").exists()  # that nobody needs here

        second.write(changed(m2="say something new"))
        assert "Completed: 3 ran, 4 cached" in second.flow()
        assert set(begun(second)) == {"models/a/m2", "models/b/m2", "report"}
        second.commit()

        third = self.clone(second, tmp_path / "third")  # what the second one made was pushed
        assert "Completed: 0 ran, 7 cached" in third.flow()
        assert begun(third) == []

    def test_a_run_that_was_cut_off_elsewhere_goes_on_without_its_lock_file(self, server, limit, first, tmp_path):
        """The machine is gone, and with it a dvc.lock that nobody has committed: what was trained is in the remote."""
        first.flow("--target", "train@a-m-1")
        second = self.clone(first, tmp_path / "second")
        assert not (second.folder / "dvc.lock").exists()
        assert "6 ran, 1 cached" in second.flow()
        assert "models/a/m-1" not in begun(second)

    def test_a_remote_that_is_away_costs_a_line_and_is_told_later(self, server, limit, first, tmp_path):
        store = tmp_path / "store"
        store.write_text("no folder")  # nothing can be pushed there
        last = first.flow("--target", "prepare@a", code=1).splitlines()[-1]
        assert last.startswith("NotPushed: 1 ran, 0 cached")
        assert "not in the DVC remote store: prepare@a; later: dvc push --run-cache" in last
        store.unlink()
        assert "Completed: 0 ran, 1 cached" in first.flow("--target", "prepare@a")
        assert len([file for file in (store / "files").rglob("*") if file.is_file()]) == 1


def test_the_slot_was_always_given_back(server, limit, project):
    project.flow("--target", "train@a-m-1")
    database = sqlite3.connect(Path(server.environment["PREFECT_HOME"]) / "prefect.db")
    assert database.execute("select active_slots from concurrency_limit_v2 where name = 'gpu'").fetchall() == [(0,)]
