"""The report's section of predictions many frames ahead."""

import html
import json
import re

import pandas as pd
import pytest

from tests.helpers.report_data import build, rollout_table, write_rollouts, write_system
from vadcore.report.rollouts import steps_closer

MSE, KL = "latent_lstm-mse", "latent_lstm-kl"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The report of three systems, of which two predict many frames ahead, through the same front end."""
    root = tmp_path_factory.mktemp("rollouts")
    for name in (MSE, KL, "frame_diff"):
        write_system(root, "street", name)
    for name, start, fall in ((MSE, 20.0, 1.5), (KL, 13.0, 0.1)):
        write_rollouts(root / "scores" / "street" / name, start, fall)
    strips = root / "reports" / "strips"
    strips.mkdir(parents=True)
    (strips / "street-gone-rollout-01-00003.png").touch()  # of a system that is no longer listed
    build(root, ["street"], [MSE, KL, "frame_diff"])
    return root


@pytest.fixture(scope="module")
def page(root):
    return html.unescape((root / "reports" / "index.html").read_text(encoding="utf-8"))


def test_steps_and_baselines_table(page):
    table = page[page.index('aria-label="Picture quality by step ahead') :]
    table = table[: table.index("</table>")]
    lines = [line for line in table.split("<tr>") if "</i>" in line]
    assert len(lines) == 2 + 4  # equal baselines of both systems share a line
    (own,) = [line for line in lines if f"</i>{MSE}" in line]
    cells = re.findall(r'data-v="([\d.]+)">([\d.]+)<small>± ([\d.]+)', own)
    assert [text for _, text, _ in cells[:5]] == ["20.0", "18.5", "17.0", "14.0", "14.0"]  # steps 1, 2, 3, 5, 10
    assert cells[0][2] == "1.5"


def test_pictures_of_every_system(page):
    for name in (MSE, KL):
        assert re.search(rf'alt="[^"]*{name}[^"]*sequence 01-00003"', page)
        assert re.search(rf'class="moving" [^>]*alt="{name}', page)


@pytest.mark.parametrize(
    ("start", "fall", "still", "mean"),
    [
        (20.0, 1.5, 4, 4),
        (13.0, 0.1, 0, 0),
        (17.0, 1.5, 2, 2),
        (20.0, 0.5, 10, 10),
        (15.1, 0.2, 10, 1),
    ],
)
def test_steps_closer_than_baselines(start, fall, still, mean):
    table = pd.DataFrame(rollout_table(start, fall)).set_index("step_ahead")
    psnr = {what: part["psnr"] for what, part in table.groupby("what")}
    assert steps_closer(psnr["prediction"], psnr["repeat last frame"]) == still
    assert steps_closer(psnr["prediction"], psnr["mean training frame"]) == mean


def test_table_counts_steps_closer(page):
    table = page.split('aria-label="Picture quality by step ahead')[1]
    line = next(part for part in table.split("<tr>") if f"</i>{MSE}" in part)
    assert re.findall(r'data-v="4">([^<]*)</td>', line) == ["4 of 10"] * 2


def test_strips_are_in_one_folder(root):
    names = sorted(path.name for path in (root / "reports" / "strips").iterdir())
    kinds = ("check-point-autoencoder-000100", "check-point-autoencoder-000400", "rollout-01-00003")
    assert names == [f"street-{model}-{kind}.png" for model in (KL, MSE) for kind in kinds]


def test_rollouts_json_has_every_step(root):
    rows = json.loads((root / "reports" / "rollouts.json").read_text())["rows"]
    assert len(rows) == 2 * 5 * 10
    assert rows[0]["variant"] == "vcae, mse"
    assert {row["model"] for row in rows} == {MSE, KL}
    assert (rows[0]["what"], rows[0]["step_ahead"], rows[0]["psnr"]) == ("prediction", 1, 20.0)


def test_no_section_without_rollouts(root):
    assert "Many frames ahead" not in build(root, ["street"], ["frame_diff"], out="none")
    assert json.loads((root / "none" / "rollouts.json").read_text())["rows"] == []
