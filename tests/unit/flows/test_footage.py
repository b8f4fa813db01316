"""The flow that scores new footage: what it says of a run, and that it neither stands in a training's way nor for ever."""

import json
import logging
import os
from pathlib import Path

import pytest

from flows import command, footage
from flows.command import Ended, run_command
from flows.kinds import NICE


class TestACommandOfAFlow:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        """Runs a few lines of Python as a flow runs a command of the project."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(command, "get_run_logger", lambda: logging.getLogger("test"))

        def run(*lines: str, **settings) -> Ended:
            (tmp_path / "work.py").write_text("\n".join(["import os, signal, sys, time", *lines]))
            return run_command("work", **settings)

        return run

    def test_of_one_that_was_killed_the_reason_is_no_progress_bar(self, run):
        bar = "v.avi: 0frame [00:00, ?frame/s]"
        done = run(f"print({bar!r}, flush=True)", "os.kill(os.getpid(), signal.SIGKILL)")
        assert (done.code, done.said) == (137, [bar])
        assert done.reason == "killed (exit code 137), perhaps for want of memory"

    @pytest.mark.parametrize(
        "bar",
        [
            "v.avi: 0frame [00:00, ?frame/s]",
            "v.avi: 120frame [01:02, 1.94frame/s]",
            "detect:  50%|█████     | 3/6 [00:12<00:12,  4.1s/clip]",
            "100%|██████████| 2/2 [00:00<00:00, 5.12it/s, loss=0.1]",
        ],
    )
    def test_of_one_that_broke_off_it_is_the_last_words(self, bar):
        assert Ended(1, ["ValueError: at [3]", bar], False).reason == "ValueError: at [3] (exit code 1)"
        assert Ended(1, [bar], False).reason == "it said nothing (exit code 1)"

    def test_of_one_that_says_what_is_wrong_it_is_that(self):
        assert Ended(1, ["error: a.yaml: no good", "more"], False).reason == "a.yaml: no good"

    def test_it_has_the_priority_and_the_threads_that_it_is_given(self, run, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS")
        show = "print(os.nice(0), os.environ['OMP_NUM_THREADS'])"
        assert run(show, nice=NICE, threads=3).said == [f"{os.nice(0) + NICE} 3"]
        monkeypatch.setenv("OMP_NUM_THREADS", "7")  # a person's own word
        assert run(show, threads=3).said == [f"{os.nice(0)} 7"]

    def test_it_is_stopped_at_its_time_limit(self, run):
        done = run("time.sleep(60)", seconds=1)
        assert done.overdue
        assert done.code


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Asked(list):
    """What the flow has run, words and settings of each. ``makes`` stands for what that does, ``ended`` is how it ends."""


@pytest.fixture
def asked(monkeypatch) -> Asked:
    asked = Asked()
    asked.makes, asked.ended = lambda: None, Ended(0, [], False)

    def run(*words, **settings):
        asked.append((words, settings))
        asked.makes()
        return asked.ended

    monkeypatch.setattr(footage, "run_command", run)
    monkeypatch.setattr(footage, "create_table_artifact", lambda *_, **__: None)
    return asked


def results(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "events.json").write_text(json.dumps({"video": "v.avi", "events": [{"start_seconds": 1.0}]}))


def test_a_video_in_the_making_is_not_counted(folder, asked):
    asked.makes = lambda: results(folder / "detections/.v.partial")
    asked.ended = Ended(137, ["v.avi: 0frame [00:00, ?frame/s]"], False)
    state = footage.footage.fn()
    assert state.is_failed()
    assert state.message == "0 videos scored, 0 events; killed (exit code 137), perhaps for want of memory"


def test_one_that_is_done_is(folder, asked):
    asked.makes = lambda: results(folder / "detections/v")
    assert footage.footage.fn().message == "1 videos scored, 1 events"
    asked.makes = lambda: None
    assert footage.footage.fn().name == "NothingNew"


def test_beside_a_training_it_takes_what_that_leaves(folder, asked, monkeypatch):
    monkeypatch.setattr(footage, "cores", lambda: 16)
    footage.footage.fn()
    monkeypatch.setattr(footage, "cores", lambda: 2)
    footage.footage.fn()
    assert [(settings["nice"], settings["threads"]) for _, settings in asked] == [(NICE, 4), (NICE, 1)]


def test_the_videos_frame_rate_can_be_given(folder, asked):
    footage.footage.fn(dataset="street", fps=12.5)
    ((words, _),) = asked
    assert " ".join(words) == "tasks.detect --champion street --fps 12.5 --inbox inbox --out detections"


def test_a_run_that_takes_too_long_is_stopped_and_says_so(folder, asked):
    asked.ended = Ended(130, ["v.avi: 0frame [00:00, ?frame/s]"], True)
    state = footage.footage.fn(hours=2)
    assert asked[0][1]["seconds"] == 7200
    assert (state.name, state.message) == (
        "TimedOut",
        "0 videos scored, 0 events; stopped after 2 hours (the parameter hours); the next run goes on",
    )
    assert footage.footage.fn(hours=0).message == "hours: 0: a time limit is above 0"


def test_the_folder_inbox_is_made_and_a_mistyped_one_is_not(folder, asked):
    footage.footage.fn()
    assert (folder / "inbox").is_dir()
    state = footage.footage.fn(inbox="imbox")
    assert state.is_failed()
    assert state.message == "imbox: no such folder; make it, or name the one that videos come into"
    assert not (folder / "imbox").exists()
    assert len(asked) == 1
