"""Shared fixtures of the flow tests."""

import pytest

from vadcore.flow import synthetic_pairs as pairs


@pytest.fixture(scope="module")
def few_textures():
    """Pair generators with 8 textures instead of 96, which take a second to make for each seed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "TEXTURES", 8)
        patch.setattr(pairs, "NOISE", 1 << 18)
        pairs._textures_and_noise.cache_clear()
        yield
    pairs._textures_and_noise.cache_clear()
