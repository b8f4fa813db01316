"""Normal pedestrian traffic: arrival times, paths and speeds.

People keep right: they walk towards larger a on the near half of the walkway (b < 0) and towards smaller a on the far
half. Arrivals are a Poisson process of single people and pairs, at 1.0 to 1.7 m/s. Traffic starts before the first frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vadcore.data.synthetic.actor import Actor, Motion
from vadcore.data.synthetic.camera import Camera
from vadcore.data.synthetic.people import on_foot, random_look
from vadcore.data.synthetic.site import HALF_WALKWAY

MARGIN = 1.6  # m outside the picture where people appear and disappear, to include their shadows
PAIRS = 0.25  # share of arrivals that are two people side by side
ROOM = 0.9  # m, desired distance between people
TRIES = 12  # number of candidate paths for each arrival


@dataclass(frozen=True)
class Clock:
    """Times of ``count`` frames from frame ``first`` on, at ``rate`` frames per second. Frame 0 is at second 0."""

    count: int
    rate: float
    first: int = 0

    @property
    def times(self) -> np.ndarray:
        """Times of the frames in seconds, float ``[T]``."""
        return (self.first + np.arange(self.count)) / self.rate

    @property
    def length(self) -> float:
        """Duration in seconds."""
        return self.count / self.rate

    def between(self, start: float, end: float) -> Clock:
        """Frames from second ``start`` to second ``end``, at least one, limited to the frames of the clip."""
        first = int(np.clip(np.floor(start * self.rate), 0, self.count - 1))
        last = int(np.clip(np.ceil(end * self.rate), first, self.count - 1))
        return Clock(last - first + 1, self.rate, first)


def keep_right(b: float) -> int:
    """Return the normal walking direction at ``b``: 1 (larger a) or -1 (smaller a)."""
    return 1 if b < 0 else -1


def straight_on(
    clock: Clock, through: tuple[float, float], at: float, direction: int, speed: float, slope: float = 0.0,
    sway: tuple[float, float] = (0.0, 0.0), pace: np.ndarray | None = None,
) -> Motion:  # fmt: skip
    """Create a path along the walkway.

    Parameters
    ----------
    clock: frames of the path.
    through: point (a, b) in m that is passed at second ``at``.
    at: time in seconds.
    direction: 1 (larger a) or -1 (smaller a).
    speed: usual speed, m/s.
    slope: change of b per metre of a.
    sway: (amplitude in m, phase) of a slow lateral oscillation.
    pace: ``[T]``, current speed divided by the usual speed; None: 1.
    """
    pace = np.ones(clock.count) if pace is None else pace
    covered = np.concatenate([[0.0], np.cumsum((pace[1:] + pace[:-1]) / 2)]) * speed / clock.rate
    passed = np.interp(at, clock.times, covered)
    # np.interp does not extrapolate beyond the ends of the clock.
    before, after = min(at - clock.times[0], 0.0), max(at - clock.times[-1], 0.0)
    distance = covered - passed - (before + after) * speed
    along = direction * distance
    a = through[0] + along
    b = through[1] + slope * along + sway[0] * np.sin(2 * np.pi * a / 7 + sway[1])
    steer = slope + sway[0] * np.cos(2 * np.pi * a / 7 + sway[1]) * 2 * np.pi / 7
    heading = np.arctan2(direction * steer, float(direction))
    return Motion(np.stack([a, b], axis=-1), heading, distance, pace, speed, clock.first)


def closest(motion: Motion, others: list[Motion]) -> float:
    """Return the smallest distance in metres to any of the others in any common frame, at most ``ROOM``."""
    least = ROOM
    for other in others:
        start = max(motion.first, other.first)
        end = min(motion.first + len(motion.position), other.first + len(other.position))
        if start < end:
            mine, theirs = (way.position[start - way.first : end - way.first] for way in (motion, other))
            least = min(least, float(np.linalg.norm(mine - theirs, axis=-1).min()))
    return least


def pedestrians(
    camera: Camera, clock: Clock, rng: np.random.Generator, per_minute: float, taken: list[Motion]
) -> list[Actor]:
    """Create the pedestrians of one clip. ``taken``: existing paths, which they avoid if possible."""
    far = camera.visible_span(HALF_WALKWAY, MARGIN)
    gap = 60.0 * (1 + PAIRS) / per_minute  # seconds between arrivals
    arrival = -(far[1] - far[0]) / 1.0  # early enough that the slowest person has crossed the picture at second 0
    actors: list[Actor] = []
    ways = list(taken)
    while True:
        arrival += rng.exponential(gap)
        if arrival >= clock.length:
            return actors
        ways = [way for way in ways if way.first + len(way.position) > arrival * clock.rate]
        for motion in _newcomers(camera, clock, rng, arrival, ways):
            ways.append(motion)
            look = random_look(rng)
            if _seen(camera, motion):
                actors.append(on_foot(camera, look, motion)[0])


def _newcomers(
    camera: Camera, clock: Clock, rng: np.random.Generator, arrival: float, ways: list[Motion]
) -> list[Motion]:
    """Create the path of one person, or of two side by side: the random candidate with the most free space."""
    pair = rng.random() < PAIRS
    best, room = [], -1.0
    for _ in range(TRIES):
        half = -1 if rng.random() < 0.5 else 1
        b = half * rng.uniform(0.6, HALF_WALKWAY - 0.5)
        speed = float(np.clip(rng.normal(1.33, 0.16), 1.0, 1.7))
        sway = (rng.uniform(0.05, 0.25), rng.uniform(0, 2 * np.pi))
        direction = keep_right(b)
        span = camera.visible_span(b, MARGIN)
        start = span[0] if direction > 0 else span[1]
        lines = [b - 0.3, b + 0.3] if pair else [b]
        crossing = clock.between(arrival, arrival + (span[1] - span[0] + 1.0) / speed)
        tried = [straight_on(crossing, (start, line), arrival, direction, speed, sway=sway) for line in lines]
        roomy = min(closest(motion, ways) for motion in tried)
        if roomy > room:
            best, room = tried, roomy
        if room >= ROOM:
            break
    return best


def _seen(camera: Camera, motion: Motion) -> bool:
    """Whether a person on this path is in the picture during the clip."""
    low, high = camera.visible_span(motion.position[:, 1], MARGIN)
    return bool(((motion.position[:, 0] > low) & (motion.position[:, 0] < high)).any())
