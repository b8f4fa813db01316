"""The timeline of a clip whose frames have times of their own, in the browser."""

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import expect

from tests.helpers.report_data import build, write_system
from tests.helpers.report_page import as_read, plot, point_at, press

SECONDS = np.concatenate((np.arange(50) / 5, 10 + np.arange(50) / 25))  # 5, then 25 frames a second: 12 s


@pytest.fixture(scope="module")
def report(chromium, tmp_path_factory):
    root = tmp_path_factory.mktemp("varying")
    write_system(root, "gate", "frame_diff", clips=1, frames=100)
    file = root / "scores/gate/frame_diff/frames.parquet"
    pd.read_parquet(file).assign(seconds=SECONDS, fps=25.0).to_parquet(file)
    build(root, ["gate"], ["frame_diff"])
    return root / "reports/index.html"


def test_axis_is_time(visit, report):
    card = visit(report).locator("#d1c1")
    said, value = card.locator(".at"), card.locator(".lane .val")
    scores = pd.read_parquet(report.parents[1] / "scores/gate/frame_diff/frames.parquet")["score"]
    expect(card.locator(".axis")).to_contain_text("100 frames, 12.0 s")
    for across in (0.21, 0.52, 0.951):
        frame = int(np.searchsorted(SECONDS, 12 * across, side="right")) - 1
        point_at(plot(card, 0), across)
        expect(said).to_contain_text(f"frame {frame} · {SECONDS[frame]:.2f} s")
        expect(value).to_have_text(as_read(scores[frame]))
    press(card.get_by_role("slider"), "End")
    expect(said).to_contain_text("frame 99 · 11.96 s")
