"""The pipeline flow with a fake DVC: which stages run, which run in parallel, and their final states."""

import os
import sys
from pathlib import Path

import pytest

from flows.graph import Node
from flows.recovery import Checkout
from flows.stage import NICE
from tests.helpers.fake_dvc import STATED

pytestmark = pytest.mark.xdist_group("prefect")
EVERY = {"prepare@a", "prepare@b", "train@a-m-1", "train@a-m2", "train@b-m-1", "train@b-m2", "report"}


def artifacts_of_last_run() -> dict[str, str]:
    """Key -> data of the last flow run."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        (last,) = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[last.id]))
        return {artifact.key: artifact.data for artifact in client.read_artifacts(artifact_filter=mine)}


class TestWhichStagesRun:
    def test_only_changed_stages_run(self, run, limit):
        state = run()
        assert state.is_completed()
        assert state.message.startswith("7 ran, 0 cached")
        assert run.names() == dict.fromkeys(EVERY, "Completed")
        assert set(run.dvc.ran()) == EVERY

        assert run().message.startswith("0 ran, 7 cached")
        assert run.names() == dict.fromkeys(EVERY, "Cached")
        assert run.dvc.commands == []

        run.dvc.change(m2="say two")
        assert run().message.startswith("3 ran, 4 cached")
        new = {"train@a-m2", "train@b-m2", "report"}
        assert set(run.dvc.ran()) == new
        assert run.names() == {address: "Completed" if address in new else "Cached" for address in EVERY}

        run.dvc.change(m2="say one")  # the old value: DVC has its results
        assert run().message.startswith("0 ran, 7 cached")
        assert run.dvc.ran() == []
        assert {command.address for command in run.dvc.commands} == new

    def test_configure_runs_first(self, run, limit):
        """All stages depend on it: without its result it is unknown which of them have changed."""
        run.dvc.nodes["configure"] = Node("configure", "configure")
        run.dvc.work["configure"] = "fail"
        state = run()
        assert state.is_failed()
        assert STATED in state.message
        assert set(run.dvc.ran()) == {"configure"}

        run.dvc.work["configure"] = "say one"
        assert run(dry=True).message.startswith("dry run: 7 of 8 stages")
        assert run().message.startswith("7 ran, 1 cached")
        run.dvc.work["configure"] = "say two"
        assert run().message.startswith("1 ran, 7 cached")
        assert run.dvc.ran() == ["configure"]

    def test_chosen_dataset_and_dry_run(self, run, limit):
        state = run(dry=True, datasets=["a"])
        assert "3 of 3 stages" in state.message
        assert "report is left out: it also needs prepare@b, train@b-m-1, train@b-m2" in run.text
        assert run.dvc.commands == []
        plan = artifacts_of_last_run()["plan"]
        assert '{"stage": "prepare@a", "now": "changed", "would": "run"}' in plan
        assert plan.count('"would": "run"') == 3

        assert run(datasets=["a"]).message.startswith("3 ran")
        assert set(run.dvc.ran()) == {"prepare@a", "train@a-m-1", "train@a-m2"}
        assert "0 of 3 stages" in run(dry=True, datasets=["a"]).message
        assert "3 of 3 stages" in run(dry=True, datasets=["a"], refresh=True).message

    def test_targets_and_models(self, run, limit):
        run(targets=["train@a-m2"])
        assert run.dvc.ran() == ["prepare@a", "train@a-m2"]
        state = run(models=["m3"])
        assert (state.name, state.is_failed()) == ("Failed", True)
        assert "m3" in state.message
        assert "m-1, m2" in state.message
        assert run.dvc.commands == []

    def test_force_and_refresh(self, run, limit):
        run(targets=["train@a-m2"])
        assert run(targets=["train@a-m2"], force=True).message.startswith("2 ran")
        assert run(targets=["train@a-m2"], refresh=True).message.startswith("1 ran, 1 cached")
        assert run.dvc.ran() == ["prepare@a"]  # checked again, result unchanged

    def test_unknown_kind_in_hours(self, run):
        state = run(hours={"trian": 1.0})
        assert state.is_failed()
        assert "trian" in state.message
        assert "train" in state.message.replace("trian", "")


class TestSideBySide:
    def test_light_stages_parallel_heavy_serial(self, run, limit):
        run.dvc.change(a="meet prepare@b", b="meet prepare@a")
        assert run().is_completed()  # the light ones met
        heavy = [event for event in run.dvc.events if event[1].startswith("train")]
        assert [what for what, _ in heavy] == ["begin", "end"] * 4
        assert all(first[1] == second[1] for first, second in zip(heavy[::2], heavy[1::2], strict=True))
        for command in run.dvc.commands:
            light = not command.address.startswith("train")
            assert command.nice == (NICE if light else 0)
            assert command.environment.get("OMP_NUM_THREADS") == ("1" if light else None)

    def test_more_slots_do_not_add_heavy_stages(self, run, limit):
        """All machines share the slots: with two slots, each of two machines trains one system."""
        limit(2)
        run(datasets=["a"])
        heavy = [what for what, address in run.dvc.events if address.startswith("train")]
        assert heavy == ["begin", "end"] * 2

    def test_heavy_at_once(self, run, limit, monkeypatch):
        from flows import stage

        monkeypatch.setattr(stage, "cores", lambda: 8)
        limit(2)
        run.dvc.change(m_1="meet train@a-m2", m2="meet train@a-m-1")
        assert run(datasets=["a"], heavy_at_once=3).is_completed()  # the heavy ones met
        assert "prefect gcl update gpu --limit 3" in run.text
        assert {run.dvc.repro(f"train@a-{model}")[0].environment["OMP_NUM_THREADS"] for model in ("m-1", "m2")} == {"4"}
        state = run(heavy_at_once=0)
        assert state.is_failed()
        assert "heavy_at_once: 0" in state.message

    def test_environment_of_stages(self, run, limit, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "7")  # the user's setting is kept
        run(targets=["prepare@a"])
        (command,) = run.dvc.commands
        assert command.environment["OMP_NUM_THREADS"] == "7"
        assert command.environment["PATH"].startswith(str(Path(sys.executable).parent))
        name, _, identity = command.environment["VAD_PIPELINE"].partition("/")  # links MLflow's runs to this one
        assert name
        assert len(identity) == 36


class TestFailures:
    def test_no_retry_after_reported_error(self, run, limit):
        run.dvc.change(m2="fail")
        state = run()
        assert state.is_failed()
        assert state.message.startswith("4 ran, 0 cached, 2 failed, 1 not run")
        assert f"train@a-m2: {STATED}" in state.message
        assert run.dvc.ran().count("train@a-m2") == 1
        names = run.names()
        assert names["train@a-m2"] == names["train@b-m2"] == "Failed"
        assert names["train@a-m-1"] == "Completed"
        assert names["report"] == "NotReady"

    def test_download_retries_reported_error(self, run):
        """The server of a download may fail for a while."""
        run.dvc.change(a="fail")
        assert run(targets=["prepare@a"]).is_failed()
        assert run.dvc.ran() == ["prepare@a"] * 3

    @pytest.mark.parametrize("crash", ["crash 9", "kill"])
    def test_retries_after_a_crash(self, run, limit, crash):
        run.dvc.change(m2="crash 1")
        assert run(targets=["train@a-m2"]).is_completed()
        assert run.dvc.ran().count("train@a-m2") == 2
        run.dvc.change(m2=crash)
        state = run(targets=["train@a-m2"])
        assert run.names()["train@a-m2"] == "BrokeOff"
        assert run.dvc.ran().count("train@a-m2") == 3  # two retries
        why = "killed (exit code -9)" if crash == "kill" else "RuntimeError: something unforeseen"
        assert f"train@a-m2: {why}" in state.message

    def test_fewer_retries_for_other_kinds(self, run, limit):
        run(targets=["train"])
        run.dvc.change(report="crash 9")
        assert run().is_failed()
        assert run.dvc.ran() == ["report"] * 2

    def test_time_limit(self, run, limit):
        run.dvc.change(m2="overdue")
        state = run(targets=["train@a-m2"], hours={"train": 0.5})
        assert run.names()["train@a-m2"] == "TimedOut"
        assert run.dvc.ran().count("train@a-m2") == 1
        assert "train@a-m2" in state.message
        assert "0.5 hours" in state.message
        (command,) = run.dvc.repro("train@a-m2")
        assert 0 < command.seconds <= 1800
        assert 3600 < run.dvc.repro("prepare@a")[0].seconds <= 12 * 3600  # the default limit

    def test_waits_for_another_dvc_process(self, run, limit):
        run.dvc.busy = 2
        assert run(targets=["prepare@a"]).message.startswith("1 ran")
        assert len(run.dvc.repro("prepare@a")) == 3
        told = [line for line in run.said if "(PID 4711): dvc repro" in line and not line.startswith(" ")]
        assert len(told) == 1  # besides DVC's own lines

    def test_second_run_is_refused(self, run, project):
        with Checkout(project).hold("mauve-fox", "id-1"):
            state = run()
        assert state.name == "Refused"
        assert "mauve-fox" in state.message
        assert str(os.getpid()) in state.message
        assert run.dvc.commands == []
        assert run(targets=["prepare@a"]).is_completed()

    def test_missing_limit(self, run):
        state = run()
        assert state.is_failed()
        assert "prefect gcl create gpu --limit 1" in state.message
        assert run.dvc.commands == []
        assert run(targets=["prepare@a"]).message.startswith("1 ran")  # a light stage needs no slot

    def test_log_without_dvc_advice(self, run):
        run(targets=["prepare@a"])
        assert "say for prepare@a" in run.said
        assert "git add" not in run.text


class TestRemote:
    @pytest.fixture
    def dvc(self, run):
        run.dvc.remote = set()
        return run.dvc

    def test_stages_are_pushed(self, run, limit, dvc, project):
        run()
        assert dvc.remote == dvc.cache
        assert Checkout(project).unpushed == []

    def test_only_needed_files_are_pulled(self, run, limit, dvc):
        """In a second clone, which has the dvc.lock of the first but no files."""
        run()
        dvc.here.clear()
        dvc.cache.clear()
        assert run().message.startswith("0 ran, 7 cached")
        assert dvc.here == {"report"}  # no stage reads the rest
        dvc.change(m2="say two")
        assert run().message.startswith("3 ran, 4 cached")
        assert set(dvc.ran()) == {"train@a-m2", "train@b-m2", "report"}
        assert dvc.here == EVERY  # their inputs and outputs

    def test_resume_without_lock_file(self, run, limit, dvc):
        """A machine is lost with an uncommitted dvc.lock; the model that it trained is in the remote."""
        run(targets=["train@a-m-1"])
        dvc.locked.clear()
        dvc.here.clear()
        dvc.cache.clear()
        assert run().message.startswith("6 ran, 1 cached")
        assert "train@a-m-1" not in dvc.ran()

    def test_files_missing_on_remote_are_made(self, run, limit, dvc):
        run()
        dvc.here.clear()
        dvc.cache.clear()
        dvc.remote = {made for made in dvc.remote if made[0] != "report"}
        assert run().message.startswith("1 ran, 6 cached")
        assert dvc.ran() == ["report"]
        assert {command.words[0] for command in dvc.commands} == {"pull", "repro", "push"}

    def test_remote_is_unreachable(self, run, limit, dvc, project):
        dvc.away = True
        state = run(targets=["prepare@a"])
        assert state.name == "NotPushed"
        assert state.message.startswith("1 ran")
        assert "prepare@a" in state.message
        assert "dvc push --run-cache" in state.message
        assert "remote store did not answer" in run.text
        assert Checkout(project).unpushed == ["prepare@a"]
        dvc.away = False
        assert run(targets=["prepare@a"]).message.startswith("0 ran, 1 cached")
        assert dvc.remote == dvc.cache
        assert Checkout(project).unpushed == []

    def test_dry_run_lists_files_to_pull(self, run, limit, dvc):
        run()
        dvc.here.clear()
        assert "0 of 7" in run(dry=True).message
        assert "report: pull" in run.said
        assert "prepare@a: nothing" in run.said


class TestCommand:
    """``python -m flows.pipeline`` with a flow that only records its parameters."""

    @pytest.fixture
    def main(self, monkeypatch, capsys):
        """Runs the command; returns its exit code, its output and the flow's parameters."""
        from prefect.states import Completed

        from flows import pipeline

        def main(*words: str, flow=lambda: Completed(message="2 ran")):
            given = {}
            monkeypatch.setattr(sys, "argv", ["pipeline", *words])
            monkeypatch.setattr(pipeline, "pipeline", lambda **parameters: given.update(parameters) or flow())
            code = pipeline.main()
            return code, "".join(capsys.readouterr()), given

        return main

    def test_options_become_parameters(self, main):
        words = "--dataset a --dataset b --model m2 --target train --force --refresh --dry"
        code, said, given = main(*words.split(), "--heavy-at-once", "2", "--wait-hours", "1.5")
        assert (code, said) == (0, "Completed: 2 ran\n")
        assert given == {
            **{"datasets": ["a", "b"], "models": ["m2"], "targets": ["train"], "heavy_at_once": 2, "wait_hours": 1.5},
            **{"force": True, "refresh": True, "dry": True, "return_state": True},
        }

    def test_exit_codes(self, main):
        from prefect.states import Failed

        def interrupted():
            raise KeyboardInterrupt

        assert main(flow=lambda: Failed(message="no stage m3"))[:2] == (1, "Failed: no stage m3\n")
        assert main(flow=interrupted)[0] == 130
