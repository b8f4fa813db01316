"""What every registered model must do, and the models without a file of their own."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.helpers.footage import make_store
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipStore
from vadcore.data.windows import Batch, Segment
from vadcore.models import create_model, list_models, load_model, model_config, save_model
from vadcore.training.trainer import _Updates
from vadcore.utils.errors import VadError

# small enough to train in a test; a model without an entry uses its defaults
SMALL = {
    "background": {"image_size": (24, 32)},
    "convlstm_ae": {"image_size": (24, 32), "frames": 4, "conv": (8, 8), "lstm": (8, 8), "learning_rate": 5e-3},
    "conv_ae": {"image_size": (27, 35), "frames": 4, "conv": (16, 16, 16), "optimizer": "adam", "learning_rate": 5e-3},
    "conv3d_ae": {"image_size": (16, 32), "conv": (8, 8, 16, 16), "z": 16, "learning_rate": 5e-3},
    "flow_magnitude": {"row_scale": True},
    "future_frame": {
        "image_size": (32, 48),
        "conv": (8, 8, 16, 16),
        "discriminator": (8, 8, 8, 8),
        "learning_rate": 5e-3,
    }
    | {"flownet": None, "flow": 0},
    "hog_hof_ae": {"image_size": (24, 32), "cell": 4, "frames": 3, "rest": 0.1, "least_motion": 0, "layers": (32, 16)}
    | {"learning_rate": 5e-3, "step": 2},
    "latent_lstm": {
        "image_size": (16, 24),
        "frames": 6,
        "warm_up": 3,
        "hidden": 32,
        "dropout": 0,
        "learning_rate": 2e-2,
    }
    | {"front_end": {"name": "vcae", "conv": 4, "dense": 24, "z": 6}},
    "pseudo_anomaly": {"frames": 4, "crop": (24, 32), "conv": (8, 8, 8), "object_height": 8, "learning_rate": 5e-3},
    "gru_ae": {"image_size": (16, 32), "conv": (8, 8, 8, 16, 16), "z": 16, "hidden": 16, "learning_rate": 5e-3},
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """A function that returns training footage for a model."""
    folder = tmp_path_factory.mktemp("footage")
    store = make_store(folder, test=0, frames=20, flow=True)
    whole = [Segment(clip, 0, store.length(clip)) for clip in store.clips("train")]

    def of(model, device="cpu"):
        return ClipLoader.for_model(model, store, whole, ClipStore(folder / "flow.zarr", "flow"), device=device)

    return of


def build(name: str):
    torch.manual_seed(0)
    return create_model(name, SMALL.get(name, {}))


def batch_for(model, footage: ClipLoader, windows, size: int = 3) -> Batch:
    starts = np.arange(size) * 2
    picks = np.stack([starts % len(footage.lengths), starts, np.ones_like(starts), starts], axis=1)
    return next(footage.batches([picks], windows.length))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", list_models())
def test_measures_and_map_of_judged_frames(name, device, footage):
    model = build(name).to(device).eval()
    with torch.no_grad():
        judged = model.predict_step(batch_for(model, footage(model, device), model.windows))
    frames = len(model.windows.judged)
    assert model.score in judged.measures
    for values in judged.measures.values():
        assert values.shape == (3, frames)
    assert judged.measures[model.score].isfinite().any()
    assert judged.maps.shape[:2] == (3, frames)
    assert judged.maps.isfinite().all()
    if judged.reconstruction is not None:
        shown = judged.reconstruction()
        assert shown.shape[:2] == (3, frames)
        assert shown.min() >= -1e-3
        assert shown.max() <= 1 + 1e-3


@pytest.mark.parametrize("name", list_models())
def test_judging_is_deterministic(name, footage):
    model = build(name).eval()
    batch = batch_for(model, footage(model), model.windows)
    with torch.no_grad():
        first, second = (model.predict_step(batch).measures[model.score] for _ in range(2))
    assert torch.equal(first.nan_to_num(-1), second.nan_to_num(-1))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", list_models())
def test_phases_train_their_parameters_and_overfit(name, device, footage):
    model = build(name).to(device).train()
    source = footage(model, device)
    for phase in model.phases():
        phase.begin()
        read_from = phase.source(source, torch.float32) if phase.source else source
        batch = batch_for(model, read_from, phase.windows)
        update = _Updates(phase, processes=1)
        owned = [
            p for optimizer in phase.optimizers.values() for group in optimizer.param_groups for p in group["params"]
        ]
        before = [p.detach().clone() for p in owned]
        first = float(phase.step(batch, update)["loss"])
        for parameter, old in zip(owned, before, strict=True):
            assert not torch.equal(parameter, old)
        if phase.optimizers:
            losses = [float(phase.step(batch, update)["loss"]) for _ in range(60)]
            assert losses[-1] < first / 2


def test_variant_has_its_own_section(tmp_path):
    variant = create_model("frame_diff-fine", {"block": 3})
    assert type(variant) is type(create_model("frame_diff"))
    save_model(variant, "frame_diff-fine", tmp_path)
    assert load_model(tmp_path).config.block == 3


@pytest.mark.parametrize("name", list_models())
def test_saved_model_judges_as_before(name, footage, tmp_path):
    model = build(name).eval()
    batch = batch_for(model, footage(model), model.windows)
    save_model(model, name, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    assert loaded.config == model.config
    with torch.no_grad():
        first, second = model.predict_step(batch), loaded.predict_step(batch)
    assert torch.equal(first.maps, second.maps)


AUTOENCODERS = ["conv_ae", "convlstm_ae", "gru_ae", "conv3d_ae"]


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_autoencoder_in_bfloat16_returns_float32(name):
    model = build(name).eval()
    length = model.windows.length
    x = torch.rand(2, length, 1, *model.config.image_size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(x)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.04, rtol=0)


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_scoring_settings_need_no_training(name):
    assert {"score", "step"} <= set(build(name).config.scoring_keys)
    stepping = create_model(name, SMALL[name] | {"step": 2, "score": "max_patch_mse"})
    assert (stepping.windows.step, stepping.score) == (2, "max_patch_mse")


def test_weights_of_another_model_are_refused(tmp_path):
    save_model(build("convlstm_ae"), "convlstm_ae", tmp_path)
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("- 8\n- 8\nlstm", "- 16\n- 8\nlstm"))
    with pytest.raises(VadError, match=r"weights\.safetensors"):
        load_model(tmp_path)


def test_damaged_weights_are_refused(tmp_path):
    save_model(build("convlstm_ae"), "convlstm_ae", tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"not weights")
    with pytest.raises(VadError, match=r"weights\.safetensors"):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["", "frames: 4", "system: convlstm_ae\nwidth: 3", "system: ["])
def test_damaged_configuration_is_refused(tmp_path, text):
    save_model(build("convlstm_ae"), "convlstm_ae", tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(VadError, match=r"config\.yaml"):
        load_model(tmp_path)


def test_error_for_missing_model(tmp_path):
    with pytest.raises(VadError, match=r"nothing.*run the train stage"):
        load_model(tmp_path / "nothing")


def test_unknown_model_lists_known_ones():
    with pytest.raises(VadError, match=r"model\.convlstm: .*convlstm_ae, "):
        create_model("convlstm")


@pytest.mark.parametrize("name", ["conv_ae", "conv3d_ae", "convlstm_ae", "gru_ae", "hog_hof_ae"])
def test_step_that_skips_frames_is_refused(name):
    frames = model_config(name, {}).frames
    with pytest.raises(ValidationError, match=rf"step {frames + 1}: .*\b{frames} frames"):
        model_config(name, {"step": frames + 1, "score": "mse"} if name == "convlstm_ae" else {"step": frames + 1})


class TestConvLSTM:
    """Chong & Tay 2017; expected figures are derived by hand from the published layers."""

    def test_parameter_count_matches_publication(self):
        convolutions = (128 * 1 * 11 * 11 + 128) + (64 * 128 * 5 * 5 + 64)
        lstm = sum(4 * h * (c + h) * 9 + 4 * h for c, h in ((64, 64), (64, 32), (32, 64)))
        transposed = (64 * 128 * 5 * 5 + 128) + (128 * 1 * 11 * 11 + 1)
        model = create_model("convlstm_ae")
        assert sum(p.numel() for p in model.parameters()) == convolutions + lstm + transposed == 1_068_225

    def test_layer_shapes_match_publication(self):
        model = create_model("convlstm_ae", {"image_size": (256, 256)})
        x = torch.zeros(1, 10, 1, 256, 256)
        assert model.encoder(x[0]).shape == (10, 64, 32, 32)
        assert model.temporal(torch.zeros(1, 10, 64, 32, 32)).shape == (1, 10, 64, 32, 32)
        assert model.decoder(torch.zeros(10, 64, 32, 32)).shape == (10, 1, 256, 256)

    def test_published_strides(self):
        assert create_model("convlstm_ae").phases()[-1].windows.strides == (1, 2, 3, 4)

    def test_cell_matches_its_equations(self):
        """Shi et al. 2015, computed step by step."""
        from vadcore.models.convlstm_ae import ConvLSTM

        torch.manual_seed(0)
        layer = ConvLSTM(3, 5).double()
        x = torch.randn(2, 4, 3, 6, 7, dtype=torch.float64)
        h = c = torch.zeros(2, 5, 6, 7, dtype=torch.float64)
        weight = torch.cat([layer.from_input.weight, layer.from_state.weight], dim=1)
        for t in range(4):
            gates = torch.conv2d(torch.cat([x[:, t], h], 1), weight, layer.from_input.bias, padding=1)
            i, f, o, g = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            torch.testing.assert_close(layer(x)[:, t], h)

    def test_sequence_cost_sums_frame_errors(self):
        model = build("convlstm_ae").eval()
        frames = torch.rand(2, 4, 1, 24, 32)
        with torch.no_grad():
            judged = model.predict_step(Batch(frames, torch.zeros(2), torch.zeros(2, 4)))
            rebuilt = model.mean_image.uncentre(model(model.mean_image.centre(frames)))
        expected = (rebuilt - frames).flatten(2).norm(dim=2).sum(1)
        torch.testing.assert_close(judged.measures["src"][:, 0], expected)
        assert judged.measures["src"][:, 1:].isnan().all()

    def test_mean_image_is_subtracted(self, footage):
        model = build("convlstm_ae")
        mean_phase = model.phases()[0]
        batches = [batch_for(model, footage(model), mean_phase.windows, size) for size in (2, 2, 2)]
        for batch in batches:
            mean_phase.step(batch, lambda name, loss: None)
        mean = torch.cat([batch.frames[:, 0] for batch in batches]).mean(0)
        frames = torch.rand(1, 4, 1, 24, 32)
        torch.testing.assert_close(model.mean_image.centre(frames), frames - mean)
        torch.testing.assert_close(model.mean_image.uncentre(model.mean_image.centre(frames)), frames)

    def test_impossible_sizes_are_refused(self):
        with pytest.raises(ValidationError, match=r"multiples of 8.*\[96, 128\]"):
            model_config("convlstm_ae", {"image_size": (100, 128)})


class TestBaselines:
    def test_frame_difference_mean_and_max_patch_mse(self):
        frames = torch.zeros(1, 2, 1, 32, 32)
        frames[0, 1, 0, :16, :16] = 0.5
        judged = create_model("frame_diff", {"block": 16}).predict_step(
            Batch(frames, torch.zeros(1), torch.zeros(1, 2))
        )
        assert judged.measures["mean"].item() == pytest.approx(0.125)  # a quarter of the pixels changed by a half
        assert judged.measures["max_patch_mse"].item() == pytest.approx(0.5)
        larger = create_model("frame_diff", {"block": 999}).predict_step(
            Batch(frames, torch.zeros(1), torch.zeros(1, 2))
        )
        assert larger.measures["max_patch_mse"].item() == pytest.approx(0.125)  # a single block

    def test_background_difference_from_mean_image(self):
        model = create_model("background", {"image_size": (8, 8), "threshold": 30})
        scene = torch.full((2, 1, 1, 8, 8), 0.4)
        scene[0] += 0.1
        scene[1] -= 0.1  # their mean is 0.4
        model.phases()[0].step(Batch(scene, torch.zeros(2), torch.zeros(2, 1)), lambda name, loss: None)
        frame = torch.full((1, 1, 1, 8, 8), 0.4 + 20 / 255)  # less than the threshold
        frame[..., :2, :4] = 0.9
        judged = model.predict_step(Batch(frame, torch.zeros(1), torch.zeros(1, 1)))
        assert judged.measures["area"].item() == pytest.approx(8 / 64)
        assert judged.measures["mse"].item() == pytest.approx(8 / 64 * 0.25 + 56 / 64 * (20 / 255) ** 2, rel=1e-4)

    def test_flow_magnitude_is_speed_percentile(self):
        flow = torch.zeros(1, 1, 2, 40, 40)
        flow[0, 0, 0, :4, :4], flow[0, 0, 1, :4, :4] = 3.0, 4.0  # one block of a hundred moves at 5 px/frame
        model = create_model("flow_magnitude", {"pool": 4, "percentile": 100})
        judged = model.predict_step(Batch(torch.zeros(1, 2, 1, 40, 40), torch.zeros(1), torch.zeros(1, 2), flow))
        assert judged.measures["magnitude"].item() == pytest.approx(5.0)
        assert judged.measures["mean"].item() == pytest.approx(0.05)

    def test_row_scale_removes_perspective(self):
        """Speed that grows linearly down the picture, as in perspective, gives the same score in every row."""
        model = create_model("flow_magnitude", {"pool": 1, "row_scale": True, "percentile": 100})
        flow = torch.zeros(1, 1, 2, 64, 8)
        flow[0, 0, 0] = torch.linspace(1, 4, 64)[:, None]
        batch = Batch(torch.zeros(1, 2, 1, 64, 8), torch.zeros(1), torch.zeros(1, 2), flow)
        model.phases()[0].step(batch, lambda name, loss: None)
        torch.testing.assert_close(model.predict_step(batch).maps, torch.ones(1, 1, 64, 8), atol=0.02, rtol=0)
