"""Delivery of footage from a folder, an archive or a download: complete, resumable, in sync with its source."""

import os
import shutil

import pytest

from tests.helpers.sources import tree, write_tar, write_zip
from vadcore.data import delivery
from vadcore.data.delivery import Layout, check_delivered, deliver, find_folder
from vadcore.data.download import Published
from vadcore.data.formats.frames import FramesConfig
from vadcore.utils.errors import VadError

FILES = {"training/frames/01/000.jpg": b"a" * 9, "testing/frames/01/000.jpg": b"b" * 8, "labels.mat": b"c"}
LAYOUT = Layout(lambda path: path.suffix in (".jpg", ".mat"), "training/frames and testing/frames")


def config(source) -> FramesConfig:
    return FramesConfig(format="frames", source=str(source))


def silent(line: str) -> None:
    """Discard progress messages."""


@pytest.fixture
def source(tmp_path):
    for name, data in {**FILES, "notes.txt": b"x", "training/frames/01/._000.jpg": b"x"}.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)
    return tmp_path / "source"


def test_only_files_of_the_format_are_copied(source, tmp_path):
    deliver(config(source), tmp_path / "raw", LAYOUT, silent)
    assert tree(tmp_path / "raw") == FILES
    assert (tmp_path / "raw/labels.mat").stat().st_mtime == (source / "labels.mat").stat().st_mtime


def test_second_call_copies_nothing(source, tmp_path):
    deliver(config(source), tmp_path / "raw", LAYOUT, silent)
    before = {path: path.stat().st_ino for path in (tmp_path / "raw").rglob("*")}
    lines = []
    deliver(config(source), tmp_path / "raw", LAYOUT, lines.append)
    assert {path: path.stat().st_ino for path in (tmp_path / "raw").rglob("*")} == before
    assert lines == []


def test_copy_resumes_after_kill(source, tmp_path, monkeypatch):
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
    with pytest.raises(VadError, match="run the prepare stage"):
        check_delivered(raw)
    monkeypatch.setattr(delivery.shutil, "copyfile", copied)
    lines = []
    deliver(config(source), raw, LAYOUT, lines.append)
    assert "2 of 3" in lines[0]
    assert tree(raw) == FILES
    check_delivered(raw)


def test_changed_and_removed_files_are_mirrored(source, tmp_path):
    raw = tmp_path / "raw"
    deliver(config(source), raw, LAYOUT, silent)
    (source / "labels.mat").write_bytes(b"d")
    os.utime(source / "labels.mat", (1, 1))
    shutil.rmtree(source / "testing")
    deliver(config(source), raw, LAYOUT, silent)
    assert tree(raw) == {"training/frames/01/000.jpg": b"a" * 9, "labels.mat": b"d"}
    assert not (raw / "testing").exists()


@pytest.mark.parametrize(("name", "write"), [("set.tar.gz", write_tar), ("set.zip", write_zip)])
def test_archive_is_unpacked_once(tmp_path, monkeypatch, name, write):
    archive, raw = write(tmp_path / name, {**FILES, "__MACOSX/labels.mat": b"x"}), tmp_path / "raw"
    deliver(config(archive), raw, LAYOUT, silent)
    assert tree(raw) == FILES
    monkeypatch.setattr(delivery, "unpack", None)  # would fail if called
    deliver(config(archive), raw, LAYOUT, silent)


def test_lost_file_is_restored(tmp_path):
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


def test_download_keeps_no_archive(tmp_path, monkeypatch):
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


def test_folder_of_published_archives_replaces_download(tmp_path):
    published = tuple(Published(f"http://example.org/{name}", None, "") for name in ("a.zip", "b.zip"))
    (tmp_path / "source").mkdir()
    for one in published:
        write_zip(tmp_path / "source" / one.name, {f"{one.name[0]}/x.jpg": b"x"})
    deliver(config(tmp_path / "source"), tmp_path / "raw", Layout(LAYOUT.belongs, "", published), silent)
    assert sorted(tree(tmp_path / "raw")) == ["a/x.jpg", "b/x.jpg"]


def test_format_without_download_is_refused(tmp_path):
    with pytest.raises(VadError, match=r"source: download.*set source"):
        deliver(config("download"), tmp_path / "raw", LAYOUT, silent)


def test_missing_source_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("VAD_DATA_DIR", str(tmp_path))
    with pytest.raises(VadError, match=f"nowhere.*{tmp_path}/nowhere"):
        deliver(config("nowhere"), tmp_path / "raw", LAYOUT, silent)


def test_source_of_another_layout_is_refused(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "notes.txt").write_text("x")
    with pytest.raises(VadError, match=f"{tmp_path / 'source'}.*training/frames and testing/frames"):
        deliver(config(tmp_path / "source"), tmp_path / "raw", LAYOUT, silent)
    assert not (tmp_path / "raw").exists()
    with pytest.raises(VadError, match=r"set\.zip"):
        deliver(config(write_zip(tmp_path / "set.zip", {"a.txt": b"x"})), tmp_path / "raw", LAYOUT, silent)


def test_non_archive_is_refused(tmp_path):
    (tmp_path / "set.rar").write_bytes(b"x")
    with pytest.raises(VadError, match=r"set\.rar"):
        deliver(config(tmp_path / "set.rar"), tmp_path / "raw", LAYOUT, silent)


def test_source_overlapping_its_copy_is_refused(source):
    for raw in (source, source / "raw", source.parent):
        with pytest.raises(VadError, match="overlaps"):
            deliver(config(source), raw, LAYOUT, silent)


def test_missing_delivery_is_named(tmp_path):
    with pytest.raises(VadError, match=f"{tmp_path / 'raw'}.*run the prepare stage"):
        check_delivered(tmp_path / "raw")


def test_find_folder(tmp_path):
    (tmp_path / "set/inner/training/frames").mkdir(parents=True)
    assert find_folder(tmp_path, "training/frames", LAYOUT) == tmp_path / "set/inner/training/frames"
    (tmp_path / "set/other/training/frames").mkdir(parents=True)
    with pytest.raises(VadError, match="training/frames"):
        find_folder(tmp_path, "training/frames", LAYOUT)
    with pytest.raises(VadError, match=r"testing/frames.*expected"):
        find_folder(tmp_path, "testing/frames", LAYOUT)
