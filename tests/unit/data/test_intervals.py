"""Label files of intervals: the published `.mat` and `.m` forms, and their errors."""

import numpy as np
import pytest
import scipy.io

from tests.helpers.data import data_dir
from tests.helpers.sources import cells
from vadcore.data.formats.clip_files import labels_of, one_a_clip, read_m_list, read_mat
from vadcore.utils.errors import VadError


def mat(path, *entries, name="gt"):
    scipy.io.savemat(path, {name: cells(*entries)})
    return path


def test_intervals_are_one_based_and_inclusive(tmp_path):
    labels = labels_of([(2, 3), (6, 6)], 7, tmp_path / "x.mat", "01")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [0, 1, 1, 0, 0, 1, 0]


def test_label_beyond_clip_is_refused(tmp_path):
    with pytest.raises(VadError, match=r"x\.mat: clip 01 .*\b181\b.*\b180 frames"):
        labels_of([(61, 181)], 180, tmp_path / "x.mat", "01")


def test_row_and_column_layouts_of_mat(tmp_path):
    by_rows = mat(tmp_path / "a.mat", [[78, 392], [120, 422]], [[5, 50, 90], [9, 60, 99]], [[61], [180]])
    by_columns = mat(tmp_path / "b.mat", [[78, 120], [392, 422]], [[5, 9], [50, 60], [90, 99]], [[61, 180]])
    expected = [((78, 120), (392, 422)), ((5, 9), (50, 60), (90, 99)), ((61, 180),)]
    assert read_mat(by_rows) == read_mat(by_columns) == expected


def test_cell_arrays_and_empty_entries(tmp_path):
    path = mat(tmp_path / "a.mat", cells(np.array([[50], [60]]), np.array([[5], [9]])), np.zeros((0, 0)))
    assert read_mat(path) == [((5, 9), (50, 60)), ()]


@pytest.mark.parametrize(
    ("entry", "fault"),
    [([[0], [10]], "interval 0 to 10"), ([[20], [10]], "interval 20 to 10"), ([[1, 2, 3]] * 3, "shape \\(3, 3\\)")],
)
def test_impossible_entry_is_named(tmp_path, entry, fault):
    with pytest.raises(VadError, match=rf"a\.mat: entry 2: .*{fault}"):
        read_mat(mat(tmp_path / "a.mat", [[1], [2]], entry))


def test_unreadable_mat_is_named(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"not a matrix" * 50)
    with pytest.raises(VadError, match=r"a\.mat"):
        read_mat(tmp_path / "a.mat")
    with pytest.raises(VadError, match=r"b\.mat"):
        read_mat(tmp_path / "b.mat")


def test_m_list_with_ranges_and_comments(tmp_path):
    path = tmp_path / "UCSDped1.m"
    path.write_text(
        "% made by hand; TestVideoFile{end+1}.gt_frame = [1:2];\nTestVideoFile = {};\n"
        "TestVideoFile{end+1}.gt_frame = [60:152];\nTestVideoFile{end+1}.gt_frame = [5:90, 140:200];  % twice\n"
        "TestVideoFile{end+1}.gt_frame = [];\nTestVideoFile{end+1}.gt_frame=[7];\n"
    )
    assert read_m_list(path) == [((60, 152),), ((5, 90), (140, 200)), (), ((7, 7),)]


def test_unreadable_m_list_range_is_named(tmp_path):
    path = tmp_path / "x.m"
    path.write_text("TestVideoFile{end+1}.gt_frame = [5:90, a:b];")
    with pytest.raises(VadError, match=r"x\.m: entry 1.*a:b"):
        read_m_list(path)
    path.write_text("x = 1;")
    with pytest.raises(VadError, match=r"x\.m.*gt_frame"):
        read_m_list(path)


def test_number_of_entries_must_match_clips(tmp_path):
    with pytest.raises(VadError, match=r"x\.mat.*\b1 clips.*\b3 test clips.*02, 03"):
        one_a_clip([()], ["01", "02", "03"], tmp_path / "x.mat")
    with pytest.raises(VadError, match=r"x\.mat.*\b2 clips.*\b1 test clips"):
        one_a_clip([(), ()], ["01"], tmp_path / "x.mat")


def test_ped2_list_and_mat_agree():
    listed = read_m_list(data_dir("label_formats", "ucsd", "UCSDped2", "Test", "UCSDped2.m"))
    assert listed == read_mat(data_dir("ped2", "ped2.mat"))
    assert sum(last - first + 1 for entry in listed for first, last in entry) == 1648


def test_ped1_mat_clips():
    entries = read_mat(data_dir("label_formats", "ped1.mat"))
    assert len(entries) == 36
    assert entries[0] == ((60, 152),)
    assert entries[4] == ((5, 90), (140, 200))  # the official list's fifth line: [5:90, 140:200]
    assert max(last for entry in entries for _, last in entry) == 200


def test_avenue_mat_intervals():
    entries = read_mat(data_dir("label_formats", "avenue", "avenue.mat"))
    assert len(entries) == 21
    assert entries[0] == ((78, 120), (392, 422), (503, 666), (868, 910), (932, 1101))
    assert sum(last - first + 1 for entry in entries for first, last in entry) == 3867
