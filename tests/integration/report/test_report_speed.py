"""The browser benchmark of the report: measurements and errors."""

from contextlib import nullcontext

import pytest

from benchmarks import report_speed
from benchmarks.report_speed import measure, one_round
from tests.helpers.report_data import RUN, SAME, build, write_system
from vadcore.report.build import write_run
from vadcore.utils.errors import VadError
from vadcore.utils.files import write_json


def test_one_row_per_action(chromium, report):
    rows = measure(report, rounds=1, launch=lambda: nullcontext(chromium))
    assert [row["action"] for row in rows] == ["open", "point", "sort", "jump", "hide"]
    assert all(0 < row["seconds"] <= row["slowest_seconds"] for row in rows)
    facts = {(row["profile"], row["systems"], row["clips"], row["megabytes"], row["chromium"]) for row in rows}
    assert facts == {("demo", 3, 4, round(report.stat().st_size / 1e6, 1), chromium.version)}


@pytest.mark.parametrize(("quiet", "actions"), [(False, ["jump"]), (True, [])], ids=["alarms", "no alarms"])
def test_round_without_labels(chromium, tmp_path, quiet, actions):
    write_system(tmp_path, "yard", "frame_diff", labelled=False)  # its list of alarms is open from the start
    if quiet:
        events = tmp_path / "scores" / "yard" / "frame_diff" / "events.csv"
        events.write_text(events.read_text().splitlines()[0] + "\n")
    build(tmp_path, ["yard"], ["frame_diff"])
    took = one_round(chromium, tmp_path / "reports" / "index.html")
    assert sorted(took) == sorted(["open", "point", "sort", *actions, "hide"])


def test_median_and_slowest_of_rounds(tmp_path, monkeypatch):
    (tmp_path / "index.html").write_text('<article class="clip">')
    row = {"dataset": "street", "model": "frame_diff", "seed": 1, "auc_micro": 0.5, "label_set": None}
    results = {"run": SAME, "rows": [row]}
    write_json(tmp_path / "metrics.json", results)
    write_run(tmp_path / "run.js", results, RUN, {})
    rounds = iter([{"open": 3.0}, {"open": 1.0}, {"open": 5.5}])
    monkeypatch.setattr(report_speed, "one_round", lambda browser, report: next(rounds))

    class Browser:
        version = "1.2"

    (measured,) = measure(tmp_path / "index.html", rounds=3, launch=lambda: nullcontext(Browser()))
    assert measured["report_commit"] == RUN["commit"]
    assert (measured["rounds"], measured["seconds"], measured["slowest_seconds"]) == (3, 3.0, 5.5)


def test_missing_report_names_the_command(tmp_path):
    with pytest.raises(VadError, match=r"index\.html.*dvc repro"):
        measure(tmp_path / "index.html", rounds=1)


def test_broken_report_names_its_file(tmp_path):
    report, figures = tmp_path / "index.html", tmp_path / "metrics.json"
    report.write_text("<html></html>")
    figures.write_text("{")
    with pytest.raises(VadError, match=r"index\.html.*no clips"):
        measure(report, rounds=1)
    report.write_text('<article class="clip">')
    for text in ("{", "[]", '{"run": {}, "rows": []}'):
        figures.write_text(text)
        with pytest.raises(VadError, match=r"metrics\.json.*dvc repro"):
            measure(report, rounds=1)


def test_missing_chromium_names_the_package(monkeypatch):
    monkeypatch.setattr(report_speed.shutil, "which", lambda name: None)
    with pytest.raises(VadError, match="apt-get install chromium"), report_speed.chromium():
        pass
