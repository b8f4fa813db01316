"""Whether the published finding holds in made-up figures."""

from types import SimpleNamespace

import pandas as pd
import pytest

from vadcore.report.checkpoints import CheckPoints
from vadcore.report.finding import finding

BETTER, WORSE = (25.0, 0.70, 0.75), (24.0, 0.60, 0.66)  # PSNR, SSIM, sharpness


def points(model, *figures, at=(500, 1500, 4000), **changed):
    table = pd.DataFrame(figures, index=at[: len(figures)], columns=["psnr", "ssim", "sharpness"])
    alike = {"image_size": [64, 64], "color": "grey", "frames": 16, "batch_size": 16, "learning_rate": 1e-4, "shift": 0}
    system = SimpleNamespace(model=model, settings=alike | changed)
    return CheckPoints(system, "", "autoencoder", table)


def said(gru, conv3d, **more):
    return finding([points("conv3d_ae", *conv3d), points("gru_ae", *gru, **more)], [500, 1500, 4000])


def test_finding_holds_everywhere():
    assert "holds at every" in said([BETTER] * 3, [WORSE] * 3)


def test_finding_holds_in_part():
    assert "holds at 500, 4,000" in said([BETTER, WORSE, BETTER], [WORSE, BETTER, WORSE])


@pytest.mark.parametrize(
    "gru",
    [
        (24.0, 0.70, 0.66),  # closer, but not sharper
        (23.9, 0.70, 0.75),  # sharper, but further off: noise is sharp as well
        (24.0, 0.60, 0.75),
        (24.0, 0.70, 0.664),  # sharper by less than is printed
        (24.0, 0.70, float("nan")),
    ],
)
def test_finding_does_not_hold(gru):
    assert "does not hold" in said([gru] * 3, [WORSE] * 3)


def test_equal_psnr_is_enough():
    assert "holds at every" in said([(24.04, 0.70, 0.75)], [WORSE])


def test_no_finding_for_another_comparison():
    for changed in ({"image_size": [64, 96]}, {"frames": 4}, {"batch_size": 4}, {"learning_rate": 1e-3}, {"shift": 4}):
        assert said([BETTER], [WORSE], **changed) is None
    assert said([BETTER], [WORSE], at=(600,)) is None
    assert finding([points("gru_ae", BETTER)], [500]) is None
