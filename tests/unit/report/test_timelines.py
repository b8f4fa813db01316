"""Timelines of the scores, as the page draws them."""

import re

import pandas as pd
import pytest

from tests.helpers.report_data import MODELS, THRESHOLD, axis, curve_points

pytestmark = pytest.mark.xdist_group("report_page")


def lanes(page, clip_id):
    """The SVG of every system over one clip."""
    article = page[page.index(f'id="{clip_id}"') :]
    return re.findall(r"<svg.*?</svg>", article[: article.index("</article>")])


def test_shades_are_abnormal_intervals(page):
    abnormal, normal = lanes(page, "d1c1"), lanes(page, "d1c2")
    assert len(abnormal) == len(normal) == len(MODELS)
    for svg in abnormal:
        # Frame i covers i - 0.5 .. i + 0.5: frames 40 to 69 begin at 39.5 and are 30 wide.
        assert re.findall(r'class="truth" x="([\d.]+)" y="0" width="(\d+)"', svg) == [("39.5", "30")]
        assert 'viewBox="-0.5 0 120 1000"' in svg
    assert all("truth" not in svg for svg in normal)


def test_threshold_line_is_on_the_score_axis(page):
    for svg in lanes(page, "d1c1"):
        low, high = axis(svg)
        y = re.search(r'class="thr" x1="-0.5" y1="(\d+)" x2="119.5" y2="(\d+)"', svg)
        assert y[1] == y[2]
        assert int(y[1]) == pytest.approx(1000 * (high - THRESHOLD) / (high - low), abs=0.6)


def test_curves_carry_the_scores(results, page):
    frames = pd.read_parquet(results / "scores" / "street" / "future_frame" / "frames.parquet")
    scores = frames[frames["clip"] == "01"].set_index("frame")["score"]
    svg = lanes(page, "d1c1")[0]
    low, high = axis(svg)
    points = curve_points(svg)
    assert [x for x, _ in points] == list(range(4, 120))
    for x, y in points:
        assert high - y / 1000 * (high - low) == pytest.approx(scores[x], abs=0.51 * (high - low) / 1000)


def test_alarms_are_the_stored_events(results, page):
    events = pd.read_csv(results / "scores" / "street" / "future_frame" / "events.csv", dtype={"clip": str})
    own = events[events["clip"] == "01"]
    drawn = re.findall(r'class="alarm" x="([\d.]+)" y="930" width="(\d+)"', lanes(page, "d1c1")[0])
    assert len(own) > 0
    assert [(float(x) + 0.5, int(width)) for x, width in drawn] == [
        (start, end - start + 1) for start, end in zip(own["start_frame"], own["end_frame"], strict=True)
    ]
