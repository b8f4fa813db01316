"""The Avenue format and its two label sets."""

import shutil

import numpy as np
import pytest
import scipy.io

from tests.helpers.data import data_dir
from tests.helpers.sources import cells, write_video
from vadcore.data.formats import clips, prepare
from vadcore.data.formats.avenue import AvenueConfig, read_volume
from vadcore.utils.errors import VadError

MARKED = {1: [2, 3], 2: []}  # frames with masks, counted from 0


def make(folder, intervals=True):
    write_video(folder / "Avenue Dataset/training_videos/01.avi", 6, fps=25)
    (folder / "Avenue Dataset/testing_vol").mkdir(parents=True)
    (folder / "Avenue Dataset/testing_vol/vol01.mat").write_bytes(b"not needed")
    truth = folder / "ground_truth_demo/testing_label_mask"
    truth.mkdir(parents=True)
    for number, frames in MARKED.items():
        write_video(folder / f"Avenue Dataset/testing_videos/{number:02d}.avi", 8, fps=25)
        masks = [np.zeros((48, 64), np.uint8) for _ in range(8)]
        for frame in frames:
            masks[frame][5:9, 5:9] = 1
        scipy.io.savemat(truth / f"{number}_label.mat", {"volLabel": cells(*masks)})
    if intervals:
        # frames 3 to 5, counted from 1: one frame more than the masks, as in the published labels
        scipy.io.savemat(folder / "avenue.mat", {"gt": cells([[3], [5]], np.zeros((0, 0)))})
    return folder


def delivered(tmp_path, **fields):
    settings = AvenueConfig(format="avenue", source=str(tmp_path / "source"), **fields)
    prepare(settings, tmp_path / "raw", lambda line: None)
    return clips(settings, tmp_path / "raw")


def test_labels_from_masks(tmp_path):
    make(tmp_path / "source")
    train, first, second = delivered(tmp_path)
    assert (train.split, train.name, train.frames().fps, train.labels) == ("train", "01", 25.0, None)
    assert len(list(train.frames())) == 6
    assert first.labels().tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert second.labels().tolist() == [0] * 8
    assert first.masks().shape == (8, 48, 64)
    assert first.masks().sum() == 2 * 16
    assert not list((tmp_path / "raw").rglob("vol*.mat"))


def test_labels_from_intervals(tmp_path):
    make(tmp_path / "source")
    _, first, second = delivered(tmp_path, label_set="intervals")
    assert first.labels().tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert second.labels().tolist() == [0] * 8
    assert first.masks().any(axis=(1, 2)).sum() == 2
    for name in ("masks", "intervals"):
        assert AvenueConfig(format="avenue", source="x", label_set=name).truth == name


def test_missing_mask_file_is_named(tmp_path):
    make(tmp_path / "source")
    (tmp_path / "source/ground_truth_demo/testing_label_mask/2_label.mat").unlink()
    with pytest.raises(VadError, match=r"N_label\.mat.*02.*label_set: intervals"):
        delivered(tmp_path)
    assert delivered(tmp_path, label_set="intervals")[2].masks is None


def test_missing_intervals_are_named(tmp_path):
    make(tmp_path / "source", intervals=False)
    with pytest.raises(VadError, match=r"avenue\.mat.*label_set: masks"):
        delivered(tmp_path, label_set="intervals")
    with pytest.raises(VadError, match=r"avenue\.mat"):
        prepare(AvenueConfig(format="avenue", source="download", label_set="intervals"), tmp_path / "other")


def test_interval_beyond_clip_is_refused(tmp_path):
    make(tmp_path / "source")
    scipy.io.savemat(tmp_path / "source/avenue.mat", {"gt": cells([[3], [9]], np.zeros((0, 0)))})
    with pytest.raises(VadError, match=r"avenue\.mat: clip 01 .*\b9\b.*\b8 frames"):
        delivered(tmp_path, label_set="intervals")[1].labels()


def test_damaged_mask_file_is_named(tmp_path):
    make(tmp_path / "source")
    path = tmp_path / "source/ground_truth_demo/testing_label_mask/1_label.mat"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(VadError, match=r"1_label\.mat"):
        delivered(tmp_path)[1].labels()


@pytest.mark.parametrize(("number", "frames"), [(8, 36), (21, 76)])
def test_real_mask_files(number, frames, tmp_path):
    path = data_dir("label_formats", "avenue", "testing_label_mask", f"{number}_label.mat")
    masks = read_volume(path)
    assert len(masks) == frames  # the two shortest test clips
    assert {mask.shape for mask in masks} == {(360, 640)}


def test_real_label_sets_agree(tmp_path):
    labels = data_dir("label_formats", "avenue")
    write_video(tmp_path / "raw/training_videos/01.avi", 2)
    for number in range(1, 22):
        write_video(tmp_path / f"raw/testing_videos/{number:02d}.avi", 36 if number == 8 else 1)
    shutil.copy(labels / "avenue.mat", tmp_path / "raw")
    (tmp_path / "raw/testing_label_mask").mkdir()
    shutil.copy(labels / "testing_label_mask/8_label.mat", tmp_path / "raw/testing_label_mask")
    found = clips(AvenueConfig(format="avenue", source="x", label_set="intervals"), tmp_path / "raw")
    (clip,) = [clip for clip in found if clip.split == "test" and clip.name == "08"]
    from_masks = clip.masks().any(axis=(1, 2))
    assert len(clip.labels()) == len(from_masks) == 36
    assert clip.labels().any()
    assert (clip.labels() * from_masks).any()
