"""PSNR, SSIM and sharpness: compared with definitions, hand-computed values and scikit-image."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vadcore.evaluation.image_quality import PictureQuality, gradient, psnr, ssim


@pytest.fixture
def pair():
    """Textured pictures and poor reconstructions of them: float32 [6, C, 48, 56]."""

    def make(channels):
        random = torch.Generator().manual_seed(4)
        coarse = torch.rand(6, channels, 6, 7, generator=random)
        frames = F.interpolate(coarse, scale_factor=8, mode="bilinear")
        frames = (0.8 * frames + 0.2 * torch.rand(frames.shape, generator=random)).clamp(0, 1)
        shown = F.avg_pool2d(frames, 5, stride=1, padding=2, count_include_pad=False)
        strength = torch.tensor([0.0, 0.01, 0.05, 0.1, 0.3, 1.0]).view(6, 1, 1, 1)  # the first has no noise
        return (shown + strength * torch.randn(shown.shape, generator=random)).clamp(0, 1), frames

    return make


def test_psnr_of_a_known_error():
    frames = torch.zeros(2, 1, 8, 8)
    shown = torch.stack([torch.full((1, 8, 8), 0.1), torch.full((1, 8, 8), 0.01)])
    # mean squared errors 1e-2 and 1e-4 against a peak of 1: 20 and 40 dB
    assert psnr(shown, frames).tolist() == pytest.approx([20, 40], abs=1e-4)


def test_psnr_of_equal_pictures_is_100_db():
    frames = torch.rand(3, 3, 8, 8)
    assert psnr(frames, frames).tolist() == [100.0] * 3


def test_mean_psnr_averages_decibels():
    quality = PictureQuality()
    frames = torch.rand(2, 1, 16, 16) * 0.5
    quality.add(frames[:1] + 0.1, frames[:1])
    quality.add(frames[1:] + 0.01, frames[1:])
    assert quality.means()["psnr"] == pytest.approx((20 + 40) / 2, abs=1e-3)  # of the mean error it would be 23 dB


def test_ssim_of_flat_pictures_compares_brightness():
    a, b = 0.2, 0.5
    shown, frames = torch.full((1, 1, 16, 16), a), torch.full((1, 1, 16, 16), b)
    # no variance: the second factor is 1, the first (2ab + C1) / (a^2 + b^2 + C1) with C1 = 0.01^2
    assert ssim(shown, frames).item() == pytest.approx((2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4), abs=1e-6)


def test_ssim_of_equal_and_inverted_pictures():
    frames = 0.5 + 0.3 * torch.sin(torch.arange(32.0) * 1.5).expand(1, 1, 32, 32)
    assert ssim(frames, frames).item() == pytest.approx(1, abs=1e-6)
    assert ssim(1 - frames, frames).item() < -0.8


def test_ssim_matches_the_definition(pair):
    shown, frames = (part[3:4, :, :14, :13].double() for part in pair(1))
    distance = torch.arange(-5, 6)
    weights = torch.exp(-(distance[:, None] ** 2 + distance**2) / (2 * 1.5**2)).double()
    weights /= weights.sum()
    local = []
    for top in range(14 - 10):
        for left in range(13 - 10):
            x, y = (part[0, 0, top : top + 11, left : left + 11] for part in (shown, frames))
            mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
            var_x, var_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
            cov = (weights * (x - mean_x) * (y - mean_y)).sum()
            bright = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
            local.append(bright * (2 * cov + 0.03**2) / (var_x + var_y + 0.03**2))
    assert ssim(shown.float(), frames.float()).item() == pytest.approx(torch.stack(local).mean().item(), abs=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_matches_scikit_image(pair, channels):
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    shown, frames = pair(channels)
    published = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        metrics.structural_similarity(x.double().numpy(), y.double().numpy(), channel_axis=0, **published)
        for x, y in zip(shown, frames, strict=True)
    ]
    assert ssim(shown, frames).numpy() == pytest.approx(np.array(expected), abs=1e-5)


def test_ssim_is_accurate_in_bright_flat_pictures(pair):
    """In single precision squares near 1 lose the digits that C2 = 9e-4 needs."""
    shown, frames = (0.95 + 0.02 * part for part in pair(1))
    x, y = shown.double(), frames.double()
    exact = _ssim_by_convolution(x, y)
    assert ssim(shown, frames).numpy() == pytest.approx(exact.numpy(), abs=2e-5)


def _ssim_by_convolution(x, y):
    taps = torch.exp(-(torch.arange(-5, 6).double() ** 2) / (2 * 1.5**2))
    window = (taps[:, None] * taps / taps.sum() ** 2)[None, None]
    mean_x, mean_y = F.conv2d(x, window), F.conv2d(y, window)
    var_x, var_y = F.conv2d(x * x, window) - mean_x**2, F.conv2d(y * y, window) - mean_y**2
    cov = F.conv2d(x * y, window) - mean_x * mean_y
    bright = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    return (bright * (2 * cov + 0.03**2) / (var_x + var_y + 0.03**2)).mean((1, 2, 3))


def test_ssim_of_pictures_smaller_than_its_window():
    frames = torch.rand(2, 1, 8, 6, generator=torch.Generator().manual_seed(0))
    assert ssim(frames, frames).tolist() == pytest.approx([1, 1])
    assert (ssim(1 - frames, frames) < 0.9).all()


def test_ssim_does_not_depend_on_autocast(pair):
    shown, frames = pair(1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ssim(shown, frames)
    assert torch.equal(inside, ssim(shown, frames))


def test_gradient_of_a_ramp_is_its_slope():
    down, right = torch.meshgrid(torch.arange(8.0), torch.arange(10.0), indexing="ij")
    ramp = (0.03 * right + 0.04 * down)[None, None]
    assert gradient(ramp).item() == pytest.approx(0.05, abs=1e-6)  # a triangle of 3, 4 and 5


def test_sharpness_is_the_ratio_of_gradients():
    frames = torch.rand(4, 1, 24, 32, generator=torch.Generator().manual_seed(1))

    def sharpness(shown):
        quality = PictureQuality()
        quality.add(shown, frames)
        return quality.means()["sharpness"]

    assert sharpness(frames) == pytest.approx(1)
    assert sharpness(0.5 + 0.25 * (frames - 0.5)) == pytest.approx(0.25)  # a quarter of the contrast
    assert sharpness(F.avg_pool2d(frames, 3, stride=1, padding=1)) < 0.6
    assert sharpness(torch.full_like(frames, 0.5)) == 0


def test_frames_without_gradient_have_no_sharpness():
    quality = PictureQuality()
    quality.add(torch.rand(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.5))
    assert list(quality.means()) == ["psnr", "ssim"]


def test_means_do_not_depend_on_batching(pair):
    shown, frames = pair(1)
    whole, parts = PictureQuality(), PictureQuality()
    whole.add(shown, frames)
    parts.add(shown[:1], frames[:1])
    parts.add(shown[1:], frames[1:])
    assert parts.means() == pytest.approx(whole.means(), rel=1e-6)
    assert all(math.isfinite(value) for value in whole.means().values())


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match="shape"):
        PictureQuality().add(torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8))


@pytest.mark.gpu
def test_gpu_gives_the_same_figures(pair):
    shown, frames = pair(3)
    for measure in (psnr, ssim, gradient):
        assert measure(shown.cuda(), frames.cuda()).cpu().numpy() == pytest.approx(
            measure(shown, frames).numpy(), abs=1e-4
        )
