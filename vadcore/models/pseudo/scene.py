"""Background of all training footage, and how often something moves at each place (occupancy)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from vadcore.data.windows import median_picture
from vadcore.models.pseudo.cutouts import object_centres, read_frames, soft_masks, still_scene

if TYPE_CHECKING:
    from vadcore.data.loader import ClipLoader

GRID = (32, 48)  # rows and columns of the occupancy map
SAMPLES = 400  # number of frames from which occupancy is estimated
BACKGROUNDS = 60  # number of backgrounds whose median is the background of all footage
SPREAD = 1.0  # standard deviation of the smoothing of the occupancy map, in its cells
FLOOR = 0.01  # added to the occupancy (in multiples of its mean) before the logarithm
RARE = 0.1  # occupancy (in multiples of its mean) below which a place is unusual
FEWEST_CLIPS, PIECES = 5, 10  # with fewer clips, cross-validation uses this many pieces of the footage instead of clips
EXCEPTIONS = 0.002  # occupancy is used up to this number of objects at unusual places, per frame of normal footage


@dataclass(frozen=True)
class Scene:
    """Background and occupancy of a scene.

    background: uint8 ``[H, W, C]``. occupancy: float32 :data:`GRID`, how often something moves there, in multiples of the
    mean; 1 everywhere if normal objects appear at unusual places, too.
    """

    background: np.ndarray
    occupancy: np.ndarray

    @classmethod
    def of(cls, background: np.ndarray, logarithm: np.ndarray) -> Scene:
        """Create a scene from the :attr:`logarithm` of its occupancy."""
        return cls(background, np.exp(2 * logarithm) - FLOOR)

    @property
    def logarithm(self) -> np.ndarray:
        """Half the logarithm of the occupancy, float32 :data:`GRID`: -2.3 without motion, 0 for the mean."""
        return np.log(self.occupancy + FLOOR) / 2

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Occupancy at places given as shares of the picture's height and width, 0..1."""
        return self.occupancy[_places(rows, columns)]


def learn_scene(footage: ClipLoader, every: int) -> Scene:
    """Estimate the scene of ``footage``. every: distance between the frames of a window.

    Cross-validation over clips decides whether occupancy is used: the objects of each clip are looked up in the occupancy of
    the other clips. If more than :data:`EXCEPTIONS` of them are at unusual places, occupancy is not used.
    """
    frames = [(number, frame) for number, length in enumerate(footage.lengths) for frame in range(0, length, every)]
    chosen = [frames[n] for n in np.unique(np.linspace(0, len(frames) - 1, SAMPLES).astype(int))]
    clips = len(footage.lengths)
    counts = np.zeros((clips if clips >= FEWEST_CLIPS else PIECES, *GRID))  # how often something moves, by piece
    objects: list[list[tuple[float, float]]] = [[] for _ in counts]
    for place, (number, frame) in enumerate(chosen):
        piece = number if clips >= FEWEST_CLIPS else place * PIECES // len(chosen)
        mask = soft_masks(read_frames(footage, number, frame, 1), still_scene(footage, number, frame))[0]
        counts[piece] += cv2.resize(mask, GRID[::-1], interpolation=cv2.INTER_AREA)
        objects[piece] += object_centres(mask)
    total, exceptions = counts.sum(0), 0
    for own, centres in zip(counts, objects, strict=True):
        if centres:
            exceptions += int((_occupancy(total - own)[_places(*np.array(centres).T)] < RARE).sum())
    settled = exceptions <= EXCEPTIONS * len(chosen)
    few = [chosen[n] for n in np.unique(np.linspace(0, len(chosen) - 1, BACKGROUNDS).astype(int))]
    background = median_picture(np.stack([still_scene(footage, *one) for one in few]))
    return Scene(background, _occupancy(total) if settled else np.ones(GRID, np.float32))


def _occupancy(counts: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(counts, (0, 0), SPREAD, borderType=cv2.BORDER_REPLICATE)
    return (smooth / max(smooth.mean(), 1e-9)).astype(np.float32)


def _places(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    row, column = (
        (part * side).astype(int).clip(0, side - 1) for part, side in zip((rows, columns), GRID, strict=True)
    )
    return row, column
