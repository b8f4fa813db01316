"""Labels belong to clips by name or in natural order; tables as spreadsheets and pandas write them."""

import re
import unicodedata

import numpy as np
import pandas as pd
import pytest
import scipy.io

from tests.helpers.encode import encode
from tests.helpers.sources import cells, write_frames, write_video
from vadcore.data.formats import clips, prepare
from vadcore.data.formats.avenue import AvenueConfig, read_volume
from vadcore.data.formats.clip_files import natural_key, one_a_clip, read_mat
from vadcore.data.formats.frames import FramesConfig, _mask_keys
from vadcore.data.formats.ucsd import UcsdConfig
from vadcore.data.formats.videos import VideosConfig
from vadcore.utils.errors import VadError


def labelled(config, raw, lines=None) -> dict[str, list[int]]:
    """The abnormal frames of each test clip."""
    prepare(config, raw, (lines if lines is not None else []).append)
    return {clip.name: clip.labels().nonzero()[0].tolist() for clip in clips(config, raw) if clip.split == "test"}


EXPECTED = {number: list(range(number - 1, number + 2)) for number in range(1, 13)}  # entry k: frames k to k + 2


def test_frames_without_leading_zeros(tmp_path):
    source = tmp_path / "source"
    write_frames(source / "training/frames/1", 3)
    for number in range(1, 13):
        write_frames(source / f"testing/frames/{number}", 15)
    scipy.io.savemat(source / "gt.mat", {"gt": cells(*([[k], [k + 2]] for k in range(1, 13)))})
    lines = []
    config = FramesConfig(format="frames", source=str(source))
    assert labelled(config, tmp_path / "raw", lines) == {str(number): frames for number, frames in EXPECTED.items()}
    assert any("2: 2-4; 3: 3-5" in line and "10: 10-12" in line for line in lines)


def test_ucsd_without_leading_zeros(tmp_path):
    source = tmp_path / "UCSDped2"
    write_frames(source / "Train/Train1", 3, ".tif", 1)
    for number in range(1, 13):
        write_frames(source / f"Test/Test{number}", 15, ".tif", 1)
    (source / "Test/UCSDped2.m").write_text(
        "".join(f"TestVideoFile{{end+1}}.gt_frame = [{k}:{k + 2}];\n" for k in range(1, 13))
    )
    lines = []
    found = labelled(UcsdConfig(format="ucsd", source=str(source)), tmp_path / "raw", lines)
    assert found == {f"Test{number}": frames for number, frames in EXPECTED.items()}
    assert any("Test2: 2-4; Test3: 3-5" in line for line in lines)


def test_avenue_without_leading_zeros(tmp_path):
    source = tmp_path / "source"
    write_video(source / "training_videos/1.avi", 3)
    for number in range(1, 13):
        write_video(source / f"testing_videos/{number}.avi", 15)
    scipy.io.savemat(source / "avenue.mat", {"gt": cells(*([[k], [k + 2]] for k in range(1, 13)))})
    config = AvenueConfig(format="avenue", source=str(source), label_set="intervals")
    assert labelled(config, tmp_path / "raw") == {str(number): frames for number, frames in EXPECTED.items()}


@pytest.mark.parametrize(
    "names",
    [
        ["1", "2", "10"],
        ["01", "02", "10"],
        ["a", "b"],
        ["Test1", "Test2", "Test10"],
        ["01_0014", "01_0015", "02_0001"],
        ["2024-01-31", "2024-02-01"],
        ["01-02-2024", "02-02-2024"],
        ["Jan_1", "Jan_2", "Jan_10"],
        ["Jan_a", "Jan_b"],
        ["decor", "marina"],
        ["05_01_1500", "06_02_1600"],
    ],
)
def test_order_beyond_doubt(names):
    names = sorted(names, key=natural_key)
    assert one_a_clip([((1, 2),)] * len(names), names, "gt.mat") == [((1, 2),)] * len(names)


@pytest.mark.parametrize(
    "names",
    [
        ["cam1_2", "cam2_1", "cam10_1"],
        ["a2", "a10", "b1"],
        ["a1", "B2"],
        ["2 copy", "10"],
        ["01-02-2024", "31-01-2024"],
        ["01_31_2023", "02_01_2022"],
        ["cam-1.2.2024", "cam-31.1.2024"],
        ["Feb_1", "Jan_1"],
        ["1-february", "2-january"],
        ["April24", "March24"],
        ["sept", "sep"],
    ],
)
def test_doubtful_order_is_refused(names):
    with pytest.raises(VadError, match=r"gt\.mat: .*order of the test clips is in doubt"):
        one_a_clip([()] * len(names), sorted(names, key=natural_key), "gt.mat")


def videos(tmp_path, names=("a.mp4", "cam 2/B.MP4", "clip07.mp4"), **settings) -> VideosConfig:
    """Test videos of 50 frames at 25 frames a second."""
    encode(tmp_path / "source/train/n.mp4", 3)
    for name in names:
        encode(tmp_path / "source/test" / name, 50)
    return VideosConfig(format="videos", source=str(tmp_path / "source"), labels="labels.csv", **settings)


TABLES = {
    "pandas with an index": ",clip,first_frame,last_frame\n0,a,31.0,33.0\n1,cam 2/B.MP4,2.0,2.0\n",
    "semicolons and decimal commas": "clip;start;end\na;1,24;1,36\ncam 2/B.MP4;0,08;0,12\n",
    "tabs": "clip\tstart\tend\na\t1.24\t1.36\ncam_2-B\t0,08\t0,12\n",
    "semicolons and points": "clip;first_frame;last_frame;\na;31;33;\ncam 2/B;2;2;\n",
    "sep= of Excel": "sep=;\nclip;start;end\na;00:00:01,24;00:00:01,36\ncam 2/B.MP4;0,08;0,12\n",
    "quotes": '"clip","start","end"\n"a","1.24","1.36"\n"cam 2/B.MP4","0.08","0.12"\n',
    "other case and endings": "Clip,Start,End\nA.MP4,1.24,1.36\nCAM 2/b.mp4,0.08,0.12\n",
    "other order of columns": "start,end,clip\n1.24,1.36,a\n0.08,0.12,cam 2/B.MP4\n",
    "paths from the top, backslashes": "clip,start,end\ntest\\a.mp4,1.24,1.36\ntest/cam 2\\B.MP4,0.08,0.12\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_spreadsheets_and_pandas(tmp_path, kind, encoding):
    config = videos(tmp_path, ("a.mp4", "cam 2/B.MP4"))
    (tmp_path / "source/labels.csv").write_bytes(TABLES[kind].replace("\n", "\r\n").encode(encoding))
    assert labelled(config, tmp_path / "raw") == {"a": [31, 32, 33], "cam_2-B": [2]}


def test_table_written_by_pandas(tmp_path):
    config = videos(tmp_path)
    table = pd.DataFrame({"clip": ["a", "clip07"], "first_frame": [1, 4.0], "last_frame": [2, 5]})
    for index in (True, False):
        table.to_csv(tmp_path / "source/labels.csv", index=index)
        assert labelled(config, tmp_path / "raw") == {"a": [1, 2], "cam_2-B": [], "clip07": [4, 5]}


def test_names_in_nfd_and_cp1252(tmp_path):
    config = videos(tmp_path, (unicodedata.normalize("NFD", "Tür.mp4"), "Café.mp4"))
    (tmp_path / "source/labels.csv").write_bytes("clip,start,end\nTür,0,0.04\nCAFÉ.mp4,0.04,0.08\n".encode("cp1252"))
    assert labelled(config, tmp_path / "raw") == {"T_r": [0], "Caf_": [1]}


def test_leading_zeros_that_a_spreadsheet_dropped(tmp_path):
    config = videos(tmp_path, ("07.mp4", "08.mp4"))
    (tmp_path / "source/labels.csv").write_text("clip,first_frame,last_frame\n7,1,2\n")
    assert labelled(config, tmp_path / "raw") == {"07": [1, 2], "08": []}


@pytest.mark.parametrize(
    ("names", "row", "message"),
    [
        (("a.mp4", "a.mkv"), "a,1,2", r"line 2: 'a' is one of several: a\.mkv, a\.mp4"),
        (("a.mp4", "A.mkv"), "A.MP4,1,2", None),
        (("7.mp4", "07.mkv"), "007,1,2", r"line 2: '007' is one of several: 07\.mkv, 7\.mp4"),
        (("a.mp4", "b.mp4"), "c,1,2", r"line 2: no test clip 'c'; there are: a\.mp4, b\.mp4"),
        (("a.mp4",), "a,1,60", r"line 2: ends at frame 60 but clip a has 50 frames"),
        (("a.mp4",), "a,1.5,2", r"line 2: '1\.5' is no frame number"),
        (("a.mp4",), "a,,2", r"line 2: a value is missing"),
        (("a.mp4",), "a,1,2,3", r"line 2: 4 values"),
        (("a.mp4",), "a,nan,2", r"line 2: 'nan' is no frame number"),
    ],
)
def test_doubtful_rows_are_refused(tmp_path, names, row, message):
    config = videos(tmp_path, names)
    (tmp_path / "source/labels.csv").write_text(f"clip,first_frame,last_frame\n{row}\n")
    if message is None:
        assert sum(map(len, labelled(config, tmp_path / "raw").values())) == 2
        return
    with pytest.raises(VadError, match=message) as caught:
        labelled(config, tmp_path / "raw")
    assert "\n" not in str(caught.value)


def test_overlapping_intervals_are_reported(tmp_path):
    config = videos(tmp_path)
    (tmp_path / "source/labels.csv").write_text("clip,first_frame,last_frame\na,1,5\nclip07,1,2\na,5,7\n")
    lines = []
    assert labelled(config, tmp_path / "raw", lines)["a"] == list(range(1, 8))
    assert any(re.search(r"lines 2 and 4 overlap in clip a", line) for line in lines)


def test_masks_by_number_only_if_unique(tmp_path):
    np.savez(tmp_path / "masks.npz", Test001=np.zeros(1), Test002=np.zeros(1))
    assert _mask_keys(tmp_path / "masks.npz", ["01", "02"]) == ["Test001", "Test002"]
    with pytest.raises(VadError, match="masks for test clip cam1_01"):
        _mask_keys(tmp_path / "masks.npz", ["cam1_01", "cam2_01"])


def test_matlab_7_3_is_named(tmp_path):
    path = tmp_path / "1_label.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + bytes(512))
    for read in (read_mat, read_volume):
        with pytest.raises(VadError, match=r"MATLAB 7\.3 format; save it again with -v7"):
            read(path)
