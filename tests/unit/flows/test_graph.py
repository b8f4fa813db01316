"""Which stages a pipeline run has, which of them a person asked for, which of them have to run."""

import ast
import os
import re
import signal
import time

import pytest
import yaml

from flows.graph import CHANGED, CLEAN, MISSING, Graph
from flows.kinds import KINDS
from flows.remote import missing_here
from tests.helpers.flow_project import TOY, FlowProject
from tests.helpers.project import ROOT
from vadcore.errors import VadError
from vadcore.models import list_models

RAW, TRAIN = {"prepare@a", "prepare@b"}, {f"train@{dataset}-{model}" for dataset in "ab" for model in ("m-1", "m2")}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> FlowProject:
    return FlowProject(tmp_path_factory.mktemp("graph"), TOY, toy=True)


@pytest.fixture
def graph(project) -> Graph:
    return Graph(project.folder)


class TestTheGraph:
    def test_it_is_that_of_dvc_yaml(self, graph):
        assert set(graph.nodes) == {*RAW, *TRAIN, "report"}
        assert graph.nodes["train@a-m-1"].upstream == ("prepare@a",)
        assert set(graph.nodes["report"].upstream) == TRAIN  # by way of the folder that they write into

    def test_stages_come_after_what_they_need(self, graph):
        seen = set()
        for node in graph.nodes.values():
            assert set(node.upstream) <= seen
            seen.add(node.address)

    def test_a_name_with_dashes_is_not_cut_in_the_wrong_place(self, graph):
        assert graph.nodes["train@a-m-1"].axes == {"dataset": "a", "model": "m-1"}
        assert graph.nodes["train@a-m-1"].kind == "train"

    def test_a_graph_that_dvc_cannot_read_is_one_line(self, project):
        params = (project.folder / "params.yaml").read_text()
        (project.folder / "params.yaml").write_text("datasets: [a")
        try:
            with pytest.raises(VadError, match=r"params\.yaml") as caught:
                Graph(project.folder)
        finally:
            (project.folder / "params.yaml").write_text(params)
        assert "\n" not in str(caught.value)


class TestWhatAPersonAsksFor:
    def test_everything(self, graph):
        assert graph.select() == (set(graph.nodes), set())

    def test_a_data_set_with_what_it_needs_and_what_comes_after(self, graph):
        assert graph.select(datasets=["a"]) == ({"prepare@a", "train@a-m-1", "train@a-m2"}, {"report"})

    def test_a_model_on_one_data_set(self, graph):
        assert graph.select(datasets=["b"], models=["m2"])[0] == {"prepare@b", "train@b-m2"}

    def test_targets_by_address_or_by_name_and_nothing_after_them(self, graph):
        assert graph.select(targets=["train@a-m2"]) == ({"prepare@a", "train@a-m2"}, set())
        assert graph.select(targets=["train"], models=["m2"])[0] == {*RAW, "train@a-m2", "train@b-m2"}

    @pytest.mark.parametrize(
        ("choice", "line"),
        [
            ({"models": ["m3"]}, "no stage has the model m3; params.yaml lists: m-1, m2"),
            ({"datasets": ["c"]}, "no stage has the dataset c; params.yaml lists: a, b"),
            ({"targets": ["tran"]}, "dvc.yaml has no stage tran; there are: prepare, report, train"),
            (
                {"targets": ["prepare"], "models": ["m2"]},
                "no stage is of all the names given; see them with: dvc stage list",
            ),
        ],
    )
    def test_a_name_that_is_not_there_is_one_line_with_those_that_are(self, graph, choice, line):
        with pytest.raises(VadError, match=f"^{re.escape(line)}$"):
            graph.select(**choice)


class TestWhatHasToRun:
    def test_a_stage_is_clean_changed_or_only_not_here(self, project):
        project.run("dvc", "repro", "-q")
        graph = Graph(project.folder)
        assert set(graph.states().values()) == {CLEAN}

        project.write({**TOY, "model": {**TOY["model"], "m2": "say three"}})
        states = graph.states()
        assert {address for address, state in states.items() if state == CHANGED} == {"train@a-m2", "train@b-m2"}

        (project.folder / "raw/a").unlink()  # an out that is gone; and that of the stage after it
        (project.folder / "models/a/m-1").unlink()
        states = graph.states()
        assert states["prepare@a"] == states["train@a-m-1"] == MISSING
        assert states["train@a-m2"] == CHANGED
        assert states["report"] == CHANGED  # the folder that it reads is no longer as it was
        project.write(TOY)

    def test_a_stage_that_lacks_what_no_stage_makes_has_to_run_and_will_say_so(self, tmp_path):
        project = FlowProject(tmp_path, TOY, toy=True)
        text = (tmp_path / "dvc.yaml").read_text()
        (tmp_path / "dvc.yaml").write_text(
            text.replace("      - models\n    params", "      - models\n      - code.txt\n    params")
        )
        (tmp_path / "code.txt").write_text("code")
        project.run("dvc", "repro", "-q")
        (tmp_path / "code.txt").unlink()
        assert Graph(tmp_path).states()["report"] == CHANGED

    def test_files_that_another_dvc_process_is_at_work_on_are_no_error(self, project):
        graph = Graph(project.folder)
        begun = project.folder / "begun.txt"
        before = begun.read_text()
        project.write({**TOY, "model": {**TOY["model"], "m-1": "sleep 30"}})
        persons = project.start("dvc", "repro", "train@a-m-1")
        try:
            for _ in range(1000):
                if begun.read_text() != before:
                    break
                time.sleep(0.02)
            states = graph.states()
        finally:
            os.killpg(persons.pid, signal.SIGKILL)
            persons.communicate()
            project.write(TOY)
        assert states["train@a-m-1"] == states["report"] == CHANGED
        assert states["prepare@b"] == CLEAN

    def test_what_comes_after_a_changed_stage_may_have_to(self, graph):
        assert graph.running(set(graph.nodes), {"train@a-m2"}) == {"train@a-m2", "report"}
        assert graph.running({"prepare@a", "train@a-m2"}, {"train@a-m2"}) == {"train@a-m2"}  # that nobody asked for

    def test_files_in_a_remote_are_wanted_where_a_stage_reads_them_or_a_person_does(self, graph):
        everything = set(graph.nodes)
        away = dict.fromkeys(everything, MISSING)
        assert missing_here(graph, everything, away, set()) == (set(), {"report"})
        running, wanted = missing_here(graph, everything, {**away, "train@a-m2": CHANGED}, set())
        assert running == {"train@a-m2", "report"}
        assert wanted == {"prepare@a", *TRAIN - {"train@a-m2"}}  # and not prepare@b, which no stage that runs reads

    def test_what_the_remote_does_not_have_is_made_here(self, graph):
        everything = set(graph.nodes)
        running, wanted = missing_here(graph, everything, dict.fromkeys(everything, MISSING), {"report"})
        assert running == {"report"}
        assert wanted == TRAIN


class TestTheTable:
    def test_it_knows_every_stage_of_dvc_yaml_and_no_other(self):
        assert set(KINDS) == set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])

    def test_stages_that_compute_take_the_gpu(self):
        heavy = {name for name, kind in KINDS.items() if kind.heavy}
        assert heavy == {"optical_flow", "train_flownet", "train", "train_flow", "score", "score_flow"}


def test_flows_knows_no_model():
    """Neither their names nor the modules that have them."""
    for file in (ROOT / "flows").glob("*.py"):
        tree = ast.parse(file.read_text())
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not words & set(list_models()), file
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name for name in imported if str(name).startswith(("vadcore.models", "torch"))}, file
