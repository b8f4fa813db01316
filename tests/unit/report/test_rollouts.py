"""The report's section of predictions many frames ahead."""

import html
import json
import re

import pytest

from tests.helpers.report_data import build, write_rollouts, write_system


@pytest.fixture
def root(tmp_path):
    """Of three systems two go on from their own predictions, through the same front end."""
    for name in ("latent_lstm-mse", "latent_lstm-kl", "frame_diff"):
        write_system(tmp_path, "street", name)
    for name, start, fall in (("latent_lstm-mse", 20.0, 1.5), ("latent_lstm-kl", 13.0, 0.1)):
        write_rollouts(tmp_path / "scores" / "street" / name, start, fall)
    return tmp_path


def test_figures_of_every_step_stand_beside_the_baselines(root):
    page = build(root, ["street"], ["latent_lstm-mse", "latent_lstm-kl", "frame_diff"])
    table = page[page.index('aria-label="Picture quality by step ahead') :]
    table = table[: table.index("</table>")]
    lines = [line for line in table.split("<tr>") if "</i>" in line]
    assert len(lines) == 2 + 4  # baselines that are the same for both stand once
    (own,) = [line for line in lines if "</i>latent_lstm-mse" in line]
    cells = re.findall(r'data-v="([\d.]+)">([\d.]+)<small>± ([\d.]+)', own)
    assert [text for _, text, _ in cells[:5]] == ["20.0", "18.5", "17.0", "14.0", "14.0"]  # steps 1, 2, 3, 5, 10
    assert cells[0][2] == "1.5"
    assert page.count("moving") > 0
    assert page.count("sequence 01-00003") == 2


def test_the_verdict_is_that_of_the_figures(root):
    page = html.unescape(build(root, ["street"], ["latent_lstm-mse", "latent_lstm-kl", "frame_diff"]))
    assert "latent_lstm-mse beats repeating the last frame at step 1, 2, 3, 4 of 1 to 5 only" in page
    said = (
        "From step {} dB) it is no closer than the mean training frame (15.0 dB), the same picture for every step: by this "
        "measure its predictions are good for {} the 2 to 3 that were published."
    )
    assert said.format("5 on (14.0", "4 steps, more than") in page
    assert "latent_lstm-kl beats repeating the last frame at none of the steps 1 to 5" in page
    assert said.format("1 on (13.0", "0 steps, fewer than") in page
    write_rollouts(root / "scores" / "street" / "latent_lstm-kl", 17.0, 1.5)
    page = html.unescape(build(root, ["street"], ["latent_lstm-kl", "frame_diff"]))
    assert said.format("3 on (14.0", "2 steps, in agreement with") in page


def test_who_stays_ahead_of_the_mean_frame_is_told_so(root):
    write_rollouts(root / "scores" / "street" / "latent_lstm-mse", 20.0, 0.5)
    assert "It is closer than the mean training frame at all 10 steps." in build(root, ["street"], ["latent_lstm-mse"])


def test_strips_lie_in_one_folder_for_dvc_to_show(root):
    (root / "reports" / "strips").mkdir(parents=True)
    (root / "reports" / "strips" / "street-gone-rollout-01-00003.png").touch()  # of a system that is no longer listed
    build(root, ["street"], ["latent_lstm-mse", "frame_diff"])
    assert [path.name for path in sorted((root / "reports" / "strips").iterdir())] == [
        "street-latent_lstm-mse-check-point-autoencoder-000100.png",
        "street-latent_lstm-mse-check-point-autoencoder-000400.png",
        "street-latent_lstm-mse-rollout-01-00003.png",
    ]


def test_rollouts_json_holds_every_step(root):
    build(root, ["street"], ["latent_lstm-mse", "frame_diff"])
    rows = json.loads((root / "reports" / "rollouts.json").read_text())["rows"]
    assert len(rows) == 5 * 10
    assert rows[0]["variant"] == "vcae, mse"
    assert {row["model"] for row in rows} == {"latent_lstm-mse"}
    assert (rows[0]["what"], rows[0]["step_ahead"], rows[0]["psnr"]) == ("prediction", 1, 20.0)


def test_without_any_there_is_no_section(root):
    assert "Many frames ahead" not in build(root, ["street"], ["frame_diff"])
    assert json.loads((root / "reports" / "rollouts.json").read_text())["rows"] == []
