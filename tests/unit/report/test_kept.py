"""The report's table of results kept in benchmarks/results."""

import json
import re

import pytest
import yaml

from tasks import paths
from tests.helpers.project import ROOT
from tests.helpers.report_data import RUN, build, write_system
from vadcore.report.kept import read_kept
from vadcore.report.published import known_data_set
from vadcore.utils.errors import VadError

FIGURES = {"auc_micro": 0.76, "auc_micro_minmax": 0.9, "eer": 0.25, "rbdc": None, "train_seconds": 120.0}
ROW = {"dataset": "ped2", "model": "gru_ae", "seed": 1, "label_set": "intervals (.mat)", **FIGURES}
OTHER = RUN | {"command": "make profile NAME=more", "hardware": "Another CPU", "commit": "fedcba9876543210+changes"}


@pytest.fixture
def root(tmp_path):
    """Scores on ped2 and on street, and a folder for kept results."""
    (tmp_path / "kept").mkdir()
    for dataset in ("ped2", "street"):
        write_system(tmp_path, dataset, "frame_diff")
    return tmp_path


def keep(root, rows, name="ped2-cpu", **of):
    (root / f"kept/{name}.json").write_text(json.dumps({**(of or {"run": RUN}), "rows": rows}))


def section(root, dataset="ped2"):
    """The heading, table and notes; None where there are none."""
    page = build(root, [dataset], ["frame_diff"], kept=root / "kept")
    found = re.search(r'<h3 id="d1kept">.*?</ul>', page, re.DOTALL)
    return found and found[0]


def lines(text):
    """The table's text, a list a line."""
    rows = [re.findall(r"<t[hd].*?</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)]
    return [[" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in row] for row in rows]


def test_seeds_share_a_line(root):
    more = {"model": "gru_ae-2", "seed": 2, "auc_micro": 0.77, "train_seconds": 360.0}
    keep(root, [ROW, ROW | more, ROW | {"model": "conv_ae", "auc_micro": None}])
    shown = section(root)
    assert lines(shown) == [
        ["System", "seeds", "AUC micro, raw", "micro, per-clip min-max", "EER", "training"],
        ["gru_ae ped2-cpu", "2", "76.5% ± 0.7%", "90.0%", "25.0%", "4.0 min ± 2.8 min"],
        ["conv_ae ped2-cpu", "1", "–", "90.0% published 90.0%", "25.0%", "2.0 min"],
    ]
    assert '<td class="num" data-v="0.765">' in shown
    assert '<table class="sortable kept">' in shown
    assert "seeds 1, 2; labels: intervals (.mat);" in shown


def test_mean_and_deviation_share_a_unit(root):
    keep(root, [ROW | {"train_seconds": 400.0}, ROW | {"model": "gru_ae-2", "seed": 2, "train_seconds": 350.0}])
    assert lines(section(root))[1][-1] == "6.2 min ± 0.6 min"


def test_old_event_metrics_are_left_out(root):
    events = {"detection_rate": 0.75, "false_alarms_per_hour": 198.9, "score_fps": 12.4, "parameters": 1_068_225}
    keep(root, [ROW | events | {"normal_alarmed": 0.4}, ROW | events | {"model": "conv_ae"}])
    heads, *rows = lines(section(root))
    at = heads.index("events found")
    assert heads[at:] == [
        "events found",
        "false alarms / h",
        "normal time in alarm",
        "frames / s",
        "training",
        "parameters",
    ]
    assert rows[0][at:] == ["75.0%", "199", "40.0%", "12", "2.0 min", "1.1 M"]
    assert rows[1][at:] == ["–", "–", "–", "12", "2.0 min", "1.1 M"]


def test_origin_of_each_run(root):
    second = {"run": 1, **ROW, "model": "gru_ae-2", "seed": 2, "train_seconds": 9000.0}
    keep(root, [{"run": 0, **ROW}, second], runs=[RUN, OTHER])
    shown = section(root)
    first, other = re.findall(r"<li>(.*?)</li>", shown)
    for said in ("ped2-cpu", "(gru_ae)", "<code>dvc repro</code>", "Some CPU, 2 cores", "python 3.11.2", "seed 1"):
        assert said in first
    for said in ("intervals (.mat)", "commit 0123456789", "2026-01-02"):
        assert said in first
    for said in ("(gru_ae-2)", "<code>make profile NAME=more</code>", "Another CPU", "commit fedcba9876 with changes"):
        assert said in other
    assert lines(shown)[1][-1] == "2.0 min"  # times of different machines are not averaged


def test_other_data_sets_are_left_out(root):
    for name, dataset in (("demo", "street"), ("avenue", "avenue"), ("ablation", "ped2"), ("small", "ped2_small")):
        keep(root, [ROW | {"dataset": dataset}], name)
    keep(root, [{"dataset": "ped2", "model": "gru_ae", "seed": 1, "iteration": 100, "psnr": 23.5}], "quality")
    keep(root, [{"store": "zarr", "fps": 100.0}], "codec")
    assert [line[0] for line in lines(section(root))[1:]] == ["gru_ae ablation", "gru_ae small, ped2_small"]
    assert section(root, "street") is None


def test_no_section_without_kept_results(root):
    assert section(root) is None
    (root / "kept").rmdir()
    assert section(root) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "line 1"),
        ("[]", "run"),
        (json.dumps({"run": {}, "rows": []}), "command"),
        (json.dumps({"run": RUN}), "rows"),
        (json.dumps({"runs": [RUN], "rows": [ROW]}), "row"),
        (json.dumps({"run": RUN, "rows": [{"dataset": "ped2", "model": "x", "auc_micro": 0.5}]}), "seed of x on ped2"),
    ],
)
def test_error_for_broken_file(root, text, reason):
    path = root / "kept/ped2-cpu.json"
    path.write_text(text)
    with pytest.raises(VadError, match=rf"ped2-cpu\.json: .*{reason}.*git checkout -- "):
        section(root)
    assert section(root, "street") is None  # the report of street shows no kept results


def test_two_label_sets_are_refused(root):
    keep(root, [ROW, ROW | {"model": "conv_ae", "label_set": "masks"}])
    with pytest.raises(VadError, match=r"ped2-cpu\.json: .*ped2.*\(\.mat\).*masks"):
        section(root)


def test_lines_name_differing_label_sets(root):
    keep(root, [ROW])
    assert [row[0] for row in lines(section(root))] == ["System", "gru_ae ped2-cpu"]
    keep(root, [ROW | {"label_set": "masks"}], name="ped2-masks")
    assert [row[0] for row in lines(section(root))] == [
        "System",
        "gru_ae ped2-cpu; labels: intervals (.mat)",
        "gru_ae ped2-masks; labels: masks",
    ]


def test_report_depends_on_shown_results_only():
    """The report stage depends on kept results of published data sets; .dvcignore names the others."""
    assert str(paths.KEPT) in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]["deps"]
    ignored = [line[1:] for line in (ROOT / ".dvcignore").read_text().splitlines() if line.startswith(f"/{paths.KEPT}")]
    for file in (ROOT / paths.KEPT).glob("*.json"):
        rows = [row for _, of_run in read_kept(file) for row in of_run if "auc_micro" in row]
        if any(known_data_set(row["dataset"]) for row in rows):
            assert not any(file.relative_to(ROOT).match(pattern) for pattern in ignored), file
    assert any((paths.KEPT / "demo.json").match(pattern) for pattern in ignored)
