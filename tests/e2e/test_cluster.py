"""Per-clip work on a dask.distributed scheduler given by address: scheduler and two workers are processes of their own,
started in another folder, and the results are those of one machine."""

import copy
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import yaml
from distributed import Client

from tests.helpers.project import LONG_ENOUGH, PARAMS, Project
from vadcore.store import ClipStore

pytestmark = pytest.mark.pipeline
STAGES = ("extract street", "optical_flow street", "score street frame_diff", "score street flow_magnitude")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A project whose stages have run on this machine."""
    params = copy.deepcopy(PARAMS)
    params["models"] = ["frame_diff"]
    params["dataset"]["street"] |= {"train_clips": 2, "test_clips": 3}
    params["train"]["held_out"] = 0.5
    project = Project(tmp_path_factory.mktemp("cluster"), params)
    for stage in ("prepare street", *STAGES[:2], "train street frame_diff", "train street flow_magnitude", *STAGES[2:]):
        project.stage(*stage.split())
    return project


@pytest.fixture(scope="module")
def scheduler(project, tmp_path_factory):
    """The address of a scheduler with two workers, which stand in another folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    words = [
        ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        *[["worker", "--nthreads", "1", "--no-dashboard", "--no-nanny", "--scheduler-file", str(file)]] * 2,
    ]
    with (folder / "log").open("w") as log:
        processes = [
            subprocess.Popen([*dask, *line], cwd=folder, env=project.environment, stdout=log, stderr=log)
            for line in words
        ]
    end = time.monotonic() + LONG_ENOUGH
    while not file.exists():
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.1)
    with Client(scheduler_file=str(file)) as client:
        client.wait_for_workers(2, timeout=LONG_ENOUGH)
        yield client
    for process in processes:
        process.terminate()
        process.wait(30)


def done_by_each(client: Client) -> list[int]:
    return sorted(client.run(lambda dask_worker: dask_worker.state.executed_count).values())


def test_every_per_clip_stage_gives_the_same_there(project, scheduler):
    kept = project.folder / "kept"
    kept.mkdir()
    shutil.move(project.folder / "data/street", kept / "data")
    shutil.move(project.folder / "scores", kept / "scores")
    shutil.rmtree(project.folder / "checkpoints")
    project.write(
        {
            **yaml.safe_load((project.folder / "params.yaml").read_text()),
            "machine": {"scheduler": scheduler.scheduler.address},
        }
    )
    before = sum(done_by_each(scheduler))
    for stage in STAGES:
        project.stage(*stage.split())
    here = project.folder / "data/street"
    for kind in ("frames", "flow"):
        there, first = ClipStore(here / f"{kind}.zarr", kind), ClipStore(kept / "data" / f"{kind}.zarr", kind)
        assert there.clips() == first.clips()
        assert all(np.array_equal(there.read(clip), first.read(clip)) for clip in first.clips())
    for model in ("frame_diff", "flow_magnitude"):
        tables = [
            folder / "street" / model / "frames.parquet" for folder in (project.folder / "scores", kept / "scores")
        ]
        table, first = map(pd.read_parquet, tables)
        pd.testing.assert_frame_equal(table, first)
    done = done_by_each(scheduler)
    assert sum(done) - before == 5 + 5 + 3 + 3  # a call a clip
    assert min(done) > 0


def test_new_footage_is_spread_over_the_workers_and_each_video_scored_once(project, scheduler):
    videos = sorted((project.folder / "data/raw/street/test").glob("*.avi"))
    words = ["--dataset", "street", "--model", "frame_diff"]
    detect = [sys.executable, "-m", "tasks.detect", *words]
    said = project.run(*detect, *map(str, videos), "nothing.avi", code=1)
    assert "error: nothing.avi" in said
    assert {path.name for path in (project.folder / "detections").iterdir()} == {video.stem for video in videos}
    inbox = project.folder / "inbox"
    inbox.mkdir()
    for video in videos:
        shutil.copy2(video, inbox)
    project.run(*detect, "--inbox", "inbox", "--out", "found")
    assert {path.name for path in (project.folder / "found").iterdir() if path.name[0] != "."} == {
        v.stem for v in videos
    }
    assert {path.name for path in (inbox / "done").iterdir()} == {video.name for video in videos}
    for video in videos:
        files = [project.folder / out / video.stem / "events.csv" for out in ("detections", "found")]
        assert files[0].read_text() == files[1].read_text()
