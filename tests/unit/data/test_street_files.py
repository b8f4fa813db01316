"""Files of the generated street scene: lossless, resumable, replaced when the configuration changes."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from vadcore.data.formats import clips, prepare
from vadcore.data.formats.street import LEAST_VISIBLE, StreetConfig, tracks, true_flow
from vadcore.data.synthetic.clip import SyntheticClip, film, site_of
from vadcore.data.synthetic.storage import write_video
from vadcore.data.video import read_video
from vadcore.utils.errors import VadError

pytestmark = pytest.mark.xdist_group("street_files")  # the tests share prepared footage


def street(**fields) -> StreetConfig:
    small = {"height": 64, "width": 96, "train_clips": 1, "test_clips": 2, "train_frames": 5, "test_frames": 30}
    return StreetConfig(format="street", **{**small, **fields})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[StreetConfig, Path]:
    raw, config = tmp_path_factory.mktemp("raw"), street()
    prepare(config, raw, lambda line: None)
    return config, raw


@pytest.fixture(scope="module")
def filmed(made) -> list[SyntheticClip]:
    """What the prepared clips were written from."""
    site = site_of(made[0])
    return [film(made[0], site, split, index) for split, index in (("train", 0), ("test", 0), ("test", 1))]


@pytest.fixture
def raw(made, tmp_path) -> Path:
    """A copy of the prepared footage that a test may damage."""
    for path in files(made[1]):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes((made[1] / path).read_bytes())
    return tmp_path


def files(raw: Path) -> dict[str, str]:
    found = sorted(path for path in raw.rglob("*") if path.is_file())
    return {str(path.relative_to(raw)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def messages(config: StreetConfig, raw: Path) -> list[str]:
    lines = []
    prepare(config, raw, lines.append)
    return lines


def test_video_is_lossless(made, filmed):
    for clip, footage in zip(clips(*made), filmed, strict=True):
        assert np.array_equal(np.stack(list(clip.frames())), footage.frames)


def test_video_keeps_grey_levels_and_colours(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8)
    write_video(tmp_path / "noise.avi", levels, 12.5)
    assert np.array_equal(np.stack(list(read_video(tmp_path / "noise.avi"))), levels)


def test_stored_truth_equals_generated_truth(made, filmed):
    config, raw = made
    for clip, footage in zip(clips(config, raw), filmed, strict=True):
        assert np.array_equal(clip.labels(), footage.labels)
        assert clip.masks().dtype == np.uint8
        assert np.array_equal(clip.masks(), footage.masks)
        flow = true_flow(raw, clip.split, clip.name)
        assert flow.dtype == np.float32
        assert np.array_equal(flow * 64, footage.flow)
        identity, objects = tracks(raw, clip.split, clip.name)
        assert np.array_equal(identity, footage.identity)
        assert [o.number for o in objects] == list(range(1, len(footage.kinds) + 1))
        assert [(o.kind, o.abnormal) for o in objects] == list(zip(footage.kinds, footage.abnormal, strict=True))
        sizes = clip.masks().sum(axis=(1, 2))
        assert np.array_equal(sizes > 0, clip.labels() == 1)
        assert not ((sizes > 0) & (sizes < LEAST_VISIBLE)).any()


def test_clip_names_and_frame_rate(made):
    config, raw = made
    found = clips(config, raw)
    assert [(clip.split, clip.name) for clip in found] == [("train", "01"), ("test", "01"), ("test", "02")]
    assert {clip.fps for clip in found} == {12.5}
    assert all(clip.source.is_file() for clip in found)


def test_prepare_again_does_nothing(made):
    config, raw = made
    times = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    assert messages(config, raw) == []
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} == times


def test_extraction_settings_keep_the_footage(made):
    _, raw = made
    assert messages(street(size=(32, 48), color="rgb", fps=5.0), raw) == []


@pytest.mark.parametrize("lost", ["test/01.avi", "test/01.truth.npz"])
def test_prepare_resumes_after_kill(made, raw, lost):
    config, whole = made
    (raw / lost).unlink()
    (raw / "test" / ".01.part.avi").write_bytes(b"half a vid")  # left by a killed run
    lines = messages(config, raw)
    assert [line.split(",")[0] for line in lines if "removed" not in line] == ["street: test/01"]
    assert files(raw) == files(whole)


@pytest.mark.parametrize("damaged", ["train/01.avi", "train/01.truth.npz"])
def test_truncated_file_is_regenerated(made, raw, damaged):
    config, whole = made
    content = (raw / damaged).read_bytes()
    (raw / damaged).write_bytes(content[: len(content) // 2])
    with pytest.raises(VadError, match=r"train/01\.avi"):
        clips(config, raw)
    prepare(config, raw, lambda line: None)
    assert files(raw) == files(whole)


def test_another_seed_replaces_all_clips(made, raw):
    _, whole = made
    prepare(street(seed=5), raw, lambda line: None)
    before, after = files(whole), files(raw)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_number_of_clips_can_change(made, raw):
    _, whole = made
    prepare(street(test_clips=1), raw, lambda line: None)
    assert set(files(raw)) == {"train/01.avi", "train/01.truth.npz", "test/01.avi", "test/01.truth.npz"}
    lines = messages(street(), raw)
    assert [line.split(",")[0] for line in lines] == ["street: test/02"]
    assert files(raw) == files(whole)


def test_test_clip_settings_keep_training_clips(made, raw):
    _, whole = made
    prepare(street(anomalies_per_clip=2), raw, lambda line: None)
    before, after = files(whole), files(raw)
    assert {name for name in before if before[name] == after[name]} == {"train/01.avi", "train/01.truth.npz"}


def test_missing_clips_are_named(tmp_path):
    with pytest.raises(VadError, match=r"train/01\.avi.*run prepare"):
        clips(street(), tmp_path)
    with pytest.raises(VadError, match=r"test/03\.truth\.npz.*run prepare"):
        true_flow(tmp_path, "test", "03")


@pytest.mark.parametrize(
    "fields", [{"height": 127}, {"width": 46}, {"width": 258}, {"noise": -1}, {"test_frames": 1}, {"seed": -1}]
)
def test_impossible_settings_are_refused(fields):
    with pytest.raises(ValidationError, match=next(iter(fields))):
        street(**fields)
