"""The report: honest figures, and a page that needs nothing but itself."""

import base64
import csv
import html
import json
import re
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from report_data import DATASETS, MODELS, RUN, THRESHOLD, build, write_system

from vadcore.errors import VadError
from vadcore.render import animation, decode_animation, write_animation, write_png
from vadcore.report import charts, words
from vadcore.report.columns import write
from vadcore.report.histograms import BARS, histogram
from vadcore.report.load import load_system


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for dataset in DATASETS:
        for model in MODELS:
            write_system(root, dataset, model, check_points=(100, 200, 300, 400))
    return root


@pytest.fixture(scope="module")
def page(results):
    return build(results)


class TestAlarms:
    """What one gets at every rate that one could ask for."""

    def charts(self, page, number=1):
        section = page.split(f'id="d{number}alarms"')[1].split("<h3")[0]
        return section.split('<figure class="chart rates"')[1:]

    def test_every_figure_has_a_chart_with_a_curve_a_system(self, page):
        titles = [re.search("<h4>(.*?)(?: <small|</h4>)", chart)[1] for chart in self.charts(page)]
        assert titles == ["False alarms an hour on test footage", "Events found", "Precision of alarms", "Delay"]
        for chart in self.charts(page):
            assert re.findall(r'<path class="(s\d[^"]*)"', chart) == ["s0", "s1", "s2 free"]

    def test_curves_carry_the_figures_over_the_logarithm_of_the_rate(self, page):
        events = self.charts(page)[1]
        low, high = axis(events)
        (x0, y0), (x1, y1), (x2, y2) = curve_points(events, "s0")
        assert (x0, x2) == (0, 1000)
        assert x1 == round(1000 * np.log10(12) / 2)
        values = [high - y / 1000 * (high - low) for y in (y0, y1, y2)]
        assert values == pytest.approx([25, 50, 100], abs=0.2)

    def test_where_there_was_no_false_alarm_a_logarithm_has_no_point(self, page):
        points = curve_points(self.charts(page)[0], "s0")
        assert [x for x, _ in points] == [round(1000 * np.log10(12) / 2), 1000]

    def test_the_rate_asked_for_is_marked(self, page):
        assert self.charts(page)[1].count('<path class="dots') == 3

    def test_without_labels_there_is_no_such_section(self, tmp_path):
        write_system(tmp_path, "yard", "frame_diff", labelled=False)
        assert 'id="d1alarms"' not in build(tmp_path, ["yard"], ["frame_diff"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "none"),
        ([240, 360], "240 × 360"),
        (["a.avi", "b.avi"], "a.avi, b.avi"),
        ({"train": 3, "test": 2}, "train 3, test 2"),
    ],
)
def test_facts_of_the_footage_are_phrases(value, text):
    assert words.fact(value) == text


class TestHistogram:
    def figure(self, page, model="future_frame"):
        training = page.split("<h3>Training and calibration</h3>")[1]
        entry = next(part for part in training.split("<summary>")[1:] if part.startswith(model))
        return entry.split('<figure class="chart steps"')[1].split("</figure>")[0]

    def test_three_classes_are_drawn(self, page):
        figure = self.figure(page)
        assert re.findall("</i>(.*?) <b", figure) == [
            "held-out normal footage",
            "normal test frames",
            "abnormal test frames",
        ]

    def test_bars_hold_the_shares_that_counting_gives(self, results):
        system = load_system(results / "scores", results / "models", "street", "future_frame")
        drawn = histogram(system)
        edges = np.linspace(drawn["from"], drawn["to"], BARS + 1)
        frames = system.frames.dropna(subset="score")
        held_out = np.array(system.calibration["scores"])
        groups = (held_out, *(frames["score"][frames["label"] == label].to_numpy() for label in (0, 1)))
        top = float(re.search('data-high="(.*?)"', drawn["svg"])[1])
        for style, scores in zip(("h0", "h1", "h2"), groups, strict=True):
            counts = [np.sum((scores >= low) & (scores < high)) for low, high in pairwise(edges)]
            counts[-1] = np.sum(scores >= edges[-2])  # all that is higher
            x, y = np.array(curve_points(drawn["svg"], style), np.float64).T
            middles = (np.arange(BARS) + 0.5) * 1000 / BARS
            heights = top - np.interp(middles, x, y) / 1000 * top
            np.testing.assert_allclose(heights, 100 * np.array(counts) / len(scores), atol=top / 500)

    def test_footage_without_labels_has_one_class_of_test_frames(self, tmp_path):
        write_system(tmp_path, "yard", "frame_diff", labelled=False)
        figure = self.figure(build(tmp_path, ["yard"], ["frame_diff"]), "frame_diff")
        assert re.findall("</i>(.*?) <b", figure) == ["held-out normal footage", "test frames"]


def test_optical_flow_is_shown_where_a_system_sees_it(results, page, tmp_path):
    assert "Optical flow" not in page
    folder = tmp_path / "street" / "optical_flow"
    folder.mkdir(parents=True)
    with pytest.raises(VadError, match=r"pictures\.json: does not exist; run `dvc repro optical_flow@street`"):
        build(results, ["street"], out="flow", flow_pictures={"street": folder})
    write_png(folder / "test-07-00012.png", np.zeros((240, 642, 3), np.uint8))
    entry = {"picture": "test-07-00012.png", "split": "test", "clip": "07", "frame": 12}
    (folder / "pictures.json").write_text(json.dumps({"longest_px": 3.25, "pictures": [entry]}))
    shown = build(results, ["street"], out="flow", flow_pictures={"street": folder})
    assert 'alt="Optical flow of clip 07 (test) at frame 12, as arrows and as colour"' in shown
    assert "are 3.25 pixels a frame" in shown
    (folder / "pictures.json").write_text(json.dumps({"longest_px": 0.0, "pictures": []}))
    assert "Optical flow" not in build(results, ["street"], out="flow", flow_pictures={"street": folder})


class TestRollouts:
    """Of three systems two go on from their own predictions, through the same front end."""

    BASE: ClassVar = {
        "repeat last frame": 14.0,
        "constant velocity": 17.0,
        "mean training frame": 15.0,
        "reconstruction": 24.0,
    }

    @pytest.fixture
    def root(self, tmp_path):
        for name in ("latent_lstm-mse", "latent_lstm-kl", "frame_diff"):
            write_system(tmp_path, "street", name)
        for name, start, fall in (("latent_lstm-mse", 20.0, 1.5), ("latent_lstm-kl", 13.0, 0.1)):
            self.write(tmp_path / "scores" / "street" / name, start, fall)
        return tmp_path

    def write(self, scored, start, fall, steps=10):
        metrics = json.loads((scored / "metrics.json").read_text()) | {
            "variant": scored.name.replace("latent_lstm-", "vcae, ")
        }
        (scored / "metrics.json").write_text(json.dumps(metrics))
        own = [start - fall * min(step, 4) for step in range(steps)]
        every = {"prediction": own, **{what: [value] * steps for what, value in self.BASE.items()}}
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

    def test_figures_of_every_step_stand_beside_the_baselines(self, root):
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

    def test_the_verdict_is_that_of_the_figures(self, root):
        page = html.unescape(build(root, ["street"], ["latent_lstm-mse", "latent_lstm-kl", "frame_diff"]))
        assert "latent_lstm-mse beats repeating the last frame at step 1, 2, 3, 4 of 1 to 5 only" in page
        said = (
            "From step {} dB) it is no closer than the mean training frame (15.0 dB), the same picture for every step: that "
            "predictions are good for 2 to 3 frames, as was published, {} by this measure."
        )
        assert said.format("5 on (14.0", "does not hold") in page
        assert "latent_lstm-kl beats repeating the last frame at none of the steps 1 to 5" in page
        assert said.format("1 on (13.0", "holds") in page

    def test_who_stays_ahead_of_the_mean_frame_is_told_so(self, root):
        self.write(root / "scores" / "street" / "latent_lstm-mse", 20.0, 0.5)
        assert "It is closer than the mean training frame at all 10 steps." in build(
            root, ["street"], ["latent_lstm-mse"]
        )

    def test_rollouts_json_holds_every_step(self, root):
        build(root, ["street"], ["latent_lstm-mse", "frame_diff"])
        rows = json.loads((root / "reports" / "rollouts.json").read_text())["rows"]
        assert len(rows) == 5 * 10
        assert rows[0]["variant"] == "vcae, mse"
        assert {row["model"] for row in rows} == {"latent_lstm-mse"}
        assert (rows[0]["what"], rows[0]["step_ahead"], rows[0]["psnr"]) == ("prediction", 1, 20.0)

    def test_without_any_there_is_no_section(self, page, results):
        assert "Many frames ahead" not in page
        assert json.loads((results / "reports" / "rollouts.json").read_text())["rows"] == []


def table_row(page, model):
    """The texts of the cells of a model's line in the first results table, notes left out."""
    table = page[page.index('class="sortable results"') :]
    line = table[: table.index("</table>")]
    line = next(part for part in line.split("<tr>") if f"</i>{model}" in part)
    return [re.sub(r"<small.*", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", line)]


def lanes(page, clip_id):
    """The SVG of every system over one clip."""
    article = page[page.index(f'id="{clip_id}"') :]
    return re.findall(r"<svg.*?</svg>", article[: article.index("</article>")])


def curve_points(svg, style=None):
    """Decodes a path (of a CSS class, where several are drawn) as the page's script does."""
    points = []
    of_class = "" if style is None else f'class="{style}" '
    for piece in re.search(rf'<path {of_class}d="([^"]*)"', svg)[1].split("M")[1:]:
        numbers = [int(number) for number in re.findall(r"-?\d+", piece)]
        x, y = numbers[:2]
        points.append((x, y))
        for dx, dy in zip(numbers[2::2], numbers[3::2], strict=True):
            x, y = x + dx, y + dy
            points.append((x, y))
    return points


def axis(svg):
    return float(re.search(r'data-low="([^"]*)"', svg)[1]), float(re.search(r'data-high="([^"]*)"', svg)[1])


def test_the_page_loads_nothing(page):
    assert not re.findall(r"(?:https?:)?//[a-z]", re.sub(r'="data:[^"]*"', "", page).replace("// ", ""))
    sources = re.findall(r'(?:src|href|srcset|poster|action)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("#", "data:image/webp;base64,")) for source in sources)
    own = page.replace('url("${URL.createObjectURL(', "")  # a picture that the page itself holds
    assert not re.search(r"@import|url\(|<link|<iframe|<object", own)
    assert "default-src 'none'" in page  # the browser refuses what slips through


def test_every_system_has_its_row_with_its_figures(results, page):
    for model in MODELS:
        row = json.loads((results / "scores" / "street" / model / "metrics.json").read_text())
        cells = table_row(page, model)
        assert cells[:3] == [f"{100 * row[key]:.1f}" for key in ("auc_micro", "auc_micro_minmax", "auc_macro")]
        assert cells[3:8] == ["81.2", "15.7", "50.0", "0.70", "31.5"]
    assert table_row(page, "future_frame")[8:] == ["107", "1.6 min", "1.2 M"]


def test_a_figure_that_no_system_has_takes_no_column(page):
    table = page[page.index('class="sortable results"') :]
    assert "pixel AUC" not in table[: table.index("</table>")]


def test_systems_that_learn_nothing_are_marked(page):
    table = page[page.index('class="sortable results"') :]
    table = table[: table.index("</table>")]
    for model, marks in (("frame_diff", 1), ("future_frame", 0)):
        line = next(part for part in table.split("<tr>") if f"</i>{model}" in part)
        assert line.count("nothing learned") == marks


def test_how_a_figure_was_made_stands_beside_it(page):
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    for said in (
        "All systems: score: psnr, threshold 1.25, smoothed over time with sigma 3 frames, seed 1.",
        "Label set: generated.",
        "464 test frames judged",  # 4 clips of 120 frames, of which 4 have no score
        "60 of 480 labelled frames are abnormal",  # frames 40 to 69 of two clips
        "Thresholds are set for 12 false alarms an hour on 72 s of normal training footage",  # 0.02 h
        "asked 12‡",
        "‡ That rate is rarer than so little footage can show",
        "2 clips",
        *(str(value) for value in RUN.values() if isinstance(value, str)),
        "torch 2.13.0",
    ):
        assert said in text, said


def test_what_is_not_known_of_a_run_is_a_dash(results):
    page = build(results, out="unknown", run=RUN | {"commit": None})
    assert "<dt>commit</dt><dd>–</dd>" in page


def test_what_differs_between_systems_stands_in_their_rows(tmp_path):
    for model, measure in (("future_frame", "psnr"), ("frame_diff", "block maximum")):
        write_system(tmp_path, "street", model)
        file = tmp_path / "scores" / "street" / model / "metrics.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"score_measure": measure}))
    page = build(tmp_path, ["street"], ["future_frame", "frame_diff"])
    assert re.findall(r'class="how">([^<]*)<', page) == ["score: psnr", "nothing learned · score: block maximum"]
    assert "All systems: threshold 1.25, smoothed" in page


def test_data_sets_and_models_appear_as_listed_and_no_others(results):
    shown = build(results, ["ped2_small"], ["frame_diff", "convlstm_ae"], out="some")
    assert "street</h2>" not in shown
    assert "future_frame" not in shown
    assert shown.index("</i>frame_diff") < shown.index("</i>convlstm_ae")


def test_metrics_json_holds_the_run_and_the_rows(results, page):
    stored = json.loads((results / "reports" / "metrics.json").read_text())
    assert list(stored) == ["run", "rows"]
    assert stored["run"] == RUN
    assert [(row["dataset"], row["model"]) for row in stored["rows"]] == [(d, m) for d in DATASETS for m in MODELS]
    row = json.loads((results / "scores" / "street" / "future_frame" / "metrics.json").read_text())
    assert stored["rows"][0] == row | {"train_seconds": 95.0, "parameters": 1_234_567}  # cost: from the training stage
    assert 0 <= stored["rows"][0]["auc_micro"] <= 1


def test_results_csv_is_the_rows_as_a_table(results, page):
    with (results / "reports" / "results.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    rows = json.loads((results / "reports" / "metrics.json").read_text())["rows"]
    assert len(table) == len(rows) == 6
    assert [float(line["auc_micro"]) for line in table] == [row["auc_micro"] for row in rows]
    assert table[0]["rbdc"] == ""


def test_shades_are_the_true_intervals(page):
    abnormal, normal = lanes(page, "d1c1"), lanes(page, "d1c2")
    assert len(abnormal) == len(normal) == len(MODELS)
    for svg in abnormal:
        # Frame i covers i - 0.5 .. i + 0.5: frames 40 to 69 begin at 39.5 and are 30 wide.
        assert re.findall(r'class="truth" x="([\d.]+)" y="0" width="(\d+)"', svg) == [("39.5", "30")]
        assert 'viewBox="-0.5 0 120 1000"' in svg
    assert all("truth" not in svg for svg in normal)


def test_the_threshold_is_drawn_where_the_score_axis_puts_it(page):
    for svg in lanes(page, "d1c1"):
        low, high = axis(svg)
        y = re.search(r'class="thr" x1="-0.5" y1="(\d+)" x2="119.5" y2="(\d+)"', svg)
        assert y[1] == y[2]
        assert int(y[1]) == pytest.approx(1000 * (high - THRESHOLD) / (high - low), abs=0.6)


def test_curves_carry_the_scores_and_leave_unjudged_frames_out(results, page):
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


def test_worst_frames_are_embedded_and_say_whether_they_are_false_alarms(page):
    assert page.count('src="data:image/webp;base64,') >= 2 * len(MODELS) * len(DATASETS)
    assert "abnormal, caught" in page


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


def test_check_points_are_compared_at_up_to_three_iterations_that_all_systems_have(results, page, two_systems):
    section = points_section(page)
    # of 100, 200, 300, 400: places 0, 1.5 (rounded to even: 2) and 3; 20 + iteration / 100 and 1.5 dB more
    assert points_row(section, "future_frame") == [
        *("22.5", "24.5", "25.5"),  # PSNR
        *("0.600", "0.800", "0.900"),  # SSIM
        *("0.65", "0.65", "0.65"),  # sharpness
    ]
    assert points_row(section, "convlstm_ae")[:3] == ["21.0", "23.0", "24.0"]
    assert "frame_diff" not in section  # it shows nothing
    shared = points_section(build(two_systems, ["street"], ["future_frame", "convlstm_ae"]))
    assert points_row(shared, "convlstm_ae")[:2] == ["22.0", "23.0"]
    assert len(points_row(shared, "convlstm_ae")) == 2 * 3


def test_the_verdict_is_that_of_the_figures(page):
    section = html.unescape(points_section(page))
    assert re.findall(r"<li>(At .*?)</li>", section) == [
        f"At iteration {at}: future_frame has the higher PSNR ({20 + at / 100 + 1.5:.1f} dB, 1.5 above convlstm_ae); "
        f"convlstm_ae has the higher sharpness (0.80, 0.15 above future_frame); "
        f"SSIM is {0.5 + at / 1000:.3f} for future_frame and convlstm_ae alike."
        for at in (100, 300, 400)
    ]


def test_the_articles_finding_is_answered_where_both_systems_are_there(tmp_path, page):
    for model in ("gru_ae", "conv3d_ae"):
        write_system(tmp_path, "street", model, check_points=(100, 200))
    section = points_section(build(tmp_path, ["street"], ["gru_ae", "conv3d_ae"]))
    (answer,) = re.findall(r'<li class="finding">(.*?)</li>', section)
    assert "does not hold at any of these iterations" in answer  # closer, but less sharp
    assert 'class="finding"' not in points_section(page)


def test_more_gradient_than_the_footage_has_is_noise_and_no_lead(two_systems):
    file = two_systems / "models" / "street" / "convlstm_ae" / "history.csv"
    history = pd.read_csv(file)
    history["sharpness"] *= 10
    history.to_csv(file, index=False)
    section = html.unescape(points_section(build(two_systems, ["street"], ["future_frame", "convlstm_ae"])))
    assert "convlstm_ae has sharpness 8.00, which is noise: the footage has 1" in section
    assert "the higher sharpness" not in section


def test_the_highest_figure_is_bold_and_sharpness_has_no_best(page):
    section = points_section(page)
    table = section[section.index('class="sortable points"') : section.index("</table>")]
    assert re.findall(r'class="num best"[^>]*>([^<]*)<', table) == ["22.5", "24.5", "25.5"]


def test_asked_for_check_points_are_shown_and_what_a_system_lacks_is_said(two_systems):
    page = build(two_systems, ["street"], ["future_frame", "convlstm_ae"], check_points=(400, 200, 250))
    section = points_section(page)
    assert points_row(section, "future_frame")[:2] == ["23.5", "–"]
    assert points_row(section, "convlstm_ae")[:2] == ["22.0", "24.0"]
    for said in (
        "Iteration 250, listed under report.check_points, is no check point of any system; there are 100, 200, 300, 400.",
        "No check point at iteration 400: future_frame.",
        "At iteration 400: convlstm_ae has PSNR 24.0 dB; ",
    ):
        assert said in section, said
    assert len(re.findall(r"<td>\s*–\s*</td>", section)) == 1  # future_frame at 400, where its picture would be


def test_systems_that_work_on_different_pictures_are_named(two_systems):
    file = two_systems / "models" / "street" / "convlstm_ae" / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_size": [64, 96], "color": "rgb"}))
    section = points_section(build(two_systems, ["street"], ["future_frame", "convlstm_ae"]))
    assert "future_frame at 32 × 48 grey, convlstm_ae at 64 × 96 rgb" in section


def test_quality_over_iterations_is_drawn_with_a_curve_a_system(page):
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


def test_strips_and_one_animation_a_system_are_embedded(page):
    section = points_section(page)
    images = re.findall(
        r'<img(?: class="(\w+)")? src="data:image/webp;base64,([^"]*)" width="(\d+)" height="(\d+)"', section
    )
    strips = [(int(width), int(height)) for kind, _, width, height in images if not kind]
    # four of six frames of 48 and lines between them; inputs, outputs and errors of the first window alone
    assert strips == [(4 * 50 - 2, 3 * 32 + 4)] * 4 * 2  # three iterations, and the one that was kept
    films = [decode_animation(base64.b64decode(data)) for kind, data, _, _ in images if kind == "moving"]
    stills = [data for kind, data, _, _ in images if kind == "still"]
    assert [len(film) for film in films] == [6, 6]
    assert len(stills) == 2
    assert "prefers-reduced-motion" in page


def test_an_animation_that_is_too_wide_is_reduced(tmp_path):
    write_system(tmp_path, "street", "future_frame", check_points=(100,))
    inputs = np.zeros((3, 1, 64, 400), np.float32)  # enlarged twice: two windows of 800 pixels
    inputs[1] = 1
    write_animation(tmp_path / "models/street/future_frame/samples/000100.webp", animation([(inputs, inputs)] * 2))
    section = points_section(build(tmp_path, ["street"], ["future_frame"]))
    (data,) = re.findall(r'class="moving" src="data:image/webp;base64,([^"]*)" width="520"', section)
    film = decode_animation(base64.b64decode(data))
    assert len(film) == 3
    assert film[0].shape[1] == 520


def test_a_single_system_is_shown_without_a_comparison(tmp_path):
    write_system(tmp_path, "street", "future_frame", check_points=(100, 200))
    section = points_section(build(tmp_path, ["street"], ["future_frame"]))
    assert "At iteration 100: future_frame has PSNR 22.5 dB; future_frame has SSIM 0.600;" in section
    assert "nothing to compare it with" in section
    assert "best" not in section


def test_systems_without_check_points_have_no_such_section(tmp_path):
    for model in MODELS:
        write_system(tmp_path, "street", model)
    page = build(tmp_path, ["street"])
    assert "side by side" not in page
    assert "<dt>PSNR</dt>" not in page
    assert json.loads((tmp_path / "reports" / "quality.json").read_text()) == {"run": RUN, "rows": []}


def test_a_system_whose_pictures_have_no_figures_moves_where_its_training_is_shown(tmp_path):
    write_system(tmp_path, "street", "future_frame")
    write_system(tmp_path, "street", "convlstm_ae", check_points=(100, 200))
    page = build(tmp_path, ["street"], ["future_frame", "convlstm_ae"])
    training = page[page.index("<h3>Training and calibration") :]
    assert re.findall(r'class="moving"[^>]* alt="([^"]*)"', training) == ["future_frame: inputs above outputs, moving"]
    assert re.findall(r'class="moving"[^>]* alt="([^"]*)"', points_section(page)) == [
        "convlstm_ae at iteration 200: inputs above outputs, moving"
    ]


def test_of_several_phases_the_one_with_most_check_points_is_shown(tmp_path):
    write_system(tmp_path, "street", "future_frame", check_points=(100, 200))
    folder = tmp_path / "models" / "street" / "future_frame"
    history = pd.read_csv(folder / "history.csv")
    warm = history[history["iteration"] == 100].assign(phase="warm", psnr=10.0)
    pd.concat([warm, history]).to_csv(folder / "history.csv", index=False)
    for file in list((folder / "samples").iterdir()):
        file.rename(file.with_name(f"autoencoder-{file.name}"))
    section = points_section(build(tmp_path, ["street"], ["future_frame"]))
    assert points_row(section, "future_frame")[:2] == ["22.5", "23.5"]
    assert section.count('alt="Inputs, outputs and errors') == 3  # two iterations, and the one that was kept


def test_quality_json_holds_every_check_point(results, page):
    stored = json.loads((results / "reports" / "quality.json").read_text())
    assert (results / "reports" / "quality.json").read_text().endswith("}\n")
    assert stored["run"] == RUN
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
        "held_out": pytest.approx(history.loc[200, "held_out"]),
    }


def test_training_names_the_quality_of_the_kept_weights(page):
    facts = re.findall(r"<dt>(\w+) of the kept weights</dt><dd>([^<]*)</dd>", page)
    assert facts[:6] == [
        *(("PSNR", "24.5 dB"), ("SSIM", "0.800"), ("sharpness", "0.65")),
        *(("PSNR", "23.0 dB"), ("SSIM", "0.800"), ("sharpness", "0.65")),
    ]


@pytest.mark.parametrize("broken", ["000100.png", "000100.webp"])
def test_an_unreadable_check_point_picture_names_its_file(tmp_path, broken):
    write_system(tmp_path, "street", "future_frame", check_points=(100,))
    (tmp_path / "models/street/future_frame/samples" / broken).write_bytes(b"")
    with pytest.raises(VadError, match=f"{broken}: .*run the stage that writes it again"):
        build(tmp_path, ["street"], ["future_frame"])


def test_a_published_figure_stands_beside_ours(tmp_path):
    for model in ("future_frame-small", "gru_ae"):
        write_system(tmp_path, "ped2", model)
    rows = build(tmp_path, ["ped2"], ["future_frame-small", "gru_ae"]).split("<tbody>")[1].split("</tr>")
    assert "<small>published 95.4</small>" in rows[0]
    assert "published" not in rows[1]


def test_published_figures_stand_beside_known_data_sets_only(page):
    street, ped2 = (
        page[page.index('id="d1"') : page.index('id="d2"')],
        page[page.index('id="d2"') : page.index('id="terms"')],
    )
    assert "not ours" not in street
    assert "not ours" in ped2
    assert re.search(r"Liu et al., CVPR 2018</td><td></td><td[^>]*>95\.4<", ped2)
    assert "Chong &amp; Tay, ISNN 2017</td><td></td>" in ped2


@pytest.mark.parametrize("empty", ["fpr,tpr,threshold\n", "fpr,tpr,threshold\n0,,inf\n1,,1\n"])
def test_a_roc_that_does_not_exist_is_not_drawn(tmp_path, empty):
    write_system(tmp_path, "street", "frame_diff")
    (tmp_path / "scores" / "street" / "frame_diff" / "roc.csv").write_text(empty)
    assert 'class="roc"' not in build(tmp_path, ["street"], ["frame_diff"])


def test_footage_without_labels_gets_its_curves_and_alarms(tmp_path):
    for model in MODELS:
        write_system(tmp_path, "yard", model, labelled=False)
    page = build(tmp_path, ["yard"])
    assert "no labels" in page
    assert "AUC micro" not in page[: page.index('id="terms"')]
    assert 'class="truth"' not in page
    assert 'class="thr"' in page
    assert 'class="alarm"' in page
    assert 'class="roc"' not in page
    assert table_row(page, "future_frame") == ["107", "1.6 min", "1.2 M"]
    row = json.loads((tmp_path / "reports" / "metrics.json").read_text())["rows"][0]
    assert row["auc_micro"] is None


@pytest.mark.parametrize(
    ("lost", "stage"),
    [
        ("scores/street/convlstm_ae/metrics.json", "score@street-convlstm_ae"),
        ("scores/street/convlstm_ae/frames.parquet", "score@street-convlstm_ae"),
        ("scores/street/convlstm_ae/events.csv", "score@street-convlstm_ae"),
        ("models/street/convlstm_ae/metrics.json", "train@street-convlstm_ae"),
    ],
)
def test_missing_results_name_the_file_and_the_stage_to_run(tmp_path, lost, stage):
    for model in MODELS:
        write_system(tmp_path, "street", model)
    build(tmp_path, ["street"])
    before = (tmp_path / "reports" / "index.html").read_bytes()
    (tmp_path / lost).unlink()
    with pytest.raises(VadError) as error:
        build(tmp_path, ["street"])
    assert str(error.value) == f"{tmp_path / lost}: does not exist; run `dvc repro {stage}`"
    assert (tmp_path / "reports" / "index.html").read_bytes() == before  # the last report stays


@pytest.mark.parametrize(("broken", "text"), [("metrics.json", "{"), ("frames.parquet", "no parquet"), ("roc.csv", "")])
def test_unreadable_results_are_one_line_that_names_the_file(tmp_path, broken, text):
    write_system(tmp_path, "street", "frame_diff")
    file = tmp_path / "scores" / "street" / "frame_diff" / broken
    file.write_text(text)
    with pytest.raises(VadError, match=re.escape(str(file))) as error:
        build(tmp_path, ["street"], ["frame_diff"])
    assert "\n" not in str(error.value)
    assert "dvc repro --force score@street-frame_diff" in str(error.value)


def test_results_that_need_flow_name_the_stages_that_wait_for_it(results):
    with pytest.raises(VadError, match="run `dvc repro train_flow@street-flow_magnitude`"):
        build(results, models=["flow_magnitude"], flow_models=["flow_magnitude"])


def test_an_unreadable_picture_names_its_file(tmp_path):
    write_system(tmp_path, "street", "frame_diff")
    picture = tmp_path / "scores" / "street" / "frame_diff" / "worst" / "0.png"
    picture.write_bytes(b"")
    with pytest.raises(VadError, match=re.escape(str(picture))):
        build(tmp_path, ["street"], ["frame_diff"])


def test_models_that_judged_different_footage_are_not_compared(tmp_path):
    write_system(tmp_path, "street", "future_frame")
    write_system(tmp_path, "street", "frame_diff", frames=130)
    with pytest.raises(VadError, match="future_frame and frame_diff were scored on different frames"):
        build(tmp_path, ["street"], ["future_frame", "frame_diff"])


def test_nothing_listed_is_refused(results):
    with pytest.raises(VadError, match="models is empty"):
        build(results, models=[])


def test_names_cannot_become_markup(tmp_path):
    names = ["<script>alert(1)</script>", 'a"onload="x', "b&c", "d'e"]
    write_system(tmp_path, "street", "frame_diff", names=names)
    page = build(tmp_path, ["street"], ["frame_diff"])
    assert "<script>alert" not in page
    assert 'a"onload' not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2
    assert page.count("<script>") == 1


def test_the_same_inputs_give_the_same_bytes(results, page):
    build(results, out="again")
    names = ["index.html", "metrics.json", "quality.json", "results.csv", "rollouts.json"]
    for name in names:
        assert (results / "again" / name).read_bytes() == (results / "reports" / name).read_bytes()
    assert sorted(path.name for path in (results / "again").iterdir()) == names


def test_a_hundred_clips_of_a_thousand_frames_stay_light(tmp_path):
    for model in MODELS:
        write_system(tmp_path, "campus", model, clips=100, frames=1000)
    page = build(tmp_path, ["campus"])
    assert page.count('<article class="clip') == 100
    assert len(re.sub(r'src="data:[^"]*"', "", page).encode()) < 3_000_000


def test_thinning_keeps_every_peak_of_its_bucket():
    y = np.random.default_rng(0).standard_normal(10_000)
    y[[1234, 7777]] = 50, -50
    kept = charts.thin(np.arange(10_000), y, buckets=100)
    assert len(kept) <= 2 * 100 + 2
    assert {0, 1234, 7777, 9999} <= set(kept.tolist())
    for start in range(0, 10_000, 100):
        part = y[start : start + 100]
        assert {start + part.argmax(), start + part.argmin()} <= set(kept.tolist())


def test_a_path_breaks_where_there_is_no_score_and_shows_a_lonely_frame():
    # low 0, high 10: y = 1000 - 100 * score
    d = charts.path(np.arange(7), np.array([1, 2, np.nan, 5, np.nan, 0, 10.0]), 0, 10)
    assert d == "M0 900l1-100M3 500l0 0M5 1000l1-1000"


def test_a_level_stretch_is_drawn_by_its_ends():
    assert charts.path(np.arange(6), np.array([5, 5, 5, 5, 10, 10.0]), 0, 10) == "M0 500l3 0 1-500 1 0"


@pytest.mark.parametrize(
    ("labels", "runs"),
    [
        ([0, 0, 0], []),
        ([1, 1, 1], [(0, 2)]),
        ([1, 0, 1], [(0, 0), (2, 2)]),
        ([np.nan, 1, 1], [(1, 2)]),
    ],
)
def test_intervals_are_runs_of_abnormal_frames_with_both_ends(labels, runs):
    assert charts.intervals(np.arange(3), np.array(labels)) == runs


def test_a_missing_frame_ends_an_interval():
    assert charts.intervals(np.array([3, 4, 6]), np.ones(3)) == [(3, 4), (6, 6)]


def test_the_operating_point_is_where_scores_reach_the_threshold():
    curve = pd.DataFrame({"fpr": [0, 0, 0.5, 1], "tpr": [0, 0.5, 0.75, 1], "threshold": [np.inf, 3, 2, 1]})
    assert charts.operating_point(curve, 2) == (0.5, 0.75)
    assert charts.operating_point(curve, 2.5) == (0, 0.5)
    assert charts.operating_point(curve, None) is None


def test_score_axis_holds_all_scores_and_the_threshold():
    low, high = charts.score_range(np.array([1.0, np.nan, 3.0]), 5.0)
    assert (low, high) == pytest.approx((1 - 0.16, 5 + 0.16))  # 4 % of 4 at both ends
    assert charts.score_range(np.array([2.0, 2.0]), None) == (1.5, 2.5)
    assert charts.score_range(np.array([np.nan]), None) == (0, 1)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.95449, "percent", "95.4"),
        (1.0, "percent", "100.0"),
        (None, "percent", "–"),
        (0.7, "rate", "0.70"),
        (31.49, "rate", "31.5"),
        (3.26, "speed", "3.3"),
        (1654.6, "speed", "1,655"),
        (42.4, "time", "42 s"),
        (5400, "time", "1.5 h"),
        (999, "count", "999"),
        (45_371_666, "count", "45.4 M"),
    ],
)
def test_figures_are_written_as_a_person_reads_them(value, kind, text):
    assert write(value, kind) == text
