"""The benchmark of the report in a browser goes through what a reader does, on any report that has alarms."""

import shutil

import pytest

from benchmarks.report_speed import measure
from tests.helpers.report_data import build, write_system
from vadcore.errors import VadError

needs_chromium = pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    reason="no Chromium here (Debian: apt-get install chromium)",
)


@needs_chromium
def test_each_thing_a_reader_does_has_its_time(tmp_path):
    models = ["future_frame", "frame_diff"]
    for model in models:
        write_system(tmp_path, "street", model)
    build(tmp_path, ["street"], models)
    report = tmp_path / "reports" / "index.html"
    rows = measure(report, rounds=1)
    assert [row["action"] for row in rows] == ["open", "point", "sort", "jump", "hide"]
    assert all(0 < row["seconds"] <= row["slowest_seconds"] for row in rows)
    assert {(row["systems"], row["clips"], row["megabytes"]) for row in rows} == {
        (2, 4, round(report.stat().st_size / 1e6, 1))
    }
    assert {row["profile"] for row in rows} == {"demo"}


@needs_chromium
@pytest.mark.parametrize(("quiet", "actions"), [(False, ["jump"]), (True, [])])
def test_a_report_without_labels_or_without_alarms_is_measured_too(tmp_path, quiet, actions):
    write_system(tmp_path, "yard", "frame_diff", labelled=False)  # its list of alarms is open from the start
    if quiet:
        events = tmp_path / "scores" / "yard" / "frame_diff" / "events.csv"
        events.write_text(events.read_text().splitlines()[0] + "\n")
    build(tmp_path, ["yard"], ["frame_diff"])
    rows = measure(tmp_path / "reports" / "index.html", rounds=1)
    assert [row["action"] for row in rows] == ["open", "point", "sort", *actions, "hide"]


def test_without_a_report_it_says_what_makes_one(tmp_path):
    with pytest.raises(VadError, match=r"index\.html.*dvc repro"):
        measure(tmp_path / "index.html", rounds=1)


def test_of_a_report_that_cannot_be_measured_it_says_why(tmp_path):
    report, figures = tmp_path / "index.html", tmp_path / "metrics.json"
    report.write_text("<html></html>")
    figures.write_text("{")
    with pytest.raises(VadError, match=r"index\.html: shows no clips"):
        measure(report, rounds=1)
    report.write_text('<article class="clip">')
    for text in ("{", "[]", '{"run": {}, "rows": []}'):
        figures.write_text(text)
        with pytest.raises(VadError, match=r"metrics\.json: cannot be read .*; remove it and run dvc repro"):
            measure(report, rounds=1)
