"""Every file of a source is in a clip, or listed with the reason why not; links count once; names of every kind."""

import os
import unicodedata

import pytest

from tests.helpers.encode import encode
from tests.helpers.sources import tree, write_frames, write_zip
from vadcore.data.delivery import left_out, left_out_lines
from vadcore.data.extract import extract_clip
from vadcore.data.formats import clips, prepare
from vadcore.data.formats.frames import FramesConfig
from vadcore.data.formats.videos import VideosConfig
from vadcore.data.store import ClipId, ClipStore
from vadcore.utils.errors import VadError


@pytest.fixture
def source(tmp_path):
    encode(tmp_path / "source/train/n.mp4", 3)
    encode(tmp_path / "source/test/2024-05-01/a.mp4", 3)
    return tmp_path / "source"


def delivered(source, raw=None, **settings):
    """The names of the test clips, and what was left out."""
    raw = raw or source.parent / "raw"
    config = VideosConfig(format="videos", source=str(source), **settings)
    prepare(config, raw, lambda line: None)
    found = clips(config, raw)
    names = [clip.name for clip in found if clip.split == "test"]
    return names, left_out(raw, [file for clip in found for file in clip.files])


def test_all_reasons_are_listed(source):
    for name in ("test/readme.txt", "test/old.xyz", "other/b.mp4", "test/.hidden.mp4", "c.mp4"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"x")
    (source / "test/gone.mp4").symlink_to("nowhere.mp4")
    (source / "test/self.mp4").symlink_to("self.mp4")
    os.mkfifo(source / "test/pipe.mp4")
    expected = {
        "ending .txt": ["test/readme.txt"],
        "ending .xyz": ["test/old.xyz"],
        "hidden": ["test/.hidden.mp4"],
        "in a folder that is not used": ["c.mp4", "other/b.mp4"],
        "a link to nothing": ["test/gone.mp4", "test/self.mp4"],
        "no regular file": ["test/pipe.mp4"],
    }
    for _ in range(2):  # also when nothing is copied
        assert delivered(source) == (["2024-05-01-a"], expected)
    assert left_out_lines(expected)[0] == "left out, a link to nothing (2): test/gone.mp4, test/self.mp4"
    (source / "test/late.txt").write_bytes(b"x")
    assert "test/late.txt" in delivered(source)[1]["ending .txt"]


def test_archive_reports_what_it_leaves_out(source):
    files = tree(source) | {"test/readme.txt": b"x", "__MACOSX/._a": b"x"}
    archive = write_zip(source.parent / "set.zip", files)
    assert delivered(archive, source.parent / "raw") == (
        ["2024-05-01-a"],
        {"ending .txt": ["test/readme.txt"], "hidden": ["__MACOSX/._a"]},
    )


def test_second_data_set_beside_the_first_is_listed(source):
    encode(source / "copy/test/a.mp4", 3)
    assert delivered(source)[1] == {"in a folder that is not used": ["copy/test/a.mp4"]}


def test_link_to_a_folder_beside_it_counts_once(source):
    (source / "test/latest").symlink_to("2024-05-01")
    (source / "test/0-first").symlink_to("2024-05-01")  # also if it comes first by name
    taken = "a link to a folder with nothing new in it"
    assert delivered(source) == (["2024-05-01-a"], {taken: ["test/0-first", "test/latest"]})


@pytest.mark.parametrize("target", ["..", "../..", "."])
def test_link_that_leads_back_is_not_followed(source, target):
    (source / "test/up").symlink_to(target)
    assert delivered(source) == (["2024-05-01-a"], {"a link to a folder that it is in": ["test/up"]})


def test_link_to_a_file_beside_it_counts_once(source):
    (source / "test/a.mp4").symlink_to("2024-05-01/a.mp4")
    assert delivered(source) == (["2024-05-01-a"], {"a link to a file that is taken already": ["test/a.mp4"]})


def test_hard_link_of_a_video_counts_once(source):
    (source / "test/b.mp4").hardlink_to(source / "test/2024-05-01/a.mp4")
    assert delivered(source) == (["b"], {"a link to a file that is taken already": ["test/2024-05-01/a.mp4"]})


def test_hard_links_of_pictures_are_frames_of_their_own(tmp_path):
    write_frames(tmp_path / "source/training/frames/01", 3)
    write_frames(tmp_path / "source/testing/frames/01", 3)
    folder = tmp_path / "source/testing/frames/01"
    first, second, _ = sorted(folder.iterdir())
    second.unlink()
    second.hardlink_to(first)  # as programs that save space leave equal pictures
    config = FramesConfig(format="frames", source=str(tmp_path / "source"), frames_per_second=10)
    prepare(config, tmp_path / "raw", lambda line: None)
    assert [len(clip.files) for clip in clips(config, tmp_path / "raw")] == [3, 3]


def test_links_to_folders_that_are_not_used_themselves(tmp_path):
    source = tmp_path / "source"
    encode(source / "footage/normal/n.mp4", 3)
    encode(source / "footage/odd/deep/a.mp4", 3)
    encode(source / "footage/old/b.mp4", 3)
    (source / "footage/odd/readme.txt").write_text("x")
    (source / "train").symlink_to("footage/normal")
    (source / "test").mkdir()
    (source / "test/odd").symlink_to("../links/odd")  # a link to a link
    (source / "links").mkdir()
    (source / "links/odd").symlink_to("../footage/odd")
    names, unused = delivered(source)
    assert names == ["odd-deep-a"]
    assert unused == {
        "a link to a folder with nothing new in it": ["links/odd"],
        "ending .txt": ["footage/odd/readme.txt"],
        "in a folder that is not used": ["footage/old/b.mp4"],
    }


@pytest.mark.parametrize("folder", ["pool/test", "pool/testing", "zoo/train"])
def test_link_into_a_folder_of_that_name_elsewhere(source, folder):
    encode(source / folder / "b.mp4", 3)
    (source / "train/p").symlink_to(f"../{folder}")
    assert delivered(source) == (["2024-05-01-a"], {})
    assert sorted(path.name for path in (source.parent / "raw/train").rglob("*.mp4")) == ["b.mp4", "n.mp4"]
    assert not (source.parent / "raw" / folder).exists()


def test_hard_link_of_a_video_in_a_folder_that_is_not_used(source):
    encode(source / "pool/test/b.mp4", 3)
    (source / "test/b.mp4").hardlink_to(source / "pool/test/b.mp4")
    taken = "a link to a file that is taken already"
    assert delivered(source) == (["2024-05-01-a", "b"], {taken: ["pool/test/b.mp4"]})


def test_folder_without_readable_videos_names_what_is_in_it(source):
    (source / "test/2024-05-01/a.mp4").rename(source / "test/x.rm")
    with pytest.raises(VadError, match=r"no videos in test .*\(left out, ending \.rm \(1\): test/x\.rm\)$"):
        delivered(source)


def test_links_below_links_are_followed(tmp_path):
    source = tmp_path / "source"
    encode(source / "store/normal/n.mp4", 3)
    encode(source / "test/a.mp4", 3)
    (source / "footage").mkdir()
    (source / "footage/normal").symlink_to("../store/normal")
    (source / "train").symlink_to("footage")
    (source / "store/normal/loop").symlink_to("../..")
    assert delivered(source)[0] == ["a"]


def test_links_to_other_places_are_followed(source):
    encode(source.parent / "elsewhere/deep/b.mp4", 3)
    (source / "test/far").symlink_to(source.parent / "elsewhere")
    (source / "test/c.mp4").symlink_to(source.parent / "elsewhere/deep/b.mp4")
    names, unused = delivered(source)
    assert names == ["2024-05-01-a", "c"]  # the same file is taken once: links of the upper folder come first
    assert unused == {"a link to a folder with nothing new in it": ["test/far"]}
    encode(source.parent / "elsewhere/new.mp4", 3)
    names, unused = delivered(source)
    assert names == ["2024-05-01-a", "c", "far-new"]
    assert unused == {"a link to a file that is taken already": ["test/far/deep/b.mp4"]}


def test_folders_that_link_to_each_other(source):
    for name in "abcdefgh":
        encode(source / f"test/{name}/{name}.mp4", 3)
        for other in "abcdefgh":
            (source / f"test/{name}/to-{other}").symlink_to(f"../{other}")
    assert len(delivered(source)[0]) == 9


def test_test_beside_testing_is_refused(source):
    encode(source / "testing/b.mp4", 3)
    with pytest.raises(VadError, match=r"two folders test and testing"):
        delivered(source)


def test_folders_in_upper_case(source):
    (source / "train").rename(source / "Train")
    (source / "test").rename(source / "TEST")
    assert delivered(source)[0] == ["2024-05-01-a"]


def test_endings_of_recorders(source):
    for name in ("b.h264", "c.264", "g.DAV"):
        encode(source / "test" / name, 3, container="h264")
    encode(source / "test/f.H265", 3, "libx265", container="hevc", **{"x265-params": "log-level=none"})
    for name, codec in (("e.asf", "wmv2"), ("h.vob", "mpeg2video"), ("i.m2ts", "mpeg2video"), ("j.flv", "flv")):
        encode(source / "test" / name, 3, codec)
    assert delivered(source) == (["2024-05-01-a", "b", "c", "e", "f", "g", "h", "i", "j"], {})


def test_name_that_is_not_utf8_is_listed(source):
    encode(source / "test/x.mp4", 3).rename(source / "test/\udcff.mp4")
    assert delivered(source) == (["2024-05-01-a"], {"name not in UTF-8, rename it": ["test/\ufffd.mp4"]})


@pytest.mark.parametrize(
    "name",
    [
        "12:30:05.mp4",
        "a'b \"c\" #%&.mp4",
        "x" * 251 + ".mp4",
        unicodedata.normalize("NFD", "Tür.mp4"),
        "/".join("d" * 120) + "/e.mp4",
    ],
    ids=["colon", "quotes", "long", "nfd", "deep"],
)  # fmt: skip
def test_unusual_names_are_read_to_the_end(source, tmp_path, name):
    encode(tmp_path / "x.mp4", 3)
    (source / "test" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "x.mp4").rename(source / "test" / name)
    config = VideosConfig(format="videos", source=str(source))
    prepare(config, tmp_path / "raw", lambda line: None)
    urls = tmp_path / "frames.zarr", tmp_path / "masks.zarr"
    for url, kind in zip(urls, ("frames", "masks"), strict=True):
        ClipStore(url, kind, write=True)
    (clip,) = [clip for clip in clips(config, tmp_path / "raw") if clip.split == "test" and "2024" not in clip.name]
    extract_clip(clip, config, *urls)
    assert ClipStore(urls[0], "frames").length(ClipId("test", clip.name)) == 3


def test_equal_clip_names_are_refused(tmp_path):
    for name in ("training/frames/01", "testing/frames/a b", "testing/frames/a_b"):
        write_frames(tmp_path / "source" / name, 3)
    config = FramesConfig(format="frames", source=str(tmp_path / "source"))
    prepare(config, tmp_path / "raw", lambda line: None)
    with pytest.raises(VadError, match=r"a_b: has the clip name a_b like .*a b; rename one"):
        clips(config, tmp_path / "raw")
