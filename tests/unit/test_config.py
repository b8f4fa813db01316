"""Validation of params.yaml: every fault is one line that names the key, the value and the remedy."""

import re
import subprocess

import pytest
import ruamel.yaml
import yaml

from tests.helpers.project import ROOT
from vadcore.config import RENAMED, load_params
from vadcore.models import create_model, list_models
from vadcore.utils.errors import VadError
from vadcore.utils.folders import FUSION


def smallest() -> dict:
    """The sections without defaults."""
    return {
        "datasets": ["street"],
        "models": ["frame_diff"],
        "dataset": {"street": {"format": "street"}},
    }


def fault(tmp_path, values) -> str:
    """The message about a file with ``values``, without the path it begins with."""
    file = tmp_path / "params.yaml"
    file.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    with pytest.raises(VadError) as caught:
        load_params(file)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


def test_smallest_file(tmp_path):
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
def test_ped2_seed_profiles_repeat_their_profile(name):
    first, more = (load_params(ROOT / "profiles" / f"{file}.yaml") for file in (name.partition("-seeds")[0], name))
    for section in ("seed", "train", "extract", "optical_flow", "calibrate", "score", "dataset"):
        assert getattr(more, section) == getattr(first, section)
    for name, config in more.model.items():
        system, seed = name.rsplit("-", 1)
        assert config == first.model[system].model_copy(update={"seed": int(seed)})


def test_paper_profile_has_three_seeds():
    first, more = (load_params(ROOT / f"profiles/{file}.yaml") for file in ("ped2-paper", "ped2-paper-seeds"))
    learned = {name for name in first.models if create_model(name, first.model[name]).trained}
    assert set(more.all_models) == {f"{name}-{seed}" for name in learned for seed in (2, 3)}
    assert {name.partition("-")[0] for name in first.all_models} == {*list_models(), FUSION}


def test_default_params_are_the_demo_profile():
    assert (ROOT / "profiles" / "demo.yaml").read_text() == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trian": {}}, "trian: unknown key"),
        ({"train": {"chek_every": 3}}, "train.chek_every: unknown key"),
        ({"train": {"check_every": 0}}, "train.check_every: value 0"),
        ({"train": {"precision": "fp16"}}, "train.precision: value 'fp16': ... 'auto', 'float32' or 'bfloat16'"),
        ({"train": {"val_share": 1.5}}, "train.val_share: value 1.5"),
        ({"seed": "one"}, "seed: value 'one': ... integer"),
        ({"datasets": ["street", "yard"]}, "datasets: 'yard' ... dataset.yard ... street"),
        ({"models": ["conv"]}, "models: 'conv' has no section model.conv"),
        ({"models": ["frame_diff", "frame_diff"]}, "models: frame_diff, frame_diff: ... twice"),
        (
            {"dataset": {"street": {"format": "street"}, "../x": {"format": "street"}}},
            "dataset.../x: ",
        ),
        ({"calibrate": {"datasets": {"yard": {}}}}, "calibrate.datasets: 'yard' ... dataset.yard; there are: street"),
        ({"calibrate": {"target_far_per_hour": float("inf")}}, "calibrate.target_far_per_hour: value inf"),
        ({"score": {"smoothing": float("inf")}}, "score.smoothing: value inf"),
        ({"machine": {"device": "gpu"}}, "machine.device: value 'gpu': ... auto|cpu|cuda"),
        ({"model": {"frame_diff": {"seed": -5}}}, "model.frame_diff.seed: value -5"),
        ({"dataset": {"street": {"seed": 1}}}, "dataset.street.format: missing ... frames, ... street, ucsd,"),
        ({"models": []}, "models: nothing to run"),
        ({"flow_models": ["frame_diff"]}, "flow_models: ... models"),
        ({"fusions": ["fusion"]}, "fusions: ... fusion.fusion"),
        ({"flownets": []}, "flownets: removed; ... remove this line"),
        ({"model": {"frame_diff": None, "resnet": {}}}, "model.resnet: ... frame_diff"),
        ({"model": {"frame_diff": None, "frame_diff-a/b": {}}}, "model.frame_diff-a/b: "),
        ({"model": {"frame_diff": None, "frame_diff-fine": {"block": -1}}}, "model.frame_diff-fine.block: value -1"),
        ({"model": {"frame_diff": {"blok": 3}}}, "model.frame_diff.blok: unknown key"),
        (
            {"model": {"frame_diff": None, "convlstm_ae": {"image_size": [100, 128]}}},
            "model.convlstm_ae: image_size [100, 128]: ... [96, 128]",
        ),
        (
            {"model": {"frame_diff": None, "convlstm_ae": {"step": 5}}},
            "model.convlstm_ae: step 5: ... score src ... step to 1",
        ),
        ({"dataset": {"street": {"format": "ucsd"}}}, "dataset.street.source: missing"),
        ({"dataset": {"street": {"format": "street", "noise": -1}}}, "dataset.street.noise: value -1"),
        ({"dataset": {"street": {"format": "youtube"}}}, "dataset.street.format: 'youtube' ... frames, ... street"),
    ],
    ids=str,
)
def test_fault_names_key_value_and_remedy(tmp_path, change, message):
    """``...`` in ``message`` stands for any words."""
    assert re.match(re.escape(message).replace(re.escape(" ... "), ".*"), fault(tmp_path, {**smallest(), **change}))


@pytest.mark.parametrize(
    ("front_end", "message"),
    [
        ({"name": "vcae", "zz": 1}, "zz: unknown key"),
        ({"name": "cae_vae", "conv": [1, 2]}, "conv.2: missing"),
        ({"dense": -1}, "dense: value -1"),
    ],
)
def test_fault_in_nested_section(tmp_path, front_end, message):
    values = {**smallest(), "models": ["latent_lstm"], "model": {"latent_lstm": {"front_end": front_end}}}
    assert fault(tmp_path, values).startswith(f"model.latent_lstm.front_end.{message}")


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_former_key_names_the_new_one(tmp_path, old, new):
    section, key = old.split(".")
    assert fault(tmp_path, {**smallest(), section: {key: 1}}) == f"{old}: is called {new} now; rename it"


def fused(**changes) -> dict:
    """Sections with a fusion of two systems, whose section has these ``changes``."""
    section = {"of": ["frame_diff", "background"], **changes}
    return {**smallest(), "models": ["frame_diff", "background"], "fusion": {"fusion-a": section}}


def test_all_models_include_fusions(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(fused(rule="mean", weights=[1, 2])))
    params = load_params(file)
    assert params.all_models == ("frame_diff", "background", "fusion-a")
    assert params.fusion["fusion-a"].high == 0.99
    assert not params.reads_flow("fusion-a")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (fused(of=["frame_diff"]), "fusion.fusion-a.of: value ['frame_diff']: ... 2 items"),
        (fused(of=["frame_diff", "frame_diff"]), "fusion.fusion-a: of: 'frame_diff' ... twice"),
        (fused(of=["frame_diff", "fusion-b"]), "fusion.fusion-a: of: 'fusion-b' is a fusion itself"),
        (fused(of=["frame_diff", "conv_ae"]), "fusion.fusion-a.of: 'conv_ae' ... list it under models"),
        (fused(rule="sum"), "fusion.fusion-a.rule: value 'sum': ... 'mean' or 'max'"),
        (fused(high=1), "fusion.fusion-a.high: value 1: ... less than 1"),
        (fused(rule="max", weights=[1, 2]), "fusion.fusion-a: weights: ... rule max ... remove them"),
        (fused(weights=[1, 2, 3]), "fusion.fusion-a: weights: 3 for 2 systems"),
        (fused(seed=3), "fusion.fusion-a.seed: unknown key"),
        ({**fused(), "fusion": {"both": {"of": ["frame_diff", "background"]}}}, "fusion.both: call it 'fusion' or"),
        ({**fused(), "models": ["frame_diff", "fusion-a"]}, "models: 'fusion-a' is a fusion; remove it here"),
        ({**fused(), "model": {"fusion": {}}}, "model.fusion: ... move it to fusion.fusion"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fault_in_fusion(tmp_path, values, message):
    assert re.match(re.escape(message).replace(re.escape(" ... "), ".*"), fault(tmp_path, values))


def test_dumped_sections_are_complete(tmp_path):
    """The report shows them."""
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(fused()))
    settings = load_params(file).model_dump(mode="json")
    assert settings["model"]["frame_diff"]["block"] == 16
    assert settings["fusion"]["fusion-a"]["of"] == ["frame_diff", "background"]


def test_broken_yaml_and_empty_file(tmp_path):
    assert "YAML" in fault(tmp_path, "datasets: [street\n")
    assert "YAML" not in fault(tmp_path, "")


def test_error_for_missing_file(tmp_path):
    with pytest.raises(VadError, match=r"params\.yaml.*profiles/"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_refused_with_a_command(tmp_path, encoding):
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text(encoding="utf-8") + "# für das Büro\n"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(VadError, match="not in UTF-8") as caught:
        load_params(path)
    command = str(caught.value).split("or: ")[1]
    subprocess.run(command.replace("new.yaml", f"{tmp_path}/new.yaml"), shell=True, check=True)
    assert path.read_text(encoding="utf-8-sig") == text
    load_params(path)


def test_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (ROOT / "params.yaml").read_bytes())
    assert load_params(path) == load_params(ROOT / "params.yaml")


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_names_that_dvc_cannot_take_are_refused(tmp_path, kind):
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values[kind]["front.door"] = next(iter(values[kind].values()))
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(VadError, match=r"front\.door"):
        load_params(path)


def named(folder, name):
    data = {"street": {"format": "street"}, name: {"format": "street"}}
    (folder / "params.yaml").write_text(yaml.safe_dump({**smallest(), "dataset": data}))
    return load_params(folder / "params.yaml")


def reads(read, name) -> bool:
    try:
        return read(name) == name
    except ValueError:  # no such date
        return False


TEXTS = ["yard", "1e", "2cams", "e1", "0o8", "0xG", "2024-1", "n", "1e3a", "tRue", "0b2"]
NO_TEXTS = [
    "1e3",
    "1e-3",
    "1_0e3",
    "0o7",
    "1",
    "08",
    "12_",
    "0x1F",
    "0b1",
    "1_000",
    "true",
    "True",
    "null",
    "on",
    "off",
    "yes",
    "2024-01-01",
    "2024-13-01",
]


@pytest.mark.parametrize("name", TEXTS + NO_TEXTS)
def test_names_are_text_in_both_versions_of_yaml(tmp_path, name):
    dvc = ruamel.yaml.YAML(typ="safe", pure=True).load
    assert (reads(yaml.safe_load, name) and reads(dvc, name)) == (name in TEXTS)
    if name in TEXTS:
        assert name in named(tmp_path, name).dataset
    else:
        with pytest.raises(VadError, match=rf"dataset\.{name}: .*choose another name, such as dataset-{name}"):
            named(tmp_path, name)


@pytest.mark.parametrize("kind", ["dataset", "model"])
@pytest.mark.parametrize("name", [12, True, 1.5, None])
def test_names_that_are_no_text_are_refused(tmp_path, kind, name):
    assert f"{kind}.{name}: YAML takes it for a number" in fault(tmp_path, {**smallest(), kind: {name: {}}})


def test_names_have_100_characters_at_most(tmp_path):
    assert "y" * 100 in named(tmp_path, "y" * 100).dataset
    with pytest.raises(VadError, match=r"dataset\.y{20}\.\.\.: 101 characters; use at most 100"):
        named(tmp_path, "y" * 101)


def test_text_in_no_known_encoding_is_refused_without_a_command(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"seed: 1 # \x81\n")
    with pytest.raises(VadError, match=r"not in UTF-8 \(byte 0x81 at 10\); save it in UTF-8 with an editor$"):
        load_params(path)


def test_calibration_of_one_data_set(tmp_path):
    calibrate = {"merge_gap_s": 2, "datasets": {"yard": {"target_far_per_hour": 6}}}
    data = {"street": {"format": "street"}, "yard": {"format": "street"}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**smallest(), "dataset": data, "calibrate": calibrate}))
    params = load_params(tmp_path / "params.yaml")
    rules = [params.of(name).calibrate for name in data]
    assert [(rule.target_far_per_hour, rule.merge_gap_s) for rule in rules] == [(12, 2), (6, 2)]
