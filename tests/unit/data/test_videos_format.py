"""The videos format: clip names, frame rates, labels from a CSV of intervals."""

import re

import pytest

from tests.helpers.data import data_dir
from tests.helpers.sources import write_video
from vadcore.data.formats import clips, prepare
from vadcore.data.formats.videos import VideosConfig
from vadcore.utils.errors import VadError


def make(folder, table=None, names=("a.avi", "cam 2/b.avi")):
    """One training video and test videos of 20 frames at 10 frames a second: 2 s."""
    write_video(folder / "train/normal.avi", 10)
    for name in names:
        write_video(folder / "test" / name, 20)
    if table is not None:
        (folder / "labels.csv").write_text(table)
    return folder


def delivered(tmp_path, table=None, **fields):
    make(tmp_path / "source", table)
    if table is not None:
        fields["labels"] = "labels.csv"
    settings = VideosConfig(format="videos", source=str(tmp_path / "source"), **fields)
    prepare(settings, tmp_path / "raw", lambda line: None)
    return clips(settings, tmp_path / "raw")


def marked(clip) -> list[int]:
    return clip.labels().nonzero()[0].tolist()


def test_names_come_from_paths(tmp_path):
    found = delivered(tmp_path)
    assert [(clip.split, clip.name) for clip in found] == [("train", "normal"), ("test", "a"), ("test", "cam_2-b")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", clip.name) for clip in found)
    assert [clip.frames().fps for clip in found] == [10.0] * 3
    assert all(clip.labels is None for clip in found)


def test_colliding_names_get_stable_suffixes(tmp_path):
    make(tmp_path / "source", names=("a b.avi", "a_b.avi", "c.avi"))
    settings = VideosConfig(format="videos", source=str(tmp_path / "source"))
    prepare(settings, tmp_path / "raw", lambda line: None)
    names = [clip.name for clip in clips(settings, tmp_path / "raw") if clip.split == "test"]
    assert len(set(names)) == 3
    assert "c" in names
    assert names == [clip.name for clip in clips(settings, tmp_path / "raw") if clip.split == "test"]
    assert all(re.fullmatch(r"a_b-[0-9a-f]{8}|c", name) for name in names)


def test_intervals_in_seconds(tmp_path):
    # 10 frames a second: frame i is shown from i/10 to (i+1)/10; 0.35 s to 0.6 s touches frames 3, 4 and 5
    _, first, second = delivered(tmp_path, "clip,start,end\na,0.35,0.6\na,1.0,1.1\n")
    assert marked(first) == [3, 4, 5, 10]
    assert marked(second) == []  # not mentioned: normal


def test_intervals_as_clock_times(tmp_path):
    _, first, second = delivered(tmp_path, "clip,start,end\na,00:00:00.500,00:00:01\ncam_2-b,0:01,0:02\n")
    assert marked(first) == [5, 6, 7, 8, 9]
    assert marked(second) == list(range(10, 20))


def test_intervals_in_frames(tmp_path):
    _, first, second = delivered(tmp_path, "clip,first_frame,last_frame\na,0,2\na,19,19\ncam 2/b.avi,4,5\n")
    assert marked(first) == [0, 1, 2, 19]
    assert marked(second) == [4, 5]


def test_header_only_means_all_normal(tmp_path):
    found = delivered(tmp_path, "clip,start,end\n")
    assert [marked(clip) for clip in found[1:]] == [[], []]


def test_byte_order_mark_and_empty_lines(tmp_path):
    assert marked(delivered(tmp_path, "\ufeffclip,start,end\n\na,0,0.1\n\n")[1]) == [0]


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        (
            "clip,from,to\na,1,2\n",
            ("line 1:", "clip,from,to", "clip,start,end or clip,first_frame,last_frame"),
        ),
        ("", ("line 1:", "clip,start,end")),
        ("clip,start,end\na,0:75,0:80\n", ("line 2:", "'0:75'", "below 60")),
        ("clip;first_frame;last_frame\na;1.000;2.000\n", ("line 2:", "'1.000'", "frame number")),
        ("clip,start,end\na,1\n", ("line 2:", "clip,start,end")),
        ("clip,start,end\na,0,1\na,one,2\n", ("line 3:", "'one'")),
        ("clip,start,end\na,2,1\n", ("line 2:", "2 to 1")),
        ("clip,start,end\na,1,1\n", ("line 2:", "1 to 1")),
        ("clip,first_frame,last_frame\na,-1,4\n", ("line 2:", "'-1'")),
        ("clip,first_frame,last_frame\na,1.5,4\n", ("line 2:", "'1.5'")),
        ("clip,start,end\nnowhere,0,1\n", ("line 2:", "'nowhere'", "a.avi, cam 2/b")),
        ("clip,start,end\nnormal,0,1\n", ("line 2:", "'normal'")),
    ],
)
def test_error_names_line_of_table(tmp_path, table, parts):
    with pytest.raises(VadError, match=r"labels\.csv") as caught:
        delivered(tmp_path, table)
    assert [part for part in parts if part not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ("clip,first_frame,last_frame\na,5,20\n", ("line 2:", "frame 20", "clip a", "20 frames")),
        ("clip,start,end\na,1,3.2\n", ("line 2:", "3.2 s", "clip a", "2.00 s")),
        ("clip,start,end\na,2.5,2.8\n", ("line 2:", "2.8 s", "clip a", "2.00 s")),
    ],
)
def test_label_beyond_clip_is_refused(tmp_path, table, parts):
    with pytest.raises(VadError, match=r"labels\.csv") as caught:
        delivered(tmp_path, table)[1].labels()
    assert [part for part in parts if part not in str(caught.value)] == []


def test_interval_end_has_one_second_tolerance(tmp_path):
    assert marked(delivered(tmp_path, "clip,start,end\na,1.8,00:00:03\n")[1]) == [18, 19]


def test_missing_table_is_named(tmp_path):
    make(tmp_path / "source")
    settings = VideosConfig(format="videos", source=str(tmp_path / "source"), labels="truth.csv")
    with pytest.raises(VadError, match=r"truth\.csv.*dataset\.\*\.labels"):
        prepare(settings, tmp_path / "raw", lambda line: None)


def test_folder_as_table_is_named(tmp_path):
    make(tmp_path / "source")
    settings = VideosConfig(format="videos", source=str(tmp_path / "source"), labels="test")
    with pytest.raises(VadError, match=r"raw/test: a folder; name a CSV file in dataset\.\*\.labels"):
        prepare(settings, tmp_path / "raw", lambda line: None)


def test_flat_folder_is_refused(tmp_path):
    write_video(tmp_path / "source/a.avi", 5)
    settings = VideosConfig(format="videos", source=str(tmp_path / "source"))
    with pytest.raises(VadError, match=r"expected train/.* and test/"):
        prepare(settings, tmp_path / "raw")


def test_missing_split_is_named(tmp_path):
    write_video(tmp_path / "source/train/a.avi", 5)
    settings = VideosConfig(format="videos", source=str(tmp_path / "source"))
    prepare(settings, tmp_path / "raw", lambda line: None)
    with pytest.raises(VadError, match=r"\btest \(or testing\)"):
        clips(settings, tmp_path / "raw")


def test_unreadable_video_leaves_others_readable(tmp_path):
    make(tmp_path / "source")
    (tmp_path / "source/test/a.avi").write_bytes(b"no video" * 50)
    settings = VideosConfig(format="videos", source=str(tmp_path / "source"))
    prepare(settings, tmp_path / "raw", lambda line: None)
    train, bad, good = clips(settings, tmp_path / "raw")
    assert len(list(train.frames())) == 10
    assert len(list(good.frames())) == 20
    with pytest.raises(VadError, match=r"a\.avi"):
        list(bad.frames())


def test_frames_per_second_overrides_the_header(tmp_path):
    found = delivered(tmp_path, "clip,start,end\na,0.2,0.4\n", frames_per_second=5)
    assert {clip.frames().fps for clip in found} == {5.0}
    assert marked(found[1]) == [1]


def test_real_ped2_videos():
    source = data_dir("ped2_mp4")  # training/ and testing/ instead of train/ and test/
    found = clips(VideosConfig(format="videos", source=str(source)), source)
    assert [sum(clip.split == split for clip in found) for split in ("train", "test")] == [16, 12]
    assert {clip.frames().fps for clip in found} == {10.0}
    assert [len(list(clip.frames())) for clip in found if clip.name == "09"] == [180, 120]
