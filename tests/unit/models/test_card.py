"""The model card."""

import yaml

from vadcore.models import model_config
from vadcore.models.card import model_card

METRICS = {"dataset": "yard", "iterations": 200, "seed": 3, "precision": "bfloat16", "best_iteration": 150}


def test_card_has_metadata_and_facts():
    config = model_config("gru_ae-wide", {"iterations": 200})
    card = model_card("gru_ae-wide", config, METRICS, 5, 2, "models/yard/gru_ae-wide")
    _, metadata, text = card.split("---\n", 2)
    assert yaml.safe_load(metadata)["datasets"] == ["yard"]
    assert "5 clips for training and 2 held out for" in text
    assert "200 iterations, seed 3, bfloat16; weights of iteration 150" in text
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings == config.model_dump(mode="json")


def test_card_of_a_baseline():
    card = model_card("frame_diff", model_config("frame_diff", {}), {**METRICS, "best_iteration": None}, 5, 2, "x")
    assert "nothing is learned" in card
