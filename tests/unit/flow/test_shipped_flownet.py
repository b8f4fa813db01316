"""The FlowNet that ships with the project does what its card says."""

import numpy as np
import pytest

from tests.helpers.project import ROOT
from vadcore import datasets
from vadcore.datasets.config import Street
from vadcore.flow import create_estimator
from vadcore.flow.epe import end_point_error, generated_pairs, street_pairs

WEIGHTS = ROOT / "weights" / "flownet.safetensors"


@pytest.fixture(scope="module")
def flownet():
    return create_estimator("flownet", weights=str(WEIGHTS))


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Test clips with a cyclist and a cart: all pixels, and those alone that move."""
    raw = tmp_path_factory.mktemp("street")
    config = Street(format="street", train_clips=1, train_frames=2, test_clips=2, test_frames=40)
    datasets.prepare(config, raw, say=lambda line: None)
    return street_pairs(config, raw)


def error(estimate, pairs) -> float:
    return end_point_error(estimate(pairs.first, pairs.second), pairs.flow, pairs.valid)


def test_it_is_a_few_megabytes():
    assert WEIGHTS.stat().st_size < 6e6


def test_on_generated_pairs_it_is_more_than_twice_as_good_as_no_motion(flownet):
    pairs = generated_pairs((128, 192), count=16)
    assert error(flownet, pairs) < end_point_error(np.zeros_like(pairs.flow), pairs.flow) / 2


def test_on_the_streets_true_flow_it_beats_farneback(flownet, street):
    assert error(flownet, street[0]) < error(create_estimator("farneback"), street[0])


def test_it_finds_small_movers_better_in_enlarged_pictures(flownet, street):
    enlarged = create_estimator("flownet", weights=str(WEIGHTS), enlarge=(2, 2))
    moving = street[1]
    assert (
        error(enlarged, moving) < error(flownet, moving) < end_point_error(0 * moving.flow, moving.flow, moving.valid)
    )
