"""Parts of the tracking that need no MLflow: pipelines, digests, processes, messages, cost of a call."""

import time

import numpy as np

from tasks.tracking import StageRun
from tasks.tracking.client import reason_of, without_secrets
from tasks.tracking.lineage import out_digest
from tasks.tracking.outbox import EventLog
from tests.helpers.tracking import URI, finish, start

WHICH = "import tasks.tracking.run as p; print(p.pipeline_of_this_process()['key'])"


def test_dvc_repro_is_one_pipeline(tmp_path):
    (tmp_path / "dvc").write_text(
        f"import subprocess, sys\nfor _ in range(2): subprocess.run([sys.executable, '-c', {WHICH!r}], check=True)\n"
    )
    keys = [
        finish(start(tmp_path, "dvc", *words))[1].split() for words in (["repro"], ["repro", "-s", "x"], ["status"])
    ]
    assert [len(set(pair)) for pair in keys] == [1, 1, 2]
    assert keys[0] != keys[1]
    named = finish(start(tmp_path, "dvc", "repro", VAD_PIPELINE="flow 'a'"))[1].splitlines()
    assert named == ["flow _a_"] * 2  # quotes would end MLflow's search strings


def test_metric_logging_is_fast(tmp_path):
    run = StageRun(EventLog.create(tmp_path, "k", {}))
    started = time.perf_counter()
    for step in range(1000):
        run.metrics({"loss": 0.5, "rate": 0.1}, step)
    seconds = (time.perf_counter() - started) / 1000
    assert seconds < 0.02 * 0.025, "2 % of a training step of 25 ms, a short one"


def test_metrics_are_the_numbers_among_the_values(tmp_path):
    log = EventLog.create(tmp_path, "k", {})
    StageRun(log).metrics({"a": 1, "b": np.float32(0.5), "trained": True, "model": "gru_ae", "best": None})
    assert [event["metrics"] for event, _ in log.events()] == [{"a": 1.0, "b": 0.5}]


def test_digests_equal_dvc_digests(tmp_path):
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs import LocalFileSystem

    folder = tmp_path / "out"
    for name in ("b/z.txt", "b.txt", "b-c/y.txt", "ä.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    store = HashFileDB(LocalFileSystem(), str(tmp_path / "cache"))
    for path in (folder, folder / "b.txt"):
        _, _, built = build(store, str(path), LocalFileSystem(), "md5")
        assert out_digest(path) == built.hash_info.value


def test_writer_lives_until_it_closes_the_run(tmp_path):
    run = EventLog.create(tmp_path, "k", {})
    assert EventLog(run.folder).writer_lives()
    run.append({"end": "FINISHED"})
    assert EventLog(run.folder).ended()
    run.close()
    assert not EventLog(run.folder).writer_lives()


def test_passwords_are_removed():
    assert without_secrets("https://me:secret@host:5000/x") == "https://host:5000/x"
    assert without_secrets("postgresql://me:secret@host/db") == "postgresql://host/db"
    assert without_secrets(URI) == URI
    nested = OSError("GET http://me:secret@host/: (Caused by Error('host', [Errno 111] Connection refused'))")
    assert reason_of(nested) == "Connection refused"
    assert reason_of(OSError("http://me:secret@host said no")) == "http://host said no"
