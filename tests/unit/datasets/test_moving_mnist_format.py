"""Moving MNIST: digits fly straight at their speed, bounce off the walls, are added; the same again from the same seed."""

import dataclasses
import gzip
import hashlib
import json
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.helpers.data import data_dir
from tests.helpers.sources import tree
from vadcore.datasets import clips, moving_mnist, prepare
from vadcore.datasets.config import MovingMnist
from vadcore.datasets.download import Published
from vadcore.datasets.moving_mnist import bounce, draw, film, find_digits, fly, read_idx, scikit_learn_digits
from vadcore.errors import VadError
from vadcore.extract import extract_clip
from vadcore.store import ClipId, ClipStore

TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"


def glyphs(count: int, first: int = 1) -> np.ndarray:
    """Digits to tell apart: digit i is a square of brightness ``first`` + i with a dark hole. uint8 ``[N, 28, 28]``."""
    made = np.zeros((count, 28, 28), np.uint8)
    made[:, 4:24, 4:24] = np.arange(first, first + count, dtype=np.uint8)[:, None, None]
    made[:, 12:16, 12:16] = 0
    return made


def idx(pictures: np.ndarray, magic: int = 0x803) -> bytes:
    return struct.pack(">4I", magic, *pictures.shape) + pictures.tobytes()


@pytest.fixture
def source(tmp_path) -> Path:
    """Both of MNIST's files: 20 training digits of brightness 1 to 20, 10 test digits of 101 to 110."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / TRAIN).write_bytes(idx(glyphs(20)))
    (folder / f"{TEST}.gz").write_bytes(gzip.compress(idx(glyphs(10, first=101)), mtime=0))
    return folder


def config(source: Path | str, **fields) -> MovingMnist:
    small = {"train_clips": 3, "test_clips": 2, "train_frames": 5, "test_frames": 8}
    return MovingMnist(format="moving_mnist", source=str(source), **{**small, **fields})


def spoken(settings: MovingMnist, raw: Path) -> list[str]:
    lines = []
    prepare(settings, raw, lines.append)
    return lines


def movie(clip) -> np.ndarray:
    return np.stack(list(clip.frames()))


# --- the flight


def flight(frames=60, seed=0, **fields) -> np.ndarray:
    return fly(config("scikit-learn", **fields), np.random.default_rng(seed), frames)


def step_by_step(start: float, velocity: float, room: float, frames: int) -> list[float]:
    """One component of a digit's place, moved a frame at a time and turned at every wall."""
    places, place = [], start
    for _ in range(frames):
        places.append(place)
        place += velocity
        while not 0 <= place <= room:
            place = -place if place < 0 else 2 * room - place
            velocity = -velocity
    return places


@examples(deadline=None)
@given(st.integers(1, 300), st.floats(0, 1), st.floats(-20, 20), st.integers(1, 50))
@example(room=1, share=0.5, velocity=6.0, frames=50)  # several walls a frame
def test_a_wall_reflects_the_place_and_turns_the_velocity(room, share, velocity, frames):
    start = share * room
    way = start + velocity * np.arange(frames)[:, None] * [1, 0]
    expected = step_by_step(start, velocity, room, frames)
    np.testing.assert_allclose(bounce(way, np.array([room, room]))[:, 0], expected, atol=1e-6)


@examples(deadline=None)
@given(st.integers(28, 90), st.integers(28, 90), st.integers(0, 1000))
def test_digits_never_leave_the_picture(height, width, seed):
    corners = flight(seed=seed, height=height, width=width, digits=3)
    assert corners.shape == (60, 3, 2)
    assert corners.min() >= 0
    assert (corners <= [height - 28, width - 28]).all()


def test_in_a_picture_of_their_size_digits_stand_still():
    assert not flight(height=28, width=28).any()


def test_away_from_the_walls_a_step_is_as_long_as_the_speed_and_keeps_its_direction():
    corners = flight(height=5000, width=5000, speeds=(5, 5), seed=3)  # too far to the walls for 60 frames
    assert corners.min() > 0
    assert corners.max() < 5000 - 28
    steps = np.diff(corners, axis=0)
    np.testing.assert_allclose(np.hypot(*steps.T), 5)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:1], steps.shape))


def test_speeds_are_whole_numbers_and_all_from_the_least_to_the_greatest_come():
    speeds = []
    for seed in range(100):
        steps = np.diff(flight(2, seed, height=5000, width=5000), axis=0)[0]
        speeds += np.hypot(*steps.T).tolist()
    np.testing.assert_allclose(speeds, np.rint(speeds))
    counts = np.bincount(np.rint(speeds).astype(int))
    assert counts[:2].sum() == 0
    assert len(counts) == 7
    # 200 draws from five speeds: 40 of each, with a standard deviation of sqrt(200 * 0.2 * 0.8) = 5.7
    assert (np.abs(counts[2:] - 40) < 4 * 5.7).all()


def test_directions_are_spread_over_the_whole_circle():
    steps = np.concatenate([np.diff(flight(2, seed, height=5000, width=5000), axis=0)[0] for seed in range(200)])
    octants = np.bincount(((np.arctan2(*steps.T) + np.pi) // (np.pi / 4)).astype(int), minlength=8)
    # 400 draws into eight: 50 each, with a standard deviation of sqrt(400 * 1/8 * 7/8) = 6.6
    assert (np.abs(octants - 50) < 4 * 6.6).all()


# --- the picture


def test_digits_that_overlap_are_added_and_clipped():
    shown = np.array([np.full((28, 28), 100), np.full((28, 28), 200)], np.uint8)
    (frame,) = draw(shown, np.array([[[0, 0], [10, 20]]]), (40, 50))
    expected = np.zeros((40, 50), int)
    expected[:28, :28] += 100
    expected[10:38, 20:48] += 200
    assert expected.max() == 300
    np.testing.assert_array_equal(frame, np.minimum(expected, 255))


def test_places_are_rounded_to_whole_pixels():
    settings = config("scikit-learn", digits=1, test_frames=30)
    corners = fly(settings, np.random.default_rng([0, 1, 7]), 30)[:, 0]
    for frame, (y, x) in zip(film(settings, glyphs(1), "test", 7), np.rint(corners).astype(int), strict=True):
        np.testing.assert_array_equal(frame[y : y + 28, x : x + 28], glyphs(1)[0])
        assert frame.sum() == glyphs(1).sum()


def test_the_default_is_64x64_with_two_digits_and_the_benchmark_of_20_frames_can_be_had(source, tmp_path):
    settings = MovingMnist(format="moving_mnist", source=str(source), train_clips=1, test_clips=1)
    prepare(settings, tmp_path / "raw", lambda line: None)
    assert [movie(clip).shape for clip in clips(settings, tmp_path / "raw")] == [(30, 64, 64), (60, 64, 64)]
    benchmark = config(source, train_frames=20, test_frames=20, speeds=(4, 4))
    prepare(benchmark, tmp_path / "raw", lambda line: None)
    assert {movie(clip).shape for clip in clips(benchmark, tmp_path / "raw")} == {(20, 64, 64)}


# --- the same again


def test_the_same_settings_and_digits_give_the_same_bytes(source, tmp_path):
    settings = config(source)
    for name in ("a", "b"):
        prepare(settings, tmp_path / name, lambda line: None)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert set(tree(tmp_path / "a")) == {
        "digits.json",
        *(f"train/000{number}.png" for number in range(3)),
        *(f"test/000{number}.png" for number in range(2)),
    }


def test_a_clip_depends_on_its_number_its_split_and_the_seed_and_not_on_how_many_there_are(source):
    def of(index=0, split="train", **fields):
        return film(config(source, **fields), glyphs(20), split, index)[:5]

    np.testing.assert_array_equal(of(), of(train_clips=500, test_clips=1))
    np.testing.assert_array_equal(of(), of(train_frames=30))  # longer clips begin as shorter ones
    for other in (of(1), of(split="test"), of(seed=1), of(digits=3), of(speeds=(2, 7)), of(height=65)):
        assert other.shape != of().shape or (other != of()).any()


def test_preparing_again_does_nothing(source, tmp_path):
    raw = tmp_path / "raw"
    assert spoken(config(source), raw) == [
        f"moving_mnist: making 3 train clips of {TRAIN}, digits 0 to 19",
        f"moving_mnist: making 2 test clips of {TEST}, digits 0 to 9",
    ]
    times = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    assert spoken(config(source), raw) == []
    assert spoken(config(source, size=(32, 32), fps=5.0, frames_per_second=20.0), raw) == []  # no matter of pictures
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} == times


def test_after_a_kill_only_what_is_missing_is_made_and_it_is_the_same(source, tmp_path, monkeypatch):
    whole, raw = tmp_path / "whole", tmp_path / "raw"
    prepare(config(source), whole, lambda line: None)
    made = []

    def killed(*arguments):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(arguments)
        return film(*arguments)

    monkeypatch.setattr(moving_mnist, "film", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(config(source), raw, lambda line: None)
    monkeypatch.undo()
    assert set(tree(raw)) == {"digits.json", "train/0000.png", "train/0001.png"}
    with pytest.raises(VadError, match=r"train/0002\.png: missing or of another configuration; run prepare again"):
        clips(config(source), raw)
    (raw / "train" / ".0002.png.12345678.partial").write_bytes(b"half a clip")
    assert spoken(config(source), raw)[0].startswith("moving_mnist: making 1 train clips")
    assert tree(raw) == tree(whole)
    assert not list(raw.rglob("*.partial"))


@pytest.mark.parametrize("left", [0, 4, -1])
def test_a_truncated_strip_is_made_again(source, tmp_path, left):
    raw = tmp_path / "raw"
    prepare(config(source), raw, lambda line: None)
    whole, strip = tree(raw), raw / "test" / "0001.png"
    strip.write_bytes(strip.read_bytes()[:left])
    assert len(spoken(config(source), raw)) == 1
    assert tree(raw) == whole


def test_more_clips_keep_what_is_there_and_fewer_remove_the_rest(source, tmp_path):
    raw = tmp_path / "raw"
    prepare(config(source), raw, lambda line: None)
    whole = tree(raw)
    assert spoken(config(source, test_clips=1), raw) == ["moving_mnist: removed 1 clips of other settings or digits"]
    assert set(whole) - set(tree(raw)) == {"test/0001.png"}
    assert spoken(config(source), raw) == [f"moving_mnist: making 1 test clips of {TEST}, digits 0 to 9"]
    assert tree(raw) == whole


def test_a_setting_of_test_clips_leaves_training_clips_alone(source, tmp_path):
    raw = tmp_path / "raw"
    prepare(config(source), raw, lambda line: None)
    before = tree(raw)
    prepare(config(source, test_frames=9), raw, lambda line: None)
    assert {name for name, data in tree(raw).items() if data == before[name]} == {f"train/000{n}.png" for n in range(3)}


@pytest.mark.parametrize("change", ["seed", "digits"])
def test_another_seed_or_other_digits_replace_all_clips(source, tmp_path, change):
    raw, settings = tmp_path / "raw", config(source)
    prepare(settings, raw, lambda line: None)
    before = tree(raw)
    if change == "seed":
        settings = config(source, seed=1)
        with pytest.raises(VadError, match="of another configuration; run prepare again"):
            clips(settings, raw)
    else:
        (source / TRAIN).write_bytes(idx(glyphs(20, first=30)))
        (source / f"{TEST}.gz").write_bytes(gzip.compress(idx(glyphs(10, first=200))))
    prepare(settings, raw, lambda line: None)
    after = tree(raw)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
    clips(settings, raw)


def test_a_kill_while_digits_change_never_leaves_clips_of_the_old_ones(source, tmp_path, monkeypatch):
    raw, whole = tmp_path / "raw", tmp_path / "whole"
    prepare(config(source), raw, lambda line: None)
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
    with pytest.raises(VadError, match="of another configuration"):
        clips(config("scikit-learn"), raw)
    prepare(config("scikit-learn"), raw, lambda line: None)
    assert tree(raw) == tree(whole)


# --- the digits


def test_both_files_are_mnists_own_division_and_the_record_says_so(source, tmp_path):
    raw = tmp_path / "raw"
    prepare(config(source), raw, lambda line: None)
    record = json.loads((raw / "digits.json").read_text())
    assert record["digits"] == "MNIST"
    assert record["train"]["from"] == f"{TRAIN}, digits 0 to 19"
    assert record["train"]["sha256"] == hashlib.sha256(glyphs(20).tobytes()).hexdigest()
    assert record["test"]["from"] == f"{TEST}, digits 0 to 9"


def test_training_and_test_clips_show_different_digits(source, tmp_path):
    settings = config(source, digits=1, train_clips=10, test_clips=10)
    prepare(settings, tmp_path, lambda line: None)
    shown = {"train": set(), "test": set()}
    for clip in clips(settings, tmp_path):
        shown[clip.split].add(int(movie(clip).max()))
    assert len(shown["train"]) > 1
    assert shown["train"] <= set(range(1, 21))
    assert shown["test"] <= set(range(101, 111))


@pytest.mark.parametrize("name", [TRAIN, TEST, f"{TEST}.gz"])
def test_of_one_file_the_first_80_percent_train_and_the_rest_tests(tmp_path, name):
    data = idx(glyphs(10))
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    for place in (tmp_path, tmp_path / name):  # the folder or the file
        digits = find_digits(config(place), tmp_path, print)
        np.testing.assert_array_equal(digits["train"].pictures, glyphs(10)[:8])
        np.testing.assert_array_equal(digits["test"].pictures, glyphs(10)[8:])
        assert digits["test"].origin == f"{name.removesuffix('.gz')}, digits 8 to 9"


def test_a_source_is_found_in_the_folder_of_data_sets(source, tmp_path, monkeypatch):
    monkeypatch.setenv("VAD_DATA_DIR", str(source.parent))
    assert len(find_digits(config("source"), tmp_path, print)["train"].pictures) == 20
    said = f"source nowhere: not found at {source.parent}/nowhere.*, or set it to download, or to scikit-learn"
    with pytest.raises(VadError, match=said):
        prepare(config("nowhere"), tmp_path / "raw")


def test_a_folder_without_digits_says_what_belongs_there(tmp_path):
    with pytest.raises(VadError, match=f"{tmp_path}: holds neither {TRAIN} nor {TEST}.* download or scikit-learn"):
        prepare(config(tmp_path), tmp_path / "raw")


def test_one_digit_cannot_be_divided(tmp_path):
    (tmp_path / TEST).write_bytes(idx(glyphs(1)))
    with pytest.raises(VadError, match=f"{TEST}: 1 digits, training and testing need different ones"):
        prepare(config(tmp_path), tmp_path / "raw")


def test_digits_of_scikit_learn_need_no_file(tmp_path):
    digits = find_digits(config("scikit-learn"), tmp_path, print)
    train, test = digits["train"].pictures, digits["test"].pictures
    assert (len(train), len(test)) == (1437, 360)  # 80 % of 1,797
    np.testing.assert_array_equal(np.concatenate([train, test]), scikit_learn_digits())


def test_digits_of_scikit_learn_are_enlarged_bilinearly_to_the_full_range():
    from sklearn.datasets import load_digits

    digits = scikit_learn_digits()
    assert digits.shape == (1797, 28, 28)
    assert digits.dtype == np.uint8
    assert (digits.min(), digits.max()) == (0, 255)
    # output pixel (y, x) lies at ((y + 1/2) 8/28 - 1/2, ...) of the small picture
    small = load_digits().images[5] * 255 / 16
    at = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    rows = np.stack([np.interp(at, np.arange(8), column) for column in small.T], axis=1)  # [28, 8]
    expected = np.stack([np.interp(at, np.arange(8), row) for row in rows])
    assert np.abs(digits[5] - expected).max() < 0.51


def test_results_name_whose_digits_they_are(source, tmp_path):
    assert config(source).truth == "none: generated, digits of MNIST"
    assert config("download").truth == "none: generated, digits of MNIST"
    assert config("scikit-learn").truth == "none: generated, digits of scikit-learn"
    prepare(config("scikit-learn"), tmp_path / "raw", lambda line: None)
    assert json.loads((tmp_path / "raw/digits.json").read_text())["digits"] == "scikit-learn"
    with pytest.raises(VadError, match="of another configuration"):  # so that no result ever names the wrong ones
        clips(config(source), tmp_path / "raw")


@pytest.fixture
def mirror(source, monkeypatch):
    """A real HTTP server on the loopback interface that has both files, in place of the published ones."""
    (source / f"{TRAIN}.gz").write_bytes(gzip.compress((source / TRAIN).read_bytes()))
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(source)))
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    published = [
        Published(
            f"http://127.0.0.1:{http.server_port}/{name}.gz",
            hashlib.sha256((source / f"{name}.gz").read_bytes()).hexdigest(),
            "http://example.org",
        )
        for name in (TRAIN, TEST)
    ]
    monkeypatch.setattr(moving_mnist, "FILES", published)
    yield asked
    http.shutdown()
    http.server_close()


def test_downloaded_digits_are_verified_kept_and_give_the_same_footage(source, tmp_path, mirror):
    raw = tmp_path / "raw"
    lines = spoken(config("download"), raw)
    assert f"{TRAIN}.gz: sha256 verified" in lines
    prepare(config("download", train_clips=4), raw, lambda line: None)  # other settings need no network
    assert mirror == [f"/{TRAIN}.gz", f"/{TEST}.gz"]
    prepare(config("download"), raw, lambda line: None)
    prepare(config(source), tmp_path / "by-hand", lambda line: None)
    downloaded = {name: data for name, data in tree(raw).items() if not name.startswith("mnist/")}
    assert downloaded == tree(tmp_path / "by-hand")
    prepare(config(source), raw, lambda line: None)  # they go when they are not the source any more
    assert tree(raw) == downloaded


def test_a_download_that_is_not_the_published_file_is_refused(tmp_path, mirror, monkeypatch):
    wrong = [dataclasses.replace(one, sha256="00" * 32) for one in moving_mnist.FILES]
    monkeypatch.setattr(moving_mnist, "FILES", wrong)
    with pytest.raises(VadError, match="expected 0000"):
        prepare(config("download"), tmp_path / "raw", lambda line: None)
    assert tree(tmp_path / "raw") == {}


def test_the_published_files_are_verified():
    assert [one.name for one in moving_mnist.FILES] == [f"{TRAIN}.gz", f"{TEST}.gz"]
    assert all(len(one.sha256) == 64 for one in moving_mnist.FILES)


# --- idx files


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_an_idx_file_gives_its_pictures_whatever_its_name(tmp_path, pack):
    pictures = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    (tmp_path / "file").write_bytes(pack(idx(pictures)))
    np.testing.assert_array_equal(read_idx(tmp_path / "file"), pictures)


GOOD = idx(glyphs(3))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (idx(glyphs(3), magic=0x801), "magic number 0x00000801, that of an idx file of pictures is 0x00000803"),
        (idx(np.zeros((3, 32, 28), np.uint8)), "pictures of 32x28 pixels, MNIST's are 28x28"),
        (GOOD[:-1], "2367 bytes, 3 pictures are 2368"),
        (GOOD + b"\0", "2369 bytes, 3 pictures are 2368"),
        (GOOD[:15], "15 bytes, shorter than the header of an idx file"),
        (b"", "0 bytes, shorter than the header of an idx file"),
        (gzip.compress(GOOD)[:-12], "not a whole gzip file"),
        (gzip.compress(GOOD)[:-8] + b"\0" * 8, "not a whole gzip file"),
        (gzip.compress(GOOD)[:10] + b"\xff" * 40, "not a whole gzip file"),
        (gzip.compress(GOOD[:-1]), "2367 bytes, 3 pictures are 2368"),
    ],
    ids=["magic", "size", "short", "long", "header", "empty", "cut gzip", "checksum", "damaged gzip", "short in gzip"],
)
def test_any_other_file_is_one_line_with_its_name_and_a_remedy(tmp_path, data, fault):
    (tmp_path / TEST).write_bytes(data)
    with pytest.raises(VadError) as caught:
        prepare(config(tmp_path), tmp_path / "raw")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / TEST}: {fault}")
    assert message.endswith("fetch it again, or correct dataset.*.source")
    assert "\n" not in message
    assert not (tmp_path / "raw").exists()


# --- into the pipeline


def test_clips_are_extracted_as_they_were_filmed_and_unlabelled(source, tmp_path):
    settings, raw = config(source, height=40, width=52), tmp_path / "raw"
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


def test_the_longest_clip_that_is_allowed_can_be_read(source, tmp_path):
    settings = config(source, train_frames=1_000_000 // 28, height=28, width=28, train_clips=1)
    prepare(settings, tmp_path / "raw", lambda line: None)
    assert sum(1 for _ in clips(settings, tmp_path / "raw")[0].frames()) == 35714


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 27}, "height 27, width 64: digits are 28x28 pixels; make both at least 28"),
        ({"width": 20}, "height 64, width 20: digits are 28x28 pixels; make both at least 28"),
        ({"speeds": (6, 2)}, r"speeds \[6, 2\]: the least comes first; write \[2, 6\]"),
        ({"test_frames": 15626}, "test_frames 15626: .* 15625 frames at width 64 at most"),
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


def test_the_real_test_digits(tmp_path):
    source = data_dir("mnist")
    digits = find_digits(config(source / f"{TEST}.gz"), tmp_path, print)
    assert (len(digits["train"].pictures), len(digits["test"].pictures)) == (8000, 2000)
    # as published: every digit is made to fit a box of 20x20 pixels, keeping its shape
    sides = {max(cv2.boundingRect(digit)[2:]) for digit in np.concatenate([one.pictures for one in digits.values()])}
    assert sides == {19, 20}  # three fell short by a pixel
    assert moving_mnist.FILES[1].sha256 == hashlib.sha256((source / f"{TEST}.gz").read_bytes()).hexdigest()
