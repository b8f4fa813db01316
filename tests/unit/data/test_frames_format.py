"""The frames format: folders of numbered images, `.mat` intervals, `.npz` masks."""

import pickle

import numpy as np
import pytest
import scipy.io

from tests.helpers.data import data_dir
from tests.helpers.sources import cells, picture, write_frames
from vadcore.data.formats import clips, prepare
from vadcore.data.formats.frames import FramesConfig
from vadcore.utils.errors import VadError


def make(folder, tests=2, frames=12, labels=([[3], [5]], [[1, 9], [2, 12]]), masks=True):
    """Two training clips and ``tests`` test clips of ``frames`` frames."""
    for number in (1, 2):
        write_frames(folder / "training/frames" / f"{number:02d}", 8)
    for number in range(1, tests + 1):
        write_frames(folder / "testing/frames" / f"{number:02d}", frames)
    if labels is not None:
        scipy.io.savemat(folder / "set.mat", {"gt": cells(*labels)})
    if masks:
        shown = np.zeros((frames, 16, 24), bool)
        shown[2:5, 4:6, 7:9] = True
        np.savez(folder / "pixel_masks.npz", **{f"Test{number:03d}": shown for number in range(1, tests + 1)})
    return folder


def config(folder, **fields) -> FramesConfig:
    return FramesConfig(format="frames", source=str(folder), **fields)


def delivered(tmp_path, lines=None, source=None, **fields):
    settings = config(source or tmp_path / "source", **fields)
    prepare(settings, tmp_path / "raw", (lines if lines is not None else []).append)
    return clips(settings, tmp_path / "raw")


def test_clips_labels_and_masks(tmp_path):
    make(tmp_path / "source")
    found = delivered(tmp_path, frames_per_second=25)
    assert [(clip.split, clip.name) for clip in found] == [
        ("train", "01"), ("train", "02"), ("test", "01"), ("test", "02"),
    ]  # fmt: skip
    assert {clip.fps for clip in found} == {25.0}
    assert all(clip.labels is None and clip.masks is None for clip in found[:2])
    assert [len(list(clip.frames())) for clip in found] == [8, 8, 12, 12]
    # 1-based inclusive: frames 3 to 5 are positions 2, 3, 4
    assert found[2].labels().tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found[3].labels().tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    masks = found[2].masks()
    assert masks.dtype == np.uint8
    assert masks.shape == (12, 16, 24)
    assert np.flatnonzero(masks.any(axis=(1, 2))).tolist() == [2, 3, 4]
    assert [path.name for path in found[0].files] == [f"{i:03d}.jpg" for i in range(8)]


def test_clip_can_be_pickled(tmp_path):
    make(tmp_path / "source")
    clip = pickle.loads(pickle.dumps(delivered(tmp_path)[2]))
    assert np.abs(next(iter(clip.frames())).astype(int) - picture(0)).max() <= 3  # JPEG
    assert clip.labels().sum() == 3


def test_missing_labels_are_reported(tmp_path):
    make(tmp_path / "source", labels=None, masks=False)
    lines = []
    found = delivered(tmp_path, lines)
    assert all(clip.labels is None and clip.masks is None for clip in found)
    assert any("unlabelled" in line for line in lines)


def test_too_few_labels_are_refused(tmp_path):
    make(tmp_path / "source", labels=([[3], [5]],), masks=False)
    with pytest.raises(VadError, match=r"set\.mat.*\b1 clips.*\b2 test clips.*\b02\b"):
        delivered(tmp_path)


def test_label_beyond_clip_is_refused(tmp_path):
    make(tmp_path / "source", labels=([[3], [5]], [[9], [13]]))
    found = delivered(tmp_path)
    assert found[2].labels().sum() == 3
    with pytest.raises(VadError, match=r"set\.mat: clip 02 .*\b13\b.*\b12 frames"):
        found[3].labels()


def test_masks_of_wrong_length_are_refused(tmp_path):
    make(tmp_path / "source")
    np.savez(tmp_path / "source/pixel_masks.npz", **{"01": np.zeros((11, 16, 24)), "02": np.zeros((12, 16, 24))})
    found = delivered(tmp_path)
    with pytest.raises(VadError, match=r"pixel_masks\.npz/01.*\[11, 16, 24\].*12 frames"):
        found[2].masks()
    assert found[3].masks().shape == (12, 16, 24)


def test_clip_without_masks_is_named(tmp_path):
    make(tmp_path / "source", masks=False)
    np.savez(tmp_path / "source/pixel_masks.npz", Test001=np.zeros((12, 16, 24)))
    with pytest.raises(VadError, match=r"pixel_masks\.npz.*clip 02.*Test001"):
        delivered(tmp_path)


def test_unreadable_mask_archive_is_named(tmp_path):
    make(tmp_path / "source")
    (tmp_path / "source/pixel_masks.npz").write_bytes(b"PK no")
    with pytest.raises(VadError, match=r"pixel_masks\.npz"):
        delivered(tmp_path)


def test_several_mat_files_need_a_setting(tmp_path):
    make(tmp_path / "source")
    scipy.io.savemat(tmp_path / "source/other.mat", {"gt": cells([[1], [1]], [[1], [1]])})
    with pytest.raises(VadError, match=r"other\.mat, set\.mat.*dataset\.\*\.labels"):
        delivered(tmp_path)
    assert delivered(tmp_path, labels="other.mat")[2].labels().sum() == 1
    with pytest.raises(VadError, match=r"no\.mat.*dataset\.\*\.labels"):
        delivered(tmp_path, labels="no.mat")


def test_missing_split_is_named(tmp_path):
    write_frames(tmp_path / "source/training/frames/01", 3)
    with pytest.raises(VadError, match=r"testing/frames.*expected training/frames"):
        delivered(tmp_path)


def test_ped2_has_published_numbers(tmp_path):
    source = data_dir("ped2")
    found = clips(config(source), source)  # read in place
    train, test = found[:16], found[16:]
    assert {clip.split for clip in train} == {"train"}
    assert (len(test), {clip.split for clip in test}) == (12, {"test"})
    assert sum(len(clip.files) for clip in train) == 2550
    assert sum(len(clip.files) for clip in test) == 2010
    assert sum(int(clip.labels().sum()) for clip in test) == 1648
    first = list(test[2].frames())
    assert len(first) == 150
    assert {shown.shape for shown in first} == {(240, 360)}


def test_ped2_masks_and_intervals_agree():
    source = data_dir("ped2")
    for clip in clips(config(source), source)[16:]:
        assert np.array_equal(clip.masks().any(axis=(1, 2)), clip.labels())
