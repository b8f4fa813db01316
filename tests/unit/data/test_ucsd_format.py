"""The UCSD format: tif frames, masks under two names, the `.m` list, hidden files of macOS."""

import shutil

import cv2
import numpy as np
import pytest

from tests.helpers.data import data_dir
from tests.helpers.sources import write_frames
from vadcore.data.formats import clips, prepare
from vadcore.data.formats.ucsd import ARCHIVE, UcsdConfig
from vadcore.utils.errors import VadError

ROOT = "UCSD_Anomaly_Dataset.v1p2"
LIST = "TestVideoFile = {};\nTestVideoFile{end+1}.gt_frame = [2:3, 6];\nTestVideoFile{end+1}.gt_frame = [1:6];\n"


def make(folder, subset="UCSDped2", listed=LIST):
    """One training clip, test clip 1 with masks, test clip 2 without."""
    base = folder / ROOT / subset
    write_frames(base / "Train/Train001", 5, ".tif", first=1)
    for name in ("Test001", "Test002"):
        write_frames(base / "Test" / name, 6, ".tif", first=1)
    truth = base / "Test/Test001_gt"
    truth.mkdir()
    for number in range(1, 7):
        mask = np.zeros((16, 24), np.uint8)
        mask[3:5, 3:5] = 255 * (number in (2, 3, 6))
        cv2.imwrite(str(truth / f"frame{number:03d}.bmp"), mask)
    (base / f"Test/{subset}.m").write_text(listed)
    for hidden in ("Train/.DS_Store", "Train/Train001/._001.tif", "Test/._Test001", "Test/Test001/.DS_Store"):
        (base / hidden).write_bytes(b"resource fork")
    return folder


def delivered(tmp_path, source=None, **fields):
    settings = UcsdConfig(format="ucsd", source=str(source or tmp_path / "source"), **fields)
    prepare(settings, tmp_path / "raw", lambda line: None)
    return clips(settings, tmp_path / "raw")


def test_clips_labels_and_masks(tmp_path):
    make(tmp_path / "source")
    train, first, second = delivered(tmp_path)
    assert [(clip.split, clip.name) for clip in (train, first, second)] == [
        ("train", "Train001"), ("test", "Test001"), ("test", "Test002"),
    ]  # fmt: skip
    assert len(list(train.frames())) == 5
    assert train.labels is None
    assert first.labels().tolist() == [0, 1, 1, 0, 0, 1]
    assert first.masks().any(axis=(1, 2)).tolist() == [0, 1, 1, 0, 0, 1]
    assert first.masks().max() == 1
    assert second.labels().tolist() == [1] * 6
    assert second.masks is None  # as in Ped1, where only some clips have masks


@pytest.mark.parametrize("start", [ROOT, f"{ROOT}/UCSDped2"])
def test_source_is_any_parent_folder(tmp_path, start):
    make(tmp_path / "source")
    assert len(delivered(tmp_path, tmp_path / "source" / start)) == 3


def test_archive_gives_the_chosen_subset(tmp_path):
    make(tmp_path / "source", "UCSDped1")
    make(tmp_path / "source", "UCSDped2")
    archive = shutil.make_archive(str(tmp_path / "UCSD_Anomaly_Dataset"), "gztar", tmp_path / "source")
    found = delivered(tmp_path, archive, subset="UCSDped1")
    assert len(found) == 3
    assert "UCSDped1" in str(found[0].source)
    assert not list((tmp_path / "raw").rglob("UCSDped2"))


def test_missing_label_list_is_named(tmp_path):
    make(tmp_path / "source")
    (tmp_path / f"source/{ROOT}/UCSDped2/Test/UCSDped2.m").unlink()
    with pytest.raises(VadError, match=r"UCSDped2\.m: missing"):
        delivered(tmp_path)


def test_label_list_must_match_clips(tmp_path):
    make(tmp_path / "source", listed="TestVideoFile{end+1}.gt_frame = [2:3];")
    with pytest.raises(VadError, match=r"UCSDped2\.m.*\b1 clips.*\b2 test clips.*Test002"):
        delivered(tmp_path)


def test_label_beyond_clip_is_refused(tmp_path):
    make(tmp_path / "source", listed=LIST.replace("[1:6]", "[1:7]"))
    with pytest.raises(VadError, match=r"UCSDped2\.m.*Test002 .*\b7\b.*\b6 frames"):
        delivered(tmp_path)[2].labels()


def test_missing_mask_is_named(tmp_path):
    make(tmp_path / "source")
    (tmp_path / f"source/{ROOT}/UCSDped2/Test/Test001_gt/frame004.bmp").unlink()
    with pytest.raises(VadError, match=r"Test001_gt.*\b5 masks.*\b6 frames"):
        delivered(tmp_path)[1].masks()


def test_real_masks_and_list_agree(tmp_path):
    labels = data_dir("label_formats", "ucsd", "UCSDped2", "Test")
    base = tmp_path / "raw/UCSDped2"
    write_frames(base / "Train/Train001", 2, ".tif", first=1)
    # Ped2's test clips have these numbers of frames
    for number, count in enumerate((180, 180, 150, 180, 150, 180, 180, 180, 120, 150, 180, 180), 1):
        write_frames(base / f"Test/Test{number:03d}", count, ".tif", first=1, size=(4, 4))
    for name in ("Test001_gt", "Test009_gt"):  # 001.bmp in the one, frame001.bmp in the other
        shutil.copytree(labels / name, base / "Test" / name)
    shutil.copy(labels / "UCSDped2.m", base / "Test")
    found = clips(UcsdConfig(format="ucsd", source="unused"), tmp_path / "raw")[1:]
    assert sum(int(clip.labels().sum()) for clip in found) == 1648
    for index in (0, 8):
        masks = found[index].masks()
        assert masks.shape[1:] == (240, 360)
        assert np.array_equal(masks.any(axis=(1, 2)), found[index].labels())


def test_published_archive_has_a_checksum():
    assert ARCHIVE.name == "UCSD_Anomaly_Dataset.tar.gz"
    assert len(bytes.fromhex(ARCHIVE.sha256)) == 32
