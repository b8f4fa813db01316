"""Error maps and the measures of frames computed from them."""

import pytest
import torch

from vadcore.models.components.error_maps import frame_errors, map_size, shrink


def test_map_size_divides_the_frame():
    assert map_size((24, 32)) == (24, 32)
    assert map_size((240, 360)) == (60, 90)  # a quarter: 4 is the least factor that brings 360 under 96
    assert map_size((360, 240)) == (90, 60)
    assert map_size((256, 256)) == (64, 64)  # 3 would do but does not divide 256


def test_map_size_of_prime_sides_is_96():
    assert map_size((227, 227)) == (96, 96)  # 227 is prime


@pytest.mark.parametrize("size", [(64, 96), (227, 227)])
@pytest.mark.parametrize("channels", [1, 3])
def test_mse_of_a_frame(size, channels):
    frames, shown = torch.rand(2, 2, 3, channels, *size, generator=torch.Generator().manual_seed(0))
    measures, maps = frame_errors(shown, frames)
    torch.testing.assert_close(measures["mse"], (shown - frames).square().mean((2, 3, 4)))
    assert maps.shape == (2, 3, *map_size(size))


def test_errors_are_independent_of_value_range():
    frames, shown = torch.rand(2, 1, 2, 1, 40, 60, generator=torch.Generator().manual_seed(1))
    measures, maps = frame_errors(shown, frames)
    wide_measures, wide_maps = frame_errors(shown * 2 - 1, frames * 2 - 1, span=2)
    torch.testing.assert_close(wide_maps, maps)
    for name, values in measures.items():
        torch.testing.assert_close(wide_measures[name], values)


def test_max_patch_mse_of_small_bad_region():
    """A square of 16 x 16 pixels wholly wrong in a frame of 256 x 256: mean 1/256, worst block 1."""
    frames = torch.zeros(1, 1, 1, 256, 256)
    shown = frames.clone()
    shown[..., 64:80, 128:144] = 1
    measures, maps = frame_errors(shown, frames)
    assert measures["mse"].item() == pytest.approx(1 / 256)
    assert measures["max_patch_mse"].item() == pytest.approx(1)
    rows, columns = torch.nonzero(maps[0, 0], as_tuple=True)  # the map is a quarter of the frame
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 19, 32, 35)


def test_shrink_is_an_area_average():
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    torch.testing.assert_close(shrink(maps, (2, 2)), torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]]))
    torch.testing.assert_close(shrink(maps, (3, 3)).mean(), maps.mean())  # blocks overlap, evenly here
