"""The Moving MNIST format: reproducible clips, kept and regenerated files, settings, extraction."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tests.helpers.mnist import TEST, TRAIN, config, glyphs, idx
from tests.helpers.sources import tree
from vadcore.data.extract import extract_clip
from vadcore.data.formats import clips, moving_mnist, prepare
from vadcore.data.formats.moving_mnist import MovingMnistConfig, film
from vadcore.data.store import ClipId, ClipStore
from vadcore.utils.errors import VadError


def messages(settings: MovingMnistConfig, raw: Path) -> list[str]:
    """Prepare the footage; returns its progress messages."""
    lines = []
    prepare(settings, raw, lines.append)
    return lines


def movie(clip) -> np.ndarray:
    return np.stack(list(clip.frames()))


def test_default_size_and_benchmark_length(mnist_source, tmp_path):
    settings = MovingMnistConfig(format="moving_mnist", source=str(mnist_source), train_clips=1, test_clips=1)
    prepare(settings, tmp_path / "raw", lambda line: None)
    assert [movie(clip).shape for clip in clips(settings, tmp_path / "raw")] == [(30, 64, 64), (60, 64, 64)]
    benchmark = config(mnist_source, train_frames=20, test_frames=20, speeds=(4, 4))
    prepare(benchmark, tmp_path / "raw", lambda line: None)
    assert {movie(clip).shape for clip in clips(benchmark, tmp_path / "raw")} == {(20, 64, 64)}


def test_same_settings_give_the_same_bytes(mnist_source, tmp_path):
    settings = config(mnist_source)
    for name in ("a", "b"):
        prepare(settings, tmp_path / name, lambda line: None)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert set(tree(tmp_path / "a")) == {
        "digits.json",
        *(f"train/000{number}.png" for number in range(3)),
        *(f"test/000{number}.png" for number in range(2)),
    }


def test_clip_depends_on_number_split_seed(mnist_source):
    def of(index=0, split="train", **fields):
        return film(config(mnist_source, **fields), glyphs(20), split, index)[:5]

    np.testing.assert_array_equal(of(), of(train_clips=500, test_clips=1))
    np.testing.assert_array_equal(of(), of(train_frames=30))  # longer clips begin as shorter ones
    for other in (of(1), of(split="test"), of(seed=1), of(digits=3), of(speeds=(2, 7)), of(height=65)):
        assert other.shape != of().shape or (other != of()).any()


def test_prepare_again_does_nothing(mnist_source, tmp_path):
    raw = tmp_path / "raw"
    assert len(messages(config(mnist_source), raw)) == 2  # a line for each split
    times = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    assert messages(config(mnist_source), raw) == []
    assert (
        messages(config(mnist_source, size=(32, 32), fps=5.0, frames_per_second=20.0), raw) == []
    )  # not settings of the pictures
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} == times


def test_prepare_resumes_after_kill(mnist_source, tmp_path, monkeypatch):
    whole, raw = tmp_path / "whole", tmp_path / "raw"
    prepare(config(mnist_source), whole, lambda line: None)
    made = []

    def killed(*arguments):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(arguments)
        return film(*arguments)

    monkeypatch.setattr(moving_mnist, "film", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(config(mnist_source), raw, lambda line: None)
    monkeypatch.undo()
    assert set(tree(raw)) == {"digits.json", "train/0000.png", "train/0001.png"}
    with pytest.raises(VadError, match=r"train/0002\.png.*run prepare"):
        clips(config(mnist_source), raw)
    (raw / "train" / ".0002.png.12345678.partial").write_bytes(b"half a clip")
    assert "1 train clip" in messages(config(mnist_source), raw)[0]
    assert tree(raw) == tree(whole)
    assert not list(raw.rglob("*.partial"))


@pytest.mark.parametrize("left", [0, 4, -1])
def test_truncated_strip_is_regenerated(mnist_source, tmp_path, left):
    raw = tmp_path / "raw"
    prepare(config(mnist_source), raw, lambda line: None)
    whole, strip = tree(raw), raw / "test" / "0001.png"
    strip.write_bytes(strip.read_bytes()[:left])
    assert len(messages(config(mnist_source), raw)) == 1
    assert tree(raw) == whole


def test_number_of_clips_can_change(mnist_source, tmp_path):
    raw = tmp_path / "raw"
    prepare(config(mnist_source), raw, lambda line: None)
    whole = tree(raw)
    assert messages(config(mnist_source, test_clips=1), raw) != []
    assert set(whole) - set(tree(raw)) == {"test/0001.png"}
    (line,) = messages(config(mnist_source), raw)
    assert "1 test clip" in line
    assert tree(raw) == whole


def test_test_clip_settings_keep_training_clips(mnist_source, tmp_path):
    raw = tmp_path / "raw"
    prepare(config(mnist_source), raw, lambda line: None)
    before = tree(raw)
    prepare(config(mnist_source, test_frames=9), raw, lambda line: None)
    assert {name for name, data in tree(raw).items() if data == before[name]} == {f"train/000{n}.png" for n in range(3)}


@pytest.mark.parametrize("change", ["seed", "digits"])
def test_new_seed_or_digits_replace_clips(mnist_source, tmp_path, change):
    raw, settings = tmp_path / "raw", config(mnist_source)
    prepare(settings, raw, lambda line: None)
    before = tree(raw)
    if change == "seed":
        settings = config(mnist_source, seed=1)
        with pytest.raises(VadError, match="run prepare"):
            clips(settings, raw)
    else:
        (mnist_source / TRAIN).write_bytes(idx(glyphs(20, first=30)))
        (mnist_source / f"{TEST}.gz").write_bytes(gzip.compress(idx(glyphs(10, first=200))))
    prepare(settings, raw, lambda line: None)
    after = tree(raw)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
    clips(settings, raw)


def test_kill_while_digits_change(mnist_source, tmp_path, monkeypatch):
    raw, whole = tmp_path / "raw", tmp_path / "whole"
    prepare(config(mnist_source), raw, lambda line: None)
    prepare(config("scikit-learn"), whole, lambda line: None)
    unlink, gone = Path.unlink, []

    def killed(path, **how):
        if path.suffix == ".png":
            if gone:
                raise KeyboardInterrupt
            gone.append(path)
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(config("scikit-learn"), raw, lambda line: None)
    monkeypatch.undo()
    with pytest.raises(VadError, match="run prepare"):
        clips(config("scikit-learn"), raw)
    prepare(config("scikit-learn"), raw, lambda line: None)
    assert tree(raw) == tree(whole)


def test_clips_are_extracted_unlabelled(mnist_source, tmp_path):
    settings, raw = config(mnist_source, height=40, width=52), tmp_path / "raw"
    prepare(settings, raw, lambda line: None)
    found = clips(settings, raw)
    assert [(clip.split, clip.name) for clip in found] == [
        *(("train", f"000{number}") for number in range(3)),
        *(("test", f"000{number}") for number in range(2)),
    ]
    assert all(clip.labels is None and clip.masks is None and clip.fps == 10.0 for clip in found)
    urls = tmp_path / "frames.zarr", tmp_path / "masks.zarr"
    for url, kind in zip(urls, ("frames", "masks"), strict=True):
        ClipStore(url, kind, write=True)
    for clip in found:
        result = extract_clip(clip, settings, *urls)
        assert (result.frames, result.masks) == (5 if clip.split == "train" else 8, False)
    store = ClipStore(urls[0], "frames")
    digits = {"train": glyphs(20), "test": glyphs(10, first=101)}
    for split, count in (("train", 3), ("test", 2)):
        for number in range(count):
            name = ClipId(split, f"000{number}")
            filmed = film(settings, digits[split], split, number)
            assert filmed.shape[1:] == (40, 52)
            np.testing.assert_array_equal(store.read(name)[..., 0], filmed)
    assert store.labels(ClipId("train", "0000")).sum() == 0
    assert store.labels(ClipId("test", "0000")) is None


def test_longest_allowed_clip_can_be_read(mnist_source, tmp_path):
    settings = config(mnist_source, train_frames=1_000_000 // 28, height=28, width=28, train_clips=1)
    prepare(settings, tmp_path / "raw", lambda line: None)
    assert sum(1 for _ in clips(settings, tmp_path / "raw")[0].frames()) == 35714


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 27}, "height 27, width 64.*28"),
        ({"width": 20}, "height 64, width 20.*28"),
        ({"speeds": (6, 2)}, r"speeds \[6, 2\].*\[2, 6\]"),
        ({"test_frames": 15626}, "test_frames 15626.*15625"),
        ({"speeds": (0, 2)}, "speeds"),
        ({"speeds": (2.5, 3)}, "speeds"),
        ({"digits": 0}, "digits"),
        ({"seed": -1}, "seed"),
        ({"train_frames": 1}, "train_frames"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        config("scikit-learn", **fields)
