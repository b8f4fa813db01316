"""A folder of footage: names, rates, and labels from a CSV of intervals."""

import math
import re

import pytest

from tests.helpers.data import data_dir
from tests.helpers.sources import write_video
from vadcore.datasets import clips, prepare
from vadcore.datasets.config import Videos
from vadcore.errors import VadError


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
    settings = Videos(format="videos", source=str(tmp_path / "source"), **fields)
    prepare(settings, tmp_path / "raw", lambda line: None)
    return clips(settings, tmp_path / "raw")


def marked(clip) -> list[int]:
    return clip.labels().nonzero()[0].tolist()


def test_names_come_from_paths_and_are_safe(tmp_path):
    found = delivered(tmp_path)
    assert [(clip.split, clip.name) for clip in found] == [("train", "normal"), ("test", "a"), ("test", "cam_2-b")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", clip.name) for clip in found)
    assert [clip.fps for clip in found] == [10.0] * 3
    assert all(clip.labels is None for clip in found)


def test_videos_whose_names_would_be_the_same_get_different_ones_that_stay(tmp_path):
    make(tmp_path / "source", names=("a b.avi", "a_b.avi", "c.avi"))
    settings = Videos(format="videos", source=str(tmp_path / "source"))
    prepare(settings, tmp_path / "raw", lambda line: None)
    names = [clip.name for clip in clips(settings, tmp_path / "raw") if clip.split == "test"]
    assert len(set(names)) == 3
    assert "c" in names
    assert names == [clip.name for clip in clips(settings, tmp_path / "raw") if clip.split == "test"]
    assert all(re.fullmatch(r"a_b-[0-9a-f]{8}|c", name) for name in names)


def test_intervals_in_seconds_mark_every_frame_they_touch(tmp_path):
    # 10 frames a second: frame i is shown from i/10 to (i+1)/10; 0.35 s to 0.6 s touches frames 3, 4 and 5
    _, first, second = delivered(tmp_path, "clip,start,end\na,0.35,0.6\na,1.0,1.1\n")
    assert marked(first) == [3, 4, 5, 10]
    assert marked(second) == []  # not mentioned: normal


def test_times_may_be_written_as_a_clock(tmp_path):
    _, first, second = delivered(tmp_path, "clip,start,end\na,00:00:00.500,00:00:01\ncam_2-b,0:01,0:02\n")
    assert marked(first) == [5, 6, 7, 8, 9]
    assert marked(second) == list(range(10, 20))


def test_intervals_in_frames_count_from_zero_and_include_the_last(tmp_path):
    _, first, second = delivered(tmp_path, "clip,first_frame,last_frame\na,0,2\na,19,19\ncam 2/b.avi,4,5\n")
    assert marked(first) == [0, 1, 2, 19]
    assert marked(second) == [4, 5]


def test_a_table_with_a_header_only_means_all_normal(tmp_path):
    found = delivered(tmp_path, "clip,start,end\n")
    assert [marked(clip) for clip in found[1:]] == [[], []]


def test_a_byte_order_mark_and_empty_lines_do_no_harm(tmp_path):
    assert marked(delivered(tmp_path, "\ufeffclip,start,end\n\na,0,0.1\n\n")[1]) == [0]


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (
            "clip,from,to\na,1,2\n",
            "line 1: columns clip,from,to; expected clip,start,end or clip,first_frame,last_frame",
        ),
        ("", "line 1: columns none"),
        ("clip,start,end\na,1\n", "line 2: 2 values; expected clip,start,end"),
        ("clip,start,end\na,0,1\na,one,2\n", "line 3: 'one' is no time"),
        ("clip,start,end\na,2,1\n", "line 2: 2 to 1 is no interval"),
        ("clip,start,end\na,1,1\n", "line 2: 1 to 1 is no interval"),
        ("clip,first_frame,last_frame\na,-1,4\n", "line 2: '-1' is no frame number"),
        ("clip,first_frame,last_frame\na,1.5,4\n", "line 2: '1.5' is no frame number"),
        ("clip,start,end\nnowhere,0,1\n", "line 2: no test clip 'nowhere'; there are: a, cam_2-b"),
        ("clip,start,end\nnormal,0,1\n", "line 2: no test clip 'normal'"),
    ],
)
def test_a_fault_in_the_table_is_named_with_its_line(tmp_path, table, fault):
    with pytest.raises(VadError, match=re.escape(fault)) as caught:
        delivered(tmp_path, table)
    assert "labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("clip,first_frame,last_frame\na,5,20\n", "line 2: ends at frame 20 but clip a has 20 frames (2.00 s)"),
        ("clip,start,end\na,1,3.2\n", "line 2: ends at 3.2 s but clip a has 20 frames (2.00 s)"),
        ("clip,start,end\na,2.5,2.8\n", "line 2: ends at 2.8 s but clip a has 20 frames (2.00 s)"),
    ],
)
def test_labels_longer_than_the_clip_name_both_lengths(tmp_path, line, fault):
    with pytest.raises(VadError, match=re.escape(fault)):
        delivered(tmp_path, line)[1].labels()


def test_an_interval_may_end_up_to_a_second_after_the_clip(tmp_path):
    assert marked(delivered(tmp_path, "clip,start,end\na,1.8,00:00:03\n")[1]) == [18, 19]


def test_a_missing_table_is_named(tmp_path):
    make(tmp_path / "source")
    settings = Videos(format="videos", source=str(tmp_path / "source"), labels="truth.csv")
    prepare(settings, tmp_path / "raw", lambda line: None)
    with pytest.raises(VadError, match=r"truth\.csv: missing; correct dataset\.\*\.labels"):
        clips(settings, tmp_path / "raw")


def test_a_flat_folder_is_refused_with_the_expected_layout(tmp_path):
    write_video(tmp_path / "source/a.avi", 5)
    settings = Videos(format="videos", source=str(tmp_path / "source"))
    with pytest.raises(VadError, match=r"expected train/ \(normal footage only\) and test/ with video files"):
        prepare(settings, tmp_path / "raw")


def test_a_missing_split_is_named(tmp_path):
    write_video(tmp_path / "source/train/a.avi", 5)
    settings = Videos(format="videos", source=str(tmp_path / "source"))
    prepare(settings, tmp_path / "raw", lambda line: None)
    with pytest.raises(VadError, match=r"no folder test \(or testing\)"):
        clips(settings, tmp_path / "raw")


def test_one_unreadable_video_does_not_hide_the_others(tmp_path):
    make(tmp_path / "source")
    (tmp_path / "source/test/a.avi").write_bytes(b"no video" * 50)
    settings = Videos(format="videos", source=str(tmp_path / "source"))
    prepare(settings, tmp_path / "raw", lambda line: None)
    train, bad, good = clips(settings, tmp_path / "raw")
    assert math.isnan(bad.fps)
    assert len(list(train.frames())) == 10
    assert len(list(good.frames())) == 20
    with pytest.raises(VadError, match=r"a\.avi: not a readable video"):
        list(bad.frames())


def test_a_stated_rate_overrides_the_headers(tmp_path):
    found = delivered(tmp_path, "clip,start,end\na,0.2,0.4\n", frames_per_second=5)
    assert {clip.fps for clip in found} == {5.0}
    assert marked(found[1]) == [1]


def test_ped2_as_videos_has_its_clips_and_frames():
    source = data_dir("ped2_mp4")  # training/ and testing/, as the field calls them
    found = clips(Videos(format="videos", source=str(source)), source)
    assert [sum(clip.split == split for clip in found) for split in ("train", "test")] == [16, 12]
    assert {clip.fps for clip in found} == {10.0}
    assert [len(list(clip.frames())) for clip in found if clip.name == "09"] == [180, 120]
