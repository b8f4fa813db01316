"""The report's check points: pictures and quality of systems during training, side by side."""

import base64
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.helpers.report_data import DATASETS, MODELS, SAME, axis, build, curve_points, write_system
from vadcore.report.media import decode_animation
from vadcore.utils.errors import VadError
from vadcore.utils.render import animation, write_animation

pytestmark = pytest.mark.xdist_group("report_page")


def points_section(page, number=1):
    """The part of the page that puts check points side by side."""
    start = page.index(f'id="d{number}points"')
    return page[start : page.index("<h3>Training and calibration", start)]


def points_row(section, model):
    """The texts of a model's line in the table of check points."""
    table = section[section.index('class="sortable points"') :]
    line = next(part for part in table[: table.index("</table>")].split("<tr>") if f"</i>{model}" in part)
    return re.findall(r"<td[^>]*>(.*?)</td>", line)


@pytest.fixture
def two_systems(tmp_path):
    """Two systems that share the check points 200 and 300 only."""
    write_system(tmp_path, "street", "future_frame", check_points=(100, 200, 300))
    write_system(tmp_path, "street", "convlstm_ae", check_points=(200, 300, 400))
    return tmp_path


def test_compares_up_to_three_shared_iterations(page, two_systems):
    section = points_section(page)
    # of 100, 200, 300, 400: places 0, 1.5 (rounded to even: 2) and 3; 20 + iteration / 100 and 1.5 dB more
    assert points_row(section, "future_frame") == [
        *("22.5", "24.5", "25.5"),  # PSNR
        *("0.600", "0.800", "0.900"),  # SSIM
        *("0.65", "0.65", "0.65"),  # sharpness
    ]
    assert points_row(section, "convlstm_ae")[:3] == ["21.0", "23.0", "24.0"]
    assert "frame_diff" not in section  # it has no pictures
    shared = points_section(build(two_systems, ["street"], ["future_frame", "convlstm_ae"]))
    assert points_row(shared, "convlstm_ae")[:2] == ["22.0", "23.0"]
    assert len(points_row(shared, "convlstm_ae")) == 2 * 3


def test_highest_figure_is_bold_except_sharpness(page):
    section = points_section(page)
    table = section[section.index('class="sortable points"') : section.index("</table>")]
    assert re.findall(r'class="num best"[^>]*>([^<]*)<', table) == ["22.5", "24.5", "25.5"]


def test_requested_and_missing_iterations(two_systems):
    page = build(two_systems, ["street"], ["future_frame", "convlstm_ae"], check_points=(400, 200, 250))
    section = points_section(page)
    assert points_row(section, "future_frame")[:2] == ["23.5", "–"]
    assert points_row(section, "convlstm_ae")[:2] == ["22.0", "24.0"]
    assert re.search(r"No check point at iteration 250 \(report\.check_points\); .* 100, 200, 300, 400\.", section)
    assert len(re.findall(r"<td>\s*–\s*</td>", section)) == 1  # future_frame at 400, where its picture would be


def test_picture_sizes_are_named(two_systems):
    file = two_systems / "models" / "street" / "convlstm_ae" / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_size": [64, 96], "color": "rgb"}))
    section = points_section(build(two_systems, ["street"], ["future_frame", "convlstm_ae"]))
    assert 'future_frame<small class="how">32 × 48 grey<' in section
    assert 'convlstm_ae<small class="how">64 × 96 rgb<' in section


def test_quality_chart(page):
    charts_drawn = re.findall(r'<svg class="loss".*?</svg>', points_section(page))
    assert len(charts_drawn) == 2  # PSNR, SSIM
    svg = charts_drawn[0]
    low, high = axis(svg)
    assert 'viewBox="100 0 300 1000"' in svg
    for position, ahead in enumerate((1.5, 0.0)):
        curve = re.search(rf'<path class="s{position}" d="([^"]*)"', svg)[1]
        points = curve_points(f'<path d="{curve}"')
        # a straight line is drawn by its points all the same: only level stretches are thinned
        assert [x for x, _ in points] == [100, 200, 300, 400]
        for x, y in points:
            assert high - y / 1000 * (high - low) == pytest.approx(20 + x / 100 + ahead, abs=(high - low) / 1000)
        assert svg.count(f'class="dots s{position}"') == 1


def test_strips_and_animations_are_embedded(page):
    section = points_section(page)
    images = re.findall(
        r'<img(?: class="(\w+)")? src="data:image/webp;base64,([^"]*)" width="(\d+)" height="(\d+)"', section
    )
    strips = [(int(width), int(height)) for kind, _, width, height in images if kind == "small"]
    # four of six frames of 48 and lines between them; inputs, outputs and errors of the first window alone
    assert strips == [(4 * 50 - 2, 3 * 32 + 4)] * 4 * 2  # three iterations, and the one that was kept
    films = [decode_animation(base64.b64decode(data)) for kind, data, _, _ in images if kind == "moving"]
    stills = [data for kind, data, _, _ in images if kind == "still"]
    assert [len(film) for film in films] == [6, 6]
    assert len(stills) == 2
    assert "prefers-reduced-motion" in page


def test_wide_animation_is_reduced(tmp_path):
    write_system(tmp_path, "street", "future_frame", check_points=(100,))
    inputs = np.zeros((3, 1, 64, 400), np.float32)  # enlarged twice: two windows of 800 pixels
    inputs[1] = 1
    write_animation(
        tmp_path / "models/street/future_frame/samples/autoencoder-000100.webp", animation([(inputs, inputs)] * 2)
    )
    section = points_section(build(tmp_path, ["street"], ["future_frame"]))
    (data,) = re.findall(r'class="moving" src="data:image/webp;base64,([^"]*)" width="520"', section)
    film = decode_animation(base64.b64decode(data))
    assert len(film) == 3
    assert film[0].shape[1] == 520


def test_single_system_has_no_comparison(tmp_path):
    write_system(tmp_path, "street", "future_frame", check_points=(100, 200))
    section = points_section(build(tmp_path, ["street"], ["future_frame"]))
    assert points_row(section, "future_frame")[:2] == ["22.5", "23.5"]
    assert "best" not in section


def test_no_section_without_check_points(tmp_path):
    for model in MODELS:
        write_system(tmp_path, "street", model)
    page = build(tmp_path, ["street"])
    assert "side by side" not in page
    assert "<dt>PSNR</dt>" not in page
    assert json.loads((tmp_path / "reports" / "quality.json").read_text()) == {"run": SAME, "rows": []}


def test_animation_without_figures_is_in_training(tmp_path):
    write_system(tmp_path, "street", "future_frame")
    write_system(tmp_path, "street", "convlstm_ae", check_points=(100, 200))
    page = build(tmp_path, ["street"], ["future_frame", "convlstm_ae"])
    training = page[page.index("<h3>Training and calibration") :]
    assert re.findall(r'class="moving"[^>]* alt="([^"]*)"', training) == ["future_frame: inputs above outputs, moving"]
    assert re.findall(r'class="moving"[^>]* alt="([^"]*)"', points_section(page)) == [
        "convlstm_ae at iteration 200: inputs above outputs, moving"
    ]


def test_last_phase_is_shown(tmp_path):
    write_system(tmp_path, "street", "future_frame", check_points=(100, 200))
    folder = tmp_path / "models" / "street" / "future_frame"
    history = pd.read_csv(folder / "history.csv")
    warm = history[history["iteration"] == 100].assign(phase="warm", psnr=10.0)
    pd.concat([warm, history]).to_csv(folder / "history.csv", index=False)
    for file in list((folder / "samples").glob("autoencoder-000100.*")):
        shutil.copy(file, file.with_name(f"warm-000100{file.suffix}"))
    page = build(tmp_path, ["street"], ["future_frame"])
    section = points_section(page)
    assert points_row(section, "future_frame")[:2] == ["22.5", "23.5"]
    assert section.count('alt="Inputs, outputs and errors') == 3  # two iterations, and the one that was kept
    training = page[page.index("<h3>Training and calibration") :]
    shown = [
        training.index(text)
        for text in ("warm, iteration 100", "autoencoder, iteration 100", "autoencoder, iteration 200")
    ]
    assert shown == sorted(shown)


def test_quality_json_has_every_check_point(results, page):
    stored = json.loads((results / "reports" / "quality.json").read_text())
    assert (results / "reports" / "quality.json").read_text().endswith("}\n")
    assert stored["run"] == SAME
    assert [(row["dataset"], row["model"], row["iteration"]) for row in stored["rows"]] == [
        (dataset, model, at) for dataset in DATASETS for model in MODELS[:2] for at in (100, 200, 300, 400)
    ]
    history = pd.read_csv(results / "models" / "street" / "future_frame" / "history.csv").set_index("iteration")
    assert stored["rows"][1] == {
        "dataset": "street",
        "model": "future_frame",
        "seed": 1,
        "iteration": 200,
        "psnr": 23.5,
        "ssim": 0.7,
        "sharpness": pytest.approx(0.65),
        "val": pytest.approx(history.loc[200, "val"]),
    }


def test_training_names_quality_of_kept_weights(page):
    facts = re.findall(r"<dt>(\w+) of the kept weights</dt><dd>([^<]*)</dd>", page)
    assert facts[:6] == [
        *(("PSNR", "24.5 dB"), ("SSIM", "0.800"), ("sharpness", "0.65")),
        *(("PSNR", "23.0 dB"), ("SSIM", "0.800"), ("sharpness", "0.65")),
    ]


@pytest.mark.parametrize("broken", ["autoencoder-000100.png", "autoencoder-000100.webp"])
def test_error_for_unreadable_check_point(tmp_path, broken):
    write_system(tmp_path, "street", "future_frame", check_points=(100,))
    (tmp_path / "models/street/future_frame/samples" / broken).write_bytes(b"")
    with pytest.raises(VadError, match=f"{broken}: .*dvc repro --force"):
        build(tmp_path, ["street"], ["future_frame"])
