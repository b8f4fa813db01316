"""The ``dataset.<name>`` sections of params.yaml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from vadcore.errors import VadError


class Section(BaseModel):
    """A section of params.yaml: unknown keys are errors, numbers are finite, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Size = Annotated[tuple[PositiveInt, PositiveInt], Field(description="[height, width] in pixels")]

_FORMATS: dict[str, type[Footage]] = {}


def register_format(config: type[Footage]) -> type[Footage]:
    """Class decorator: makes ``config`` the section of the format that its field ``format`` names."""
    (name,) = get_args(config.model_fields["format"].annotation)
    if name in _FORMATS:
        raise ValueError(f"two formats are called {name!r}")
    _FORMATS[name] = config
    return config


def list_formats() -> list[str]:
    """Names of the formats known so far: those of this module, and of what was imported."""
    return list(_FORMATS)


def config_of(format: str) -> type[Footage] | None:
    """The configuration class of a format; None where it is not known so far."""
    return _FORMATS.get(format)


class Footage(Section):
    """What every data set can be told about extraction."""

    size: Size | None = None  # null keeps the footage's own size
    color: Literal["grey", "rgb"] = "grey"
    fps: PositiveFloat | None = None  # keep only as many frames a second (null: all of them)

    @property
    def truth(self) -> str:
        """Which of the labels in circulation results are measured against; goes into every table."""
        return "as delivered"


@register_format
class Street(Footage):
    """The generated surveillance scene; see vadcore/datasets/street."""

    format: Literal["street"]
    seed: int = Field(default=0, ge=0)
    height: int = Field(default=128, ge=48, multiple_of=2)  # pixels; the lossless video has even sides
    width: int = Field(default=192, ge=48, multiple_of=2)
    frames_per_second: PositiveFloat = 12.5
    train_clips: PositiveInt = 6
    train_frames: int = Field(default=150, ge=2)  # a clip
    test_clips: PositiveInt = 8  # the seven kinds of events take turns; every 8th clip is wholly normal
    test_frames: int = Field(default=150, ge=2)
    people_per_minute: PositiveFloat = 40.0  # rate at which people enter the scene
    anomalies_per_clip: PositiveInt = 1  # events in a test clip that is not wholly normal
    noise: float = Field(default=2.0, ge=0)  # standard deviation of the sensor noise, grey levels

    @model_validator(mode="after")
    def _picture_shape(self) -> Street:
        if not self.height / 2 <= self.width <= 4 * self.height:
            raise ValueError(f"width {self.width} must be between half and four times the height {self.height}")
        return self

    @property
    def truth(self) -> str:
        return "generated truth"


class Stored(Footage):
    """Footage that lies somewhere on this machine, or can be downloaded."""

    source: str  # a folder or archive (absolute, or relative to $VAD_DATA_DIR or to the project), or "download"


@register_format
class Frames(Stored):
    """``training/frames/NN/*.jpg``, ``testing/frames/NN/*.jpg``, an optional ``.mat`` of intervals and masks."""

    format: Literal["frames"]
    frames_per_second: PositiveFloat = 10.0  # image files carry no rate
    labels: str | None = None  # file name inside the folder; null: the only *.mat there is
    masks: str | None = None  # file name inside the folder; null: pixel_masks.npz where it exists

    @property
    def truth(self) -> str:
        return "intervals (.mat)"


@register_format
class Ucsd(Stored):
    """The official UCSD tree (Ped1, Ped2): tif frames, ``_gt`` masks, the ``.m`` list of abnormal intervals."""

    format: Literal["ucsd"]
    subset: Literal["UCSDped1", "UCSDped2"] = "UCSDped2"
    frames_per_second: PositiveFloat = 10.0

    @property
    def truth(self) -> str:
        return "intervals (.m list)"


@register_format
class Avenue(Stored):
    """CUHK Avenue: avi clips; two label sets are in circulation and differ on 441 of 15 324 frames."""

    format: Literal["avenue"]
    label_set: Literal["masks", "intervals"] = "masks"

    @property
    def truth(self) -> str:
        return self.label_set


@register_format
class ShanghaiTech(Stored):
    """ShanghaiTech Campus: training videos, test frames, ``.npy`` frame (and pixel) masks."""

    format: Literal["shanghaitech"]
    frames_per_second: PositiveFloat = 24.0  # of the test frames, which carry no rate

    @property
    def truth(self) -> str:
        return "frame masks (.npy)"


@register_format
class Videos(Stored):
    """A folder of footage: ``train/`` (normal only) and ``test/``; labels optional."""

    format: Literal["videos"]
    # CSV beside train/ and test/: clip,start,end (seconds or hh:mm:ss) or clip,first_frame,last_frame (from 0, inclusive)
    labels: str | None = None
    frames_per_second: PositiveFloat | None = None  # null: what each video's header says

    @property
    def truth(self) -> str:
        return "intervals (CSV)"


@register_format
class Actions(Stored):
    """Human action clips stored as horizontal strips: ``<class>/<id>.jpg``."""

    format: Literal["actions"]
    frames_per_second: PositiveFloat = 25.0
    frame_width: PositiveInt | None = None  # null: frames are square
    train_classes: tuple[str, ...] | None = None  # null: all classes that are not test classes
    test_classes: tuple[str, ...] = ()  # shown only in the test split, as abnormal
    held_out: float = Field(default=0.2, ge=0, lt=1)  # share of each training class's clips that is tested as normal
    # of what is held out of training for selection and calibration, training sees nothing: of the performer,
    # in any action, or just of the clip and its mirror image
    held_out_by: Literal["performer", "clip"] = "performer"

    @property
    def truth(self) -> str:
        return "unseen action classes" if self.test_classes else "none: every class is trained on"


DIGIT = 28  # pixels: height and width of MNIST's digits
WIDEST_STRIP = 1_000_000  # pixels: readers of PNG files refuse wider pictures


@register_format
class MovingMnist(Stored):
    """Generated: handwritten digits that bounce off the walls of the picture; see vadcore/datasets/moving_mnist.py.

    The defaults are 64x64 with training sequences of 30 frames. The field's benchmark has 20 frames in all sequences, and
    10,000 to test on.
    """

    format: Literal["moving_mnist"]
    source: str  # a folder with MNIST's idx files of pictures (or one such file), "download", or "scikit-learn"
    seed: int = Field(default=0, ge=0)
    height: PositiveInt = 64  # pixels
    width: PositiveInt = 64
    digits: PositiveInt = 2  # a clip
    speeds: tuple[PositiveInt, PositiveInt] = (2, 6)  # pixels a frame: the least and the greatest, both included
    frames_per_second: PositiveFloat = 10.0
    train_clips: PositiveInt = 1000
    train_frames: int = Field(default=30, ge=2)  # a clip
    test_clips: PositiveInt = 100
    test_frames: int = Field(default=60, ge=2)

    @model_validator(mode="after")
    def _fits(self) -> MovingMnist:
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
        """Whose digits they are, as the report names them."""
        return "scikit-learn" if self.source == "scikit-learn" else "MNIST"

    @property
    def truth(self) -> str:
        return f"none: generated, digits of {self.digits_of}"


class NotThere(VadError):
    """A data set's source names nothing."""


def locate(source: str) -> Path:
    """The path that ``source`` names: absolute, or inside ``$VAD_DATA_DIR``, or inside the working folder."""
    path = Path(source).expanduser()
    data_dir = os.environ.get("VAD_DATA_DIR")
    candidates = [path] if path.is_absolute() or not data_dir else [Path(data_dir).expanduser() / path, path]
    for candidate in candidates:
        if candidate.exists():
            return candidate.resolve()
    tried = " or ".join(str(candidate) for candidate in candidates)
    hint = "" if data_dir else " (VAD_DATA_DIR, the folder of data sets at hand, is not set)"
    raise NotThere(f"source {source}: not found at {tried}{hint}; correct dataset.*.source in params.yaml")
