"""Histograms of the scores."""

import re
from itertools import pairwise

import numpy as np
import pytest

from tests.helpers.report_data import curve_points
from vadcore.report.charts import BARS, histogram
from vadcore.report.load import load_system

pytestmark = pytest.mark.xdist_group("report_page")


class TestHistogram:
    def figure(self, page, model="future_frame"):
        training = page.split("<h3>Training and calibration</h3>")[1]
        entry = next(part for part in training.split("<summary>")[1:] if part.startswith(model))
        return entry.split('<figure class="chart steps"')[1].split("</figure>")[0]

    def bars(self, drawn, style):
        """Their heights, in percent."""
        top = float(re.search('data-high="(.*?)"', drawn["svg"])[1])
        x, y = np.array(curve_points(drawn["svg"], style), np.float64).T
        return top * (1 - np.interp((np.arange(BARS) + 0.5) * 1000 / BARS, x, y) / 1000)

    def test_has_three_classes(self, page):
        figure = self.figure(page)
        assert re.findall("</i>(.*?) <b", figure) == [
            "held-out normal footage",
            "normal test frames",
            "abnormal test frames",
        ]

    def test_bars_are_shares_of_frames(self, results):
        system = load_system(results / "scores", results / "models", "street", "future_frame")
        drawn = histogram(system)
        edges = np.linspace(drawn["first"], drawn["last"], BARS + 1)
        frames = system.frames.dropna(subset="score")
        val = np.array(system.calibration["scores"])
        groups = (val, *(frames["score"][frames["label"] == label].to_numpy() for label in (0, 1)))
        top = float(re.search('data-high="(.*?)"', drawn["svg"])[1])
        for style, scores in zip(("h0", "h1", "h2"), groups, strict=True):
            counts = [np.sum((scores >= low) & (scores < high)) for low, high in pairwise(edges)]
            counts[-1] = np.sum(scores >= edges[-2])  # includes all higher scores
            np.testing.assert_allclose(self.bars(drawn, style), 100 * np.array(counts) / len(scores), atol=top / 500)

    @pytest.mark.parametrize(("endless", "bar"), [(np.inf, -1), (-np.inf, 0)])
    def test_infinite_score_in_end_bar(self, results, endless, bar):
        system = load_system(results / "scores", results / "models", "street", "future_frame")
        normal = system.frames.index[(system.frames["label"] == 0) & system.frames["score"].notna()]
        system.frames.loc[normal[: len(normal) // 2], "score"] = endless  # as the PSNR of equal pictures
        drawn = histogram(system)
        assert np.isfinite([drawn["first"], drawn["last"]]).all()
        assert self.bars(drawn, "h1")[bar] == pytest.approx(50, abs=2)
        assert self.bars(drawn, "h1").sum() == pytest.approx(100, abs=1)

    def test_unlabelled_footage_has_one_test_class(self, unlabelled_page):
        figure = self.figure(unlabelled_page, "frame_diff")
        assert re.findall("</i>(.*?) <b", figure) == ["held-out normal footage", "test frames"]
