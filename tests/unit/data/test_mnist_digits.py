"""Sources of the digits of Moving MNIST: idx files, scikit-learn, downloads."""

import dataclasses
import gzip
import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from tests.helpers.data import data_dir
from tests.helpers.mnist import TEST, TRAIN, config, glyphs, idx
from tests.helpers.sources import tree
from vadcore.data.download import Published
from vadcore.data.formats import clips, moving_mnist, prepare
from vadcore.data.formats.moving_mnist import find_digits, read_idx, scikit_learn_digits
from vadcore.utils.errors import VadError


def test_both_files_keep_the_mnist_split(mnist_source, tmp_path):
    raw = tmp_path / "raw"
    prepare(config(mnist_source), raw, lambda line: None)
    record = json.loads((raw / "digits.json").read_text())
    assert record["digits"] == "MNIST"
    assert record["train"]["from"] == f"{TRAIN}, digits 0 to 19"
    assert record["train"]["sha256"] == hashlib.sha256(glyphs(20).tobytes()).hexdigest()
    assert record["test"]["from"] == f"{TEST}, digits 0 to 9"


def test_train_and_test_digits_differ(mnist_source, tmp_path):
    settings = config(mnist_source, digits=1, train_clips=10, test_clips=10)
    prepare(settings, tmp_path, lambda line: None)
    shown = {"train": set(), "test": set()}
    for clip in clips(settings, tmp_path):
        shown[clip.split].add(int(np.max(list(clip.frames()))))
    assert len(shown["train"]) > 1
    assert shown["train"] <= set(range(1, 21))
    assert shown["test"] <= set(range(101, 111))


@pytest.mark.parametrize("name", [TRAIN, TEST, f"{TEST}.gz"])
def test_single_file_is_split(tmp_path, name):
    data = idx(glyphs(10))
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    for place in (tmp_path, tmp_path / name):  # the folder or the file
        digits = find_digits(config(place), tmp_path, print)
        np.testing.assert_array_equal(digits["train"].pictures, glyphs(10)[:8])
        np.testing.assert_array_equal(digits["test"].pictures, glyphs(10)[8:])
        assert digits["test"].origin == f"{name.removesuffix('.gz')}, digits 8 to 9"


def test_source_is_found_in_data_dir(mnist_source, tmp_path, monkeypatch):
    monkeypatch.setenv("VAD_DATA_DIR", str(mnist_source.parent))
    assert len(find_digits(config("source"), tmp_path, print)["train"].pictures) == 20
    with pytest.raises(VadError, match=rf"{mnist_source.parent}/nowhere.*download.*scikit-learn"):
        prepare(config("nowhere"), tmp_path / "raw")


def test_error_for_folder_without_digits(tmp_path):
    with pytest.raises(VadError, match=rf"{tmp_path}: .*{TRAIN}.*{TEST}.*download.*scikit-learn"):
        prepare(config(tmp_path), tmp_path / "raw")


def test_single_digit_cannot_be_split(tmp_path):
    (tmp_path / TEST).write_bytes(idx(glyphs(1)))
    with pytest.raises(VadError, match=TEST):
        prepare(config(tmp_path), tmp_path / "raw")


def test_scikit_learn_digits_need_no_file(tmp_path):
    digits = find_digits(config("scikit-learn"), tmp_path, print)
    train, test = digits["train"].pictures, digits["test"].pictures
    assert (len(train), len(test)) == (1437, 360)  # 80 % of 1,797
    np.testing.assert_array_equal(np.concatenate([train, test]), scikit_learn_digits())


def test_scikit_learn_digits_are_scaled_bilinearly():
    from sklearn.datasets import load_digits

    digits = scikit_learn_digits()
    assert digits.shape == (1797, 28, 28)
    assert digits.dtype == np.uint8
    assert (digits.min(), digits.max()) == (0, 255)
    # output pixel (y, x) is at ((y + 1/2) 8/28 - 1/2, ...) of the small picture
    small = load_digits().images[5] * 255 / 16
    at = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    rows = np.stack([np.interp(at, np.arange(8), column) for column in small.T], axis=1)  # [28, 8]
    expected = np.stack([np.interp(at, np.arange(8), row) for row in rows])
    assert np.abs(digits[5] - expected).max() < 0.51


def test_digit_source_is_recorded(mnist_source, tmp_path):
    assert config(mnist_source).truth == "none: generated, digits of MNIST"
    assert config("download").truth == "none: generated, digits of MNIST"
    assert config("scikit-learn").truth == "none: generated, digits of scikit-learn"
    prepare(config("scikit-learn"), tmp_path / "raw", lambda line: None)
    assert json.loads((tmp_path / "raw/digits.json").read_text())["digits"] == "scikit-learn"
    with pytest.raises(VadError, match="run prepare"):  # results must name the right digits
        clips(config(mnist_source), tmp_path / "raw")


@pytest.fixture
def mirror(mnist_source, monkeypatch):
    """An HTTP server on the loopback interface that serves both files; returns the paths that were requested."""
    (mnist_source / f"{TRAIN}.gz").write_bytes(gzip.compress((mnist_source / TRAIN).read_bytes()))
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(mnist_source)))
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    published = [
        Published(
            f"http://127.0.0.1:{http.server_port}/{name}.gz",
            hashlib.sha256((mnist_source / f"{name}.gz").read_bytes()).hexdigest(),
            "http://example.org",
        )
        for name in (TRAIN, TEST)
    ]
    monkeypatch.setattr(moving_mnist, "FILES", published)
    yield asked
    http.shutdown()
    http.server_close()


def test_downloaded_digits_are_verified_and_kept(mnist_source, tmp_path, mirror):
    raw = tmp_path / "raw"
    lines = []
    prepare(config("download"), raw, lines.append)
    assert any(f"{TRAIN}.gz" in line and "sha256" in line for line in lines)
    prepare(config("download", train_clips=4), raw, lambda line: None)  # other settings need no network
    assert mirror == [f"/{TRAIN}.gz", f"/{TEST}.gz"]
    prepare(config("download"), raw, lambda line: None)
    prepare(config(mnist_source), tmp_path / "by-hand", lambda line: None)
    downloaded = {name: data for name, data in tree(raw).items() if not name.startswith("mnist/")}
    assert downloaded == tree(tmp_path / "by-hand")
    prepare(config(mnist_source), raw, lambda line: None)  # removed when they are no longer the source
    assert tree(raw) == downloaded


def test_download_with_wrong_checksum_is_refused(tmp_path, mirror, monkeypatch):
    wrong = [dataclasses.replace(one, sha256="00" * 32) for one in moving_mnist.FILES]
    monkeypatch.setattr(moving_mnist, "FILES", wrong)
    with pytest.raises(VadError, match="0000"):
        prepare(config("download"), tmp_path / "raw", lambda line: None)
    assert tree(tmp_path / "raw") == {}


def test_published_files_have_checksums():
    assert [one.name for one in moving_mnist.FILES] == [f"{TRAIN}.gz", f"{TEST}.gz"]
    assert all(len(one.sha256) == 64 for one in moving_mnist.FILES)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_idx_file_plain_and_gzipped(tmp_path, pack):
    pictures = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    (tmp_path / "file").write_bytes(pack(idx(pictures)))
    np.testing.assert_array_equal(read_idx(tmp_path / "file"), pictures)


GOOD = idx(glyphs(3))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (idx(glyphs(3), magic=0x801), "0x00000801"),
        (idx(np.zeros((3, 32, 28), np.uint8)), "32x28"),
        (GOOD[:-1], "2367 bytes"),
        (GOOD + b"\0", "2369 bytes"),
        (GOOD[:15], "15 bytes"),
        (b"", "0 bytes"),
        (gzip.compress(GOOD)[:-12], "gzip"),
        (gzip.compress(GOOD)[:-8] + b"\0" * 8, "gzip"),
        (gzip.compress(GOOD)[:10] + b"\xff" * 40, "gzip"),
        (gzip.compress(GOOD[:-1]), "2367 bytes"),
    ],
    ids=["magic", "size", "short", "long", "header", "empty", "cut gzip", "checksum", "damaged gzip", "short in gzip"],
)
def test_damaged_file_is_refused(tmp_path, data, fault):
    (tmp_path / TEST).write_bytes(data)
    with pytest.raises(VadError) as caught:
        prepare(config(tmp_path), tmp_path / "raw")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / TEST}: ")
    assert fault in message
    assert "dataset.*.source" in message
    assert "\n" not in message
    assert not (tmp_path / "raw").exists()


def test_real_test_digits(tmp_path):
    source = data_dir("mnist")
    digits = find_digits(config(source / f"{TEST}.gz"), tmp_path, print)
    assert (len(digits["train"].pictures), len(digits["test"].pictures)) == (8000, 2000)
    # as published: every digit is made to fit a box of 20x20 pixels, keeping its shape
    sides = {max(cv2.boundingRect(digit)[2:]) for digit in np.concatenate([one.pictures for one in digits.values()])}
    assert sides == {19, 20}  # three of them are a pixel short
    assert moving_mnist.FILES[1].sha256 == hashlib.sha256((source / f"{TEST}.gz").read_bytes()).hexdigest()
