"""benchmarks.publish: keeps results in benchmarks/results/<profile>.json."""

import json
import re
import subprocess

import pytest

from tests.helpers.project import ROOT
from tests.unit.benchmarks.conftest import POINT, RESULT, RUN, made, publish_rows, run
from vadcore.evaluation.cost import write_cost
from vadcore.utils.files import write_json


def test_results_are_kept_and_shown(project, monkeypatch):
    run(monkeypatch)
    kept = (project / "benchmarks/results/pair.json").read_text()
    assert json.loads(kept) == {"run": RUN | {"command": "make profile NAME=pair"}, "rows": [RESULT]}
    readme = (project / "docs/results.md").read_text()
    assert readme.startswith("Before.\n<!-- results -->\n**street** (profile `pair`), labels: generated\n")
    assert readme.endswith("<!-- /results -->\nAfter.\n")
    assert "| `gru_ae` | 87.7% |" in readme


def test_costs_are_kept_with_results(project, monkeypatch):
    for name, cost in (("models", {"train_seconds": 12.34, "peak_memory_mb": 500}), ("scores", {"score_fps": 99.0})):
        write_json(project / name / "street/gru_ae/metrics.json", {})
        write_cost(project / name / "street/gru_ae", cost)
    run(monkeypatch)
    (row,) = json.loads((project / "benchmarks/results/pair.json").read_text())["rows"]
    assert row == RESULT | {"score_fps": 99.0, "train_seconds": 12.34}
    assert "| 87.7% | 99 | 12 s |" in (project / "docs/results.md").read_text()


@pytest.mark.parametrize("gone", [True, False])
def test_results_without_run_js_are_refused(project, monkeypatch, gone):
    script = (project / "reports/run.js").read_text()
    if gone:
        (project / "reports/run.js").unlink()
    else:
        made(project, [RESULT | {"auc_micro": 0.9}])
        (project / "reports/run.js").write_text(script)
    with pytest.raises(SystemExit, match=r"metrics\.json: .*run\.js.*; run dvc repro --force --single-item report"):
        run(monkeypatch)


def test_quality_has_a_line_per_iteration(project, monkeypatch):
    run(monkeypatch, "--quality")
    kept = (project / "benchmarks/results/pair.json").read_text()
    assert kept.endswith("}\n")
    assert json.loads(kept) == {"run": RUN | {"command": "make profile NAME=pair"}, "rows": [POINT]}
    readme = (project / "docs/results.md").read_text()
    assert "| iteration | `gru_ae` PSNR | `gru_ae` SSIM | `gru_ae` sharpness |" in readme
    assert "| 100 | 23.5 dB | 0.700 | 0.60 |" in readme


def test_results_without_auc_are_refused(project, monkeypatch):
    made(project, [RESULT | {"auc_micro": None}])
    with pytest.raises(SystemExit, match=r"metrics\.json: .*AUC.*publish --quality"):
        run(monkeypatch)


def test_run_without_check_points_is_refused(project, monkeypatch):
    made(project, [], kind="quality")
    with pytest.raises(SystemExit, match=r"error: reports/quality\.json: .*\bmodels\b"):
        run(monkeypatch, "--quality")
    assert not (project / "benchmarks/results/pair.json").exists()


def test_error_for_missing_report(project, monkeypatch):
    (project / "reports/quality.json").unlink()
    with pytest.raises(SystemExit, match=r"error: reports/quality\.json: .*run dvc repro"):
        run(monkeypatch, "--quality")


def test_changed_params_are_refused(project, monkeypatch):
    (project / "params.yaml").write_text("profile: pair\nseed: 2\n")
    with pytest.raises(SystemExit, match=r"params\.yaml: .*cp params\.yaml profiles/.*make profile NAME=pair"):
        run(monkeypatch)


def test_results_are_added_to_another_profile(project, monkeypatch):
    first = [RESULT | {"auc_micro": 0.8, "train_seconds": 100.0}, RESULT | {"model": "conv_ae", "auc_micro": 0.5}]
    made(project, first)
    run(monkeypatch)
    other = RUN | {"profile": "seeds", "hardware": "Another CPU", "commit": "fedcba9876543210"}
    more = [RESULT | {"model": "gru_ae-2", "seed": 2, "auc_micro": 0.9, "train_seconds": 900.0}]
    for name in ("params.yaml", "profiles/seeds.yaml"):
        (project / name).write_text("profile: seeds\n")
    made(project, more, other)
    run(monkeypatch, "--into", "pair")
    kept = json.loads((project / "benchmarks/results/pair.json").read_text())
    commands = ["make profile NAME=pair", "make profile NAME=seeds"]
    assert kept["runs"] == [RUN | {"command": commands[0]}, other | {"command": commands[1]}]
    assert kept["rows"] == [{"run": 0, **first[0]}, {"run": 0, **first[1]}, {"run": 1, **more[0]}]
    assert not (project / "benchmarks/results/seeds.json").exists()
    readme = (project / "docs/results.md").read_text()
    assert "| `gru_ae` | 2 | 85.0% ± 7.1% | 100 s |" in readme  # training time of one machine only
    assert re.search("`gru_ae`, `conv_ae`: .*`make profile NAME=pair`.* Some CPU", readme)
    assert re.search("`gru_ae-2`: .*`make profile NAME=seeds`.* Another CPU", readme)

    run(monkeypatch, "--into", "pair")  # a second time: replaces the first
    assert json.loads((project / "benchmarks/results/pair.json").read_text()) == kept
    (project / "params.yaml").write_text("profile: pair\n")
    made(project, first[:1])
    run(monkeypatch)  # the profile again: rows of the other profile are kept
    rows = json.loads((project / "benchmarks/results/pair.json").read_text())["rows"]
    assert [row["model"] for row in rows] == ["gru_ae", "gru_ae-2"]


def test_into_needs_kept_results(project, monkeypatch):
    with pytest.raises(SystemExit, match=r"other\.json: .*profile other\b"):
        run(monkeypatch, "--into", "other")


def kept_runs(project, name="pair"):
    """The runs of a kept file; each row comes from one run."""
    kept = json.loads((project / f"benchmarks/results/{name}.json").read_text())
    return kept.get("runs") or [kept["run"]]


def test_command_is_kept_with_the_run(project, monkeypatch):
    command = "OMP_NUM_THREADS=1 python -m flows.pipeline --heavy-at-once 2"
    run(monkeypatch, "--command", command)
    assert kept_runs(project) == [RUN | {"command": command}]
    assert re.search(f"`{re.escape(command)}`.* Some CPU", (project / "docs/results.md").read_text())
    run(monkeypatch)  # the same run once more
    assert kept_runs(project) == [RUN | {"command": command}]
    later = RUN | {"date": "2026-01-03T03:04:05+00:00"}
    made(project, [RESULT], later)
    run(monkeypatch)  # the report of the same results, written again
    assert kept_runs(project) == [RUN | {"command": command}]
    made(project, [RESULT | {"auc_micro": 0.9}], later)
    run(monkeypatch)  # another run without a command
    assert kept_runs(project) == [later | {"command": "make profile NAME=pair"}]


def test_each_run_keeps_its_command(project, monkeypatch):
    run(monkeypatch, "--command", "first")
    for name in ("params.yaml", "profiles/seeds.yaml"):
        (project / name).write_text("profile: seeds\n")
    made(project, [RESULT | {"model": "gru_ae-2"}], RUN | {"profile": "seeds"})
    run(monkeypatch, "--into", "pair", "--command", "second")
    assert [found["command"] for found in kept_runs(project)] == ["first", "second"]
    run(monkeypatch, "--into", "pair")
    assert [found["command"] for found in kept_runs(project)] == ["first", "second"]
    (project / "params.yaml").write_text("profile: pair\n")
    made(project, [RESULT])
    run(monkeypatch, "--command", "first anew")
    assert [found["command"] for found in kept_runs(project)] == ["first anew", "second"]
    readme = (project / "docs/results.md").read_text()
    assert re.search("`gru_ae`: .*`first anew`", readme)
    assert re.search("`gru_ae-2`: .*`second`", readme)


def test_command_with_readme_only_is_refused(project, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--tables", "--command", "make demo")
    error = capsys.readouterr().err
    assert "--command" in error
    assert "--tables" in error


def test_dropped_rows_are_named(project, monkeypatch, capsys):
    rows = [RESULT, RESULT | {"model": "gru_ae-2", "seed": 2}, RESULT | {"model": "conv_ae"}]
    publish_rows(project, monkeypatch, rows)
    assert "(seed" not in capsys.readouterr().out
    publish_rows(project, monkeypatch, [RESULT | {"auc_micro": 0.5}])
    assert ": gru_ae-2 (seed 2), conv_ae (seed 1)\n" in capsys.readouterr().out
    publish_rows(project, monkeypatch, [RESULT | {"seed": 7}])
    assert ": gru_ae (seed 1)\n" in capsys.readouterr().out
    run(monkeypatch, "--quality")
    assert ": gru_ae (seed 7)\n" in capsys.readouterr().out


def test_two_label_sets_are_refused(project, monkeypatch):
    rows = [RESULT, RESULT | {"model": "conv_ae", "label_set": "masks"}]
    refusal = r"error: .*pair\.json: .*street.*generated.*masks"
    with pytest.raises(SystemExit, match=refusal):
        publish_rows(project, monkeypatch, rows)
    assert not (project / "benchmarks/results/pair.json").exists()
    (project / "benchmarks/results/pair.json").write_text(json.dumps({"run": RUN, "rows": rows}))
    with pytest.raises(SystemExit, match=refusal):
        run(monkeypatch, "--tables")
    assert "old" in (project / "docs/results.md").read_text()


@pytest.mark.parametrize("name", ["pair", "other"])
def test_error_for_broken_kept_file(project, monkeypatch, name):
    (project / f"benchmarks/results/{name}.json").write_text("<<<<<<< HEAD\n")
    remedy = rf"error: benchmarks/results/{name}\.json: .*git checkout -- "
    with pytest.raises(SystemExit, match=remedy):
        run(monkeypatch)
    with pytest.raises(SystemExit, match=remedy):
        run(monkeypatch, "--tables")


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([], "run"),
        ({"run": {}, "rows": []}, "command"),
        ({"run": RUN}, "rows"),
        ({"runs": [RUN], "rows": [RESULT]}, "row"),
        ({"run": RUN, "rows": [{"dataset": "ped2", "model": "x", "auc_micro": 0.5}]}, "seed of x on ped2"),
    ],
)
def test_error_for_incomplete_kept_file(project, monkeypatch, results, reason):
    (project / "benchmarks/results/pair.json").write_text(json.dumps(results))
    with pytest.raises(SystemExit, match=rf"pair\.json: .*{reason}.*git checkout -- "):
        run(monkeypatch, "--tables")


def test_error_for_broken_report(project, monkeypatch):
    for results in ({}, [], {"run": {}, "rows": [RESULT]}, {"run": RUN, "rows": [1]}, {"run": RUN, "rows": [{}]}, None):
        text = json.dumps(results) if results is not None else "{"
        (project / "reports/metrics.json").write_text(text)
        with pytest.raises(SystemExit, match=r"error: reports/metrics\.json: .*run dvc repro"):
            run(monkeypatch)
        assert not (project / "benchmarks/results/pair.json").exists()


def test_error_for_missing_profile(project, monkeypatch):
    (project / "profiles/pair.yaml").unlink()
    with pytest.raises(SystemExit, match=r"pair\.yaml: .*cp params\.yaml profiles/pair\.yaml"):
        run(monkeypatch)
    (project / "profiles/pair.yaml").write_text((project / "params.yaml").read_text())
    run(monkeypatch)


def test_equal_results_of_another_profile(project, monkeypatch):
    run(monkeypatch, "--command", "first")
    kept = project / "benchmarks/results/pair.json"
    old = json.loads(kept.read_text())
    old["run"]["profile"] = "twin"
    kept.write_text(json.dumps(old))
    run(monkeypatch)
    runs = json.loads(kept.read_text())
    assert runs["run"] == RUN | {"command": "make profile NAME=pair"}


def test_make_results_passes_its_options():
    words = ["make", "-n", "-o", ".venv/installed", "results", "INTO=ped2-cpu", "COMMAND=a b"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 'python -m benchmarks.publish --into "ped2-cpu" --command "a b"\n' in said
    said = subprocess.run(words[:5], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"python -m benchmarks\.publish *\n", said)


@pytest.mark.parametrize("name", ["docs/results.md", "params.yaml"])
def test_error_for_missing_file(project, monkeypatch, name):
    (project / name).unlink()
    with pytest.raises(SystemExit, match=rf"error: {name}: .*git checkout -- {name}"):
        run(monkeypatch)


def test_readme_without_marks_is_refused(project, monkeypatch):
    (project / "docs/results.md").write_text("Before.\n<!-- results -->\n")
    with pytest.raises(SystemExit, match=r"error: docs/results\.md: .*<!-- results -->.*<!-- /results -->"):
        run(monkeypatch, "--tables")
