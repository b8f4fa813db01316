"""A full disk: the error is one line that names the file and the fix."""

import subprocess

import pytest

pytestmark = pytest.mark.xdist_group("kill")


@pytest.mark.parametrize("full", ["checkpoints", "models"])
def test_full_disk_error_names_file(pipeline_project, tmp_path, full):
    """A file system of 32 KiB is mounted where the stage writes."""
    project = pipeline_project.copy(tmp_path, "data")
    place = project.folder / full
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", place]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        output = project.stage("train", "street", "convlstm_ae", code=1)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
    line = output.strip().splitlines()[-1]
    assert line.startswith(f"error: {full}/street/convlstm_ae/")
    assert "no space left" in line
