"""A detector folder: all that scoring needs, without the project that made it."""

import shutil

import pytest

from tests.helpers.tiny_systems import TINY
from tests.helpers.videos import Place
from vadcore.detection.detector import load_detector
from vadcore.detection.output import detect
from vadcore.evaluation.preprocess import describe, pack, read_recipe
from vadcore.utils.errors import VadError

pytestmark = pytest.mark.xdist_group("results")


@pytest.fixture
def packed(here, tmp_path):
    folder = tmp_path / "detector"
    pack(here.recipe(), here.trained, here.scored / "calibration.json", folder)
    return folder


def test_packed_detector_gives_the_same_results(tmp_path):
    here = Place(tmp_path / "project", "hog_hof_ae", TINY["hog_hof_ae"], flow=True)
    project = detect(here.detector(), here.video, tmp_path / "a", film=False)
    pack(here.recipe(), here.trained, here.scored / "calibration.json", tmp_path / "detector")
    shutil.copy(here.video, tmp_path)
    shutil.rmtree(tmp_path / "project")
    moved = (tmp_path / "detector").rename(tmp_path / "elsewhere")
    packed = detect(load_detector(moved, "cpu"), tmp_path / "gate.avi", tmp_path / "b", film=False)
    assert packed.about == project.about
    for name in ("scores.csv", "events.csv"):
        assert (packed.folder / name).read_text() == (project.folder / name).read_text()


def test_pack_includes_flow_weights(here, tmp_path):
    recipe = here.recipe()
    weights = tmp_path / "some.safetensors"
    weights.write_bytes(b"weights")
    flow = {"estimator": "flownet", "options": {"weights": str(weights), "enlarge": [2, 2]}, "size": (32, 32)}
    recipe = type(recipe)(**{**recipe.model_dump(), "flow": flow})
    pack(recipe, here.trained, here.scored / "calibration.json", tmp_path / "detector")
    known = read_recipe(tmp_path / "detector")
    assert known.flow.options["weights"] == str(tmp_path / "detector/flow.safetensors")
    assert (tmp_path / "detector/flow.safetensors").read_bytes() == b"weights"


def test_alarm_rate_can_be_changed_on_loading(here, packed):
    usual, strict = load_detector(packed, "cpu"), load_detector(packed, "cpu", 0.1)
    assert usual.calibration == here.calibration
    assert strict.calibration.threshold == here.calibration.threshold_at(0.1)
    assert strict.calibration.extrapolated


def test_error_for_missing_detector(tmp_path):
    with pytest.raises(VadError, match=r"detector.json: .*--pack"):
        load_detector(tmp_path / "nowhere")


def test_error_for_invalid_detector(packed):
    (packed / "detector.json").write_text("{}")
    with pytest.raises(VadError, match=r"detector.json: dataset: "):
        load_detector(packed)


def test_error_for_missing_calibration(here, packed, tmp_path):
    (packed / "calibration.json").unlink()
    with pytest.raises(VadError, match=r"calibration.json: .*score stage"):
        load_detector(packed)
    with pytest.raises(VadError, match=r"nowhere.json: .*run the stages of frame_diff"):
        pack(here.recipe(), here.trained, tmp_path / "nowhere.json", packed)


def test_error_for_untrained_system(here, tmp_path):
    with pytest.raises(VadError, match=r"metrics.json: .*train and the score stage"):
        describe(tmp_path, tmp_path, here.frames)


def test_other_flow_weights_are_refused(tmp_path):
    here = Place(tmp_path, "flow_magnitude", {}, flow=True, frames=10)
    assert here.recipe().flow.size == (32, 40)
    for clip in here.flow.clips("train"):
        known = {**here.flow.attributes(clip), "options": {"weights": "0" * 64}}
        type(here.flow)(here.flow.url, "flow", write=True).array(clip).attrs.update(known)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"others")
    with pytest.raises(VadError, match=r"other.safetensors: "):
        describe(here.trained, here.scored, here.frames, here.flow, str(other))
