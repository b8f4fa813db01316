"""The report's section of predictions many frames ahead."""

import html
import json
import re
from types import SimpleNamespace

import pandas as pd
import pytest

from tests.helpers.report_data import build, rollout_table, write_rollouts, write_system
from vadcore.report.rollouts import verdict

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


def test_pictures_and_verdicts_of_every_system(page):
    for name in (MSE, KL):
        assert re.search(rf'alt="[^"]*{name}[^"]*sequence 01-00003"', page)
        assert re.search(rf'class="moving" [^>]*alt="{name}', page)
        assert re.search(f"<li>{name} beats .*</li>", page)


@pytest.mark.parametrize(
    ("start", "fall", "said"),
    [
        (20.0, 1.5, r"step 1, 2, 3, 4 of 1 to 5 only\. From step 5 .*14\.0 dB.*15\.0 dB.* 4 steps, more than"),
        (13.0, 0.1, r"none of the steps 1 to 5\. From step 1 .*13\.0 dB.*15\.0 dB.* 0 steps, fewer than"),
        (17.0, 1.5, r"From step 3 .*14\.0 dB.*15\.0 dB.* 2 steps, in agreement with"),
        (20.0, 0.5, r"steps 1 to 5, by 4\.0 to 6\.0 dB.* all 10 steps"),
    ],
)
def test_verdict_follows_the_figures(start, fall, said):
    system = SimpleNamespace(model=MSE, rollouts=pd.DataFrame(rollout_table(start, fall)))
    (found,) = verdict(system)
    assert found.startswith(f"{MSE} beats ")
    assert re.search(said, found), found


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
