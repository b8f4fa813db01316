"""Future frame prediction: networks, losses, training, scores and the flow that it requires."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tasks.train import differing_flow_settings
from tests.helpers.footage import make_store
from tests.helpers.project import ROOT
from vadcore.config import load_params
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipStore
from vadcore.data.windows import Batch, Segment
from vadcore.flow.compute import store_flow
from vadcore.flow.flownet import FlowNetSD, flow_between, load_flownet, save_flownet, seen_size
from vadcore.models import create_model, load_model, model_config, save_model
from vadcore.models.future_frame import LOSSES, gradient_difference, least_squares, patch_discriminator
from vadcore.training.trainer import _Updates
from vadcore.utils.errors import VadError

SMALL = {"image_size": [32, 64], "conv": [4, 4, 8, 8], "discriminator": [4, 4, 8, 8], "flow_enlarge": 1}
WIDTH = 0.05


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """The path of untrained FlowNet weights."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_flownet(FlowNetSD(WIDTH), path)
    return str(path)


def small(weights: str | None = None, **more):
    torch.manual_seed(0)
    flow = {"flownet": weights, "flownet_width": WIDTH} if weights else {"flownet": None, "flow": 0}
    return create_model("future_frame", SMALL | flow | more)


def window(b=2, frames=5, h=32, w=64, seed=1) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return Batch(
        torch.rand(b, frames, 1, h, w, generator=draw),
        torch.zeros(b, dtype=torch.long),
        torch.zeros(b, frames, dtype=torch.long),
        torch.randn(b, frames - 1, 2, h, w, generator=draw),
    )


def conv(a: int, b: int, kernel: int) -> int:
    """Parameters of a convolution with bias."""
    return (a * kernel**2 + 1) * b


def test_parameter_count_matches_publication():
    model = create_model("future_frame", {"flownet": None, "flow": 0})
    down = sum(conv(a, b, 3) + conv(b, b, 3) for a, b in ((4, 64), (64, 128), (128, 256), (256, 512)))
    up = sum(conv(a, b, 2) + conv(2 * b, b, 3) + conv(b, b, 3) for a, b in ((512, 256), (256, 128), (128, 64)))
    assert sum(p.numel() for p in model.generator.parameters()) == down + up + conv(64, 1, 3)
    discriminator = sum(conv(a, b, 4) for a, b in ((1, 128), (128, 256), (256, 512), (512, 512), (512, 1)))
    assert sum(p.numel() for p in model.discriminator.parameters()) == discriminator


@pytest.mark.parametrize(("color", "channels"), [("grey", 1), ("rgb", 3)])
def test_four_frames_predict_the_next(color, channels):
    model = small(color=color)
    assert model(torch.rand(2, 4, channels, 32, 64) * 2 - 1).shape == (2, channels, 32, 64)
    assert model.windows.length == 5
    assert model.windows.judged == (4,)  # the first four frames of a clip have no score


def test_discriminator_judges_patches():
    """A side of 256 is halved three times to 32; two 4x4 kernels with padding 1 leave 31 and 30."""
    verdict = patch_discriminator(1, (2, 2, 2, 2))(torch.rand(1, 1, 256, 256))
    assert verdict.shape == (1, 1, 30, 30)
    assert 0 <= verdict.min() <= verdict.max() <= 1


def test_batch_norm_is_a_setting():
    def norms(model):
        return sum(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())

    assert norms(small()) == 0
    assert norms(small(batch_norm=True)) == 14  # two a level, of four levels down and three up


def test_gradient_difference_of_a_step_edge():
    """A picture with one vertical edge of height 1 against a flat one: |dx| differs at one pixel of each row."""
    edge = torch.zeros(1, 1, 4, 8)
    edge[..., 4:] = 1
    inside = 4 / 32  # one pixel of each row, between columns 3 and 4
    border = 4 / 32 + 8 / 2 / 32  # zero padding: the last column and the right half of the last row fall to 0
    assert gradient_difference(torch.zeros_like(edge), edge).item() == pytest.approx(inside + border)
    assert gradient_difference(edge, edge).item() == 0
    assert gradient_difference(-edge, edge).item() == 0  # the sign of the gradient does not matter


def test_least_squares():
    assert least_squares(torch.tensor([0.0, 1.0, 0.5]), 1).item() == pytest.approx((1 + 0 + 0.25) / 3 / 2)


def test_flow_loss_updates_generator_only(weights):
    """A training step with all other losses off."""
    model = small(weights)
    off = {"intensity": 0, "gradient": 0, "adversarial": 0}  # a configuration does not allow this
    model.config = model.config.model_copy(update=off)
    before = {name: value.clone() for name, value in model.flownet.state_dict().items()}
    start = [p.detach().clone() for p in model.generator.parameters()]
    (losses,) = steps(model, 1)
    assert set(losses) == {"loss", "flow"}
    gradients = [p.grad for p in model.generator.parameters()]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)
    assert all(not torch.equal(p, old) for p, old in zip(model.generator.parameters(), start, strict=True))
    assert all(p.grad is None for p in model.flownet.parameters())
    for name, value in load_flownet(weights).state_dict().items():
        before[name] = value  # the weights that the training has read
    for name, value in model.flownet.state_dict().items():
        assert torch.equal(value, before[name])
    assert not model.flownet.training


def steps(model, count=3) -> list[dict]:
    (phase,) = model.phases()
    model.train()
    phase.begin()
    update = _Updates(phase, processes=1)
    return [phase.step(window(seed=n), update) for n in range(count)]


def test_flow_weight_0_equals_no_flownet(weights):
    off, zero = small(), small(weights, flow=0)
    first, second = steps(off), steps(zero)
    assert first == second
    assert "flow" not in first[0]
    for name, value in off.state_dict().items():
        assert torch.equal(value, zero.state_dict()[name])
    on = small(weights, flow=2.0)
    steps(on)
    assert not torch.equal(on.generator.last.weight, off.generator.last.weight)


@pytest.mark.parametrize("absent", ["gradient", "flow", "adversarial", "intensity"])
def test_each_loss_can_be_switched_off(weights, absent):
    model = small(weights, **{absent: 0})
    (losses, *_) = steps(model, 1)
    assert (set(LOSSES) | {"loss"}) - {absent} == set(losses) - {"discriminator"}
    assert ("discriminator" in model.phases()[0].optimizers) == (absent != "adversarial")


def test_loss_is_weighted_sum_of_terms(weights):
    shares = {"intensity": 1.5, "gradient": 0.5, "flow": 0.25, "adversarial": 0.75}
    (losses,) = steps(small(weights, **shares), 1)
    assert float(losses["loss"]) == pytest.approx(sum(share * float(losses[name]) for name, share in shares.items()))


def test_loss_terms_match_publication(weights):
    """Each term of the first step; the discriminator is updated before the generator."""
    model, batch = small(weights, learning_rate_discriminator=0.01), window(seed=0)
    (losses,) = steps(model, 1)
    fresh = small(weights)
    fresh.phases()[0].begin()
    with torch.no_grad():
        x = batch.frames * 2 - 1
        predicted = fresh(x[:, :-1])
        assert float(losses["intensity"]) == pytest.approx(float((predicted - x[:, -1]).square().mean()))
        real, fake = fresh.discriminator(x[:, -1]), fresh.discriminator(predicted)
        expected = (real - 1).square().mean() / 2 + fake.square().mean() / 2
        assert float(losses["discriminator"]) == pytest.approx(float(expected))
        moved = model.discriminator(predicted)  # after its update
        assert float(losses["adversarial"]) == pytest.approx(float((moved - 1).square().mean() / 2))
        assert float(losses["adversarial"]) != pytest.approx(float((fake - 1).square().mean() / 2))


def test_flow_loss_in_pixels_of_flownet(weights):
    """As published, FlowNet gets pictures of 384x512, whatever the size of the model's pictures."""
    model, batch = small(weights, flow_enlarge=[3, 4]), window()
    height, width = batch.frames.shape[-2:]
    seen = seen_size((height, width), (3, 4))
    predicted = model(batch.frames[:, :-1] * 2 - 1)
    difference = (model._flow(batch, predicted) - batch.flow[:, -1]).abs()  # [B, 2, H, W] in pixels of the model
    expected = (difference[:, 0] * seen[1] / width + difference[:, 1] * seen[0] / height).mean() / 2
    torch.testing.assert_close(model._flow_difference(batch, predicted), expected)


def test_best_weights_are_chosen_by_mse(weights):
    model, batch = small(weights).eval(), window()
    with torch.no_grad():
        expected = model.predict_step(batch).measures["mse"].mean()
        (phase,) = model.phases()
        torch.testing.assert_close(phase.val(batch), expected)


def test_flow_of_enlarged_pictures(weights):
    model, batch = small(weights, flow_enlarge=[3, 4]), window()
    predicted = batch.frames[:, -1] * 2 - 1
    expected = flow_between(model.flownet, batch.frames[:, -2], batch.frames[:, -1], (3, 4))
    torch.testing.assert_close(model._flow(batch, predicted), expected)


def test_stored_flow_matches_computed_flow(weights, tmp_path):
    """Frames of another size, flow of enlarged pictures: the only difference is the rounding to fixed point."""
    frames = make_store(tmp_path, train=1, test=0, frames=8, size=(48, 90))
    model = small(weights, flow_enlarge=[2, 3])
    asked = model.config.flow_made_by
    flow = ClipStore(tmp_path / "asked.zarr", "flow", write=True)
    (clip,) = frames.clips()
    options = {key: asked[key] for key in ("weights", "enlarge")}
    store_flow(clip, frames.url, flow.url, asked["estimator"], options, tuple(asked["size"]))
    assert differing_flow_settings(flow, asked, frames, 1) == []
    batch = ClipLoader.for_model(model, frames, [Segment(clip, 0, 8)], flow).batch(np.array([[0, 1, 1]]), 5)
    model.phases()[0].begin()  # reads the weights
    computed = model._flow(batch, batch.frames[:, -1] * 2 - 1)
    assert (computed - batch.flow[:, -1]).abs().max() < 1 / 128 + 1e-4
    assert computed.abs().max() > 0.02

    store_flow(clip, frames.url, flow.url, "flownet", {"weights": weights})
    size, enlarge = differing_flow_settings(flow, asked, frames, 1)
    assert size.startswith("optical_flow.size: [32, 64]")
    assert enlarge.startswith("optical_flow.enlarge: [2.0, 3.0]")
    store_flow(clip, frames.url, flow.url, "dis", {})
    otherwise = [line.split(":")[0] for line in differing_flow_settings(flow, asked, frames, 1)]
    assert otherwise == [f"optical_flow.{key}" for key in asked]


def test_flow_of_rgb_frames_needs_rgb_model(weights, tmp_path):
    frames = make_store(tmp_path, train=1, test=0, frames=4, size=(32, 64), channels=3)
    flow = ClipStore(tmp_path / "asked.zarr", "flow", write=True)
    (clip,) = frames.clips()
    store_flow(clip, frames.url, flow.url, "flownet", {"weights": weights, "enlarge": (1, 1)}, (32, 64))
    asked = small(weights).config.flow_made_by
    assert differing_flow_settings(flow, asked, frames, 3) == []
    (remedy,) = differing_flow_settings(flow, asked, frames, 1)
    assert "color: rgb" in remedy


def test_score_is_negative_psnr(weights):
    model, batch = small(weights).eval(), window()
    with torch.no_grad():
        judged = model.predict_step(batch)
        predicted = (model(batch.frames[:, :-1] * 2 - 1) + 1) / 2
    mse = (predicted - batch.frames[:, -1]).square().mean((1, 2, 3))
    torch.testing.assert_close(judged.measures["psnr"], 10 * mse.log10()[:, None])
    assert set(judged.measures) == {"psnr", "mse", "max_patch_mse", "flow", "gradient_box"}
    torch.testing.assert_close(judged.reconstruction()[:, 0], predicted)
    assert "flow" not in small().predict_step(batch).measures


def test_perfect_prediction_has_a_finite_score():
    model, batch = small().eval(), window()
    with torch.no_grad():
        batch.frames[:, -1] = (model(batch.frames[:, :-1] * 2 - 1) + 1) / 2
        assert float(model.predict_step(batch).measures["psnr"].max()) == pytest.approx(-100)


def test_saved_model_contains_flownet(weights, tmp_path):
    model, batch = small(weights), window()
    steps(model, 1)
    model.config = model.config.model_copy(update={"flownet": str(tmp_path / "gone.safetensors")})
    save_model(model, "future_frame", tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    with torch.no_grad():
        expected, found = (m.eval().predict_step(batch).measures["flow"] for m in (model, loaded))
    assert torch.equal(expected, found)


def test_learning_rates_drop_once():
    model = small(drop_at=2, learning_rate=1e-3, learning_rate_discriminator=1e-4)
    (phase,) = model.phases()
    update, rates = _Updates(phase, processes=1), []
    for n in range(4):
        rates.append([o.param_groups[0]["lr"] for o in phase.optimizers.values()])
        phase.step(window(seed=n), update)
    np.testing.assert_allclose(rates, [[1e-3, 1e-4]] * 2 + [[1e-4, 1e-5]] * 2)


def test_facts_list_the_losses():
    assert model_config("future_frame", {}).facts == {"losses": "intensity + gradient + adversarial + flow"}
    off = model_config("future_frame", {"flow": 0, "flownet": None, "gradient": 0})
    assert off.facts == {"losses": "intensity + adversarial"}


def test_flownet_of_another_width_is_refused(weights):
    with pytest.raises(VadError, match=rf"flownet_width is 0\.1.*{WIDTH}"):
        small(weights, flownet_width=0.1).phases()[0].begin()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"image_size": [100, 64]}, r"image_size \[100, 64\].*multiples of 8.*\[96, 64\]"),
        ({"image_size": [24, 64]}, r"image_size \[24, 64\].*at least 32"),
        ({"intensity": 0, "gradient": 0}, "intensity 0 and gradient 0"),
        ({"flownet": None}, r"flow 2\.0: needs flownet"),
        ({"flownet": None, "flow": 0, "score": "flow"}, "score flow: needs flownet"),
    ],
)
def test_impossible_settings_are_refused(section, message):
    with pytest.raises(ValidationError, match=message):
        model_config("future_frame", section)


def test_published_profile_takes_a_step(monkeypatch):
    """The profile for a GPU, with smaller pictures and one window in a batch."""
    monkeypatch.chdir(ROOT)  # the profile names the shipped FlowNet
    config = load_params("profiles/ped2-paper.yaml").model["future_frame"]
    assert (config.image_size, config.flow_enlarge, config.batch_size) == ((256, 256), (1.5, 2), 4)
    assert (config.iterations, config.drop_at, config.learning_rate) == (80_000, 7_000, 1e-4)
    model = create_model("future_frame", config.model_copy(update={"image_size": (64, 64)})).train()
    (phase,) = model.phases()
    phase.begin()
    frames = torch.rand(1, 5, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = Batch(frames, torch.zeros(1), torch.zeros(1, 5), torch.zeros(1, 4, 2, 64, 64))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = phase.step(batch, _Updates(phase, processes=1))
    assert all(float(losses[name]) > 0 for name in LOSSES)
    moved = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"generator", "discriminator"}
