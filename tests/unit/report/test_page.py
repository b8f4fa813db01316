"""The report: honest figures, and a page that needs nothing but itself."""

import csv
import html
import json
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from tests.helpers.report_data import (
    DATASETS,
    MODELS,
    RUN,
    THRESHOLD,
    axis,
    build,
    curve_points,
    write_system,
    write_systems,
)
from vadcore.errors import VadError
from vadcore.render import write_png
from vadcore.report import facts
from vadcore.report.histograms import BARS, histogram
from vadcore.report.load import load_system


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return write_systems(tmp_path_factory.mktemp("results"))


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

    def test_none_has_a_row_of_its_own_below_the_logarithmic_axis(self, page):
        chart = self.charts(page)[0]  # measured: 0, 31.5 and 200 an hour, on an axis from 1 to 200
        low, high = axis(chart)
        points = curve_points(chart, "s0")
        assert [x for x, _ in points] == [round(1000 * np.log10(rate) / np.log10(200)) for rate in (1, 12, 100)]
        values = [high - y / 1000 * (high - low) for _, y in points]
        assert values == pytest.approx([-0.5, np.log10(31.5), np.log10(200)], abs=0.01)

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
def test_facts_that_extraction_does_not_know_of_are_shown_as_given(value, text):
    assert facts.phrases({"lens_cap": value}) == [("lens cap", text)]


def test_facts_of_the_footage_are_few_phrases():
    clips = {"train_clips": 6, "train_frames": 900, "test_clips": 8, "test_frames": 1200}
    labelled = {"test_frames_abnormal": 446, "test_clips_labelled": 8}
    pictures = {"format": "street", "height": 128, "width": 192, "color": "grey", "fps": 12.5}
    known = {"label_set": "generated truth", "frames": 2100, "hours": 0.0467, "digest": "f641", "left_out": []}
    assert facts.phrases({**clips, **labelled, **pictures, **known}) == [
        ("footage", "street, 192 × 128, grey, 12.5 frames a second"),
        ("for training", "6 clips, 900 frames"),
        ("for testing", "8 clips, 1,200 frames, 446 of them abnormal"),
        ("in all", "2.8 min, 2,100 frames"),
        ("labels", "generated truth"),
        ("content digest", "f641"),
    ]
    said = dict(
        facts.phrases(
            {**clips, **labelled, "test_clips_labelled": 3, "left_out": [{"clip": "test/09", "why": "no video"}]}
        )
    )
    assert said["for testing"] == "8 clips, 1,200 frames, 446 of them abnormal in the 3 clips that are labelled"
    assert said["left out"] == "test/09 (no video)"
    said = dict(facts.phrases({**clips, **labelled, "test_clips": 1, "test_clips_labelled": 0}))
    assert said["for testing"] == "1 clip, 1,200 frames, not labelled"


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
            np.testing.assert_allclose(self.bars(drawn, style), 100 * np.array(counts) / len(scores), atol=top / 500)

    @pytest.mark.parametrize(("endless", "bar"), [(np.inf, -1), (-np.inf, 0)])
    def test_an_endless_score_counts_in_the_bar_at_its_end_and_the_axis_stays_finite(self, results, endless, bar):
        system = load_system(results / "scores", results / "models", "street", "future_frame")
        normal = system.frames.index[(system.frames["label"] == 0) & system.frames["score"].notna()]
        system.frames.loc[normal[: len(normal) // 2], "score"] = endless  # as a PSNR is where nothing differs
        drawn = histogram(system)
        assert np.isfinite([drawn["from"], drawn["to"]]).all()
        assert self.bars(drawn, "h1")[bar] == pytest.approx(50, abs=2)
        assert self.bars(drawn, "h1").sum() == pytest.approx(100, abs=1)

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


def test_the_page_loads_nothing(page):
    said = re.sub(r'="data:[^"]*"|data-scores="[^"]*"', "", page).replace("// ", "")
    assert not re.findall(r"(?:https?:)?//[a-z]", said)
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
    assert table_row(page, "future_frame")[8:] == ["2.1", "107", "1.6 min", "1.2 M"]


def test_a_figure_that_no_system_has_takes_no_column(page):
    table = page[page.index('class="sortable results"') :]
    assert "pixel AUC" not in table[: table.index("</table>")]


def test_systems_that_learn_nothing_are_marked(page):
    table = page[page.index('class="sortable results"') :]
    table = table[: table.index("</table>")]
    for model, marks in (("frame_diff", 1), ("future_frame", 0)):
        line = next(part for part in table.split("<tr>") if f"</i>{model}" in part)
        assert line.count("untrained") == marks


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
    assert re.findall(r'class="how">([^<]*)<', page) == ["score: psnr", "untrained · score: block maximum"]
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


def test_worst_frames_are_embedded_and_say_what_the_labels_and_the_threshold_do(page):
    assert page.count('src="data:image/webp;base64,') >= 2 * len(MODELS) * len(DATASETS)
    assert "<b>abnormal, above the threshold</b>" in page


def test_a_published_figure_stands_beside_ours(tmp_path):
    for model in ("future_frame-small", "gru_ae"):
        write_system(tmp_path, "ped2", model)
    rows = build(tmp_path, ["ped2"], ["future_frame-small", "gru_ae"]).split("<tbody>")[1].split("</tr>")
    assert "<small>published 95.4</small><small>Liu et al.</small><small>CVPR 2018</small>" in rows[0]
    assert "published" not in rows[1]


def test_published_figures_stand_beside_known_data_sets_only(page):
    street, ped2 = (
        page[page.index('id="d1"') : page.index('id="d2"')],
        page[page.index('id="d2"') : page.index('id="terms"')],
    )
    assert "not ours" not in street
    assert "not ours" in ped2
    assert re.search(r"Liu et al., CVPR 2018</td><td>per-clip min-max</td><td></td><td[^>]*>95\.4<", ped2)
    assert "Chong &amp; Tay, ISNN 2017</td><td>per-clip min-max</td><td></td>" in ped2


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
    raised = {model: pd.read_csv(tmp_path / "scores" / "yard" / model / "events.csv") for model in MODELS}
    events = raised["future_frame"]
    hour = 3600 / (4 * 116 / 10)  # 4 clips of 116 judged frames at 10 a second
    assert table_row(page, "future_frame") == [
        str(len(events)),
        f"{len(events) * hour:.0f}",
        "107",
        "1.6 min",
        "1.2 M",
    ]
    lead = re.search(r'<p class="lead">(.*?)</p>', page)[1]
    counts, clips = [len(one) for one in raised.values()], pd.concat(raised)["clip"].nunique()
    assert lead.startswith(f"3 systems raise {min(counts)} to {max(counts)} alarms each, in {clips} of 4 clips.")
    listed = page.split('<details class="alarms found" open>')[1].split("</details>")[0]
    assert listed.count("<li") == sum(counts)
    assert listed.count(" of 3 agree") == sum(counts)
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
    names = ["index.html", "metrics.json", "quality.json", "results.csv", "rollouts.json", "strips"]
    assert sorted(path.name for path in (results / "again").iterdir()) == names
    files = sorted(path.relative_to(results / "again") for path in (results / "again").rglob("*.*"))
    assert len(files) > len(names)
    for file in files:
        assert (results / "again" / file).read_bytes() == (results / "reports" / file).read_bytes()
