"""What the README promises a new user, done as it says: own footage without labels, a system and a data set of one's own."""

import copy
import json
import os
import re
import shutil
import sys

import pytest
import yaml

from tests.helpers.footage import pictures
from tests.helpers.project import PARAMS, ROOT, Project
from tests.helpers.readme import blocks, commands, file_of
from tests.helpers.videos import make_video
from vadcore.render import write_png

pytestmark = pytest.mark.pipeline


def started(folder, tracked: bool) -> Project:
    project = Project(folder, tracked=tracked)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    return project


@pytest.fixture(scope="module")
def own_footage(tmp_path_factory):
    project = started(tmp_path_factory.mktemp("own"), tracked=True)
    shutil.copytree(ROOT / "profiles", project.folder / "profiles")
    footage = project.folder / "footage"
    for number in range(4):
        make_video(footage / f"train/{number}.avi", 60, seed=number, runs=None)
    make_video(footage / "test/monday.avi", seed=9)
    copying, repro = commands("Your own footage")
    project.run("bash", "-c", copying)
    file = project.folder / "params.yaml"
    text = file.read_text()
    assert text.count("/path/to/folder") == 1
    text = text.replace("/path/to/folder", str(footage))
    # as it is but for what takes time: small pictures, few iterations
    text = re.sub(r"iterations: \d+", "iterations: 8", text.replace("[240, 320]", "[64, 64]"))
    file.write_text(
        text.replace("image_size: [64, 96]", "image_size: [32, 32]").replace(
            "settle_seconds: 10", "settle_seconds: 0.1"
        )
    )
    assert repro == "make repro"
    shutil.copy(ROOT / "Makefile", project.folder)
    (project.folder / ".venv").symlink_to(sys.prefix)  # with the environment that is there: only setting up is left out
    project.run("make", "--assume-old", ".venv/installed", "repro")
    return project


class TestOwnFootage:
    """From a folder of videos, without labels, to a report, events and an inbox that is watched."""

    def test_a_report_comes_out_that_says_there_are_no_labels(self, own_footage):
        page = (own_footage.folder / "reports/index.html").read_text()
        assert "This footage has no labels" in page
        assert '<details class="alarms found" open>' in page
        rows = json.loads((own_footage.folder / "reports/metrics.json").read_text())["rows"]
        assert {row["model"] for row in rows} == {"frame_diff", "background", "gru_ae", "flow_magnitude", "hog_hof_ae"}
        assert {row["auc_micro"] for row in rows} == {None}

    def test_new_footage_gets_events_a_timeline_and_a_film(self, own_footage):
        for name in ("new/tuesday.mp4", "inbox/wednesday.mp4"):
            video = make_video(own_footage.folder / f"{name[:-4]}.avi", seed=5)
            video.rename(own_footage.folder / name)
            os.utime(own_footage.folder / name, (1, 1))  # nobody has written to it for long
        activate, *rest = commands("Watching a camera")
        assert activate == "source .venv/bin/activate"
        for command in rest:
            own_footage.run("bash", "-c", command)
        for name in ("tuesday", "wednesday"):
            found = own_footage.folder / "detections" / name
            assert {"events.json", "events.csv", "timeline.png"} <= {path.name for path in found.iterdir()}
            assert json.loads((found / "events.json").read_text())
        assert not list((own_footage.folder / "inbox").glob("*.mp4"))


def test_a_system_and_a_data_set_of_ones_own_are_a_file_each(tmp_path):
    project = started(tmp_path / "project", tracked=False)
    days = tmp_path / "days"
    for seed, day in enumerate(("monday", "tuesday", "wednesday", "friday")):
        for number, picture in enumerate(pictures(40, (64, 96), seed=seed)):
            (days / day).mkdir(parents=True, exist_ok=True)
            write_png(days / day / f"{number:03d}.png", picture[..., 0])
    params = copy.deepcopy(PARAMS)
    for title in ("A system of your own", "A data set of your own"):
        (code,) = blocks(title, "python")
        (project.folder / file_of(code)).write_text(code)
        (sections,) = blocks(title, "yaml")
        for key, value in yaml.safe_load(sections).items():
            params[key] = {**params[key], **value} if isinstance(value, dict) else value
    assert params["dataset"]["gate"]["source"] == "/path/to/days"
    params["dataset"]["gate"]["source"] = str(days)
    params["model"]["tiny_ae"] = {"iterations": 20}
    params["flow_models"] = []
    project.write(params)
    project.run("dvc", "repro")
    (row,) = json.loads((project.folder / "reports/metrics.json").read_text())["rows"]
    assert (row["dataset"], row["model"], row["iterations"], row["frames_scored"]) == ("gate", "tiny_ae", 20, 40)
    assert "tiny_ae" in (project.folder / "reports/index.html").read_text()
