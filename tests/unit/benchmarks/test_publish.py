"""Keeping a run's results: benchmarks/results/<profile>.json in the one form of that folder, and the README's table."""

import json
import re
import subprocess
import sys

import pytest

from benchmarks import publish
from tests.helpers.project import ROOT

RUN = {
    "command": "dvc repro",
    "profile": "pair",
    "commit": "0123456789abcdef",
    "hardware": "Some CPU, 2 cores",
    "versions": {"python": "3.11.2", "torch": "2.13.0", "opencv-python": "5.0.0"},
    "date": "2026-01-02T03:04:05+00:00",
}
RESULT = {"dataset": "street", "model": "gru_ae", "seed": 1, "label_set": "generated", "auc_micro": 0.87654}
POINT = {"dataset": "street", "model": "gru_ae", "seed": 1, "iteration": 100, "psnr": 23.5, "ssim": 0.7}
POINT |= {"sharpness": 0.6, "held_out": 0.01}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the reports of a run of the profile ``pair``."""
    for folder in ("profiles", "reports", "benchmarks/results"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("params.yaml", "profiles/pair.yaml"):
        (tmp_path / name).write_text("profile: pair\n")
    (tmp_path / "README.md").write_text("Before.\n<!-- results -->\nold\n<!-- /results -->\nAfter.\n")
    (tmp_path / "reports/metrics.json").write_text(json.dumps({"run": RUN, "rows": [RESULT]}))
    (tmp_path / "reports/quality.json").write_text(json.dumps({"run": RUN, "rows": [POINT]}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["publish.py", *words])
    publish.main()


def test_results_are_kept_under_their_profile_and_shown_in_the_readme(project, monkeypatch):
    run(monkeypatch)
    kept = (project / "benchmarks/results/pair.json").read_text()
    assert json.loads(kept) == {"run": RUN | {"command": "make profile NAME=pair"}, "rows": [RESULT]}
    readme = (project / "README.md").read_text()
    assert readme.startswith("Before.\n<!-- results -->\n**street** (profile `pair`), labels: generated\n")
    assert readme.endswith("<!-- /results -->\nAfter.\n")
    assert "| `gru_ae` | 87.7% |" in readme


def test_quality_is_kept_in_the_same_form_and_shown_with_a_line_an_iteration(project, monkeypatch):
    run(monkeypatch, "--quality")
    kept = (project / "benchmarks/results/pair.json").read_text()
    assert kept.endswith("}\n")
    assert json.loads(kept) == {"run": RUN | {"command": "make profile NAME=pair"}, "rows": [POINT]}
    readme = (project / "README.md").read_text()
    assert "| iteration | `gru_ae` PSNR | `gru_ae` SSIM | `gru_ae` sharpness |" in readme
    assert "| 100 | 23.5 dB | 0.700 | 0.60 |" in readme


def test_rollouts_are_kept_and_shown_with_a_column_a_step(project, monkeypatch):
    shared = {"dataset": "moving_mnist", "seed": 1, "label_set": "none: generated, digits of MNIST", "sequences": 9}
    rows = [
        shared
        | {"model": f"latent_lstm-{loss}", "variant": f"vcae, {loss}", "what": what, "step_ahead": step}
        | {"psnr": level - step, "ssim": 0.5, "psnr_std": 1.0, "ssim_std": 0.1}
        for loss, own in (("mse", 20), ("kl", 19))
        for what, level in (("prediction", own), ("repeat last frame", 15), ("reconstruction", own + 2))
        for step in range(1, 5)
    ]
    (project / "reports/rollouts.json").write_text(json.dumps({"run": RUN, "rows": rows}))
    run(monkeypatch, "--rollouts")
    assert json.loads((project / "benchmarks/results/pair.json").read_text())["rows"] == rows
    readme = (project / "README.md").read_text()
    said = "PSNR and SSIM of predictions many frames ahead, 9 test sequences; labels: none: generated, digits of MNIST"
    assert f"**moving_mnist** (profile `pair`), {said}\n" in readme
    table = readme[readme.index("| step ahead |") :].split("\n\n")[0].splitlines()
    assert table[0] == "| step ahead | 1 | 2 | 3 |"
    assert table[2] == "| `latent_lstm-mse`: vcae, mse | 19.0 dB, 0.500 | 18.0 dB, 0.500 | 17.0 dB, 0.500 |"
    assert table[4] == "| repeat last frame | 14.0 dB, 0.500 | 13.0 dB, 0.500 | 12.0 dB, 0.500 |"  # once for both
    assert table[5].startswith("| reconstruction (`latent_lstm-mse`) | 21.0 dB")
    assert len(table) == 7


def test_results_without_any_auc_are_refused_with_what_to_keep_instead(project, monkeypatch):
    (project / "reports/metrics.json").write_text(json.dumps({"run": RUN, "rows": [RESULT | {"auc_micro": None}]}))
    with pytest.raises(SystemExit, match=r"metrics\.json: no row has an AUC.*publish --quality"):
        run(monkeypatch)


def test_a_run_without_check_points_is_refused(project, monkeypatch):
    (project / "reports/quality.json").write_text(json.dumps({"run": RUN, "rows": []}))
    with pytest.raises(
        SystemExit, match=r"error: reports/quality\.json: holds no rows; list a system that has such figures"
    ):
        run(monkeypatch, "--quality")
    assert not (project / "benchmarks/results/pair.json").exists()


def test_a_report_that_is_not_there_names_the_command(project, monkeypatch):
    (project / "reports/quality.json").unlink()
    with pytest.raises(SystemExit, match=r"error: reports/quality\.json: not there; run dvc repro first"):
        run(monkeypatch, "--quality")


def test_results_of_changed_params_are_not_kept_under_the_profile(project, monkeypatch):
    (project / "params.yaml").write_text("profile: pair\nseed: 2\n")
    with pytest.raises(SystemExit, match=r"params\.yaml: not that of .*pair\.yaml; keep your settings under a name"):
        run(monkeypatch)


def test_errors_of_optical_flow_are_a_table_beside_the_weights(project, monkeypatch):
    rows = [
        {"set": "street", "estimator": "no motion", "epe": 0.5, "fps": None},
        {"set": "street", "estimator": "dis", "epe": 0.25, "fps": 120.4},
    ]
    (project / "benchmarks/results/flow-epe.json").write_text(json.dumps({"run": RUN, "rows": rows}))
    (project / "weights").mkdir()
    (project / "weights/README.md").write_text("Card.\n<!-- results -->\n<!-- /results -->\n")
    run(monkeypatch, "--readme")
    card = (project / "weights/README.md").read_text()
    assert "| pairs | no motion | dis |\n|---|---:|---:|\n| street | 0.500 | 0.250 (120/s) |" in card
    assert "(../benchmarks/results/flow-epe.json)" in card
    assert "flow-epe" not in (project / "README.md").read_text()


def test_several_seeds_of_a_system_are_one_line_with_mean_and_spread(project, monkeypatch):
    rows = [
        RESULT | {"model": f"future_frame-flow-{seed}", "seed": seed, "losses": "intensity + flow", "auc_micro": auc}
        for seed, auc in ((1, 0.7), (2, 0.8), (3, 0.9))
    ]
    (project / "reports/metrics.json").write_text(json.dumps({"run": RUN, "rows": [RESULT, *rows]}))
    run(monkeypatch)
    readme = (project / "README.md").read_text()
    assert "| system | losses | seeds | micro raw |" in readme
    assert "| `gru_ae` |  | 1 | 87.7% |" in readme
    assert "| `future_frame-flow` | intensity + flow | 3 | 80.0% ± 10.0% |" in readme
    assert "seeds 1, 2, 3" in readme
    assert json.loads((project / "benchmarks/results/pair.json").read_text())["rows"] == [RESULT, *rows]


def test_systems_of_another_profile_are_kept_beside_and_each_says_how_it_was_made(project, monkeypatch):
    first = [RESULT | {"auc_micro": 0.8, "train_seconds": 100.0}, RESULT | {"model": "conv_ae", "auc_micro": 0.5}]
    (project / "reports/metrics.json").write_text(json.dumps({"run": RUN, "rows": first}))
    run(monkeypatch)
    other = RUN | {"profile": "seeds", "hardware": "Another CPU", "commit": "fedcba9876543210"}
    more = [RESULT | {"model": "gru_ae-2", "seed": 2, "auc_micro": 0.9, "train_seconds": 900.0}]
    for name in ("params.yaml", "profiles/seeds.yaml"):
        (project / name).write_text("profile: seeds\n")
    (project / "reports/metrics.json").write_text(json.dumps({"run": other, "rows": more}))
    run(monkeypatch, "--into", "pair")
    kept = json.loads((project / "benchmarks/results/pair.json").read_text())
    commands = ["make profile NAME=pair", "make profile NAME=seeds"]
    assert kept["runs"] == [RUN | {"command": commands[0]}, other | {"command": commands[1]}]
    assert kept["rows"] == [{"run": 0, **first[0]}, {"run": 0, **first[1]}, {"run": 1, **more[0]}]
    assert not (project / "benchmarks/results/seeds.json").exists()
    readme = (project / "README.md").read_text()
    assert "| `gru_ae` | 2 | 85.0% ± 7.1% | 100 s |" in readme  # how long it took is told of one machine
    assert "`gru_ae`, `conv_ae`: Made by `make profile NAME=pair` on Some CPU" in readme
    assert "`gru_ae-2`: Made by `make profile NAME=seeds` on Another CPU" in readme

    run(monkeypatch, "--into", "pair")  # once more: in place of the first time's
    assert json.loads((project / "benchmarks/results/pair.json").read_text()) == kept
    (project / "params.yaml").write_text("profile: pair\n")
    (project / "reports/metrics.json").write_text(json.dumps({"run": RUN, "rows": first[:1]}))
    run(monkeypatch)  # the profile itself anew: what the other gave stays
    rows = json.loads((project / "benchmarks/results/pair.json").read_text())["rows"]
    assert [row["model"] for row in rows] == ["gru_ae", "gru_ae-2"]


def test_results_are_put_beside_nothing_only_where_there_is_something(project, monkeypatch):
    with pytest.raises(SystemExit, match=r"other\.json: not there; keep the results of profile other first"):
        run(monkeypatch, "--into", "other")


def kept_runs(project, name="pair"):
    """The runs of a kept file, of which each row comes from one."""
    kept = json.loads((project / f"benchmarks/results/{name}.json").read_text())
    return kept.get("runs") or [kept["run"]]


def test_another_command_is_kept_with_the_run_and_stays_there(project, monkeypatch):
    command = "OMP_NUM_THREADS=1 python -m flows.pipeline --heavy-at-once 2"
    run(monkeypatch, "--command", command)
    assert kept_runs(project) == [RUN | {"command": command}]
    assert f"Made by `{command}` on Some CPU" in (project / "README.md").read_text()
    run(monkeypatch)  # the same run once more
    assert kept_runs(project) == [RUN | {"command": command}]
    later = RUN | {"date": "2026-01-03T03:04:05+00:00"}
    (project / "reports/metrics.json").write_text(json.dumps({"run": later, "rows": [RESULT]}))
    run(monkeypatch)  # the report of the same results, written anew
    assert kept_runs(project) == [RUN | {"command": command}]
    (project / "reports/metrics.json").write_text(json.dumps({"run": later, "rows": [RESULT | {"auc_micro": 0.9}]}))
    run(monkeypatch)  # another run, of which nothing is said
    assert kept_runs(project) == [later | {"command": "make profile NAME=pair"}]


def test_each_run_of_a_file_keeps_the_command_that_it_was_kept_with(project, monkeypatch):
    run(monkeypatch, "--command", "first")
    for name in ("params.yaml", "profiles/seeds.yaml"):
        (project / name).write_text("profile: seeds\n")
    other = {"run": RUN | {"profile": "seeds"}, "rows": [RESULT | {"model": "gru_ae-2"}]}
    (project / "reports/metrics.json").write_text(json.dumps(other))
    run(monkeypatch, "--into", "pair", "--command", "second")
    assert [found["command"] for found in kept_runs(project)] == ["first", "second"]
    run(monkeypatch, "--into", "pair")
    assert [found["command"] for found in kept_runs(project)] == ["first", "second"]
    (project / "params.yaml").write_text("profile: pair\n")
    (project / "reports/metrics.json").write_text(json.dumps({"run": RUN, "rows": [RESULT]}))
    run(monkeypatch, "--command", "first anew")
    assert [found["command"] for found in kept_runs(project)] == ["first anew", "second"]
    readme = (project / "README.md").read_text()
    assert "`gru_ae`: Made by `first anew` on" in readme
    assert "`gru_ae-2`: Made by `second` on" in readme


def test_a_command_without_results_to_keep_is_refused(project, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--readme", "--command", "make demo")
    assert "--readme keeps none" in capsys.readouterr().err


def test_tables_come_in_a_fixed_order_and_are_told_apart_by_their_profile(project, monkeypatch):
    for name in ("other", "demo", "ablation-ped2-cpu", "ped2-cpu", "moving-mnist-cpu", "another", "actions-cpu"):
        row = POINT if name == "actions-cpu" else RESULT
        (project / f"benchmarks/results/{name}.json").write_text(json.dumps({"run": RUN, "rows": [row]}))
    run(monkeypatch, "--readme")
    headings = [line for line in (project / "README.md").read_text().splitlines() if line.startswith("**")]
    assert headings == [
        f"**street** (profile `{name}`), "
        + ("held-out clips while training goes on" if name == "actions-cpu" else "labels: generated")
        for name in ("ped2-cpu", "ablation-ped2-cpu", "demo", "actions-cpu", "moving-mnist-cpu", "another", "other")
    ]


def test_the_published_figure_of_a_system_stands_beside_ours(project, monkeypatch):
    rows = [
        RESULT | {"dataset": "ped2", "model": model, "auc_micro_minmax": 0.9}
        for model in ("frame_diff", "conv_ae-wide", "future_frame")
    ]
    (project / "reports/metrics.json").write_text(json.dumps({"run": RUN, "rows": rows}))
    run(monkeypatch)
    readme = (project / "README.md").read_text()
    assert "| system | micro raw | micro per-clip min-max | published |\n|---|---:|---:|---|\n" in readme
    assert "| `frame_diff` | 87.7% | 90.0% |  |" in readme
    assert "| `conv_ae-wide` | 87.7% | 90.0% |  |" in readme
    assert "| `future_frame` | 87.7% | 90.0% | 95.4% (Liu et al., CVPR 2018) |\n\n*published*: " in readme


EVENTS = {"events_true": 7, "detected": 5, "false_alarms": 1, "normal_hours": 1 / 60, "normal_alarmed": 0.125}


def table(project, monkeypatch, rows):
    """The README's table of ``rows``, a list a line."""
    (project / "reports/metrics.json").write_text(json.dumps({"run": RUN, "rows": rows}))
    run(monkeypatch)
    lines = [line for line in (project / "README.md").read_text().splitlines() if line.startswith("|")]
    return [line[2:-2].split(" | ") for line in (lines[0], *lines[2:])]


def test_events_are_counts_with_the_footage_that_they_are_of(project, monkeypatch):
    assert table(project, monkeypatch, [RESULT | EVENTS]) == [
        ["system", "micro raw", "events found", "false alarms", "normal time in alarm"],
        ["`gru_ae`", "87.7%", "5 of 7", "1 in 60 s", "12.5%"],
    ]


def test_events_of_several_seeds_have_mean_and_spread(project, monkeypatch):
    rows = [
        RESULT | EVENTS | {"model": f"gru_ae-{seed}", "seed": seed, "detected": detected, "normal_alarmed": alarmed}
        for seed, detected, alarmed in ((1, 5, 0.1), (2, 6, 0.2), (3, 7, 0.3))
    ]
    assert table(project, monkeypatch, rows) == [
        ["system", "seeds", "micro raw", "events found", "false alarms", "normal time in alarm"],
        ["`gru_ae`", "3", "87.7%", "6.0 ± 1.0 of 7", "1 in 60 s", "20.0% ± 10.0%"],
    ]


def test_of_events_counted_by_an_older_rule_it_shows_none_and_says_of_how_many_seeds_the_others_are(
    project, monkeypatch
):
    older = {key: value for key, value in EVENTS.items() if key != "normal_alarmed"}
    assert table(project, monkeypatch, [RESULT | older]) == [["system", "micro raw"], ["`gru_ae`", "87.7%"]]
    mixed = [RESULT | older, RESULT | EVENTS | {"model": "gru_ae-2", "seed": 2}]
    assert table(project, monkeypatch, mixed)[1:] == [
        ["`gru_ae`", "2", "87.7%", "5 of 7 (1 of 2)", "1 in 60 s (1 of 2)", "12.5% (1 of 2)"]
    ]


def test_footage_without_true_events_or_without_normal_frames_has_no_such_count(project, monkeypatch):
    rows = [
        RESULT | EVENTS | {"events_true": 0, "detected": 0},
        RESULT | EVENTS | {"model": "conv_ae", "normal_hours": 0.0, "normal_alarmed": None},
    ]
    assert table(project, monkeypatch, rows)[1:] == [
        ["`gru_ae`", "87.7%", "", "1 in 60 s", "12.5%"],
        ["`conv_ae`", "87.7%", "5 of 7", "", ""],
    ]


def test_variants_named_by_a_number_are_no_seeds(project, monkeypatch):
    rows = [RESULT | {"model": f"conv_ae-{size}", "parameters": 1000 * size} for size in (64, 128)]
    assert table(project, monkeypatch, rows) == [
        ["system", "micro raw", "parameters"],
        ["`conv_ae-64`", "87.7%", "64,000"],
        ["`conv_ae-128`", "87.7%", "128,000"],
    ]
    rows = [RESULT | {"model": f"future_frame-{n}", "seed": n, "losses": losses} for n, losses in ((1, "a"), (2, "b"))]
    assert [line[0] for line in table(project, monkeypatch, rows)[1:]] == ["`future_frame-1`", "`future_frame-2`"]
    assert table(project, monkeypatch, rows[:1])[1][0] == "`future_frame-1`"


def test_counts_that_differ_between_seeds_have_no_decimals(project, monkeypatch):
    rows = [
        RESULT | {"model": f"gru_ae-{seed}", "seed": seed, "frames_evaluated": frames, "parameters": parameters}
        for seed, frames, parameters in ((1, 2000, 100_000), (2, 2003, 200_000))
    ]
    assert table(project, monkeypatch, rows)[1] == ["`gru_ae`", "2", "87.7%", "2,002 ± 2", "150,000 ± 70,711"]


def test_a_figure_that_not_all_seeds_have_says_of_how_many_it_is(project, monkeypatch):
    rows = [
        RESULT | {"model": f"gru_ae-{seed}", "seed": seed, "auc_micro": auc, "eer": eer}
        for seed, auc, eer in ((1, None, None), (2, 0.765, 0.2), (3, None, 0.3))
    ]
    assert table(project, monkeypatch, rows)[1] == ["`gru_ae`", "3", "76.5% (1 of 3)", "25.0% ± 7.1% (2 of 3)"]


def test_rows_that_are_not_kept_any_more_are_named(project, monkeypatch, capsys):
    rows = [RESULT, RESULT | {"model": "gru_ae-2", "seed": 2}, RESULT | {"model": "conv_ae"}]
    table(project, monkeypatch, rows)
    assert "not kept any more" not in capsys.readouterr().out
    table(project, monkeypatch, [RESULT | {"auc_micro": 0.5}])
    assert "not kept any more: gru_ae-2 (seed 2), conv_ae (seed 1)\n" in capsys.readouterr().out
    table(project, monkeypatch, [RESULT | {"seed": 7}])
    assert "not kept any more: gru_ae (seed 1)\n" in capsys.readouterr().out
    run(monkeypatch, "--quality")
    assert "not kept any more: gru_ae (seed 7)\n" in capsys.readouterr().out


@pytest.mark.parametrize(("dataset", "shown"), [("ped2", True), ("street", False)])
def test_it_says_what_brings_results_of_a_published_data_set_into_the_report(
    project, monkeypatch, capsys, dataset, shown
):
    table(project, monkeypatch, [RESULT | {"dataset": dataset}])
    assert ("`dvc repro report` brings them into reports/index.html" in capsys.readouterr().out) == shown


def test_two_label_sets_are_refused_in_one_table_and_nothing_is_kept(project, monkeypatch):
    rows = [RESULT, RESULT | {"model": "conv_ae", "label_set": "masks"}]
    refusal = r"error: .*pair\.json: the figures on street are of two label sets, “generated” and “masks”"
    with pytest.raises(SystemExit, match=refusal):
        table(project, monkeypatch, rows)
    assert not (project / "benchmarks/results/pair.json").exists()
    (project / "benchmarks/results/pair.json").write_text(json.dumps({"run": RUN, "rows": rows}))
    with pytest.raises(SystemExit, match=refusal):
        run(monkeypatch, "--readme")
    assert "old" in (project / "README.md").read_text()


@pytest.mark.parametrize("name", ["pair", "other"])
def test_a_broken_kept_file_is_named_with_what_to_do(project, monkeypatch, name):
    (project / f"benchmarks/results/{name}.json").write_text("<<<<<<< HEAD\n")
    remedy = rf"error: benchmarks/results/{name}\.json: .*; restore it \(git checkout -- .*\), or remove it"
    with pytest.raises(SystemExit, match=remedy):
        run(monkeypatch)
    with pytest.raises(SystemExit, match=remedy):
        run(monkeypatch, "--readme")


def test_a_broken_report_is_named_with_what_to_do(project, monkeypatch):
    for results in ({}, [], {"run": {}, "rows": [RESULT]}, {"run": RUN, "rows": [1]}, {"run": RUN, "rows": [{}]}, None):
        text = json.dumps(results) if results is not None else "{"
        (project / "reports/metrics.json").write_text(text)
        with pytest.raises(SystemExit, match=r"error: reports/metrics\.json: cannot be read .*; remove it and run"):
            run(monkeypatch)
        assert not (project / "benchmarks/results/pair.json").exists()


def test_settings_that_no_profile_keeps_are_to_be_kept_as_one(project, monkeypatch):
    (project / "profiles/pair.yaml").unlink()
    with pytest.raises(SystemExit, match=r"pair\.yaml: not there; .* cp params\.yaml profiles/pair\.yaml"):
        run(monkeypatch)
    (project / "profiles/pair.yaml").write_text((project / "params.yaml").read_text())
    run(monkeypatch)


def test_a_run_of_another_profile_with_the_same_figures_is_not_taken_for_it(project, monkeypatch):
    run(monkeypatch, "--command", "first")
    kept = project / "benchmarks/results/pair.json"
    old = json.loads(kept.read_text())
    old["run"]["profile"] = "twin"
    kept.write_text(json.dumps(old))
    run(monkeypatch)
    runs = json.loads(kept.read_text())
    assert runs["run"] == RUN | {"command": "make profile NAME=pair"}


def test_make_results_hands_on_what_they_belong_to_and_how_they_were_made():
    words = ["make", "-n", "-o", ".venv/installed", "results", "INTO=ped2-cpu", "COMMAND=a b"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 'python -m benchmarks.publish --into "ped2-cpu" --command "a b"\n' in said
    said = subprocess.run(words[:5], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"python -m benchmarks\.publish *\n", said)


@pytest.mark.parametrize("name", ["README.md", "params.yaml"])
def test_a_file_that_is_not_there_is_named_with_what_to_do(project, monkeypatch, name):
    (project / name).unlink()
    with pytest.raises(SystemExit, match=rf"error: {name}: cannot be read .*; restore it \(git checkout -- {name}\)"):
        run(monkeypatch)


def test_a_readme_without_the_marks_is_refused(project, monkeypatch):
    (project / "README.md").write_text("Before.\n<!-- results -->\n")
    with pytest.raises(
        SystemExit, match=r"error: README\.md: lacks <!-- results --> and, after it, <!-- /results -->; put"
    ):
        run(monkeypatch, "--readme")
