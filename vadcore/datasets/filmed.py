"""Clips that are video files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from vadcore.errors import VadError

from . import Clip, Split
from .framed import clip_name
from .reading import VIDEO_ENDINGS, read_video, video_fps

HIGHEST_RATE = 1000.0  # frames a second; beyond it a header states its clock, not its frames


def videos_in(folder: Path) -> list[Path]:
    """The video files below ``folder`` at any depth, sorted. Raises :class:`VadError` when there are none."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_ENDINGS and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise VadError(f"{folder}: holds no videos ({', '.join(sorted(VIDEO_ENDINGS))}); bring the footage")
    return found


def footage_clip(
    split: Split,
    video: Path,
    name: str,
    labels: Callable[[], np.ndarray] | None = None,
    masks: Callable[[], np.ndarray] | None = None,
    fps: float | None = None,
) -> Clip:
    """The clip in the file ``video``; ``fps`` overrides what its header says.

    A header that cannot be read gives the rate nan, so that one bad file does not hide the others: opening its frames
    raises the error. A header without a usable rate is a :class:`VadError` at once, because only a person knows it.
    """
    if fps is None:
        try:
            fps = video_fps(video)
        except VadError:
            fps = float("nan")
        if fps <= 0 or fps > HIGHEST_RATE:
            raise VadError(f"{video}: states no frame rate ({fps:g}); set dataset.*.frames_per_second")
    return Clip(
        split=split,
        name=clip_name(name),
        source=video,
        fps=fps,
        frames=partial(read_video, video),
        labels=labels,
        masks=masks,
        files=(video,),
    )
