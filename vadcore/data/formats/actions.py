"""Human action clips stored as strips: ``<class>/<id>.jpg``, the frames of a clip side by side in one picture.

Training clips show some action classes. Test clips are held-out clips of the same classes (normal) and clips of classes
that are not in the training set (abnormal in every frame).

Ids encode performer and action: eight consecutive ids show one performer, and ids 2k and 2k + 1 show the same action,
where the second is the mirror image of the first. Both clips of such a pair are always on the same side of a split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from vadcore.data.delivery import Layout, check_delivered, deliver
from vadcore.data.formats.base import Clip, Split, StoredConfig, register_format
from vadcore.data.formats.clip_files import clip_name
from vadcore.data.image_files import IMAGE_ENDINGS, read_image
from vadcore.utils.errors import VadError


@register_format
class ActionsConfig(StoredConfig):
    """Human action clips stored as horizontal strips: ``<class>/<id>.jpg``."""

    format: Literal["actions"]
    frames_per_second: PositiveFloat = 25.0
    frame_width: PositiveInt | None = None  # null: frames are square
    train_classes: tuple[str, ...] | None = None  # null: all classes that are not test classes
    test_classes: tuple[str, ...] = ()  # classes that are only in the test split, as abnormal
    held_out: float = Field(default=0.2, ge=0, lt=1)  # share of each training class used as normal test clips
    # unit of the validation split: performer (all clips of a performer, in any action, stay together) or clip (only a
    # clip and its mirror image stay together)
    held_out_by: Literal["performer", "clip"] = "performer"

    @property
    def truth(self) -> str:
        return "unseen action classes" if self.test_classes else "none: every class is trained on"


IMAGES_OF_A_CLIP = 2  # consecutive ids: the clip and its mirror image
IMAGES_OF_A_PERFORMER = 8  # consecutive ids: four actions, each twice
LAYOUT = Layout(
    lambda path: len(path.parts) >= 2 and path.suffix.lower() in IMAGE_ENDINGS,
    "<class>/<id>.jpg, each file the frames of one clip side by side",
    endings=IMAGE_ENDINGS,
)


def prepare(config: ActionsConfig, raw: Path, say: Callable[[str], None] = print) -> None:
    """Copy or unpack the source into ``raw``."""
    deliver(config, raw, LAYOUT, say)


def clips(config: ActionsConfig, raw: Path) -> list[Clip]:
    """List the clips, named ``<class>-<id>``. Raises :class:`VadError` if a requested class does not exist."""
    check_delivered(raw)
    classes = _classes(raw)
    trained = config.train_classes
    if trained is None:
        trained = tuple(name for name in classes if name not in config.test_classes)
    both = set(trained) & set(config.test_classes)
    if both:
        raise VadError(
            f"dataset.*.test_classes: {', '.join(sorted(both))} is a training class too; keep it in one list"
        )
    for name in (*trained, *config.test_classes):
        if name not in classes:
            raise VadError(f"{raw}: no class {name}; there are: {', '.join(classes)}")
    found = []
    for name in trained:
        training, tested = hold_out(classes[name], config.held_out)
        found += [_clip(config, "train", path, None) for path in training]
        found += [_clip(config, "test", path, 0) for path in tested]
    for name in config.test_classes:
        found += [_clip(config, "test", path, 1) for path in classes[name]]
    return found


def hold_out(paths: list[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Split the clips of a class, sorted by id, into training clips and held-out test clips.

    A clip and its mirror image stay together. The last pairs are held out: ``share`` of all pairs, rounded. If ``share``
    is not 0, at least one pair is held out and at least one is kept. A clip whose id is not a number is its own pair.
    """
    groups: dict[tuple, list[Path]] = {}
    for path in sorted(paths, key=_id):
        groups.setdefault(_number(path, IMAGES_OF_A_CLIP), []).append(path)
    pairs = list(groups.values())
    count = min(max(1, round(share * len(pairs))), len(pairs) - 1) if share else 0
    if share and not count:
        raise VadError(
            f"{paths[0].parent}: one clip and its mirror image only, none can be held out; add clips or set held_out to 0"
        )
    kept = len(pairs) - count
    return list(chain(*pairs[:kept])), list(chain(*pairs[kept:]))


def read_strip(path: Path, width: int | None) -> Iterator[np.ndarray]:
    """Yield the frames of a strip from left to right, uint8 ``[H, W]`` or ``[H, W, 3]`` RGB.

    ``width``: width of a frame in pixels; None: square frames. Raises :class:`VadError` if the file cannot be read or
    its width is not a multiple of the frame width.
    """
    yield from _frames(path, width)


def _frames(path: Path, width: int | None) -> list[np.ndarray]:
    strip = read_image(path)
    step = width or strip.shape[0]
    if strip.shape[1] % step:
        raise VadError(
            f"{path}: {strip.shape[1]}x{strip.shape[0]} pixels are not a row of frames {step} wide; "
            "set dataset.*.frame_width or replace the file"
        )
    return np.split(strip, strip.shape[1] // step, axis=1)


def _labels(path: Path, width: int | None, label: int) -> np.ndarray:
    return np.full(len(_frames(path, width)), label, np.uint8)


def _clip(config: ActionsConfig, split: Split, path: Path, label: int | None) -> Clip:
    return Clip(
        split=split,
        name=clip_name(f"{path.parent.name}-{path.stem}"),
        source=path,
        fps=config.frames_per_second,
        frames=partial(read_strip, path, config.frame_width),
        labels=None if label is None else partial(_labels, path, config.frame_width, label),
        files=(path,),
        group=_group(config, path),
    )


def _classes(raw: Path) -> dict[str, list[Path]]:
    classes: dict[str, list[Path]] = {}
    for path in sorted(raw.rglob("*")):
        relative = PurePosixPath(path.relative_to(raw))
        if path.is_file() and LAYOUT.reason_against(relative) is None:
            classes.setdefault(path.parent.name, []).append(path)
    if not classes:
        raise VadError(f"{raw}: holds no clips; expected {LAYOUT.description}")
    return classes


def _group(config: ActionsConfig, path: Path) -> str:
    if config.held_out_by == "performer":
        return f"performer {_number(path, IMAGES_OF_A_PERFORMER)[1]}"
    return f"clip {_number(path, IMAGES_OF_A_CLIP)[1]}"


def _number(path: Path, ids: int) -> tuple:
    """Return the number of the clip's run of ``ids`` consecutive ids. An id that is not a number is its own run."""
    number = _id(path)
    return (0, number[1] // ids) if number[0] == 0 else number


def _id(path: Path) -> tuple:
    return (0, int(path.stem)) if path.stem.isdigit() else (1, path.stem)
