"""benchmarks.publish: the tables of the README."""

import json
import re

from tests.unit.benchmarks.conftest import POINT, RESULT, RUN, made, publish_rows, run

EVENTS = {"events_true": 7, "detected": 5, "false_alarms": 1, "normal_hours": 1 / 60, "normal_alarmed": 0.125}


def table(project, monkeypatch, rows):
    """The README's table of ``rows``, a list a line."""
    publish_rows(project, monkeypatch, rows)
    lines = [line for line in (project / "docs/results.md").read_text().splitlines() if line.startswith("|")]
    return [line[2:-2].split(" | ") for line in (lines[0], *lines[2:])]


def test_events_are_counts(project, monkeypatch):
    assert table(project, monkeypatch, [RESULT | EVENTS]) == [
        ["system", "micro raw", "events found", "false alarms", "normal time in alarm"],
        ["`gru_ae`", "87.7%", "5 of 7", "1 in 60 s", "12.5%"],
    ]


def test_mean_and_spread_of_events(project, monkeypatch):
    rows = [
        RESULT | EVENTS | {"model": f"gru_ae-{seed}", "seed": seed, "detected": detected, "normal_alarmed": alarmed}
        for seed, detected, alarmed in ((1, 5, 0.1), (2, 6, 0.2), (3, 7, 0.3))
    ]
    assert table(project, monkeypatch, rows) == [
        ["system", "seeds", "micro raw", "events found", "false alarms", "normal time in alarm"],
        ["`gru_ae`", "3", "87.7%", "6.0 ± 1.0 of 7", "1 in 60 s", "20.0% ± 10.0%"],
    ]


def test_old_event_metrics_are_left_out(project, monkeypatch):
    older = {key: value for key, value in EVENTS.items() if key != "normal_alarmed"}
    assert table(project, monkeypatch, [RESULT | older]) == [["system", "micro raw"], ["`gru_ae`", "87.7%"]]
    mixed = [RESULT | older, RESULT | EVENTS | {"model": "gru_ae-2", "seed": 2}]
    assert table(project, monkeypatch, mixed)[1:] == [
        ["`gru_ae`", "2", "87.7%", "5 of 7 (1 of 2)", "1 in 60 s (1 of 2)", "12.5% (1 of 2)"]
    ]


def test_no_counts_without_events(project, monkeypatch):
    rows = [
        RESULT | EVENTS | {"events_true": 0, "detected": 0},
        RESULT | EVENTS | {"model": "conv_ae", "normal_hours": 0.0, "normal_alarmed": None},
    ]
    assert table(project, monkeypatch, rows)[1:] == [
        ["`gru_ae`", "87.7%", "", "1 in 60 s", "12.5%"],
        ["`conv_ae`", "87.7%", "5 of 7", "", ""],
    ]


def test_numbered_variants_are_not_seeds(project, monkeypatch):
    rows = [RESULT | {"model": f"conv_ae-{size}", "parameters": 1000 * size} for size in (64, 128)]
    assert table(project, monkeypatch, rows) == [
        ["system", "micro raw", "parameters"],
        ["`conv_ae-64`", "87.7%", "64,000"],
        ["`conv_ae-128`", "87.7%", "128,000"],
    ]
    rows = [RESULT | {"model": f"future_frame-{n}", "seed": n, "losses": losses} for n, losses in ((1, "a"), (2, "b"))]
    assert [line[0] for line in table(project, monkeypatch, rows)[1:]] == ["`future_frame-1`", "`future_frame-2`"]
    assert table(project, monkeypatch, rows[:1])[1][0] == "`future_frame-1`"


def test_counts_have_no_decimals(project, monkeypatch):
    rows = [
        RESULT | {"model": f"gru_ae-{seed}", "seed": seed, "frames_evaluated": frames, "parameters": parameters}
        for seed, frames, parameters in ((1, 2000, 100_000), (2, 2003, 200_000))
    ]
    assert table(project, monkeypatch, rows)[1] == ["`gru_ae`", "2", "87.7%", "2,002 ± 2", "150,000 ± 70,711"]


def test_partial_figures_show_number_of_seeds(project, monkeypatch):
    rows = [
        RESULT | {"model": f"gru_ae-{seed}", "seed": seed, "auc_micro": auc, "eer": eer}
        for seed, auc, eer in ((1, None, None), (2, 0.765, 0.2), (3, None, 0.3))
    ]
    assert table(project, monkeypatch, rows)[1] == ["`gru_ae`", "3", "76.5% (1 of 3)", "25.0% ± 7.1% (2 of 3)"]


def test_tables_are_in_a_fixed_order(project, monkeypatch):
    for name in ("other", "demo", "ablation-ped2-cpu", "ped2-cpu", "moving-mnist-cpu", "another", "actions-cpu"):
        row = POINT if name == "actions-cpu" else RESULT
        (project / f"benchmarks/results/{name}.json").write_text(json.dumps({"run": RUN, "rows": [row]}))
    run(monkeypatch, "--tables")
    headings = [line for line in (project / "docs/results.md").read_text().splitlines() if line.startswith("**")]
    assert [re.match(r"\*\*street\*\* \(profile `(.*?)`\), ", heading)[1] for heading in headings] == [
        *("ped2-cpu", "ablation-ped2-cpu", "demo", "actions-cpu", "moving-mnist-cpu", "another", "other")
    ]


def test_published_figure_is_beside_ours(project, monkeypatch):
    rows = [
        RESULT | {"dataset": "ped2", "model": model, "auc_micro_minmax": 0.9}
        for model in ("frame_diff", "conv_ae-wide", "future_frame")
    ]
    made(project, rows)
    run(monkeypatch)
    readme = (project / "docs/results.md").read_text()
    assert "| system | micro raw | micro per-clip min-max | published |\n|---|---:|---:|---|\n" in readme
    assert "| `frame_diff` | 87.7% | 90.0% |  |" in readme
    assert "| `conv_ae-wide` | 87.7% | 90.0% |  |" in readme
    assert "| `future_frame` | 87.7% | 90.0% | 95.4% (Liu et al., CVPR 2018) |\n\n*published*: " in readme
    assert "| Future frame | Liu et al., CVPR 2018 | per-clip min-max |  | 83.1 | 95.4 | 85.1 | 72.8 |" in readme


def test_seeds_share_a_line(project, monkeypatch):
    rows = [
        RESULT | {"model": f"future_frame-flow-{seed}", "seed": seed, "losses": "intensity + flow", "auc_micro": auc}
        for seed, auc in ((1, 0.7), (2, 0.8), (3, 0.9))
    ]
    made(project, [RESULT, *rows])
    run(monkeypatch)
    readme = (project / "docs/results.md").read_text()
    assert "| system | losses | seeds | micro raw |" in readme
    assert "| `gru_ae` |  | 1 | 87.7% |" in readme
    assert "| `future_frame-flow` | intensity + flow | 3 | 80.0% ± 10.0% |" in readme
    assert "seeds 1, 2, 3" in readme
    assert json.loads((project / "benchmarks/results/pair.json").read_text())["rows"] == [RESULT, *rows]


def test_flow_errors_in_weights_readme(project, monkeypatch):
    rows = [
        {"set": "street", "estimator": "no motion", "epe": 0.5, "fps": None},
        {"set": "street", "estimator": "dis", "epe": 0.25, "fps": 120.4},
    ]
    (project / "benchmarks/results/flow-epe.json").write_text(json.dumps({"run": RUN, "rows": rows}))
    (project / "weights").mkdir()
    (project / "weights/README.md").write_text("Card.\n<!-- results -->\n<!-- /results -->\n")
    run(monkeypatch, "--tables")
    card = (project / "weights/README.md").read_text()
    assert "| pairs | no motion | dis |\n|---|---:|---:|\n| street | 0.500 | 0.250 (120/s) |" in card
    assert "`benchmarks/results/flow-epe.json`" in card
    assert "flow-epe" not in (project / "docs/results.md").read_text()


def test_rollouts_have_a_column_per_step(project, monkeypatch):
    shared = {"dataset": "moving_mnist", "seed": 1, "label_set": "none: generated, digits of MNIST", "sequences": 9}
    rows = [
        shared
        | {"model": f"latent_lstm-{loss}", "variant": f"vcae, {loss}", "what": what, "step_ahead": step}
        | {"psnr": level - step, "ssim": 0.5, "psnr_std": 1.0, "ssim_std": 0.1}
        for loss, own in (("mse", 20), ("kl", 19))
        for what, level in (("prediction", own), ("repeat last frame", 15), ("reconstruction", own + 2))
        for step in range(1, 5)
    ]
    made(project, rows, kind="rollouts")
    run(monkeypatch, "--rollouts")
    assert json.loads((project / "benchmarks/results/pair.json").read_text())["rows"] == rows
    readme = (project / "docs/results.md").read_text()
    assert re.search(r"\*\*moving_mnist\*\* \(profile `pair`\), .*9 test sequences.*digits of MNIST\n", readme)
    table = readme[readme.index("| step ahead |") :].split("\n\n")[0].splitlines()
    assert table[0] == "| step ahead | 1 | 2 | 3 |"
    assert table[2] == "| `latent_lstm-mse`: vcae, mse | 19.0 dB, 0.500 | 18.0 dB, 0.500 | 17.0 dB, 0.500 |"
    assert table[4] == "| repeat last frame | 14.0 dB, 0.500 | 13.0 dB, 0.500 | 12.0 dB, 0.500 |"  # once for both
    assert table[5].startswith("| reconstruction (`latent_lstm-mse`) | 21.0 dB")
    assert len(table) == 7
