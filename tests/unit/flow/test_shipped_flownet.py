"""The shipped FlowNet weights have the accuracy that their model card states."""

import numpy as np
import pytest

from tests.helpers.project import ROOT
from vadcore.data import formats as datasets
from vadcore.data.formats.street import StreetConfig
from vadcore.flow.epe import end_point_error, generated_pairs, street_pairs
from vadcore.flow.estimators import create_estimator

pytestmark = pytest.mark.xdist_group("shipped_flownet")
WEIGHTS = ROOT / "weights" / "flownet.safetensors"


@pytest.fixture(scope="module")
def flownet():
    return create_estimator("flownet", weights=str(WEIGHTS))


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Test clips with a cyclist and a cart: a set of all pixels and one of the moving pixels."""
    raw = tmp_path_factory.mktemp("street")
    config = StreetConfig(format="street", train_clips=1, train_frames=2, test_clips=2, test_frames=30)
    datasets.prepare(config, raw, say=lambda line: None)
    return street_pairs(config, raw)


def error(estimate, pairs) -> float:
    return end_point_error(estimate(pairs.first, pairs.second), pairs.flow, pairs.valid)


def test_weights_file_is_small():
    assert WEIGHTS.stat().st_size < 6e6


def test_accuracy_on_generated_pairs(flownet):
    pairs = generated_pairs((128, 192), count=16)
    assert error(flownet, pairs) < end_point_error(np.zeros_like(pairs.flow), pairs.flow) / 2


def test_beats_farneback_on_street(flownet, street):
    assert error(flownet, street[0]) < error(create_estimator("farneback"), street[0])


def test_enlarging_helps_with_small_movers(flownet, street):
    enlarged = create_estimator("flownet", weights=str(WEIGHTS), enlarge=(2, 2))
    moving = street[1]
    assert (
        error(enlarged, moving) < error(flownet, moving) < end_point_error(0 * moving.flow, moving.flow, moving.valid)
    )
