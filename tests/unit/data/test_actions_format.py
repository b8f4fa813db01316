"""The actions format: strips of frames, normal and abnormal classes, held-out clips chosen by id."""

import cv2
import numpy as np
import pytest

from tests.helpers.data import data_dir
from tests.helpers.sources import picture
from vadcore.data.formats import clips, prepare
from vadcore.data.formats.actions import ActionsConfig, hold_out
from vadcore.data.store import ClipId
from vadcore.data.windows import hold_out as split_windows
from vadcore.utils.errors import VadError


def write_strip(path, frames, size=(8, 8), ending=".png"):
    path.parent.mkdir(parents=True, exist_ok=True)
    strip = np.concatenate([picture(20 * number, size) for number in range(frames)], axis=1)
    path.write_bytes(cv2.imencode(ending, strip)[1].tobytes())  # the content may be of another type than .jpg


def make(folder, width=8):
    for name in ("walk", "wave"):
        for number in (0, 1, 8, 9, 16, 17):
            write_strip(folder / name / f"{number:08d}.jpg", 5, (8, width))
    write_strip(folder / "fall/00000002.jpg", 3, (8, width))
    return folder


def config(tmp_path, **fields) -> ActionsConfig:
    return ActionsConfig(format="actions", source=str(tmp_path / "source"), **{"test_classes": ("fall",), **fields})


def delivered(tmp_path, **fields):
    settings = config(tmp_path, **fields)
    prepare(settings, tmp_path / "raw", lambda line: None)
    return clips(settings, tmp_path / "raw")


def test_frames_of_strip_left_to_right(tmp_path):
    make(tmp_path / "source")
    clip = delivered(tmp_path)[0]
    frames = list(clip.frames())
    assert len(frames) == 5
    assert all(np.array_equal(frame, picture(20 * number, (8, 8))) for number, frame in enumerate(frames))


def test_unseen_classes_are_abnormal(tmp_path):
    make(tmp_path / "source")
    found = delivered(tmp_path, held_out=0.3)
    train = [clip.name for clip in found if clip.split == "train"]
    test = {clip.name: clip.labels().tolist() for clip in found if clip.split == "test"}
    # three pairs a class, 0.3 of them rounds to one: the last pair
    assert train == [f"{name}-{n:08d}" for name in ("walk", "wave") for n in (0, 1, 8, 9)]
    assert test == {
        "fall-00000002": [1, 1, 1],
        **{f"{name}-{n:08d}": [0] * 5 for name in ("walk", "wave") for n in (16, 17)},
    }


def test_train_classes_limit_training(tmp_path):
    make(tmp_path / "source")
    found = delivered(tmp_path, train_classes=("wave",), held_out=0)
    assert {clip.name.split("-")[0] for clip in found if clip.split == "train"} == {"wave"}
    assert [clip.name for clip in found if clip.split == "test"] == ["fall-00000002"]


def test_pair_is_never_in_both_splits(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(2, 74)]
    for share in (0.05, 0.2, 0.5, 0.97):
        kept, held = hold_out(paths, share)
        assert sorted(kept + held) == sorted(paths)
        assert not {int(path.stem) // 2 for path in kept} & {int(path.stem) // 2 for path in held}
        assert hold_out(paths[::-1], share) == (kept, held)  # the order of the listing does not matter


def test_groups_by_mirror_pair_and_performer(tmp_path):
    """Eight consecutive ids belong to one performer: two for each action, of which the second is the mirror image."""
    for name, first in (("walk", 2), ("wave", 4)):
        for performer in range(2):
            for image in range(2):
                write_strip(tmp_path / "source" / name / f"{8 * performer + first + image:08d}.jpg", 3)
    by_clip, by_performer = (
        {clip.name: clip.group for clip in delivered(tmp_path, held_out=0, test_classes=(), held_out_by=by)}
        for by in ("clip", "performer")
    )
    assert by_clip["walk-00000002"] == by_clip["walk-00000003"] != by_clip["walk-00000010"]
    assert by_clip["walk-00000002"] != by_clip["wave-00000004"]
    assert by_performer["walk-00000002"] == by_performer["wave-00000005"] == "performer 0"
    assert by_performer["walk-00000010"] == by_performer["wave-00000013"] == "performer 1"


@pytest.mark.parametrize("by", ["clip", "performer"])
def test_real_split_separates_groups(tmp_path, by):
    settings = ActionsConfig(format="actions", source=str(data_dir("actions")), held_out_by=by)
    prepare(settings, tmp_path / "raw", lambda line: None)
    found = {ClipId(clip.split, clip.name): clip for clip in clips(settings, tmp_path / "raw")}
    train = {name: clip for name, clip in found.items() if clip.split == "train"}
    groups = {name: clip.group for name, clip in train.items()}
    kept, held = (
        [train[segment.clip] for segment in part] for part in split_windows(dict.fromkeys(train, 50), 0.2, 1, groups)
    )
    tested = [clip for clip in found.values() if clip.split == "test"]
    ids = 2 if by == "clip" else 8
    for seen, unseen in ((kept, held), (train.values(), tested)):
        assert not {int(c.source.stem) // ids for c in seen} & {int(c.source.stem) // ids for c in unseen}
    first, second = (next(c for c in found.values() if c.source.stem == f"{n:08d}") for n in (8, 9))
    for frame, mirrored in zip(first.frames(), second.frames(), strict=True):
        np.testing.assert_array_equal(frame, mirrored[:, ::-1])


def test_non_square_frames_need_width(tmp_path):
    make(tmp_path / "source", width=6)
    with pytest.raises(VadError, match=r"30x8.*dataset\.\*\.frame_width"):
        list(delivered(tmp_path)[0].frames())
    assert [frame.shape for frame in delivered(tmp_path, frame_width=6)[0].frames()] == [(8, 6)] * 5


def test_unknown_class_is_named(tmp_path):
    make(tmp_path / "source")
    with pytest.raises(VadError, match=r"swim.*fall, walk, wave"):
        delivered(tmp_path, test_classes=("swim",))


def test_class_cannot_be_normal_and_abnormal(tmp_path):
    make(tmp_path / "source")
    with pytest.raises(VadError, match="walk"):
        delivered(tmp_path, train_classes=("walk",), test_classes=("walk",))


def test_truncated_strip_is_named(tmp_path):
    make(tmp_path / "source")
    path = tmp_path / "source/walk/00000000.jpg"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(VadError, match=r"walk/00000000\.jpg"):
        list(delivered(tmp_path)[0].frames())


def test_real_strips_have_published_numbers():
    source = data_dir("actions")
    settings = ActionsConfig(format="actions", source=str(source), test_classes=("4",))
    found = clips(settings, source)
    assert len(found) == 4 * 18
    counts = [len(list(clip.frames())) for clip in found]
    assert (min(counts), max(counts), sum(counts)) == (51, 146, 5290)
    assert next(found[0].frames()).shape == (64, 64, 3)
