"""Missing, unreadable and conflicting results."""

import re

import pytest

from tests.helpers.report_data import build, write_system
from vadcore.utils.errors import VadError


def test_error_for_missing_results(tmp_path):
    write_system(tmp_path, "street", "convlstm_ae")
    build(tmp_path, ["street"], ["convlstm_ae"])
    report = tmp_path / "reports" / "index.html"
    before = report.read_bytes()
    for kind, name, stage in (
        ("scores", "metrics.json", "score"),
        ("scores", "frames.parquet", "score"),
        ("scores", "events.csv", "score"),
        ("models", "metrics.json", "train"),
    ):
        lost = tmp_path / kind / "street" / "convlstm_ae" / name
        kept = lost.rename(tmp_path / "lost")
        with pytest.raises(VadError, match=rf"^{re.escape(str(lost))}: .*`dvc repro {stage}@street-convlstm_ae`"):
            build(tmp_path, ["street"], ["convlstm_ae"])
        assert report.read_bytes() == before  # the last report is kept
        kept.rename(lost)


def test_error_for_unreadable_results(tmp_path):
    write_system(tmp_path, "street", "frame_diff")
    for name, text in (("metrics.json", "{"), ("frames.parquet", "no parquet"), ("roc.csv", "")):
        file = tmp_path / "scores" / "street" / "frame_diff" / name
        good = file.read_bytes()
        file.write_text(text)
        with pytest.raises(VadError, match=re.escape(str(file))) as error:
            build(tmp_path, ["street"], ["frame_diff"])
        assert "\n" not in str(error.value)
        assert "dvc repro --force score@street-frame_diff" in str(error.value)
        file.write_bytes(good)


def test_error_for_unreadable_picture(tmp_path):
    write_system(tmp_path, "street", "frame_diff")
    picture = tmp_path / "scores" / "street" / "frame_diff" / "worst" / "0.png"
    picture.write_bytes(b"")
    with pytest.raises(VadError, match=re.escape(str(picture))):
        build(tmp_path, ["street"], ["frame_diff"])


def test_different_footage_is_refused(tmp_path):
    write_system(tmp_path, "street", "future_frame")
    write_system(tmp_path, "street", "frame_diff", frames=130)
    with pytest.raises(VadError, match=r"future_frame and frame_diff .*dvc repro --force"):
        build(tmp_path, ["street"], ["future_frame", "frame_diff"])


def test_empty_list_of_models_is_refused(results):
    with pytest.raises(VadError, match="models is empty"):
        build(results, models=[])
