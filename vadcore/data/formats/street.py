"""Generated surveillance footage with ground truth: labels, masks, object identities and optical flow.

The scene is a walkway seen from a mast: textured ground in perspective, sensor noise, slow changes of light, and people
of different size, clothing and gait at walking speed. People occlude each other and lamp posts occlude people. Training
clips are normal. Test clips contain anomalies (:data:`KINDS`); every 8th test clip has none.

The true flow is exact: every person consists of flat textured pieces that move by affine maps, so the motion of a pixel
is given by the map of the visible piece. It is stored in steps of 1/64 px. Noise, light and shadows change brightness but
are not motion: a pixel in a moving shadow has the flow of the ground, 0.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vadcore.data.formats.base import Clip, Split
from vadcore.data.synthetic.anomalies import KINDS
from vadcore.data.synthetic.clip import LEAST_VISIBLE, SyntheticClip, film, planned_events, site_of
from vadcore.data.synthetic.config import StreetConfig
from vadcore.data.synthetic.render import FLOW_UNIT
from vadcore.data.synthetic.storage import (
    clip_names,
    digest,
    is_complete,
    read_truth,
    remove_others,
    truth_path,
    video_path,
    write_clip,
)
from vadcore.data.video import read_video
from vadcore.utils.errors import VadError

__all__ = [
    "KINDS",
    "LEAST_VISIBLE",
    "SceneObject",
    "Tracks",
    "clips",
    "planned_events",
    "prepare",
    "tracks",
    "true_flow",
]


class SceneObject(NamedTuple):
    """An object of a clip: number in the identity map, kind, and whether it is abnormal in any frame."""

    number: int
    kind: str
    abnormal: bool


class Tracks(NamedTuple):
    """Object identities: ``identity`` uint16 ``[T, H, W]`` (0 = background) and the list of its objects."""

    identity: np.ndarray
    objects: list[SceneObject]


def prepare(config: StreetConfig, raw: Path, say: Callable[[str], None] = print) -> None:
    """Generate missing clips in ``raw`` and remove clips of other configurations.

    Clips are written atomically: an interrupted call can be repeated and resumes. Does nothing if all clips exist.
    """
    wanted = list(_planned(config))
    missing = [clip for clip in wanted if not is_complete(raw, clip[0], clip[1], digest(config, clip[0]))]
    todo = {clip[:2] for clip in missing}
    whole = [clip[:2] for clip in wanted if clip[:2] not in todo]
    removed = remove_others(raw, {path(raw, *clip) for clip in whole for path in (video_path, truth_path)})
    if removed:
        say(f"street: removed {removed} files of other or unfinished footage")
    if not missing:
        return
    site = site_of(config)

    def write(split: Split, name: str, index: int, footage: SyntheticClip) -> None:
        write_clip(raw, split, name, footage, config.frames_per_second, digest(config, split))
        events = ", ".join(planned_events(config, split, index)) or "normal"
        say(f"street: {split}/{name}, {len(footage.frames)} frames, {len(footage.kinds)} objects, {events}")

    with ThreadPoolExecutor(1) as pool:
        written: Future[None] | None = None
        for split, name, index in missing:
            footage = film(config, site, split, index)
            if written is not None:
                written.result()
            written = pool.submit(write, split, name, index, footage)  # writes while the next clip is generated
        if written is not None:
            written.result()


def clips(config: StreetConfig, raw: Path) -> list[Clip]:
    """List the generated clips. Raises :class:`VadError` if one is missing or has another configuration."""
    found = []
    for split, name, _ in _planned(config):
        if not is_complete(raw, split, name, digest(config, split)):
            raise VadError(f"{video_path(raw, split, name)}: missing or of another configuration; run prepare again")
        video = video_path(raw, split, name)
        found.append(
            Clip(
                split=split,
                name=name,
                source=video,
                fps=config.frames_per_second,
                frames=partial(read_video, video),
                labels=partial(_labels, raw, split, name),
                masks=partial(_masks, raw, split, name, config.width),
            )
        )
    return found


def true_flow(raw: Path, split: str, name: str) -> np.ndarray:
    """Read the true optical flow of a clip, float32 ``[T-1, 2, H, W]`` in pixels: u to the right, v down.

    Entry t is the motion of the pixels of frame t to frame t + 1. The flow of the background is 0.
    """
    (flow,) = read_truth(Path(raw), split, name, "flow")
    return flow.astype(np.float32) * np.float32(FLOW_UNIT)


def tracks(raw: Path, split: str, name: str) -> Tracks:
    """Read the object identity of every pixel of a clip and the list of objects."""
    identity, kinds, abnormal = read_truth(Path(raw), split, name, "identity", "object_kind", "object_abnormal")
    table = [SceneObject(i, str(kind), bool(bad)) for i, (kind, bad) in enumerate(zip(kinds, abnormal, strict=True), 1)]
    return Tracks(identity, table)


def _planned(config: StreetConfig):
    """Yield (split, name, index) of every clip."""
    for split, count in (("train", config.train_clips), ("test", config.test_clips)):
        for index, name in enumerate(clip_names(count)):
            yield split, name, index


def _labels(raw: Path, split: str, name: str) -> np.ndarray:
    return read_truth(raw, split, name, "labels")[0]


def _masks(raw: Path, split: str, name: str, width: int) -> np.ndarray:
    return np.unpackbits(read_truth(raw, split, name, "masks")[0], axis=-1, count=width)
