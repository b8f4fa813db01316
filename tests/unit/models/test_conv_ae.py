"""The convolutional autoencoder of Hasan et al. 2016; expected figures are derived by hand from its layers."""

import pytest
import torch
from pydantic import ValidationError

from vadcore.data.windows import Batch
from vadcore.models import create_model, model_config


def test_parameter_count_matches_publication():
    encoder = (512 * 10 * 11 * 11 + 512) + (256 * 512 * 5 * 5 + 256) + (128 * 256 * 3 * 3 + 128)
    decoder = (128 * 256 * 3 * 3 + 256) + (256 * 512 * 5 * 5 + 512) + (512 * 10 * 11 * 11 + 10)
    model = create_model("conv_ae")
    assert sum(p.numel() for p in model.parameters()) == encoder + decoder == 8_384_138


def test_rgb_has_three_channels_per_frame():
    grey, rgb = (
        sum(p.numel() for p in create_model("conv_ae", {"color": color}).parameters()) for color in ("grey", "rgb")
    )
    assert rgb - grey == 2 * (20 * 512 * 11 * 11) + 20  # 20 more channels in, 20 more out and their biases


def test_layer_shapes_match_publication():
    """227: (227 - 11) / 4 + 1 = 55, pooled 27, pooled 13."""
    model = create_model("conv_ae", {"conv": (8, 8, 16)})
    z, (wide, middle) = model.encode(torch.zeros(1, 10, 227, 227))
    assert z.shape == (1, 16, 13, 13)
    assert wide[1] == (55, 55)
    assert middle[1] == (27, 27)
    assert model(torch.zeros(1, 10, 1, 227, 227)).shape == (1, 10, 1, 227, 227)


@pytest.mark.parametrize("size", [(23, 23), (27, 39), (127, 191)])
@pytest.mark.parametrize("frames", [2, 7])
def test_sizes_without_remainder_are_reconstructed(size, frames):
    model = create_model("conv_ae", {"image_size": size, "frames": frames, "conv": (4, 4, 4), "color": "rgb"})
    x = torch.rand(2, frames, 3, *size)
    assert model(x).shape == x.shape


@pytest.mark.parametrize(
    ("size", "near"), [((128, 192), r"\[127, 191\]"), ((20, 227), r"\[23, 227\]"), ((229, 229), r"\[227, 227\]")]
)
def test_impossible_sizes_are_refused(size, near):
    with pytest.raises(ValidationError, match=rf"image_size.*{near}"):
        model_config("conv_ae", {"image_size": size})


def test_published_strides():
    assert create_model("conv_ae").phases()[-1].windows.strides == (1, 2, 3)


def test_default_optimizer_is_adagrad():
    (published,) = create_model("conv_ae").phases()[-1].optimizers.values()
    (other,) = create_model("conv_ae", {"optimizer": "adam"}).phases()[-1].optimizers.values()
    assert isinstance(published, torch.optim.Adagrad)
    assert isinstance(other, torch.optim.Adam)


def test_loss_is_half_squared_distance():
    torch.manual_seed(0)
    model = create_model("conv_ae", {"image_size": (27, 27), "frames": 3, "conv": (4, 4, 4)})
    batch = Batch(torch.rand(5, 3, 1, 27, 27), torch.zeros(5), torch.zeros(5, 3))
    with torch.no_grad():
        x = model.mean_image.centre(batch.frames)
        expected = sum(0.5 * (a - b).norm() ** 2 for a, b in zip(model(x), x, strict=True)) / 5
        torch.testing.assert_close(model.loss(batch), expected)


def test_unpooling_restores_positions():
    """With identity layers in the middle, a value returns to the position where the first pooling found it."""
    model = create_model("conv_ae", {"image_size": (27, 27), "frames": 2, "conv": (1, 1, 1)})
    for layer in (model.conv2, model.conv3, model.deconv3, model.deconv2):
        torch.nn.init.dirac_(layer.weight)
    seen = {}
    model.deconv1.register_forward_pre_hook(lambda layer, inputs: seen.update(restored=inputs[0]))
    x = torch.rand(1, 2, 1, 27, 27, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model(x)
        wide = torch.tanh(model.conv1(x.flatten(1, 2)))  # [1, 1, 5, 5], pooled 2, pooled 1
    rows, columns = torch.nonzero(seen["restored"][0, 0], as_tuple=True)
    assert len(rows) == 1
    kept = wide[0, 0, :4, :4]  # covered by whole blocks of the two poolings
    assert (int(rows), int(columns)) == divmod(int(kept.argmax()), 4)


def small(**changes):
    torch.manual_seed(0)
    return create_model("conv_ae", {"image_size": (27, 35), "frames": 3, "conv": (4, 4, 4), **changes}).eval()


def window() -> Batch:
    frames = torch.rand(2, 3, 1, 27, 35, generator=torch.Generator().manual_seed(1))
    return Batch(frames, torch.zeros(2), torch.zeros(2, 3))


def test_last_deconvolution_equals_pytorch():
    layer = create_model("conv_ae", {"conv": (6, 5, 4), "frames": 3, "image_size": (51, 67)}).double().deconv1
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 6, 11, 15, dtype=torch.float64, requires_grad=True)
    ours, theirs = layer(x), torch.nn.ConvTranspose2d.forward(layer, x)
    assert ours.shape == (2, 3, 51, 67)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(y.square().sum(), (x, layer.weight, layer.bias)) for y in (ours, theirs)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_error_range_without_mean_image():
    model, batch = small(subtract_mean=False), window()
    assert [phase.name for phase in model.phases()] == ["autoencoder"]
    with torch.no_grad():
        judged = model.predict_step(batch)
        rebuilt = (model(2 * batch.frames - 1) + 1) / 2  # [B, T, C, H, W] in 0..1
    torch.testing.assert_close(judged.reconstruction(), rebuilt)
    torch.testing.assert_close(judged.measures["mse"], (rebuilt - batch.frames).square().mean((2, 3, 4)))


def test_every_layer_ends_in_tanh():
    """With saturating weights the inputs of all layers and the output stay in -1..1."""
    model, given = small(), {}
    for name, layer in list(model.named_children()):
        if name.startswith(("conv", "deconv")):
            torch.nn.init.normal_(layer.weight, std=100)
            layer.register_forward_pre_hook(lambda layer, x, name=name: given.update({name: float(x[0].abs().max())}))
    with torch.no_grad():
        out = model(window().frames)
    assert given.keys() == {"conv1", "conv2", "conv3", "deconv3", "deconv2", "deconv1"}
    assert max(given.values()) <= 1
    assert out.abs().max() <= 1


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
def test_optimizer_gets_rate_and_weight_decay(optimizer):
    phase = small(optimizer=optimizer, learning_rate=0.03, weight_decay=0.002).phases()[-1]
    (group,) = next(iter(phase.optimizers.values())).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.03, 0.002)


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("color", ["grey", "rgb"])
def test_norm_score(color, subtract):
    """The error is that of pictures in 0..1, whatever the range of the network's inputs."""
    model = small(color=color, subtract_mean=subtract).eval()
    frames = torch.rand(2, model.config.frames, model.config.channels, *model.config.image_size)
    batch = Batch(frames, torch.zeros(2, dtype=torch.long), torch.arange(model.config.frames).expand(2, -1))
    with torch.no_grad():
        judged = model.predict_step(batch)
        x = model.as_seen(batch)
        error = model.mean_image.uncentre(model(x)) - model.mean_image.uncentre(x)  # [B, T, C, H, W]
    expected = error.square().sum(2).sqrt().mean((2, 3))
    torch.testing.assert_close(judged.measures[model.score], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("score", ["norm", "mse", "max_patch_mse"])
def test_score_and_step_are_settings(score):
    model = small(score=score, step=2)
    assert model.score == score
    assert (model.windows.step, model.windows.judged) == (2, (0, 1, 2))
