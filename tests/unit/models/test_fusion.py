"""Scores and maps of several systems, scaled to units of normal footage and combined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vadcore.models.fusion import Fusion, Member, Scale, load_fusion, save_fusion
from vadcore.utils.errors import VadError
from vadcore.utils.folders import FUSED

NAN = np.nan


def fusion(*scales: tuple[float, float, float, float], **settings) -> Fusion:
    """A fusion of systems a, b, ...: of each the median and high of its score, and of the highest value in its maps."""
    members = {
        name: Member(
            measure="mse",
            precision="float32",
            score=Scale(median=median, high=high),
            map=Scale(median=map_median, high=map_high),
        )
        for name, (median, high, map_median, map_high) in zip("abcd", scales, strict=False)
    }
    return Fusion(system="fusion", of=tuple(members), members=members, **settings)


def judged(*scores: list[float]) -> list[dict[str, np.ndarray]]:
    return [{"mse": np.array(of_member, np.float32), "other": np.zeros(len(of_member))} for of_member in scores]


TWO = ((1.0, 3.0, 0.0, 10.0), (0.0, 0.5, 0.1, 0.2))


class TestScale:
    def test_median_is_0_and_high_is_1(self):
        scale = Scale.over(np.array([*range(101), NAN], np.float32), 0.99)
        assert (scale.median, scale.high) == (50, 99)
        np.testing.assert_allclose(scale(np.array([50, 99, 1, NAN])), [0, 1, -1, NAN])

    @pytest.mark.parametrize(("value", "unit"), [(0.0, 1.0), (0.2, 0.2), (-3.0, 3.0)])
    def test_constant_values_have_a_finite_unit(self, value, unit):
        scale = Scale.over(np.full(9, value), 0.99)
        np.testing.assert_allclose(scale(np.array([value, value + unit])), [0, 1])

    def test_rounding_differences_are_ignored(self):
        assert Scale(median=1.0, high=1.0 + 1e-8).unit == 1.0

    @given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1), st.floats(0.51, 0.99))
    def test_order_is_kept(self, values, share):
        scale = Scale.over(np.array(values), share)
        scaled = scale(np.sort(values))
        assert np.isfinite(scaled).all()
        assert (np.diff(scaled) >= 0).all()


class TestScores:
    def test_mean(self):
        found = fusion(*TWO).measures(judged([1, 3, 5], [0, 0.5, 0]))
        np.testing.assert_allclose(found[FUSED], [0, 1, 1])
        np.testing.assert_allclose(found["a"], [0, 1, 2])
        np.testing.assert_allclose(found["b"], [0, 1, 0])
        assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}

    def test_weighted_mean(self):
        found = fusion(*TWO, weights=(3, 1)).measures(judged([5], [0]))
        np.testing.assert_allclose(found[FUSED], [1.5])

    def test_max(self):
        found = fusion(*TWO, rule="max").measures(judged([1, 3, 5], [0.25, 0.75, 0]))
        np.testing.assert_allclose(found[FUSED], [0.5, 1.5, 2])

    @pytest.mark.parametrize("rule", ["mean", "max"])
    def test_frame_needs_all_members(self, rule):
        found = fusion(*TWO, rule=rule).measures(judged([NAN, 1, 5], [0, 0, NAN]))
        np.testing.assert_allclose(found[FUSED], [NAN, 0, NAN])
        np.testing.assert_allclose(found["a"], [NAN, 0, 2])


class TestMaps:
    def test_highest_values_are_scaled_like_scores(self):
        first, second = np.zeros((1, 2, 2), np.float16), np.zeros((1, 2, 2), np.float16)
        first[0, 0, 0], second[0, 1, 1] = 20, 0.4
        found = fusion(*TWO).maps([first, second])
        np.testing.assert_allclose(found[0], [[1, 0], [0, 2]], rtol=1e-3)  # the halves of 20 / 10 and 0.4 / 0.1

    @pytest.mark.parametrize("rule", ["mean", "max"])
    def test_zero_stays_zero(self, rule):
        nothing = np.zeros((2, 3, 4), np.float16)
        assert not fusion(*TWO, rule=rule).maps([nothing, nothing]).any()

    def test_max_takes_most_unusual_place(self):
        first, second = np.zeros((1, 1, 2), np.float16), np.zeros((1, 1, 2), np.float16)
        first[0, 0, 0], second[0, 0, 1] = 20, 0.4  # 2 and 3 in units of normal footage, and 0 is -0 and -1
        np.testing.assert_allclose(fusion(*TWO, rule="max").maps([first, second]), [[[2, 3]]], rtol=1e-3)

    def test_sizes_become_the_largest(self):
        small, large = np.ones((3, 2, 3), np.float16), np.ones((3, 8, 12), np.float16)
        found = fusion(*TWO).maps([small, large])
        assert found.shape == (3, 8, 12)
        np.testing.assert_allclose(found, (1 / 10 + 1 / 0.1) / 2, rtol=1e-3)

    def test_frame_needs_all_members(self):
        small, large = np.ones((3, 2, 3), np.float16), np.ones((3, 8, 12), np.float16)
        small[0], large[2] = NAN, NAN
        found = fusion(*TWO).maps([small, large])
        assert np.isnan(found).all((1, 2)).tolist() == [True, False, True]
        assert np.isfinite(found[1]).all()

    def test_large_values_stay_finite(self):
        tiny = fusion((0, 1, 0, 1e-9), (0, 1, 0, 1e-9))
        assert np.isfinite(tiny.maps([np.ones((1, 2, 2), np.float16)] * 2)).all()


def test_saved_fusion_is_loaded(tmp_path):
    made = fusion(*TWO, weights=(0.1, 1e-7), high=0.975)
    save_fusion(made, tmp_path)
    assert load_fusion(tmp_path) == made


def test_error_for_broken_fusion(tmp_path):
    with pytest.raises(VadError, match=r"config\.yaml: missing; run the fuse stage"):
        load_fusion(tmp_path)
    (tmp_path / "config.yaml").write_text("of: [a, b]\nsystem: fusion\n")
    with pytest.raises(VadError, match=r"config\.yaml: .*members.*; run the fuse stage again"):
        load_fusion(tmp_path)


def test_scores_below_the_median_count_as_zero():
    scale = Scale(median=1.0, high=3.0)
    member = Member(measure="x", precision="float32", score=scale, map=scale)
    fusion = Fusion(of=("a", "b"), system="fusion", members={"a": member, "b": member})
    fused = fusion.measures([{"x": np.array([-9.0, 5.0, np.nan])}, {"x": np.array([2.0, 3.0, 3.0])}])
    np.testing.assert_allclose(fused["fused"], [0.25, 1.5, np.nan])
    np.testing.assert_allclose(fused["a"], [-5, 2, np.nan])
