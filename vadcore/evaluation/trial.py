"""Trial without test labels: a clip store of held-out normal clips with synthetic anomalies inserted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vadcore.data.store import ClipId, ClipStore, intervals
from vadcore.data.windows import Segment
from vadcore.evaluation.synthetic_anomalies import KINDS, alter
from vadcore.utils.errors import VadError
from vadcore.utils.files import digest_of
from vadcore.utils.spaced import spaced

MOST_FRAMES = 300  # maximum frames in a piece; longer clips are split into several pieces
MOST_PIECES = 24  # maximum number of pieces, evenly spread over the held-out footage
FEWEST = 6  # anomalies of each kind; with fewer pieces, each gets several, in clips of their own


def make_trial(frames: ClipStore, held: list[Segment], url: str | Path, seed: int) -> ClipStore:
    """Create a frame store at ``url`` with labelled test clips made from held-out normal clips.

    The held-out footage is split into pieces; each piece yields at least one test clip per kind of synthetic anomaly, and
    all of them at least :data:`FEWEST`. The same seed gives the same store.

    frames: store of the original frames. held: normal footage that was not used for training. Raises :class:`VadError`
    if no piece has at least 6 frames.
    """
    trial = ClipStore(url, "frames", write=True)
    pieces = _pieces(held)
    if not pieces:
        raise VadError(f"{frames.url}: no held-out clip has 6 frames; give longer clips or a larger train.val_share")
    for number, piece in enumerate(pieces * -(-FEWEST // len(pieces))):
        shown = frames.read(piece.clip, piece.start, piece.stop)
        known = frames.attributes(piece.clip)
        for kind in KINDS:
            altered = alter(shown, kind, seed + number)
            name = f"{piece.clip.name}-{piece.start}-{kind}-{number // len(pieces) + 1}"
            with trial.writer(ClipId("test", name)) as writer:
                writer.append(altered.frames)
                if frames.has_times(piece.clip):
                    times = frames.times(piece.clip)[piece.start : piece.stop]
                    writer.set_times(times - times[0])
                writer.update(
                    {
                        "fps": known["fps"],
                        "source_sha256": digest_of([known["source_sha256"], piece.start, piece.stop]),
                        "extraction": digest_of([known["extraction"], kind, seed + number]),
                        "labelled": True,
                        "abnormal": intervals(altered.abnormal.astype(np.uint8)),
                    }
                )
    return ClipStore(url, "frames")


def val_digest(pieces: list[tuple[str, int, int]]) -> str:
    """Digest that identifies held-out footage. pieces: (clip, first frame, frame after the last), in any order."""
    return digest_of(sorted([clip, int(start), int(stop)] for clip, start, stop in pieces))


def _pieces(held: list[Segment]) -> list[Segment]:
    """Split segments into pieces of 6 to :data:`MOST_FRAMES` frames; keep at most :data:`MOST_PIECES`, evenly spread."""
    every = [
        Segment(segment.clip, start, min(start + MOST_FRAMES, segment.stop))
        for segment in held
        for start in range(segment.start, segment.stop, MOST_FRAMES)
    ]
    every = [piece for piece in every if len(piece) >= 6]
    return [every[place] for place in spaced(len(every), MOST_PIECES)]
