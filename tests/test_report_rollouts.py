"""The report's section of predictions many frames ahead."""

import html
import json
import re

import numpy as np
import pandas as pd
import pytest
from report_data import build, write_system

from vadcore.render import animation, write_animation, write_png

BASE = {
    "repeat last frame": 14.0,
    "constant velocity": 17.0,
    "mean training frame": 15.0,
    "reconstruction": 24.0,
}


def write_rollouts(scored, start, fall, steps=10):
    metrics = json.loads((scored / "metrics.json").read_text()) | {
        "variant": scored.name.replace("latent_lstm-", "vcae, ")
    }
    (scored / "metrics.json").write_text(json.dumps(metrics))
    own = [start - fall * min(step, 4) for step in range(steps)]
    every = {"prediction": own, **{what: [value] * steps for what, value in BASE.items()}}
    rows = [
        {"what": what, "step_ahead": step + 1, "psnr": value, "psnr_std": 1.5, "ssim": value / 30, "ssim_std": 0.1}
        | {"sequences": 12}
        for what, values in every.items()
        for step, value in enumerate(values)
    ]
    folder = scored / "rollouts"
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "steps.csv", index=False)
    frames = np.random.default_rng(0).random((4, 1, 32, 48), dtype=np.float32)
    write_png(folder / "01-00003.png", np.zeros((96, 200, 3), np.uint8))
    write_animation(folder / "rollouts.webp", animation([(frames, frames, frames)]))


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
        "From step {} dB) it is no closer than the mean training frame (15.0 dB), the same picture for every step: that "
        "predictions are good for 2 to 3 frames, as was published, {} by this measure."
    )
    assert said.format("5 on (14.0", "does not hold") in page
    assert "latent_lstm-kl beats repeating the last frame at none of the steps 1 to 5" in page
    assert said.format("1 on (13.0", "holds") in page


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
