"""The instructions of the README, run as written: footage without labels, a new system and a new data set."""

import copy
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.footage import pictures
from tests.helpers.project import PARAMS, ROOT, Project
from tests.helpers.readme import blocks, commands, file_of
from tests.helpers.videos import make_video
from vadcore.utils.render import write_png


def new_project(folder: Path, tracked: bool) -> Project:
    project = Project(folder, tracked=tracked)
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    return project


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A project after the commands of "Your own footage"."""
    project = new_project(tmp_path_factory.mktemp("own"), tracked=True)
    shutil.copytree(ROOT / "profiles", project.folder / "profiles")
    footage = project.folder / "footage"
    for number in range(4):
        make_video(footage / f"train/{number}.avi", 60, seed=number, runs=None)
    make_video(footage / "test/monday.avi", seed=9)
    copying, repro = commands("Your own footage")
    project.run("bash", "-c", copying)
    shorten(project.folder / "params.yaml", footage)
    assert repro == "make repro"
    shutil.copy(ROOT / "Makefile", project.folder)
    (project.folder / ".venv").symlink_to(sys.prefix)  # the existing environment: only the setup is skipped
    project.run("make", "--assume-old", ".venv/installed", "repro")
    return project


def shorten(file: Path, footage: Path) -> None:
    """Set the footage folder in the profile, and make the run short: small pictures, few iterations."""
    text = file.read_text()
    assert text.count("/path/to/folder") == 1
    text = text.replace("/path/to/folder", str(footage))
    text = re.sub(r"iterations: \d+", "iterations: 8", text)
    text = text.replace("[240, 320]", "[64, 64]").replace("image_size: [64, 96]", "image_size: [32, 32]")
    file.write_text(text)


@pytest.mark.xdist_group("readme")
class TestOwnFootage:
    """From a folder of videos without labels to a report, events and a watched inbox."""

    def test_report_without_labels(self, project):
        page = (project.folder / "reports/index.html").read_text()
        assert "This footage has no labels" in page
        assert '<details class="alarms found" open>' in page
        rows = json.loads((project.folder / "reports/metrics.json").read_text())["rows"]
        assert {row["model"] for row in rows} == {
            *("frame_diff", "background", "gru_ae", "pseudo_anomaly"),
            *("flow_magnitude", "box_speed", "hog_hof_ae", "fusion"),
        }
        assert {row["auc_micro"] for row in rows} == {None}

    def test_results_of_new_footage(self, project):
        """Run the commands of "Watching a camera"."""
        for name in ("new/tuesday.mp4", "inbox/wednesday.mp4"):
            video = make_video(project.folder / f"{name[:-4]}.avi", seed=5)
            video.rename(project.folder / name)
            os.utime(project.folder / name, (1, 1))  # old enough to be complete
        activate, *rest = commands("Watching a camera")
        assert activate == "source .venv/bin/activate"
        for command in rest:
            project.run("bash", "-c", command)
        for name in ("tuesday", "wednesday"):
            found = project.folder / "detections" / name
            assert {"events.json", "events.csv", "timeline.png", "annotated.webm"} <= {
                path.name for path in found.iterdir()
            }
            assert json.loads((found / "events.json").read_text())
        assert not list((project.folder / "inbox").glob("*.mp4"))


@pytest.mark.xdist_group("readme-own-code")
def test_new_model_and_new_dataset(tmp_path):
    project = new_project(tmp_path / "project", tracked=False)
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
    project.write(params)
    project.run("dvc", "repro")
    (row,) = json.loads((project.folder / "reports/metrics.json").read_text())["rows"]
    assert (row["dataset"], row["model"], row["iterations"], row["frames_scored"]) == ("gate", "tiny_ae", 20, 40)
    assert "tiny_ae" in (project.folder / "reports/index.html").read_text()
