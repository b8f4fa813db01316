"""params.yaml is validated whole; every fault is one line that names the key, the value and what is allowed."""

import pytest
import yaml

from tests.helpers.project import ROOT
from vadcore.config import load_params
from vadcore.errors import VadError
from vadcore.models import list_models


def smallest() -> dict:
    return {
        "datasets": ["street"],
        "models": ["frame_diff"],
        "dataset": {"street": {"format": "street"}},
        "model": {"frame_diff": None},
    }


def fault(tmp_path, values) -> str:
    file = tmp_path / "params.yaml"
    file.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    with pytest.raises(VadError) as caught:
        load_params(file)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


def test_the_smallest_file_is_enough(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(smallest()))
    params = load_params(file)
    assert params.all_models == ("frame_diff",)
    assert params.model["frame_diff"].block == 16


@pytest.mark.parametrize(
    "file", [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))], ids=lambda f: f.name
)
def test_every_profile_is_valid(file):
    load_params(file)


@pytest.mark.parametrize("name", ["ped2-cpu-seeds-flow", "ped2-cpu-seeds-frames", "ped2-paper-seeds"])
def test_the_seeds_of_ped2_repeat_its_profile_in_everything_else(name):
    first, more = (load_params(ROOT / "profiles" / f"{file}.yaml") for file in (name.partition("-seeds")[0], name))
    for section in ("seed", "train", "extract", "optical_flow", "calibrate", "score", "dataset"):
        assert getattr(more, section) == getattr(first, section)
    for name, config in more.model.items():
        system, seed = name.rsplit("-", 1)
        assert config == first.model[system].model_copy(update={"seed": int(seed)})


def test_the_settings_of_the_papers_have_three_seeds_of_every_system_that_learns():
    first, more = (load_params(ROOT / f"profiles/{file}.yaml") for file in ("ped2-paper", "ped2-paper-seeds"))
    learned = set(first.all_models) - {"frame_diff", "background", "flow_magnitude"}
    assert set(more.all_models) == {f"{name}-{seed}" for name in learned for seed in (2, 3)}
    assert {name.partition("-")[0] for name in first.all_models} == set(list_models())


def test_the_default_params_are_the_demo_profile():
    assert (ROOT / "profiles" / "demo.yaml").read_text() == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trian": {}}, "trian: unknown key; correct its spelling or remove it"),
        ({"train": {"chek_every": 3}}, "train.chek_every: unknown key; correct its spelling or remove it"),
        ({"train": {"check_every": 0}}, "train.check_every: value 0: input should be greater than 0"),
        (
            {"train": {"precision": "fp16"}},
            "train.precision: value 'fp16': input should be 'auto', 'float32' or 'bfloat16'",
        ),
        ({"train": {"held_out": 1.5}}, "train.held_out: value 1.5: input should be less than 1"),
        ({"seed": "one"}, "seed: value 'one': input should be a valid integer"),
        ({"datasets": ["street", "yard"]}, "datasets: 'yard' has no section dataset.yard; there are: street"),
        ({"models": ["conv"]}, "models: 'conv' has no section model.conv; there are: frame_diff"),
        (
            {"models": ["frame_diff", "frame_diff"]},
            "models: frame_diff, frame_diff: a name stands there twice; remove one",
        ),
        (
            {"dataset": {"street": {"format": "street"}, "../x": {"format": "street"}}},
            "dataset.../x: not a name for a folder",
        ),
        (
            {"calibrate": {"false_alarms_per_hour": float("inf")}},
            "calibrate.false_alarms_per_hour: value inf: input should be",
        ),
        ({"score": {"smoothing": float("inf")}}, "score.smoothing: value inf: input should be a finite number"),
        ({"machine": {"device": "gpu"}}, "machine.device: value 'gpu': string should match pattern '^(auto|cpu|cuda"),
        ({"model": {"frame_diff": {"seed": -5}}}, "model.frame_diff.seed: value -5: input should be greater than"),
        ({"dataset": {"street": {"seed": 1}}}, "dataset.street.format: missing; add one of street, frames, ucsd,"),
        ({"models": []}, "models: nothing to run; name at least one under models or flow_models"),
        ({"flow_models": ["frame_diff"]}, "flow_models: 'frame_diff' needs no optical flow; list it under models"),
        ({"model": {"frame_diff": None, "resnet": {}}}, "model.resnet: no such system; there are: "),
        ({"model": {"frame_diff": None, "frame_diff-a/b": {}}}, "model.frame_diff-a/b: not a name for a folder"),
        (
            {"model": {"frame_diff": None, "frame_diff-fine": {"block": -1}}},
            "model.frame_diff-fine.block: value -1: input should be greater than 0",
        ),
        (
            {"model": {"frame_diff": {"blok": 3}}},
            "model.frame_diff.blok: unknown key; correct its spelling or remove it",
        ),
        (
            {"model": {"frame_diff": None, "convlstm_ae": {"image_size": [100, 128]}}},
            "model.convlstm_ae: image_size [100, 128]: sides must be multiples of 8, such as [96, 128]",
        ),
        (
            {"model": {"frame_diff": None, "convlstm_ae": {"step": 5}}},
            "model.convlstm_ae: step 5: score src belongs to the frame a window starts at; set step to 1",
        ),
        ({"dataset": {"street": {"format": "ucsd"}}}, "dataset.street.source: missing; add it"),
        ({"dataset": {"street": {"format": "street", "noise": -1}}}, "dataset.street.noise: value -1"),
        ({"dataset": {"street": {"format": "youtube"}}}, "dataset.street.format: 'youtube' is none of street, frames"),
    ],
    ids=str,
)
def test_a_fault_names_key_value_and_remedy(tmp_path, change, message):
    assert fault(tmp_path, {**smallest(), **change}).startswith(message)


@pytest.mark.parametrize(
    ("front_end", "message"),
    [
        ({"name": "vcae", "zz": 1}, "zz: unknown key; correct its spelling or remove it"),
        ({"name": "cae_vae", "conv": [1, 2]}, "conv.2: missing; add it"),
        ({"dense": -1}, "dense: value -1: input should be greater than 0"),
    ],
)
def test_faults_of_a_part_are_told_by_the_keys_of_the_file(tmp_path, front_end, message):
    values = {**smallest(), "models": ["latent_lstm"], "model": {"latent_lstm": {"front_end": front_end}}}
    assert fault(tmp_path, values) == f"model.latent_lstm.front_end.{message}"


def test_a_flow_system_under_models_is_refused(tmp_path):
    values = {**smallest(), "models": ["flow_magnitude"], "model": {"flow_magnitude": None}}
    assert fault(tmp_path, values) == "models: 'flow_magnitude' needs optical flow; list it under flow_models"


def test_broken_yaml_and_an_empty_file_are_told_apart(tmp_path):
    assert "not valid YAML" in fault(tmp_path, "datasets: [street\n")
    assert "holds no sections" in fault(tmp_path, "")


def test_a_missing_file_says_where_to_find_one(tmp_path):
    with pytest.raises(VadError, match="copy a file of profiles/ here"):
        load_params(tmp_path / "params.yaml")
