"""The GRU autoencoder; expected counts and shapes are derived by hand from the published layers."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tests.helpers.footage import make_store
from vadcore.data.loader import ClipLoader
from vadcore.data.windows import Batch, Segment
from vadcore.models import create_model, model_config
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.training.trainer import Callback, TrainSettings, train

SMALL = {"image_size": (32, 48), "frames": 4, "conv": (4, 4, 8, 8, 8), "z": 6, "hidden": 10, "batch_size": 4}


def small(**changes):
    torch.manual_seed(0)
    return create_model("gru_ae", {**SMALL, **changes})


def window(t: int = 4, channels: int = 1, b: int = 2) -> torch.Tensor:
    """Random frames in 0..1."""
    return torch.rand(b, t, channels, 32, 48, generator=torch.Generator().manual_seed(1))


class TestPublishedFigures:
    def test_defaults(self):
        config = model_config("gru_ae", {})
        assert (config.image_size, config.frames, config.z, config.hidden) == ((64, 64), 4, 64, 100)
        assert (config.batch_size, config.iterations, config.learning_rate) == (16, 10_000, 1e-4)
        assert (config.weight_decay, config.strides, config.initial_state) == (1e-5, (1,), "normal")

    def test_training_samples_clips_with_weight_decay(self):
        (phase,) = small().phases()
        assert phase.sampling == "clips"
        group = phase.optimizers["optimizer"].param_groups[0]
        assert (group["lr"], group["weight_decay"]) == (1e-4, 1e-5)

    # the grid is 4x4 at 64x64 and 8x8 at 128x128, the setting that is compared with the 3D-CNN
    @pytest.mark.parametrize(
        ("section", "grid", "z", "channels", "total"),
        [
            ({}, 4 * 4, 64, 1, 4_537_480),
            ({"color": "rgb"}, 4 * 4, 64, 3, 4_538_632),
            ({"image_size": (128, 128), "frames": 16, "z": 128}, 8 * 8, 128, 1, 10_708_936),
            ({"image_size": (128, 128), "frames": 16, "z": 128, "color": "rgb"}, 8 * 8, 128, 3, 10_710_088),
        ],
    )
    def test_parameter_count_matches_publication(self, section, grid, z, channels, total):
        convolutions = 9 * (channels * 32 + 32 * 64 + 64 * 128 + 128 * 256 + 256 * 512)  # 3x3, no bias
        norms = 2 * (32 + 64 + 128 + 256)  # none after the last convolution
        to_latent = 512 * grid * z + z
        gru = 3 * (100 * z + 100 * 100 + 100 + 100)
        from_state = 100 * 512 * grid + 512 * grid
        transposed = 9 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 32)
        last = 9 * 32 * channels
        by_hand = convolutions + norms + to_latent + gru + from_state + transposed + norms + last
        with torch.device("meta"):  # counted without being filled
            model = create_model("gru_ae", section)
        assert sum(p.numel() for p in model.parameters()) == by_hand == total

    @pytest.mark.parametrize("side", [64, 128])
    @pytest.mark.parametrize(("color", "channels"), [("grey", 1), ("rgb", 3)])
    def test_layer_shapes_match_publication(self, side, color, channels):
        with torch.device("meta"):
            model = create_model("gru_ae", {"image_size": (side, side), "color": color})
            x = torch.zeros(3, channels, side, side)
            down, up = [], []
            for layer in model.encoder:
                x = layer(x)
                if isinstance(layer, nn.Conv2d):
                    down.append(tuple(x.shape[1:]))
            x = model.from_state(torch.zeros(3, 100))
            up.append(tuple(x.shape[1:]))
            for layer in model.decoder:
                x = layer(x)
                if isinstance(layer, (nn.ConvTranspose2d, nn.Conv2d)):
                    up.append(tuple(x.shape[1:]))
        sizes = [(32, side), (64, side // 2), (128, side // 4), (256, side // 8), (512, side // 16)]
        assert down == [(width, s, s) for width, s in sizes]
        assert up == [*reversed(down), (channels, side, side)]

    def test_normalised_encoder_layers(self):
        kinds = [type(layer).__name__ for layer in create_model("gru_ae", SMALL).encoder]
        assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 4 + ["Conv2d", "ReLU"]


class TestInitialState:
    def test_normal_is_redrawn_every_pass(self):
        model = small().train()
        x = window() * 2 - 1
        assert not torch.equal(model(x), model(x))

    def test_normal_uses_torch_random_generator(self):
        model = small(hidden=100).train()
        torch.manual_seed(3)
        drawn = model._initial_state(500)  # [1, 500, 100]
        torch.manual_seed(3)
        assert torch.equal(drawn, torch.randn(1, 500, 100))

    def test_normal_is_zeros_in_evaluation(self):
        noisy, zeros = small().eval(), small(initial_state="zeros").eval()
        zeros.load_state_dict(noisy.state_dict())
        x = window() * 2 - 1
        before = torch.get_rng_state()
        with torch.no_grad():
            assert torch.equal(noisy(x), noisy(x))
            assert torch.equal(noisy(x), zeros(x))
        assert torch.equal(torch.get_rng_state(), before)

    def test_zeros_is_deterministic_in_training(self):
        model = small(initial_state="zeros").train()
        x = window() * 2 - 1
        assert torch.equal(model(x), model(x))

    def test_learned_is_trained_and_used(self):
        model = small(initial_state="learned").train()
        x = window() * 2 - 1
        model(x).square().mean().backward()
        assert model.initial.grad.abs().min() > 0
        model.eval()
        with torch.no_grad():
            before = model(x)
            model.initial += 1
            assert not torch.equal(model(x), before)

    def test_unknown_initial_state_is_refused(self):
        with pytest.raises(ValidationError, match="'normal', 'zeros' or 'learned'"):
            model_config("gru_ae", {"initial_state": "ones"})


class TestReconstruction:
    def test_frame_depends_on_past_frames(self):
        model = small().eval()
        x = window() * 2 - 1
        changed = x.clone()
        changed[:, 2] = -changed[:, 2]
        with torch.no_grad():
            before, after = model(x), model(changed)
        same = [torch.equal(before[:, t], after[:, t]) for t in range(4)]
        assert same == [True, True, False, False]

    def test_latent_depends_on_its_frame_only(self):
        model = small().eval()
        x = window() * 2 - 1
        with torch.no_grad():
            alone = torch.stack([model.encode(x[:, t : t + 1])[:, 0] for t in range(4)], 1)
            torch.testing.assert_close(model.encode(x), alone)

    @pytest.mark.parametrize("color", ["grey", "rgb"])
    @pytest.mark.parametrize("frames", [2, 5])
    def test_shortest_window_has_two_frames(self, color, frames):
        model = small(color=color, frames=frames).eval()
        shown_to = window(frames, model.config.channels)
        with torch.no_grad():
            judged = model.predict_step(Batch(shown_to, torch.zeros(2), torch.zeros(2, frames)))
            rebuilt = (model(shown_to * 2 - 1) + 1) / 2
        assert rebuilt.shape == shown_to.shape
        torch.testing.assert_close(judged.measures["mse"], (rebuilt - shown_to).square().mean((2, 3, 4)))
        assert (judged.measures["max_patch_mse"] >= judged.measures["mse"]).all()

    def test_memory_layout_does_not_change_results(self):
        model = small().eval()
        assert model.encoder[3].weight.is_contiguous(memory_format=torch.channels_last)
        plain = small().to(memory_format=torch.contiguous_format).eval()
        x = window() * 2 - 1
        with torch.no_grad():
            torch.testing.assert_close(model(x), plain(x))


class TestConfiguration:
    def test_impossible_sizes_are_refused(self):
        with pytest.raises(ValidationError, match=r"image_size \[100, 7\].*multiples of 16.*\[96, 16\]"):
            model_config("gru_ae", {"image_size": (100, 7)})

    def test_single_frame_is_refused(self):
        with pytest.raises(ValidationError, match=r"frames\n.*greater than or equal to 2"):
            model_config("gru_ae", {"frames": 1})


class Killed(BaseException):
    """Simulates SIGKILL: no handler catches it."""


def test_resume_draws_the_same_noise(tmp_path):
    store = make_store(tmp_path)
    whole = [Segment(clip, 0, store.length(clip)) for clip in store.clips("train")]

    def run(model, folder, **watching):
        kept, held = (ClipLoader.for_model(model, store, part, None) for part in (whole[:2], whole[2:]))
        settings = TrainSettings(seed=5, check_every=3, val_windows=4, log_every=2, save_seconds=0.0)
        callback = Callback(say=lambda text: None, **watching)
        train(model, kept, held, settings, CheckpointFolder(folder, "train-x"), callback)

    def kill(phase, iteration, values):
        if iteration == 4:
            raise Killed

    undisturbed, resumed = small(iterations=8), small(iterations=8)
    run(undisturbed, tmp_path / "a")
    with pytest.raises(Killed):
        run(small(iterations=8), tmp_path / "b", metrics=kill)
    run(resumed, tmp_path / "b")
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
