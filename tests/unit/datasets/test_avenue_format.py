"""Avenue: two label sets that differ, each under its name."""

import shutil

import numpy as np
import pytest
import scipy.io

from tests.helpers.data import data_dir
from tests.helpers.sources import cells, write_video
from vadcore.datasets import clips, prepare
from vadcore.datasets.avenue import read_volume
from vadcore.datasets.config import Avenue
from vadcore.errors import VadError

MARKED = {1: [2, 3], 2: []}  # the frames, from 0, that the masks mark


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
        # one frame longer than the masks, as the real ones partly are: frames 3 to 5, counted from 1
        scipy.io.savemat(folder / "avenue.mat", {"gt": cells([[3], [5]], np.zeros((0, 0)))})
    return folder


def delivered(tmp_path, **fields):
    settings = Avenue(format="avenue", source=str(tmp_path / "source"), **fields)
    prepare(settings, tmp_path / "raw", lambda line: None)
    return clips(settings, tmp_path / "raw")


def test_clips_with_labels_from_masks(tmp_path):
    make(tmp_path / "source")
    train, first, second = delivered(tmp_path)
    assert (train.split, train.name, train.fps, train.labels) == ("train", "01", 25.0, None)
    assert len(list(train.frames())) == 6
    assert first.labels().tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert second.labels().tolist() == [0] * 8
    assert first.masks().shape == (8, 48, 64)
    assert first.masks().sum() == 2 * 16
    assert not list((tmp_path / "raw").rglob("vol*.mat"))


def test_labels_from_intervals_differ_and_say_so(tmp_path):
    make(tmp_path / "source")
    _, first, second = delivered(tmp_path, label_set="intervals")
    assert first.labels().tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert second.labels().tolist() == [0] * 8
    assert first.masks().any(axis=(1, 2)).sum() == 2
    for name in ("masks", "intervals"):
        assert Avenue(format="avenue", source="x", label_set=name).truth == name


def test_a_test_clip_without_its_mask_file_is_named(tmp_path):
    make(tmp_path / "source")
    (tmp_path / "source/ground_truth_demo/testing_label_mask/2_label.mat").unlink()
    with pytest.raises(VadError, match=r"no testing_label_mask/N_label\.mat for test clips 02; .*label_set: intervals"):
        delivered(tmp_path)
    assert delivered(tmp_path, label_set="intervals")[2].masks is None


def test_missing_intervals_are_named(tmp_path):
    make(tmp_path / "source", intervals=False)
    with pytest.raises(VadError, match=r"avenue\.mat: missing; .*label_set: masks"):
        delivered(tmp_path, label_set="intervals")
    with pytest.raises(VadError, match=r"avenue\.mat is not among the published archives"):
        prepare(Avenue(format="avenue", source="download", label_set="intervals"), tmp_path / "other")


def test_an_interval_longer_than_its_video_names_both_lengths(tmp_path):
    make(tmp_path / "source")
    scipy.io.savemat(tmp_path / "source/avenue.mat", {"gt": cells([[3], [9]], np.zeros((0, 0)))})
    with pytest.raises(VadError, match=r"avenue\.mat: clip 01 is labelled up to frame 9 but has 8 frames"):
        delivered(tmp_path, label_set="intervals")[1].labels()


def test_a_damaged_mask_file_is_named(tmp_path):
    make(tmp_path / "source")
    path = tmp_path / "source/ground_truth_demo/testing_label_mask/1_label.mat"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(VadError, match=r"1_label\.mat: not a readable \.mat file"):
        delivered(tmp_path)[1].labels()


@pytest.mark.parametrize(("number", "frames"), [(8, 36), (21, 76)])
def test_the_real_mask_files_are_read(number, frames, tmp_path):
    path = data_dir("label_formats", "avenue", "testing_label_mask", f"{number}_label.mat")
    masks = read_volume(path)
    assert len(masks) == frames  # the two shortest test clips
    assert {mask.shape for mask in masks} == {(360, 640)}


def test_the_two_real_label_sets_of_clip_8_meet_the_same_clip(tmp_path):
    labels = data_dir("label_formats", "avenue")
    write_video(tmp_path / "raw/training_videos/01.avi", 2)
    for number in range(1, 22):
        write_video(tmp_path / f"raw/testing_videos/{number:02d}.avi", 36 if number == 8 else 1)
    shutil.copy(labels / "avenue.mat", tmp_path / "raw")
    (tmp_path / "raw/testing_label_mask").mkdir()
    shutil.copy(labels / "testing_label_mask/8_label.mat", tmp_path / "raw/testing_label_mask")
    found = clips(Avenue(format="avenue", source="x", label_set="intervals"), tmp_path / "raw")
    (clip,) = [clip for clip in found if clip.split == "test" and clip.name == "08"]
    from_masks = clip.masks().any(axis=(1, 2))
    assert len(clip.labels()) == len(from_masks) == 36
    assert clip.labels().any()
    assert (clip.labels() * from_masks).any()
