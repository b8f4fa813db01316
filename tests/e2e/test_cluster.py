"""Per-clip work on a dask.distributed cluster. Its scheduler and workers run in another folder."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from distributed import Client

from tests.helpers.processes import scheduler_address
from tests.helpers.project import LONG_ENOUGH, Project
from tests.helpers.waiting import wait_until
from vadcore.data.store import ClipStore

pytestmark = pytest.mark.xdist_group("cluster")
STAGES = ("extract street", "optical_flow street", "score street frame_diff", "score street flow_magnitude")


@pytest.fixture(scope="module")
def project(pipeline_project, tmp_path_factory) -> Project:
    """A project with footage and trained models only."""
    return pipeline_project.copy(tmp_path_factory.mktemp("cluster") / "copy", "data/raw", "models")


@pytest.fixture(scope="module")
def scheduler(project, tmp_path_factory):
    """A client of a scheduler with two workers. The project's params hold its address."""
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
    try:
        with Client(wait_until(lambda: scheduler_address(file)), timeout=LONG_ENOUGH) as client:
            client.wait_for_workers(2, timeout=LONG_ENOUGH)
            project.write({**project.params, "machine": {"scheduler": client.scheduler.address}})
            yield client
    finally:
        for process in processes:
            process.kill()
            process.wait()


def done_by_each(client: Client) -> list[int]:
    return sorted(client.run(lambda dask_worker: dask_worker.state.executed_count).values())


def test_cluster_results_equal_local_results(pipeline_project, project, scheduler):
    before = sum(done_by_each(scheduler))
    for stage in STAGES:
        project.stage(*stage.split())
    for kind in ("frames", "flow"):
        first, second = (
            ClipStore(one.folder / f"data/street/{kind}.zarr", kind) for one in (pipeline_project, project)
        )
        assert first.clips() == second.clips()
        assert all(np.array_equal(first.read(clip), second.read(clip)) for clip in first.clips())
    for model in ("frame_diff", "flow_magnitude"):
        first, second = (
            pd.read_parquet(one.folder / "scores/street" / model / "frames.parquet")
            for one in (pipeline_project, project)
        )
        pd.testing.assert_frame_equal(first, second)
    done = done_by_each(scheduler)
    assert sum(done) - before == 5 + 5 + 2 + 2  # one call per clip
    assert min(done) > 0


def test_cluster_scores_each_video_once(project, scheduler):
    if not (project.folder / "scores").exists():
        for stage in STAGES[:3]:
            project.stage(*stage.split())
    videos = sorted((project.folder / "data/raw/street").glob("*/*.avi"))
    named = {video: f"{video.parent.name}-{video.name}" for video in videos}
    inbox, new = project.folder / "inbox", project.folder / "new"
    for folder in (inbox, new):
        folder.mkdir()
        for video, name in named.items():
            shutil.copy2(video, folder / name)
    words = ["--dataset", "street", "--model", "frame_diff"]
    output = project.detect(*words, *sorted(new.iterdir()), "nothing.avi", code=1)
    assert "nothing.avi" in output
    names = {path.stem for path in new.iterdir()}
    assert {path.name for path in (project.folder / "detections").iterdir()} == names
    project.detect(*words, "--inbox", "inbox", "--out", "found")
    assert {path.name for path in (project.folder / "found").iterdir() if path.name[0] != "."} == names
    assert {path.stem for path in (inbox / "done").iterdir()} == names
    for name in names:
        files = [project.folder / out / name / "events.csv" for out in ("detections", "found")]
        assert files[0].read_text() == files[1].read_text()
