"""The 3D-CNN autoencoder; expected counts and shapes are derived by hand from the published layers."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from vadcore.data.windows import Batch
from vadcore.models import create_model, model_config
from vadcore.training.trainer import _Updates

SMALL = {"image_size": (32, 48), "conv": (4, 4, 8, 8), "z": 6, "batch_size": 2}


def small(**changes):
    torch.manual_seed(0)
    return create_model("conv3d_ae", {**SMALL, **changes})


def window(t: int = 16, channels: int = 1) -> torch.Tensor:
    """Random frames in 0..1."""
    return torch.rand(2, t, channels, 32, 48, generator=torch.Generator().manual_seed(1))


def batch(frames: torch.Tensor) -> Batch:
    return Batch(frames, torch.zeros(len(frames)), torch.zeros(frames.shape[:2]))


class TestPublishedFigures:
    def test_defaults(self):
        config = model_config("conv3d_ae", {})
        assert (config.image_size, config.frames, config.z) == ((128, 128), 16, 128)
        assert (config.batch_size, config.iterations, config.learning_rate) == (16, 5_000, 1e-4)
        assert config.strides == (1,)

    def test_training_samples_clips(self):
        (phase,) = small().phases()
        assert phase.sampling == "clips"
        assert phase.optimizers["optimizer"].param_groups[0]["lr"] == 1e-4

    # of 16 frames the last convolution leaves 1, of 128x128 pixels 8x8, of 64x64 4x4
    @pytest.mark.parametrize(
        ("side", "grid", "color", "channels", "total"),
        [
            (128, 1 * 8 * 8, "grey", 1, 30_452_608),
            (128, 1 * 8 * 8, "rgb", 3, 30_468_992),
            (64, 1 * 4 * 4, "grey", 1, 24_136_576),
            (64, 1 * 4 * 4, "rgb", 3, 24_152_960),
        ],
    )
    def test_parameter_count_matches_publication(self, side, grid, color, channels, total):
        convolutions = 4**3 * (channels * 64 + 64 * 128 + 128 * 256 + 256 * 512)  # 4x4x4, no bias
        norms = 2 * (64 + 128 + 256 + 512)
        latent = (512 * grid * 128 + 128) + (128 * 512 * grid + 512 * grid)
        mirrored_norms = 2 * (256 + 128 + 64)  # none after the last
        by_hand = 2 * convolutions + norms + latent + mirrored_norms
        with torch.device("meta"):  # counted without being filled
            model = create_model("conv3d_ae", {"image_size": (side, side), "color": color})
        assert sum(p.numel() for p in model.parameters()) == by_hand == total

    @pytest.mark.parametrize("side", [64, 128])
    @pytest.mark.parametrize(("color", "channels"), [("grey", 1), ("rgb", 3)])
    def test_layer_shapes_match_publication(self, side, color, channels):
        with torch.device("meta"):
            model = create_model("conv3d_ae", {"image_size": (side, side), "color": color})
            x = torch.zeros(2, channels, 16, side, side)
            down, up = [tuple(x.shape[1:])], []
            for layer in model.encoder:
                x = layer(x)
                if isinstance(layer, nn.Conv3d):
                    down.append(tuple(x.shape[1:]))
            z = model.to_latent(x)
            x = model.from_latent(z)
            up.append(tuple(x.shape[1:]))
            for layer in model.decoder:
                x = layer(x)
                if isinstance(layer, nn.ConvTranspose3d):
                    up.append(tuple(x.shape[1:]))
        sizes = [
            (channels, 16, side),
            (64, 8, side // 2),
            (128, 4, side // 4),
            (256, 2, side // 8),
            (512, 1, side // 16),
        ]
        assert down == [(width, t, s, s) for width, t, s in sizes]
        assert z.shape == (2, 128)
        assert up == down[::-1]

    def test_order_of_normalisation_and_activations(self):
        model = small()
        kinds = {part: [type(layer).__name__ for layer in getattr(model, part)] for part in ("encoder", "decoder")}
        assert kinds["encoder"] == ["Conv3d", "BatchNorm3d", "ReLU"] * 4
        assert kinds["decoder"] == ["ConvTranspose3d", "BatchNorm3d", "ReLU"] * 3 + ["ConvTranspose3d", "Tanh"]


class TestReconstruction:
    def test_each_frame_depends_on_the_whole_window(self):
        model = small().eval()
        x = window() * 2 - 1
        changed = x.clone()
        changed[:, 8] = -changed[:, 8]
        with torch.no_grad():
            before, after = model(x), model(changed)
        assert all(not torch.equal(before[:, t], after[:, t]) for t in range(16))

    @pytest.mark.parametrize("color", ["grey", "rgb"])
    @pytest.mark.parametrize("frames", [16, 32])
    def test_all_frames_are_judged_in_order(self, color, frames):
        model = small(color=color, frames=frames).eval()
        shown_to = window(frames, model.config.channels)
        with torch.no_grad():
            judged = model.predict_step(batch(shown_to))
            rebuilt = (model(shown_to * 2 - 1) + 1) / 2
        assert rebuilt.shape == shown_to.shape
        torch.testing.assert_close(judged.measures["mse"], (rebuilt - shown_to).square().mean((2, 3, 4)))
        assert (judged.measures["max_patch_mse"] >= judged.measures["mse"]).all()

    def test_time_and_channels_are_not_swapped(self):
        """The network gets ``[B, C, T, H, W]``; with identity layers the frames come back unchanged."""
        model = small(color="rgb")
        model.encoder = model.decoder = model.to_latent = model.from_latent = nn.Identity()
        seen = []
        model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
        x = window(channels=3)
        assert torch.equal(model(x), x)
        assert seen[0] == (2, 3, 16, 32, 48)


def test_training_step_is_plain_adam():
    """Kingma & Ba 2015: the first step moves every weight by rate * g / (|g| + 1e-8), g being its gradient."""
    model = small(learning_rate=1e-3).train()
    (phase,) = model.phases()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss = phase.step(batch(window()), _Updates(phase, processes=1))["loss"]
    assert loss.isfinite()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] - 1e-3 * p.grad / (p.grad.abs() + 1e-8))


class TestConfiguration:
    def test_impossible_sizes_are_refused(self):
        with pytest.raises(ValidationError, match=r"image_size \[100, 7\].*multiples of 16.*\[96, 16\]"):
            model_config("conv3d_ae", {"image_size": (100, 7)})

    @pytest.mark.parametrize(("frames", "near"), [(10, 16), (4, 16), (30, 32)])
    def test_impossible_lengths_are_refused(self, frames, near):
        with pytest.raises(ValidationError, match=rf"frames {frames}: .*multiple of 16.*\b{near}\b"):
            model_config("conv3d_ae", {"frames": frames})

    def test_single_value_per_channel_is_refused(self):
        one = {"image_size": (16, 16), "frames": 16, "conv": (2, 2, 2, 2), "z": 2}
        with pytest.raises(ValidationError, match=r"batch_size 1: .*\b2\b"):
            model_config("conv3d_ae", {**one, "batch_size": 1})
        frames = torch.rand(2, 16, 1, 16, 16)
        assert create_model("conv3d_ae", {**one, "batch_size": 2}).train()(frames).shape == frames.shape
