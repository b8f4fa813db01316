"""Unpacking archives: wanted files only, complete files only, nothing outside the folder."""

import io
import os
import re
import tarfile
import zipfile

import pytest

from tests.helpers.sources import tree, write_tar, write_zip
from vadcore.data import archives
from vadcore.data.archives import unpack
from vadcore.utils.errors import VadError

FILES = {"set/Train/001.tif": b"a" * 10, "set/Test/001.tif": b"b" * 20, "set/readme.txt": b"no footage"}
WRITERS = {"set.tar.gz": write_tar, "set.zip": write_zip}


def footage(path) -> bool:
    return path.suffix == ".tif"


@pytest.mark.parametrize("name", WRITERS)
def test_wanted_files_are_written(tmp_path, name):
    archive = WRITERS[name](tmp_path / name, FILES)
    done = unpack(archive, tmp_path / "raw", footage)
    assert {str(path) for path in done} == {"set/Train/001.tif", "set/Test/001.tif"}
    assert tree(tmp_path / "raw") == {name: data for name, data in FILES.items() if name.endswith(".tif")}


@pytest.mark.parametrize("name", WRITERS)
def test_existing_files_are_kept(tmp_path, name):
    archive = WRITERS[name](tmp_path / name, FILES)
    unpack(archive, tmp_path / "raw", footage)
    kept = tmp_path / "raw" / "set/Train/001.tif"
    inode = kept.stat().st_ino
    changed = tmp_path / "raw" / "set/Test/001.tif"
    changed.write_bytes(b"half")
    unpack(archive, tmp_path / "raw", footage)
    assert kept.stat().st_ino == inode
    assert changed.read_bytes() == b"b" * 20


@pytest.mark.parametrize("evil", ["../outside.tif", "/tmp/outside.tif", "a/../../outside.tif", "C:/x.tif", "..\\x.tif"])
@pytest.mark.parametrize("name", WRITERS)
def test_path_outside_the_folder_is_refused(tmp_path, name, evil):
    archive = WRITERS[name](tmp_path / name, {**FILES, evil: b"evil"})
    with pytest.raises(VadError, match=re.escape(evil)) as caught:
        unpack(archive, tmp_path / "inner" / "raw", footage)
    assert str(archive) in str(caught.value)
    assert not (tmp_path / "inner").exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "001.tif"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_are_refused(tmp_path, target, kind):
    archive = tmp_path / "set.tar"
    with tarfile.open(archive, "w") as opened:
        info = tarfile.TarInfo("set/link.tif")
        info.type, info.linkname = kind, target
        opened.addfile(info)
    with pytest.raises(VadError, match=r"set/link\.tif"):
        unpack(archive, tmp_path / "raw", footage)
    assert not (tmp_path / "raw").exists()


def test_links_in_a_zip_are_refused(tmp_path):
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        info = zipfile.ZipInfo("set/link.tif")
        info.external_attr = 0o120777 << 16
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(VadError, match=r"set/link\.tif"):
        unpack(archive, tmp_path / "raw", footage)


@pytest.mark.parametrize("name", WRITERS)
def test_non_archive_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(VadError, match="fetch it again") as caught:
        unpack(tmp_path / name, tmp_path / "raw", footage)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_truncated_archive_is_refused(tmp_path, name, share):
    archive = WRITERS[name](tmp_path / name, {f"{i}.tif": os.urandom(3000) for i in range(10)})
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    with pytest.raises(VadError, match="fetch it again"):
        unpack(archive, tmp_path / "raw", footage)
    assert not (tmp_path / "raw").exists()


def test_damaged_zip_leaves_complete_files_only(tmp_path):
    archive = write_zip(tmp_path / "set.zip", {"a.tif": b"a" * 100, "b.tif": b"b" * 100})
    data = archive.read_bytes()
    archive.write_bytes(data.replace(b"b" * 100, b"b" * 99 + b"x"))  # its checksum no longer fits
    with pytest.raises(VadError, match="fetch it again"):
        unpack(archive, tmp_path / "raw", footage)
    assert tree(tmp_path / "raw") == {"a.tif": b"a" * 100}
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["a.tif"]


def test_too_large_archive_is_refused(tmp_path, monkeypatch):
    archive = write_tar(tmp_path / "set.tar.gz", FILES)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 29})())
    with pytest.raises(VadError, match=re.escape(str(tmp_path))):
        unpack(archive, tmp_path / "raw", footage)
    assert not (tmp_path / "raw").exists()


def test_uncompressed_tar(tmp_path):
    archive = tmp_path / "set.tar"
    with tarfile.open(archive, "w") as opened:
        info = tarfile.TarInfo("a.tif")
        info.size = 3
        opened.addfile(info, io.BytesIO(b"abc"))
    unpack(archive, tmp_path / "raw", footage)
    assert tree(tmp_path / "raw") == {"a.tif": b"abc"}
