"""The stages of a pipeline run: which exist, which are selected, which have to run."""

import ast
from pathlib import Path

import pytest
import yaml

from flows.graph import CHANGED, CLEAN, MISSING, Graph
from flows.remote import missing_here
from flows.stage import KINDS
from tests.helpers.project import ROOT
from tests.helpers.toy import DVC_YAML, changed, finish_toy, make_toy, write_params
from vadcore.models import list_models
from vadcore.utils.errors import VadError

RAW, TRAIN = {"prepare@a", "prepare@b"}, {f"train@{dataset}-{model}" for dataset in "ab" for model in ("m-1", "m2")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    make_toy(folder)
    return folder


@pytest.fixture(scope="module")
def graph(folder) -> Graph:
    return Graph(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """All stages have run. The report also reads code.txt, which no stage makes."""
    folder = tmp_path_factory.mktemp("finished")
    make_toy(folder, DVC_YAML.replace("      - models\n    params", "      - models\n      - code.txt\n    params"))
    (folder / "code.txt").write_text("code")
    finish_toy(folder)
    return folder


class TestGraph:
    def test_stages_and_dependencies(self, graph):
        assert set(graph.nodes) == {*RAW, *TRAIN, "report"}
        assert graph.nodes["train@a-m-1"].upstream == ("prepare@a",)
        assert set(graph.nodes["report"].upstream) == TRAIN  # through the folder that they write to

    def test_topological_order(self, graph):
        seen = set()
        for node in graph.nodes.values():
            assert set(node.upstream) <= seen
            seen.add(node.address)

    def test_names_with_dashes(self, graph):
        assert graph.nodes["train@a-m-1"].axes == {"dataset": "a", "model": "m-1"}
        assert graph.nodes["train@a-m-1"].kind == "train"

    def test_error_for_unreadable_params(self, tmp_path):
        make_toy(tmp_path)
        (tmp_path / "params.yaml").write_text("datasets: [a")
        with pytest.raises(VadError, match=r"params\.yaml") as caught:
            Graph(tmp_path)
        assert "\n" not in str(caught.value)


class TestSelect:
    def test_all_stages(self, graph):
        assert graph.select() == (set(graph.nodes), set())

    def test_dataset(self, graph):
        """Includes the stages before and after its own."""
        assert graph.select(datasets=["a"]) == ({"prepare@a", "train@a-m-1", "train@a-m2"}, {"report"})

    def test_model_on_one_dataset(self, graph):
        assert graph.select(datasets=["b"], models=["m2"])[0] == {"prepare@b", "train@b-m2"}

    def test_targets_exclude_downstream_stages(self, graph):
        assert graph.select(targets=["train@a-m2"]) == ({"prepare@a", "train@a-m2"}, set())
        assert graph.select(targets=["train"], models=["m2"])[0] == {*RAW, "train@a-m2", "train@b-m2"}

    @pytest.mark.parametrize(
        ("choice", "said"),
        [
            ({"models": ["m3"]}, ["m3", "m-1, m2"]),
            ({"datasets": ["c"]}, ["dataset c", "a, b"]),
            ({"targets": ["tran"]}, ["tran", "prepare, report, train"]),
            ({"targets": ["prepare"], "models": ["m2"]}, ["dvc stage list"]),
        ],
    )
    def test_unknown_name(self, graph, choice, said):
        with pytest.raises(VadError) as caught:
            graph.select(**choice)
        assert all(text in str(caught.value) for text in said)


class TestStates:
    @pytest.fixture
    def states(self, finished):
        """A function that returns the current states of the stages."""
        yield lambda: Graph(finished).states()
        write_params(finished, changed())

    def test_clean_changed_and_missing(self, finished, states):
        assert set(states().values()) == {CLEAN}

        write_params(finished, changed(m2="say three"))
        assert {address for address, state in states().items() if state == CHANGED} == {"train@a-m2", "train@b-m2"}

        gone = [finished / "raw/a", finished / "models/a/m-1"]  # outputs of a stage and of the next one
        kept = [path.read_text() for path in gone]
        for path in gone:
            path.unlink()
        found = states()
        assert found["prepare@a"] == found["train@a-m-1"] == MISSING
        assert found["train@a-m2"] == CHANGED
        assert found["report"] == CHANGED  # the folder that it reads has changed
        for path, text in zip(gone, kept, strict=True):
            path.write_text(text)

    def test_missing_source_file(self, finished, states):
        """The stage runs and reports the missing file."""
        (finished / "code.txt").unlink()
        assert states()["report"] == CHANGED
        (finished / "code.txt").write_text("code")

    def test_files_locked_by_another_process(self, finished, states):
        from dvc.fs import localfs
        from dvc.rwlock import rwlock

        folder = str(finished / ".dvc/tmp")
        held = {"read": [str(finished / "raw/a")], "write": [str(finished / "models/a/m-1")]}
        with rwlock(folder, localfs, "dvc repro train@a-m-1", **held, hardlink=False):
            found = states()
        assert found["train@a-m-1"] == found["report"] == CHANGED
        assert found["prepare@b"] == CLEAN


class TestWhatHasToRun:
    def test_stages_after_a_changed_stage(self, graph):
        assert graph.running(set(graph.nodes), {"train@a-m2"}) == {"train@a-m2", "report"}
        assert graph.running({"prepare@a", "train@a-m2"}, {"train@a-m2"}) == {"train@a-m2"}  # report is not selected

    def test_files_to_pull(self, graph):
        everything = set(graph.nodes)
        away = dict.fromkeys(everything, MISSING)
        assert missing_here(graph, everything, away, set()) == (set(), {"report"})
        running, wanted = missing_here(graph, everything, {**away, "train@a-m2": CHANGED}, set())
        assert running == {"train@a-m2", "report"}
        assert wanted == {"prepare@a", *TRAIN - {"train@a-m2"}}  # no stage that runs reads prepare@b

    def test_files_missing_on_the_remote(self, graph):
        everything = set(graph.nodes)
        running, wanted = missing_here(graph, everything, dict.fromkeys(everything, MISSING), {"report"})
        assert running == {"report"}
        assert wanted == TRAIN


class TestKinds:
    def test_one_kind_per_dvc_stage(self):
        assert set(KINDS) == set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])

    def test_heavy_kinds(self):
        heavy = {name for name, kind in KINDS.items() if kind.heavy}
        assert heavy == {"optical_flow", "train_flownet", "train", "score"}


def test_flows_do_not_name_models():
    """Flows also import no module of a model."""
    for file in (ROOT / "flows").glob("*.py"):
        tree = ast.parse(file.read_text())
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not words & set(list_models()), file
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name for name in imported if str(name).startswith(("vadcore.models", "torch"))}, file
