"""The ShanghaiTech format: training videos, test frames, `.npy` labels and masks."""

import numpy as np
import pytest

from tests.helpers.data import data_dir
from tests.helpers.sources import write_frames, write_video
from vadcore.data.formats import clips, prepare
from vadcore.data.formats.shanghaitech import ShanghaiTechConfig, read_labels
from vadcore.utils.errors import VadError


def make(folder):
    root = folder / "shanghaitech"
    write_video(root / "training/videos/01_001.avi", 6, fps=24)
    for name in ("01_0014", "02_0128"):
        write_frames(root / "testing/frames" / name, 7)
    for kind in ("test_frame_mask", "test_pixel_mask"):
        (root / "testing" / kind).mkdir()
    labels = np.array([0, 1, 1, 0, 0, 0, 1], np.uint8)
    for name in ("01_0014", "02_0128"):
        np.save(root / f"testing/test_frame_mask/{name}.npy", labels)
    masks = np.zeros((7, 16, 24), bool)
    masks[labels == 1, 2:4, 2:4] = True
    np.save(root / "testing/test_pixel_mask/01_0014.npy", masks)
    return root


def delivered(tmp_path):
    settings = ShanghaiTechConfig(format="shanghaitech", source=str(tmp_path / "source"))
    prepare(settings, tmp_path / "raw", lambda line: None)
    return clips(settings, tmp_path / "raw")


def test_clips_labels_and_masks(tmp_path):
    make(tmp_path / "source")
    train, first, second = delivered(tmp_path)
    assert (train.split, train.name, train.frames().fps) == ("train", "01_001", 24.0)
    assert len(list(train.frames())) == 6
    assert (first.split, first.name) == ("test", "01_0014")
    assert first.labels().tolist() == [0, 1, 1, 0, 0, 0, 1]
    assert np.array_equal(first.masks().any(axis=(1, 2)), first.labels())
    assert second.masks is None


def test_clip_without_labels_is_named(tmp_path):
    root = make(tmp_path / "source")
    (root / "testing/test_frame_mask/02_0128.npy").unlink()
    with pytest.raises(VadError, match=r"02_0128\.npy: missing"):
        delivered(tmp_path)


def test_labels_of_wrong_length_are_refused(tmp_path):
    root = make(tmp_path / "source")
    np.save(root / "testing/test_frame_mask/01_0014.npy", np.zeros(8, np.uint8))
    with pytest.raises(VadError, match=r"01_0014\.npy.*\[8\].*7 frames"):
        delivered(tmp_path)[1].labels()


def test_masks_of_wrong_length_are_refused(tmp_path):
    root = make(tmp_path / "source")
    np.save(root / "testing/test_pixel_mask/01_0014.npy", np.zeros((16, 24, 7), bool))
    with pytest.raises(VadError, match=r"01_0014\.npy.*\[16, 24, 7\].*\[7, H, W\]"):
        delivered(tmp_path)[1].masks()


def test_pickled_labels_are_not_loaded(tmp_path):
    root = make(tmp_path / "source")
    np.save(root / "testing/test_frame_mask/01_0014.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(VadError, match=r"01_0014\.npy"):
        delivered(tmp_path)[1].labels()


def test_real_label_files():
    folder = data_dir("label_formats", "shanghaitech", "test_frame_mask")
    files = sorted(folder.glob("*.npy"))
    assert len(files) == 19
    assert len(read_labels(folder / "01_0014.npy", 265)) == 265
    for path in files:
        labels = read_labels(path, len(np.load(path)))
        assert labels.dtype == np.uint8
        assert set(labels.tolist()) <= {0, 1}
        assert labels.any()
    with pytest.raises(VadError, match=r"01_0014\.npy.*\[265\].*264 frames"):
        read_labels(folder / "01_0014.npy", 264)
