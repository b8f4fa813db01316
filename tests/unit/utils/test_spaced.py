"""Evenly spaced choice of items."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vadcore.utils.spaced import spaced


@given(st.integers(0, 500), st.integers(2, 500))
def test_choice_is_even_and_reaches_both_ends(length, count):
    chosen = spaced(length, count)
    assert len(chosen) == len(set(chosen.tolist())) == min(length, count)
    if length:
        assert chosen[0] == 0
        assert chosen[-1] == (length - 1 if len(chosen) > 1 else 0)
        assert np.ptp(np.diff(chosen)) <= 1 if len(chosen) > 1 else True
    if length:  # as many points as wanted, rounded, without repetition
        assert np.array_equal(chosen, np.unique(np.linspace(0, length - 1, count).round().astype(int)))
