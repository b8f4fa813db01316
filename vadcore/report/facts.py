"""Facts about the footage as short phrases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vadcore.report.columns import NONE, duration


def phrases(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, text) pairs for the keys of facts.json. Unknown keys are shown as given."""
    rest = dict(facts)
    said = []
    for name, keys, phrase in PHRASES:
        if all(key in rest for key in keys):
            text = phrase(*(rest.pop(key) for key in keys))
            if text:
                said.append((name, text))
    return said + [(key.replace("_", " "), fact(value)) for key, value in rest.items()]


def fact(value) -> str:
    """Format a fact as text. Dicts and lists become short phrases."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {fact(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):  # sizes or names
        return (" × " if all(isinstance(entry, int) for entry in value) else ", ").join(map(fact, value)) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return NONE if value is None else str(value)


def _pictures(kind: str, width: int, height: int, color: str, fps: float) -> str:
    return f"{kind}, {width} × {height}, {'grey' if color == 'grey' else 'colour'}, {fps:g} frames a second"


def _normal(clips: int, frames: int) -> str:
    return f"{_clips(clips)}, {frames:,} frames"


def _tested(clips: int, frames: int, abnormal: int, labelled: int) -> str:
    if not labelled:
        return f"{_normal(clips, frames)}, not labelled"
    of = "" if labelled == clips else f" in the {labelled} clips that are labelled"
    return f"{_normal(clips, frames)}, {abnormal:,} of them abnormal{of}"


def _clips(count: int) -> str:
    return "1 clip" if count == 1 else f"{count:,} clips"


def _left_out(clips: list[dict[str, str]]) -> str:
    return "; ".join(f"{clip['clip']} ({clip['why']})" for clip in clips)


def _length(hours: float, frames: int) -> str:
    return f"{duration(3600 * hours)}, {frames:,} frames"


PHRASES: tuple[tuple[str, tuple[str, ...], Callable[..., str]], ...] = (
    ("footage", ("format", "width", "height", "color", "fps"), _pictures),
    ("for training", ("train_clips", "train_frames"), _normal),
    ("for testing", ("test_clips", "test_frames", "test_frames_abnormal", "test_clips_labelled"), _tested),
    ("in all", ("hours", "frames"), _length),
    ("labels", ("label_set",), str),
    ("left out", ("left_out",), _left_out),
    ("content digest", ("digest",), str),
)
