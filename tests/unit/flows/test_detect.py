"""The flow that scores new footage: messages, priority and time limit."""

import json
from pathlib import Path

import pytest
from filelock import FileLock

from flows import detect
from flows import promote as promote_module
from flows.process import Ended
from flows.stage import NICE


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Runner:
    """A fake run_command. calls: words and settings; effect: what the command does; ended: how it ends."""

    def __init__(self):
        self.calls, self.effect, self.ended, self.tables = [], lambda: None, Ended(0, [], False), []

    def __call__(self, *words, **settings) -> Ended:
        self.calls.append((words, settings))
        self.effect()
        return self.ended


@pytest.fixture
def runner(monkeypatch) -> Runner:
    runner = Runner()
    monkeypatch.setattr(detect, "run_command", runner)
    monkeypatch.setattr(detect, "create_table_artifact", lambda rows, **_: runner.tables.append(rows))
    return runner


def results(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "events.json").write_text(json.dumps({"video": "v.avi", "events": [{"start_seconds": 1.0}]}))


def test_unfinished_video_is_not_counted(folder, runner):
    runner.effect = lambda: results(folder / "detections/.v.partial")
    runner.ended = Ended(137, ["v.avi: 0frame [00:00, ?frame/s]"], False)
    state = detect.footage.fn()
    assert state.is_failed()
    assert state.message.startswith("0 videos scored, 0 events")
    assert "137" in state.message


def test_videos_are_counted(folder, runner):
    runner.effect = lambda: results(folder / "detections/v")
    runner.ended = Ended(0, ["set aside: broken.mp4: not a video"], False)
    assert detect.footage.fn().message == "1 videos scored, 1 events, 1 set aside"
    ((row,),) = runner.tables
    assert (row["video"], row["start_seconds"], row["results"]) == ("v.avi", 1.0, "detections/v")
    runner.effect, runner.ended = lambda: None, Ended(0, ["not scored: a.txt: ends in .txt"], False)
    assert detect.footage.fn().message == "0 videos scored, 0 events, 1 new files that are no videos"
    runner.effect, runner.ended = lambda: None, Ended(0, [], False)
    assert detect.footage.fn().name == "NothingNew"


def test_priority_and_threads(folder, runner, monkeypatch):
    """A training that runs at the same time has precedence."""
    monkeypatch.setattr(detect, "cores", lambda: 16)
    detect.footage.fn()
    monkeypatch.setattr(detect, "cores", lambda: 2)
    detect.footage.fn()
    assert [(settings["nice"], settings["threads"]) for _, settings in runner.calls] == [(NICE, 4), (NICE, 1)]


def test_dataset_and_frame_rate(folder, runner):
    detect.footage.fn(dataset="street", fps=12.5)
    ((words, _),) = runner.calls
    assert " ".join(words) == "tasks.detect --champion street --fps 12.5 --inbox inbox --out detections"


def test_time_limit(folder, runner):
    runner.ended = Ended(130, ["v.avi: 0frame [00:00, ?frame/s]"], True)
    state = detect.footage.fn(hours=2)
    assert runner.calls[0][1]["seconds"] == 7200
    assert state.name == "TimedOut"
    assert "2 hours" in state.message
    assert "hours: 0" in detect.footage.fn(hours=0).message
    assert len(runner.calls) == 1


def test_only_default_inbox_is_created(folder, runner):
    detect.footage.fn()
    assert (folder / "inbox").is_dir()
    state = detect.footage.fn(inbox="imbox")
    assert state.is_failed()
    assert "imbox" in state.message
    assert not (folder / "imbox").exists()
    assert len(runner.calls) == 1


def test_second_run_on_inbox_is_skipped(folder, runner):
    (folder / "inbox").mkdir()
    with FileLock(folder / "inbox/.footage.lock"):
        state = detect.footage.fn()
    assert state.is_completed()
    assert state.name == "Skipped"
    assert runner.calls == []


def test_next_run_closes_killed_run(folder, runner, monkeypatch):
    closed = []
    monkeypatch.setattr(detect, "mark_crashed", closed.append)
    (folder / "inbox").mkdir()
    (folder / "inbox/.footage.json").write_text('{"flow_run": "id-1"}')
    detect.footage.fn()
    detect.footage.fn()  # the previous run ended normally
    assert closed == [{"flow_run": "id-1"}]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"by": "auc_micro"}, ("--by", "auc_micro")), ({}, ("--by", "artificial")), ({"back": True}, ("--back",))],
)
def test_promote(monkeypatch, runner, parameters, words):
    shown = []
    monkeypatch.setattr(promote_module, "run_command", runner)
    monkeypatch.setattr(promote_module, "create_markdown_artifact", lambda text, **_: shown.append(text))
    runner.ended = Ended(0, ["system  auc", "m2 is champion of street"], False)
    assert promote_module.promote.fn("street", **parameters).message == "m2 is champion of street"
    assert runner.calls == [(("tasks.promote", "street", *words), {})]
    assert "system  auc" in shown[0]
    runner.ended = Ended(1, ["error: nowhere: not listed"], False)
    state = promote_module.promote.fn("nowhere")
    assert state.is_failed()
    assert state.message == "nowhere: not listed"
