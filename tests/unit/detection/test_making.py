"""A process killed while it replaces results leaves the old or the new ones."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from vadcore.detection.making import making, sweep
from vadcore.utils.files import sha256_files, write_json


def assert_killed_in(work) -> None:
    """Run ``work`` in a process and assert that it ends with code 137."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            work()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137


def test_kill_leaves_old_or_new_results(tmp_path):
    video = tmp_path / "video"
    video.write_text("some")
    kinds = set()
    for step in range(1, 4):
        out = tmp_path / str(step)

        def make(text, out=out):
            with making(out / "gate", video) as beside:
                write_json(beside / "events.json", {"sha256": sha256_files([video]), "text": text})

        def deadly(out=out, make=make, step=step):
            left, rename = [step], Path.rename

            def counted(self, target):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(137)
                return rename(self, target)

            with making(out / "warm", video):  # no leftovers of an earlier process
                pass
            Path.rename = counted
            make("new")

        make("old")
        assert_killed_in(deadly)
        shutil.rmtree(out / "warm")
        sweep(out)
        assert [path.name for path in out.iterdir()] == ["gate"]
        kinds.add(json.loads((out / "gate/events.json").read_text())["text"])
    assert kinds == {"old", "new"}
