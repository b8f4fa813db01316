import torch

from benchmarks.pseudo_anomaly import VARIANTS, separation
from tests.unit.models.pseudo.conftest import Clips, street
from vadcore.models import create_model
from vadcore.models.pseudo.alterations import ALTERATIONS


class Brightness(torch.nn.Module):
    """In place of a network: how far each place is from the background in each frame."""

    def forward(self, x):
        return torch.nn.functional.avg_pool2d(x[:, :8].abs(), 4)


def test_separation_compares_windows_with_and_without_altered_objects():
    model = create_model("pseudo_anomaly", {"crop": (48, 64), "object_height": 20, "unaltered": 0})
    source = model._pasted(Clips(street(0, objects=()), street(1)), torch.float32)
    model.network = Brightness()
    assert separation(model, source, {"large": 1.0}) > 0.8


def test_variants_build():
    for name, changes in VARIANTS.items():
        kinds = {kind: 0.0 for kind in ALTERATIONS if kind == changes.get("without")}
        settings = {key: value for key, value in changes.items() if key != "without"}
        assert create_model(
            "pseudo_anomaly",
            {**settings, **({"alterations": {**dict.fromkeys(ALTERATIONS, 1.0), **kinds}} if kinds else {})},
        ), name
