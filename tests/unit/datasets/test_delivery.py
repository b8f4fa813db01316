"""What `prepare` does with a source: a complete mirror of what belongs to the format, resumable, and clear refusals."""

import os
import shutil

import pytest

from tests.helpers.sources import tree, write_tar, write_zip
from vadcore.datasets import delivery
from vadcore.datasets.config import Frames
from vadcore.datasets.delivery import Layout, check_delivered, deliver, find_folder
from vadcore.datasets.download import Published
from vadcore.errors import VadError

FILES = {"training/frames/01/000.jpg": b"a" * 9, "testing/frames/01/000.jpg": b"b" * 8, "labels.mat": b"c"}
LAYOUT = Layout(lambda path: path.suffix in (".jpg", ".mat"), "training/frames and testing/frames")


def config(source) -> Frames:
    return Frames(format="frames", source=str(source))


def silent(line: str) -> None:
    """Swallow the progress."""


@pytest.fixture
def source(tmp_path):
    for name, data in {**FILES, "notes.txt": b"x", "training/frames/01/._000.jpg": b"x"}.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)
    return tmp_path / "source"


def test_a_folder_is_copied_as_far_as_it_belongs_to_the_format(source, tmp_path):
    deliver(config(source), tmp_path / "raw", LAYOUT, silent)
    assert tree(tmp_path / "raw") == FILES
    assert (tmp_path / "raw/labels.mat").stat().st_mtime == (source / "labels.mat").stat().st_mtime


def test_a_second_call_copies_nothing(source, tmp_path):
    deliver(config(source), tmp_path / "raw", LAYOUT, silent)
    before = {path: path.stat().st_ino for path in (tmp_path / "raw").rglob("*")}
    said = []
    deliver(config(source), tmp_path / "raw", LAYOUT, said.append)
    assert {path: path.stat().st_ino for path in (tmp_path / "raw").rglob("*")} == before
    assert said == []


def test_a_killed_copy_goes_on_and_is_refused_until_it_is_whole(source, tmp_path, monkeypatch):
    raw, copied = tmp_path / "raw", shutil.copyfile
    count = iter(range(10))

    def killed(a, b):
        if next(count) == 1:
            raise KeyboardInterrupt
        return copied(a, b)

    monkeypatch.setattr(delivery.shutil, "copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        deliver(config(source), raw, LAYOUT, silent)
    assert len(tree(raw)) == 1
    with pytest.raises(VadError, match="its delivery was cut short; run the prepare stage again"):
        check_delivered(raw)
    monkeypatch.setattr(delivery.shutil, "copyfile", copied)
    said = []
    deliver(config(source), raw, LAYOUT, said.append)
    assert "copying 2 of 3 files" in said[0]
    assert tree(raw) == FILES
    check_delivered(raw)


def test_a_file_that_changed_or_vanished_in_the_source_does_so_in_the_copy(source, tmp_path):
    raw = tmp_path / "raw"
    deliver(config(source), raw, LAYOUT, silent)
    (source / "labels.mat").write_bytes(b"d")
    os.utime(source / "labels.mat", (1, 1))
    shutil.rmtree(source / "testing")
    deliver(config(source), raw, LAYOUT, silent)
    assert tree(raw) == {"training/frames/01/000.jpg": b"a" * 9, "labels.mat": b"d"}
    assert not (raw / "testing").exists()


@pytest.mark.parametrize(("name", "write"), [("set.tar.gz", write_tar), ("set.zip", write_zip)])
def test_an_archive_is_unpacked_and_not_again_when_all_is_there(tmp_path, monkeypatch, name, write):
    archive, raw = write(tmp_path / name, {**FILES, "__MACOSX/labels.mat": b"x"}), tmp_path / "raw"
    deliver(config(archive), raw, LAYOUT, silent)
    assert tree(raw) == FILES
    monkeypatch.setattr(delivery, "unpack", None)  # would fail if called
    deliver(config(archive), raw, LAYOUT, silent)


def test_a_file_that_is_lost_after_unpacking_comes_back(tmp_path):
    archive, raw = write_zip(tmp_path / "set.zip", FILES), tmp_path / "raw"
    deliver(config(archive), raw, LAYOUT, silent)
    (raw / "labels.mat").unlink()
    deliver(config(archive), raw, LAYOUT, silent)
    assert tree(raw) == FILES


def test_another_source_replaces_the_footage(source, tmp_path):
    raw = tmp_path / "raw"
    deliver(config(source), raw, LAYOUT, silent)
    other = write_zip(tmp_path / "other.zip", {"training/frames/09/000.jpg": b"other"})
    deliver(config(other), raw, LAYOUT, silent)
    assert tree(raw) == {"training/frames/09/000.jpg": b"other"}


def test_download_fetches_unpacks_and_keeps_no_archive(tmp_path, monkeypatch):
    asked = []

    def fetch(published, folder, say):
        asked.append(published.name)
        folder.mkdir(parents=True, exist_ok=True)
        return write_zip(folder / published.name, {f"{published.name}/training/frames/01/0.jpg": b"x"})

    monkeypatch.setattr(delivery, "fetch", fetch)
    published = tuple(
        Published(f"http://example.org/{name}", "00", "http://example.org") for name in ("a.zip", "b.zip")
    )
    layout, raw = Layout(LAYOUT.belongs, "", published), tmp_path / "raw"
    deliver(config("download"), raw, layout, silent)
    deliver(config("download"), raw, layout, silent)
    assert asked == ["a.zip", "b.zip"]
    assert sorted(tree(raw)) == ["a.zip/training/frames/01/0.jpg", "b.zip/training/frames/01/0.jpg"]
    assert sorted(path.name for path in raw.iterdir()) == [".delivery.json", "a.zip", "b.zip"]


def test_a_folder_with_the_published_archives_is_as_good_as_a_download(tmp_path):
    published = tuple(Published(f"http://example.org/{name}", None, "") for name in ("a.zip", "b.zip"))
    (tmp_path / "source").mkdir()
    for one in published:
        write_zip(tmp_path / "source" / one.name, {f"{one.name[0]}/x.jpg": b"x"})
    deliver(config(tmp_path / "source"), tmp_path / "raw", Layout(LAYOUT.belongs, "", published), silent)
    assert sorted(tree(tmp_path / "raw")) == ["a/x.jpg", "b/x.jpg"]


def test_what_nobody_publishes_cannot_be_downloaded(tmp_path):
    with pytest.raises(VadError, match=r"source: download: nobody publishes .* set source to a folder or an archive"):
        deliver(config("download"), tmp_path / "raw", LAYOUT, silent)


def test_a_missing_source_is_named_with_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("VAD_DATA_DIR", str(tmp_path))
    with pytest.raises(VadError, match=f"source nowhere: not found at {tmp_path}/nowhere or nowhere"):
        deliver(config("nowhere"), tmp_path / "raw", LAYOUT, silent)


def test_a_source_of_another_layout_is_refused_with_the_expected_one(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "notes.txt").write_text("x")
    with pytest.raises(VadError, match="holds no footage of this format; expected training/frames and testing/frames"):
        deliver(config(tmp_path / "source"), tmp_path / "raw", LAYOUT, silent)
    assert not (tmp_path / "raw").exists()
    with pytest.raises(VadError, match=r"set\.zip: holds no footage of this format"):
        deliver(config(write_zip(tmp_path / "set.zip", {"a.txt": b"x"})), tmp_path / "raw", LAYOUT, silent)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "set.rar").write_bytes(b"x")
    with pytest.raises(VadError, match=r"set\.rar: neither a folder nor an archive"):
        deliver(config(tmp_path / "set.rar"), tmp_path / "raw", LAYOUT, silent)


def test_a_source_that_overlaps_its_copy_is_refused(source):
    for raw in (source, source / "raw", source.parent):
        with pytest.raises(VadError, match="overlaps"):
            deliver(config(source), raw, LAYOUT, silent)


def test_footage_that_was_never_delivered_is_named(tmp_path):
    with pytest.raises(VadError, match="no footage here; run the prepare stage first"):
        check_delivered(tmp_path / "raw")


def test_the_nearest_folder_of_a_name_is_found_and_two_are_refused(tmp_path):
    (tmp_path / "set/inner/training/frames").mkdir(parents=True)
    assert find_folder(tmp_path, "training/frames", LAYOUT) == tmp_path / "set/inner/training/frames"
    (tmp_path / "set/other/training/frames").mkdir(parents=True)
    with pytest.raises(VadError, match="two folders training/frames"):
        find_folder(tmp_path, "training/frames", LAYOUT)
    with pytest.raises(VadError, match="no folder testing/frames; expected"):
        find_folder(tmp_path, "testing/frames", LAYOUT)
