"""Random shifts of training windows."""

import pytest
import torch
from pydantic import ValidationError

from vadcore.data.windows import Batch
from vadcore.models import create_model, model_config
from vadcore.models.components.augment import shift_windows

MOST = 3
SMALL = {"image_size": [16, 16], "frames": 2, "z": 4, "hidden": 4, "conv": [2, 2, 2, 2, 2], "batch_size": 2}


def windows(b=64, t=2, c=3, h=9, w=11):
    """Windows in which all values differ."""
    return torch.arange(b * t * c * h * w, dtype=torch.float64).view(b, t, c, h, w)


def mirrored(index, size):
    index = abs(index)
    return index if index < size else 2 * (size - 1) - index


def shown(x, dy, dx):
    """A window shifted pixel by pixel."""
    h, w = x.shape[2:]
    rows = [mirrored(y + dy, h) for y in range(h)]
    columns = [mirrored(c + dx, w) for c in range(w)]
    return x[:, :, rows][:, :, :, columns]


def test_windows_shift_as_a_whole():
    x = windows()
    moved = shift_windows(x, MOST)
    everywhere = [(dy, dx) for dy in range(-MOST, MOST + 1) for dx in range(-MOST, MOST + 1)]
    found = []
    for before, after in zip(x, moved, strict=True):
        fits = [at for at in everywhere if torch.equal(after, shown(before, *at))]
        assert len(fits) == 1
        found += fits
    for axis in (0, 1):
        assert {at[axis] for at in found} == set(range(-MOST, MOST + 1))
    assert len(set(found)) > 20  # 64 windows, 49 displacements: not all alike


def test_shift_depends_on_the_generator_state():
    x = windows(8)
    torch.manual_seed(5)
    first = shift_windows(x, MOST)
    torch.manual_seed(5)
    assert torch.equal(first, shift_windows(x, MOST))


def test_zero_shift_draws_nothing():
    x, state = windows(2), torch.get_rng_state()
    assert shift_windows(x, 0) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_windows_shift_in_training_only():
    model = create_model("gru_ae", SMALL | {"shift": 4})
    frames = torch.rand(2, 2, 1, 16, 16)
    batch = Batch(frames, torch.zeros(2, dtype=torch.long), torch.zeros(2, 2, dtype=torch.long))
    model.eval()
    assert torch.equal(model.as_seen(batch), frames * 2 - 1)
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model.as_seen(batch), frames * 2 - 1)


def test_too_large_shift_is_refused():
    assert model_config("gru_ae", SMALL | {"shift": 15}).shift == 15
    with pytest.raises(ValidationError, match=r"shift 16.*\b15\b"):
        model_config("gru_ae", SMALL | {"shift": 16})
