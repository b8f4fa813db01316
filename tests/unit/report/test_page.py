"""The report's page and files: figures, omissions and sources."""

import csv
import html
import json
import re

import numpy as np
import pandas as pd
import pytest

from tests.helpers.project import contents
from tests.helpers.report_data import (
    DATASETS,
    MODELS,
    RUN,
    SAME,
    axis,
    build,
    change_row,
    curve_points,
    write_system,
    write_systems,
)
from vadcore.evaluation.cost import write_cost
from vadcore.utils.errors import VadError
from vadcore.utils.render import write_png

pytestmark = pytest.mark.xdist_group("report_page")


class TestAlarms:
    """Charts of the figures at each requested false-alarm rate."""

    def charts(self, page, number=1):
        section = page.split(f'id="d{number}alarms"')[1].split("<h3")[0]
        return section.split('<figure class="chart rates"')[1:]

    def test_every_figure_has_a_chart(self, page):
        titles = [re.search("<h4>(.*?)(?: <small|</h4>)", chart)[1] for chart in self.charts(page)]
        assert titles == ["False alarms an hour on test footage", "Events found", "Precision of alarms", "Delay"]
        for chart in self.charts(page):
            assert re.findall(r'<path class="(s\d[^"]*)"', chart) == ["s0", "s1", "s2 free"]

    def test_rate_axis_is_logarithmic(self, page):
        events = self.charts(page)[1]
        low, high = axis(events)
        (x0, y0), (x1, y1), (x2, y2) = curve_points(events, "s0")
        assert (x0, x2) == (0, 1000)
        assert x1 == round(1000 * np.log10(12) / 2)
        values = [high - y / 1000 * (high - low) for y in (y0, y1, y2)]
        assert values == pytest.approx([25, 50, 100], abs=0.2)

    def test_zero_is_below_the_logarithmic_axis(self, page):
        chart = self.charts(page)[0]  # measured: 0, 31.5 and 200 an hour, on an axis from 1 to 200
        low, high = axis(chart)
        points = curve_points(chart, "s0")
        assert [x for x, _ in points] == [round(1000 * np.log10(rate) / np.log10(200)) for rate in (1, 12, 100)]
        values = [high - y / 1000 * (high - low) for _, y in points]
        assert values == pytest.approx([-0.5, np.log10(31.5), np.log10(200)], abs=0.01)

    def test_requested_rate_is_marked(self, page):
        assert self.charts(page)[1].count('<path class="dots') == 3

    def test_no_section_without_labels(self, unlabelled_page):
        assert 'id="d1alarms"' not in unlabelled_page


def test_optical_flow_pictures(results, page, tmp_path):
    assert "Optical flow" not in page
    folder = tmp_path / "street" / "optical_flow"
    folder.mkdir(parents=True)
    with pytest.raises(VadError, match=r"pictures\.json: .*`dvc repro optical_flow@street`"):
        build(results, ["street"], out="flow", flow_pictures={"street": folder})
    write_png(folder / "test-07-00012.png", np.zeros((240, 642, 3), np.uint8))
    entry = {"picture": "test-07-00012.png", "split": "test", "clip": "07", "frame": 12}
    (folder / "pictures.json").write_text(json.dumps({"longest_px": 3.25, "pictures": [entry]}))
    shown = build(results, ["street"], out="flow", flow_pictures={"street": folder})
    assert re.search(r'alt="Optical flow of clip 07 \(test\) at frame 12\b', shown)
    assert "3.25 pixels" in shown
    (folder / "pictures.json").write_text(json.dumps({"longest_px": 0.0, "pictures": []}))
    assert "Optical flow" not in build(results, ["street"], out="flow", flow_pictures={"street": folder})


def table_row(page, model):
    """The texts of the cells of a model's line in the first results table, notes left out."""
    table = page[page.index('class="sortable results"') :]
    line = table[: table.index("</table>")]
    line = next(part for part in line.split("<tr>") if f"</i>{model}" in part)
    return [re.sub(r"<small.*", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", line)]


def test_page_loads_only_run_js(page):
    said = re.sub(r'="data:[^"]*"|data-scores="[^"]*"', "", page).replace("// ", "")
    assert not re.findall(r"(?:https?:)?//[a-z]", said)
    sources = re.findall(r'(?:src|href|srcset|poster|action)="([^"]*)"', page)
    assert {source for source in sources if not source.startswith(("#", "data:image/webp;base64,"))} == {"run.js"}
    own = page.replace('url("${URL.createObjectURL(', "")  # a picture embedded in the page
    assert not re.search(r"@import|url\(|<link|<iframe|<object", own)
    assert "default-src 'none'" in page  # the browser refuses all other sources


def test_results_row_of_every_system(results, page):
    for model in MODELS:
        row = json.loads((results / "scores" / "street" / model / "metrics.json").read_text())
        cells = table_row(page, model)
        assert cells[:3] == [f"{100 * row[key]:.1f}" for key in ("auc_micro", "auc_micro_minmax", "auc_macro")]
        assert cells[3:8] == ["81.2", "15.7", "50.0", "0.70", "31.5"]
    assert table_row(page, "future_frame")[8:] == ["2.1", "–", "–", "1.2 M"]


def test_no_column_without_figures(page):
    table = page[page.index('class="sortable results"') :]
    assert "pixel AUC" not in table[: table.index("</table>")]


def test_untrained_systems_are_marked(page):
    table = page[page.index('class="sortable results"') :]
    table = table[: table.index("</table>")]
    for model, marks in (("frame_diff", 1), ("future_frame", 0)):
        line = next(part for part in table.split("<tr>") if f"</i>{model}" in part)
        assert line.count("untrained") == marks


def test_page_describes_the_evaluation(page):
    facts = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", page.split("<h3>Results</h3>")[1].split("<h3")[0]))
    assert facts == {
        "label set": "generated",
        "test frames scored": "464",  # 4 clips of 120 frames, of which 4 have no score
        "abnormal frames": "60 of 480 labelled",  # frames 40 to 69 of two clips
        "target of the threshold": "12 false alarms an hour",
        "normal footage that training did not see": "72 s",  # 0.02 h
    }
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    for said in (
        *("score: psnr", "threshold 1.25", "sigma 3 frames", "seed 1"),
        "target 12‡",
        "‡ ",
        "2 clips",
        *(str(value) for value in SAME.values() if isinstance(value, str)),
        "torch 2.13.0",
    ):
        assert said in text, said


def run_js(folder):
    """The data of a run that the page loads."""
    return json.loads((folder / "run.js").read_text().removeprefix("window.vadRun = ").removesuffix(";\n"))


def test_run_js_fills_every_place(results, page):
    run = run_js(results / "reports")
    assert f'<body data-results="{run["of"]}">' in page
    assert (run["date"], run["commit"]) == (RUN["date"], RUN["commit"])
    untrained = {f"{dataset}/frame_diff/windows_per_second" for dataset in DATASETS}
    assert set(re.findall(r'data-run="([^"]*)"', page)) == set(run["cells"]) - untrained
    assert re.findall(r'data-run="[^"]*"[^>]*>(?!–<)', page) == []
    assert run["cells"]["date"] == {"text": RUN["date"]}
    assert run["cells"]["short commit"] == {"text": RUN["commit"][:12]}
    assert run["cells"]["street/future_frame/train_seconds"] == {"text": "1.6 min", "value": 95.0, "best": False}
    assert run["cells"]["street/future_frame/windows_per_second"] == {"text": "61.2 windows/s"}
    assert run["cells"]["street/frame_diff/peak_memory_mb"] == {"text": "1,234 MB"}


def test_commit_with_changes_and_none(results):
    build(results, out="changed", run=RUN | {"commit": RUN["commit"] + "+changes"})
    assert run_js(results / "changed")["cells"]["short commit"] == {"text": f"{RUN['commit'][:12]}+changes"}
    build(results, out="unknown", run=RUN | {"commit": None})
    assert not {"commit", "short commit"} & run_js(results / "unknown")["cells"].keys()


def test_fastest_is_best(tmp_path):
    for model, speed in (("future_frame", 99.6), ("convlstm_ae", 100.4), ("frame_diff", 12.0)):
        write_system(tmp_path, "street", model)
        write_cost(tmp_path / "scores/street" / model, {"score_fps": speed})
    build(tmp_path, ["street"])
    cells = run_js(tmp_path / "reports")["cells"]
    assert [cells[f"street/{model}/score_fps"]["best"] for model in MODELS] == [True, True, False]  # as printed


def test_cost_of_other_results_is_not_shown(tmp_path):
    write_system(tmp_path, "street", "frame_diff")
    scored = tmp_path / "scores/street/frame_diff"
    (scored / "metrics.json").write_text(json.dumps(json.loads((scored / "metrics.json").read_text()) | {"ap": 0.5}))
    build(tmp_path, ["street"], ["frame_diff"])
    cells = run_js(tmp_path / "reports")["cells"]
    assert "street/frame_diff/score_fps" not in cells
    assert "street/frame_diff/train_seconds" in cells


def test_rows_name_differing_settings(tmp_path):
    for model, measure in (("future_frame", "psnr"), ("frame_diff", "block maximum")):
        write_system(tmp_path, "street", model)
        file = tmp_path / "scores" / "street" / model / "metrics.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"score_measure": measure}))
    page = build(tmp_path, ["street"], ["future_frame", "frame_diff"])
    own = re.findall(r'class="how">([^<]*)<', page)
    for said, wanted in zip(own, ("score: psnr", "score: block maximum"), strict=True):
        assert wanted in said
        assert "threshold" not in said  # the same for all systems


def test_drift_is_said(tmp_path):
    for model in ("future_frame", "frame_diff"):
        write_system(tmp_path, "street", model)
    assert "Drift" not in build(tmp_path, ["street"], ["future_frame", "frame_diff"])
    change_row(tmp_path / "scores" / "street" / "frame_diff", calibration_drift="higher")
    page = build(tmp_path, ["street"], ["future_frame", "frame_diff"])
    assert "most test frames score higher than normal footage with frame_diff." in page


def test_metrics_of_all_measures(page, unlabelled_page):
    assert page.count("<h4>All measures of this system</h4>") > 1
    assert re.search(r'psnr <small class="tag">score</small></th><td class="num">80.0</td>', page)
    assert re.search(r'map_box</th><td class="num">91.2</td>', page)
    assert "All measures" not in unlabelled_page


def test_only_listed_systems_in_order(results):
    shown = build(results, ["ped2_small"], ["frame_diff", "convlstm_ae"], out="some")
    assert "street</h2>" not in shown
    assert "future_frame" not in shown
    assert shown.index("</i>frame_diff") < shown.index("</i>convlstm_ae")


def test_metrics_json_has_run_and_rows(results, page):
    stored = json.loads((results / "reports" / "metrics.json").read_text())
    assert list(stored) == ["run", "rows"]
    assert stored["run"] == SAME
    assert [(row["dataset"], row["model"]) for row in stored["rows"]] == [(d, m) for d in DATASETS for m in MODELS]
    row = json.loads((results / "scores" / "street" / "future_frame" / "metrics.json").read_text())
    assert stored["rows"][0] == row | {"parameters": 1_234_567}  # from the training stage
    assert 0 <= stored["rows"][0]["auc_micro"] <= 1


def test_results_csv_has_the_same_rows(results, page):
    with (results / "reports" / "results.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    rows = json.loads((results / "reports" / "metrics.json").read_text())["rows"]
    assert len(table) == len(rows) == 6
    assert [float(line["auc_micro"]) for line in table] == [row["auc_micro"] for row in rows]
    assert table[0]["rbdc"] == ""


def test_worst_frames_are_embedded(page):
    assert page.count('src="data:image/webp;base64,') >= 2 * len(MODELS) * len(DATASETS)
    assert "<b>abnormal, above the threshold</b>" in page


def test_calibration_of_every_system(tmp_path):
    write_system(tmp_path, "street", "frame_diff")
    file = tmp_path / "scores/street/frame_diff/calibration.json"
    made = json.loads(file.read_text())
    text = build(tmp_path, ["street"], ["frame_diff"]).split("<h4>Scores and calibration</h4>")[1]
    facts = {
        "threshold": "1.25",
        "target false alarms an hour": "12",
        "set for": "17 an hour: so little footage supports no lower rate",
        "normal footage that training did not see": "72 s, 3 clips, 720 frames",
        "one alarm in all of it": "50 an hour",
        "extrapolated from the highest": "9 alarms",
        "alarms are merged up to": "1 s apart",
        "shortest alarm": "0.2 s",
    }
    assert dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", text.split("</dl>")[0])) == facts
    file.write_text(json.dumps(made | {"extrapolated": False, "supported_rate": 12.0, "seen_hours": 0.01}))
    text = build(tmp_path, ["street"], ["frame_diff"]).split("<h4>Scores and calibration</h4>")[1]
    assert "extrapolated from" not in text
    assert "set for" not in text
    assert "<dt>normal footage that training saw</dt><dd>36 s</dd>" in text


def test_empty_roc_is_not_drawn(tmp_path):
    write_system(tmp_path, "street", "frame_diff")
    for empty in ("fpr,tpr,threshold\n", "fpr,tpr,threshold\n0,,inf\n1,,1\n"):
        (tmp_path / "scores" / "street" / "frame_diff" / "roc.csv").write_text(empty)
        assert 'class="roc"' not in build(tmp_path, ["street"], ["frame_diff"])


def test_report_of_unlabelled_footage(unlabelled, unlabelled_page):
    page = unlabelled_page
    assert "no labels" in page
    assert "AUC micro" not in page[: page.index('id="terms"')]
    assert 'class="truth"' not in page
    assert 'class="thr"' in page
    assert 'class="alarm"' in page
    assert 'class="roc"' not in page
    raised = {model: pd.read_csv(unlabelled / "scores" / "yard" / model / "events.csv") for model in MODELS}
    events = raised["future_frame"]
    hour = 3600 / (4 * 116 / 10)  # 4 clips of 116 judged frames at 10 a second
    assert table_row(page, "future_frame") == [
        str(len(events)),
        f"{len(events) * hour:.0f}",
        *("–", "–", "1.2 M"),
    ]
    counts, clips = [len(one) for one in raised.values()], pd.concat(raised)["clip"].nunique()
    facts = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", page.split("<h3>Results</h3>")[0]))
    assert facts["alarms"] == f"{min(counts)} to {max(counts)} from each of 3 systems"
    assert facts["clips with alarms"] == f"{clips} of 4"
    listed = page.split('<details class="alarms found" open>')[1].split("</details>")[0]
    assert listed.count("<li") == sum(counts)
    assert listed.count(" of 3 agree") == sum(counts)
    row = json.loads((unlabelled / "reports" / "metrics.json").read_text())["rows"][0]
    assert row["auc_micro"] is None


def test_names_are_escaped(tmp_path):
    names = ["<script>alert(1)</script>", 'a"onload="x', "b&c", "d'e"]
    write_system(tmp_path, "street", "frame_diff", names=names)
    page = build(tmp_path, ["street"], ["frame_diff"])
    assert "<script>alert" not in page
    assert 'a"onload' not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2
    assert page.count("<script>") == 1
    assert "</script>" not in (tmp_path / "reports/run.js").read_text()


def test_same_results_give_same_bytes(results, page, tmp_path):
    """Also on another day, from another commit, and with another or unknown cost."""
    build(write_systems(tmp_path), run=RUN | {"date": "2027-02-03T04:05:06+00:00", "commit": None})
    again, first = contents(tmp_path / "reports"), contents(results / "reports")
    names = {"index.html", "metrics.json", "quality.json", "results.csv", "rollouts.json", "run.js"}
    assert {file for file in again if not file.startswith("strips/")} == names
    assert len(again) > len(names)
    assert again.pop("run.js") != first.pop("run.js")
    assert again == first
    for cost in tmp_path.glob("*/*/*/cost.json"):
        cost.unlink()
    build(tmp_path)
    assert set(run_js(tmp_path / "reports")["cells"]) == {"date", "commit", "short commit"}
    without = contents(tmp_path / "reports")
    del without["run.js"]
    assert without == first
