"""Costs are stored beside results and read only with these results."""

import pytest

from vadcore.evaluation.cost import read_cost, read_costs, write_cost
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_json


def made(folder, **cost):
    write_json(folder / "metrics.json", {"auc": 0.5})
    write_cost(folder, cost)


def test_cost_of_the_results_beside_it(tmp_path):
    assert read_cost(tmp_path) == {}
    made(tmp_path, train_seconds=12.5)
    assert read_cost(tmp_path) == {"train_seconds": 12.5}
    write_json(tmp_path / "metrics.json", {"auc": 0.6})
    assert read_cost(tmp_path) == {}


def test_costs_of_training_and_scoring(tmp_path):
    made(tmp_path / "models/street/conv_ae", train_seconds=12.5)
    made(tmp_path / "scores/street/conv_ae", score_fps=99.0)
    costs = read_costs(tmp_path / "scores", tmp_path / "models", "street", "conv_ae")
    assert costs == {"train_seconds": 12.5, "score_fps": 99.0}


@pytest.mark.parametrize("text", ["{", "{}", "[]", "1"])
def test_error_for_broken_cost(tmp_path, text):
    (tmp_path / "cost.json").write_text(text)
    with pytest.raises(VadError, match=r"cost\.json: .*remove it"):
        read_cost(tmp_path)
