"""Generated Moving MNIST: handwritten digits that move over a black background and bounce off the picture borders.

Every digit has a constant speed, drawn uniformly from the whole numbers in the range ``speeds``, and a random start
position and direction. At a border its position is reflected and that component of its velocity is reversed. Digits that
overlap are added. Training and test clips show different digits.

Each clip is a file ``<split>/NNNN.png`` with its frames side by side, where NNNN counts from 0. ``digits.json`` records
which digits the clips show.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import shutil
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from vadcore.data.download import Published, fetch
from vadcore.data.formats.actions import read_strip
from vadcore.data.formats.base import Clip, NotThere, Split, StoredConfig, locate, register_format
from vadcore.utils.errors import VadError
from vadcore.utils.files import complete, digest_of, sweep_partial, write_json

DIGIT = 28  # pixels: height and width of MNIST's digits
WIDEST_STRIP = 1_000_000  # pixels: PNG readers reject wider pictures


@register_format
class MovingMnistConfig(StoredConfig):
    """Generated Moving MNIST; see vadcore/data/formats/moving_mnist.py.

    The defaults are 64x64 pixels and training sequences of 30 frames. The standard benchmark uses 20 frames in all
    sequences and 10,000 test sequences.
    """

    format: Literal["moving_mnist"]
    source: str  # folder with MNIST's idx files of pictures (or one such file), "download", or "scikit-learn"
    seed: int = Field(default=0, ge=0)
    height: PositiveInt = 64  # pixels
    width: PositiveInt = 64  # pixels
    digits: PositiveInt = 2  # number of digits per clip
    speeds: tuple[PositiveInt, PositiveInt] = (2, 6)  # minimum and maximum speed, pixels per frame, both included
    frames_per_second: PositiveFloat = 10.0
    train_clips: PositiveInt = 1000
    train_frames: int = Field(default=30, ge=2)  # frames per training clip
    test_clips: PositiveInt = 100
    test_frames: int = Field(default=60, ge=2)  # frames per test clip

    @model_validator(mode="after")
    def _fits(self) -> MovingMnistConfig:
        if min(self.height, self.width) < DIGIT:
            raise ValueError(
                f"height {self.height}, width {self.width}: digits are {DIGIT}x{DIGIT} pixels; make both at least {DIGIT}"
            )
        if self.speeds[0] > self.speeds[1]:
            raise ValueError(f"speeds {list(self.speeds)}: the least comes first; write {sorted(self.speeds)}")
        for key in ("train_frames", "test_frames"):
            most = WIDEST_STRIP // self.width
            if getattr(self, key) > most:
                raise ValueError(
                    f"{key} {getattr(self, key)}: a clip's frames stand side by side in one PNG file, {most} frames at "
                    f"width {self.width} at most; make more clips that are shorter"
                )
        return self

    @property
    def digits_of(self) -> str:
        """Name of the digits' source in the report."""
        return "scikit-learn" if self.source == "scikit-learn" else "MNIST"

    @property
    def truth(self) -> str:
        return f"none: generated, digits of {self.digits_of}"


VERSION = 1  # of the generator: increase it when the same configuration and digits give different footage
RECORD = "digits.json"
SPLITS: tuple[Split, ...] = ("train", "test")  # the position of a split is part of its clips' seed
TRAIN_SHARE = 0.8  # share of training digits if the source has no split of its own
_FIELDS = ("seed", "height", "width", "digits", "speeds")  # settings that affect the clips of both splits
_DOWNLOADED = "mnist"  # inside raw
_SITE, _PAGE = "https://ossci-datasets.s3.amazonaws.com/mnist", "https://github.com/cvdfoundation/mnist"
# The checksums are those used by TensorFlow Datasets. Training digits come first.
FILES = (
    Published(
        f"{_SITE}/train-images-idx3-ubyte.gz",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        _PAGE,
    ),
    Published(
        f"{_SITE}/t10k-images-idx3-ubyte.gz",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        _PAGE,
    ),
)
_MAGIC = 0x803  # idx: unsigned bytes (8) in three dimensions (3)
_PNG_END = bytes.fromhex("0000000049454e44ae426082")  # the chunk IEND


class Digits(NamedTuple):
    """Digit pictures, uint8 ``[N, 28, 28]``, bright on a background of 0, and a description of their origin."""

    origin: str
    pictures: np.ndarray


def prepare(config: MovingMnistConfig, raw: Path, say: Callable[[str], None] = print) -> None:
    """Generate missing clips in ``raw`` and remove clips of other settings or digits.

    Clips are written atomically: an interrupted call can be repeated and resumes. Does nothing if all clips exist.
    Raises :class:`VadError` if there are no digits or their file is damaged.
    """
    digits = find_digits(config, raw, say)
    record: dict[str, Any] = {"digits": config.digits_of} | {
        split: _entry(config, split, digits[split]) for split in SPLITS
    }
    known = _record(raw)
    sweep_partial(raw)
    if config.source != "download":
        shutil.rmtree(raw / _DOWNLOADED, ignore_errors=True)
    stale = []
    for split in SPLITS:
        same = known.get(split, {}).get("footage") == record[split]["footage"]
        wanted = {_strip(raw, split, index) for index in _planned(config, split)} if same else set()
        stale += [path for path in (raw / split).glob("*.png") if path not in wanted]
    for path in stale:
        path.unlink()
    if stale:
        say(f"moving_mnist: removed {len(stale)} clips of other settings or digits")
    if known != record:
        write_json(raw / RECORD, record)  # after removing stale clips: every clip next to a record must match it
    for split in SPLITS:
        missing = [index for index in _planned(config, split) if not _is_whole(_strip(raw, split, index))]
        if missing:
            say(f"moving_mnist: making {len(missing)} {split} clips of {digits[split].origin}")
        for index in missing:
            strip = np.concatenate(film(config, digits[split].pictures, split, index), axis=1)
            with complete(_strip(raw, split, index)) as temporary:
                temporary.write_bytes(cv2.imencode(".png", strip)[1].tobytes())


def clips(config: MovingMnistConfig, raw: Path) -> list[Clip]:
    """List the clips, without labels. Raises :class:`VadError` if one is missing or has other settings or digits."""
    record, found = _record(raw), []
    for split in SPLITS:
        known = record.get(split, {})
        same = record.get("digits") == config.digits_of
        same = same and known.get("footage") == _footage(config, split, known.get("sha256"))
        for index in _planned(config, split):
            path = _strip(raw, split, index)
            if not same or not path.is_file():
                raise VadError(f"{path}: missing or of another configuration; run prepare again")
            frames = partial(read_strip, path, config.width)
            found.append(Clip(split, path.stem, path, config.frames_per_second, frames))
    return found


def film(config: MovingMnistConfig, digits: np.ndarray, split: Split, index: int) -> np.ndarray:
    """Render the frames of clip ``index`` of a split, uint8 ``[T, H, W]``, with some of ``digits`` ``[N, 28, 28]``.

    A clip does not depend on the number of clips. A longer clip starts with the same frames.
    """
    rng = np.random.default_rng([config.seed, SPLITS.index(split), index])
    corners = fly(config, rng, getattr(config, f"{split}_frames"))
    shown = digits[rng.integers(len(digits), size=config.digits)]
    return draw(shown, np.rint(corners).astype(int), (config.height, config.width))


def fly(config: MovingMnistConfig, rng: np.random.Generator, frames: int) -> np.ndarray:
    """Generate digit positions: upper left corners, float ``[T, digits, 2]``, (y, x) in pixels.

    The digits are always completely inside the picture.
    """
    room = np.array([config.height, config.width]) - DIGIT
    speed = rng.integers(*config.speeds, size=config.digits, endpoint=True)  # px per frame
    angle = rng.uniform(0, 2 * math.pi, config.digits)
    start = rng.uniform(0, 1, (config.digits, 2)) * room
    velocity = speed[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    return bounce(start + velocity * np.arange(frames)[:, None, None], room)


def bounce(way: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Reflect straight paths ``[..., 2]`` at the borders of the range 0..``room`` ``[2]``, each component on its own."""
    period = np.where(room > 0, 2 * room, 1)
    return np.minimum(np.abs((way + room) % period - room), room)  # minimum: all 0 if room is 0


def draw(shown: np.ndarray, corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw digits uint8 ``[n, 28, 28]`` at integer ``corners`` ``[T, n, 2]``: sums clipped to 255, uint8 ``[T, *size]``."""
    frames = np.zeros((len(corners), *size), np.int32)
    for frame, places in zip(frames, corners, strict=True):
        for digit, (y, x) in zip(shown, places, strict=True):
            frame[y : y + DIGIT, x : x + DIGIT] += digit
    return np.minimum(frames, 255).astype(np.uint8)


def find_digits(config: MovingMnistConfig, raw: Path, say: Callable[[str], None]) -> dict[Split, Digits]:
    """Load the digits of each split. No digit is in both splits.

    If both MNIST files exist, MNIST's own split is used. For a single file or scikit-learn's digits, the first 80 % are
    training digits.
    """
    if config.source == "scikit-learn":
        return _divide("scikit-learn's load_digits", scikit_learn_digits())
    if config.source == "download":
        files = [fetch(one, raw / _DOWNLOADED, say) for one in FILES]
    else:
        try:
            files = _idx_files(locate(config.source))
        except NotThere as error:
            raise VadError(
                f"{error}, or set it to download, or to scikit-learn for the digits that it brings"
            ) from error
    read = [(path.name.removesuffix(".gz"), read_idx(path)) for path in files]
    if len(read) == 1:
        return _divide(*read[0])
    return {split: _all_of(*one) for split, one in zip(SPLITS, read, strict=True)}


def read_idx(path: Path) -> np.ndarray:
    """Read the pictures of an idx file, gzipped or not: uint8 ``[N, 28, 28]``.

    Raises :class:`VadError` if the magic number, picture size or file length does not match MNIST.
    """
    data, again = path.read_bytes(), "fetch it again, or correct dataset.*.source"
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise VadError(f"{path}: not a whole gzip file ({error}); {again}") from error
    if len(data) < 16:
        raise VadError(f"{path}: {len(data)} bytes, shorter than the header of an idx file; {again}")
    magic, count, height, width = struct.unpack_from(">4I", data)
    if magic != _MAGIC:
        raise VadError(
            f"{path}: magic number {magic:#010x}, that of an idx file of pictures is {_MAGIC:#010x}; {again}"
        )
    if (height, width) != (DIGIT, DIGIT):
        raise VadError(f"{path}: pictures of {height}x{width} pixels, MNIST's are {DIGIT}x{DIGIT}; {again}")
    if len(data) != 16 + count * DIGIT * DIGIT:
        raise VadError(f"{path}: {len(data)} bytes, {count} pictures are {16 + count * DIGIT * DIGIT}; {again}")
    return np.frombuffer(data, np.uint8, offset=16).reshape(count, DIGIT, DIGIT)


def scikit_learn_digits() -> np.ndarray:
    """Load scikit-learn's 1,797 digits (8x8, 0..16) as uint8 ``[1797, 28, 28]``: bilinear resize, 16 becomes 255."""
    from sklearn.datasets import load_digits  # local: the import takes a second and other sources do not need it

    small = load_digits().images.astype(np.float32) * (255 / 16)
    return np.stack([np.rint(cv2.resize(digit, (DIGIT, DIGIT))) for digit in small]).astype(np.uint8)


def _idx_files(source: Path) -> list[Path]:
    """Find MNIST's picture files in the folder ``source``, training digits first. A file is returned as it is."""
    if source.is_file():
        return [source]
    names = [one.name.removesuffix(".gz") for one in FILES]
    places = [(source / name, source / f"{name}.gz") for name in names]
    found = [next((path for path in both if path.is_file()), None) for both in places]
    if not any(found):
        raise VadError(
            f"{source}: holds neither {names[0]} nor {names[1]}, gzipped or not; bring MNIST's files, or set "
            "dataset.*.source to download or scikit-learn"
        )
    return [path for path in found if path]


def _divide(origin: str, pictures: np.ndarray) -> dict[Split, Digits]:
    count = int(TRAIN_SHARE * len(pictures))
    if not count:
        raise VadError(f"{origin}: {len(pictures)} digits, training and testing need different ones; bring at least 2")
    return {
        "train": Digits(f"{origin}, digits 0 to {count - 1}", pictures[:count]),
        "test": Digits(f"{origin}, digits {count} to {len(pictures) - 1}", pictures[count:]),
    }


def _all_of(origin: str, pictures: np.ndarray) -> Digits:
    if not len(pictures):
        raise VadError(f"{origin}: holds no digits; fetch it again, or correct dataset.*.source")
    return Digits(f"{origin}, digits 0 to {len(pictures) - 1}", pictures)


def _entry(config: MovingMnistConfig, split: Split, digits: Digits) -> dict:
    """Return the record's entry for a split."""
    sha256 = hashlib.sha256(digits.pictures.tobytes()).hexdigest()
    return {"from": digits.origin, "sha256": sha256, "footage": _footage(config, split, sha256)}


def _footage(config: MovingMnistConfig, split: Split, sha256: str | None) -> str:
    """Return a digest of a split's footage, independent of the number of clips. ``sha256``: that of its digits."""
    fields = {name: getattr(config, name) for name in (*_FIELDS, f"{split}_frames")}
    return digest_of([VERSION, fields, sha256])


def _record(raw: Path) -> dict:
    try:
        return json.loads((raw / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # if it is missing or damaged, all clips are generated again
        return {}


def _planned(config: MovingMnistConfig, split: Split) -> range:
    return range(getattr(config, f"{split}_clips"))


def _strip(raw: Path, split: Split, index: int) -> Path:
    return raw / split / f"{index:04d}.png"


def _is_whole(path: Path) -> bool:
    return path.is_file() and path.read_bytes().endswith(_PNG_END)
