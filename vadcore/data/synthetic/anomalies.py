"""Seven kinds of anomalies for the test clips.

Each stage function creates one event that starts at about second ``at`` and returns its actors. ``Actor.abnormal`` marks
the abnormal frames. Other people in the event (those who leave or fetch the bag) are normal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vadcore.data.synthetic.actor import Actor, Motion, along_bone, stand
from vadcore.data.synthetic.camera import Camera
from vadcore.data.synthetic.people import cast, on_foot, random_look
from vadcore.data.synthetic.site import HALF_WALKWAY, KERB
from vadcore.data.synthetic.skeleton import Posture
from vadcore.data.synthetic.sprites import Cloth, spindle
from vadcore.data.synthetic.traffic import Clock, keep_right, straight_on
from vadcore.data.synthetic.vehicles import bicycle, cart

Staged = tuple[list[Actor], list[Motion]]
LIES = 0.42  # share of the clip during which a left bag or a fallen person stays on the ground
BEND = 1.6  # s to bend down to the ground and up again
FALL, RISE = 0.7, 1.6  # duration of a fall and of getting up, s


def stage(kind: str, camera: Camera, clock: Clock, rng: np.random.Generator, at: float) -> Staged:
    """Create an event of ``kind`` that starts at about second ``at``. Returns its actors and their paths."""
    return _STAGES[kind](camera, clock, rng, at)


def _crossing(camera: Camera, clock: Clock, rng: np.random.Generator, at: float, speed: float, against=False) -> Motion:
    """Create a path across the picture, in view from second ``at``, with or against the walking direction."""
    b = rng.choice([-1, 1]) * rng.uniform(0.8, HALF_WALKWAY - 1.2)
    direction = -keep_right(b) if against else keep_right(b)
    return _enter(camera, clock, at, b, direction, speed, sway=(0.1, rng.uniform(0, 6)))


def _enter(camera: Camera, clock: Clock, at: float, b: float, direction: int, speed: float, **how) -> Motion:
    edge = camera.visible_span(b, 0.3)[0 if direction > 0 else 1]
    return straight_on(clock, (edge, b), at, direction, speed, **how)


def _bicycle(camera: Camera, clock: Clock, rng: np.random.Generator, at: float) -> Staged:
    motion = _crossing(camera, clock, rng, at, rng.uniform(3.6, 4.6))
    return [bicycle(camera, random_look(rng), motion)], [motion]


def _cart(camera: Camera, clock: Clock, rng: np.random.Generator, at: float) -> Staged:
    motion = _crossing(camera, clock, rng, at, rng.uniform(2.4, 3.2))
    return [cart(camera, random_look(rng), motion)], [motion]


def _runner(camera: Camera, clock: Clock, rng: np.random.Generator, at: float) -> Staged:
    motion = _crossing(camera, clock, rng, at, rng.uniform(3.0, 3.8))
    return [on_foot(camera, random_look(rng), motion, "runner", True)[0]], [motion]


def _against_the_stream(camera: Camera, clock: Clock, rng: np.random.Generator, at: float) -> Staged:
    motion = _crossing(camera, clock, rng, at, rng.uniform(1.35, 1.7), against=True)
    return [on_foot(camera, random_look(rng), motion, "against the stream", True)[0]], [motion]


def _across_the_lawn(camera: Camera, clock: Clock, rng: np.random.Generator, at: float) -> Staged:
    direction = int(rng.choice([-1, 1]))
    # The near lawn is in the lower right of the picture, so the path comes slightly nearer from left to right.
    b = -(HALF_WALKWAY + KERB) - rng.uniform(0.6, 0.9) - (0.0 if direction > 0 else 0.5)
    motion = _enter(camera, clock, at, b, direction, rng.uniform(1.3, 1.6), slope=-0.05)
    return [on_foot(camera, random_look(rng), motion, "across the lawn", True)[0]], [motion]


def _left_object(camera: Camera, clock: Clock, rng: np.random.Generator, at: float) -> Staged:
    """A person leaves a bag and another person fetches it later. The bag is abnormal while it is alone."""
    b = rng.choice([-1, 1]) * rng.uniform(0.9, HALF_WALKWAY - 0.9)
    direction = keep_right(b)
    middle = sum(camera.visible_span(b, 0.0)) / 2
    spot = middle + direction * rng.uniform(-1.5, 0.5)
    leaves, fetched = at, min(at + LIES * clock.length, clock.length + BEND)
    looks = [random_look(rng), random_look(rng)]
    carriers, hands, ways = [], [], []
    for moment, look in ((leaves, looks[0]), (fetched, looks[1])):
        bent = _bump(clock.times, moment, BEND)
        pace = 1 - _bump(clock.times, moment, BEND + 0.8)
        posture = Posture(0.04 + 1.05 * bent, 0.75 * bent, 0.0, carrying=True)
        motion = straight_on(clock, (spot, b), moment, direction, rng.uniform(1.15, 1.4), pace=pace)
        actor, joints = on_foot(camera, look, motion, "pedestrian", False, posture)
        carriers.append(actor)
        hands.append(joints["hand_r"])
        ways.append(motion)
    # Shift the second path so that the hand of the second person reaches the bag where the first person left it.
    drop = hands[0][clock_index(clock, leaves)]
    ground = np.array([drop[0], drop[1], 0.0])
    reach = hands[1][clock_index(clock, fetched)]
    shift = ground[:2] - reach[:2]
    moved = Motion(ways[1].position + shift, ways[1].heading, ways[1].distance, ways[1].pace, ways[1].speed)
    bent = _bump(clock.times, fetched, BEND)
    posture = Posture(0.04 + 1.05 * bent, 0.75 * bent, 0.0, carrying=True)
    carriers[1], joints = on_foot(camera, looks[1], moved, "pedestrian", False, posture)
    ways[1], hands[1] = moved, joints["hand_r"]
    bag = _bag(camera, clock, rng, ground, hands, leaves, fetched, ways)
    return [*carriers, bag], ways


def _bag(
    camera: Camera, clock: Clock, rng, ground: np.ndarray, hands: list, leaves: float, fetched: float, ways
) -> Actor:
    """Create the bag: first in the first hand, then on the ground, then in the second hand."""
    height, half = 0.42, 0.24
    times = clock.times[:, None]
    carried = [np.maximum(hand - [0, 0, height + 0.03], [-np.inf, -np.inf, 0.0]) for hand in hands]
    foot = np.where(times < leaves, carried[0], np.where(times < fetched, ground, carried[1]))
    alone = (clock.times >= leaves) & (clock.times < fetched)
    colour = [(150, 44, 40), (36, 44, 70), (122, 88, 52)][rng.integers(3)]
    cloth = Cloth(colour, int(rng.integers(2**31)), (colour[0] * 0.6, colour[1] * 0.6, colour[2] * 0.6), 0.21)
    outline = [(-height, 0.05), (-height + 0.07, 0.06), (-height + 0.10, 0.85 * half), (-0.05, half), (0.0, 0.9 * half)]
    sprite = spindle(outline, cloth, camera.focal / 9)
    actor = stand(camera, "left object", foot[:, :2], alone)
    top = foot + np.array([0.0, 0.0, height])
    bone = along_bone(camera, sprite, foot, top, height)
    # Sprite point (0, 0) is the bottom of the bag and y points down, so turn the axis down.
    bone.maps[:, :, :2] *= -1
    actor.pieces.append(bone)
    actor.shadows.append(cast(camera, foot, top, 2 * half))
    nearer = np.where(clock.times < leaves, 0, 1)
    held = np.where(alone, actor.depth, np.stack([_depth(camera, way) for way in ways])[nearer, np.arange(clock.count)])
    actor.depth = held - 0.15  # draw the person who carries or reaches for the bag first
    return actor


def _depth(camera: Camera, way: Motion) -> np.ndarray:
    return camera.depth(np.concatenate([way.position, np.zeros((len(way.position), 1))], axis=1))


def _fall(camera: Camera, clock: Clock, rng: np.random.Generator, at: float) -> Staged:
    """A person walks, falls, lies, gets up and walks on. Abnormal from the start of the fall until upright again."""
    b = rng.choice([rng.uniform(-2.8, -0.9), rng.uniform(0.7, 1.6)])  # not too far: a lying body must not be too thin
    direction = keep_right(b)
    spot = sum(camera.visible_span(b, 0.0)) / 2 + direction * rng.uniform(-2.0, 0.5)
    times, up_again = clock.times, at + FALL + LIES * clock.length
    down = np.clip((times - at) / FALL, 0, 1) ** 2  # the fall accelerates
    risen = _ease(times, up_again, RISE)
    fallen = np.pi / 2 * 0.96 * (down - risen)
    pace = 1 - _ease(times, at - 0.1, 0.5) + _ease(times, up_again + RISE * 0.8, 0.8)
    crouch = 0.55 * _bump(times, up_again + RISE / 2, RISE)
    posture = Posture(0.05, crouch, fallen)
    motion = straight_on(clock, (spot, b), at, direction, rng.uniform(1.3, 1.6), pace=pace)
    abnormal = (times >= at) & (times < up_again + RISE)
    return [on_foot(camera, random_look(rng), motion, "fall", abnormal, posture)[0]], [motion]


def clock_index(clock: Clock, second: float) -> int:
    """Return the first frame at or after this second, or the last frame if there is none."""
    return min(int(np.ceil(second * clock.rate - 1e-9)), clock.count - 1)


def _ease(times: np.ndarray, start: float, duration: float) -> np.ndarray:
    """Smooth step: 0 before ``start``, 1 after ``start + duration``."""
    part = np.clip((times - start) / duration, 0, 1)
    return part * part * (3 - 2 * part)


def _bump(times: np.ndarray, middle: float, duration: float) -> np.ndarray:
    """Smooth bump: 1 at ``middle``, 0 outside a range of ``duration`` seconds around it."""
    return _ease(times, middle - duration / 2, duration / 2) * (1 - _ease(times, middle, duration / 2))


_STAGES: dict[str, Callable[[Camera, Clock, np.random.Generator, float], Staged]] = {
    "bicycle": _bicycle,
    "cart": _cart,
    "runner": _runner,
    "against the stream": _against_the_stream,
    "across the lawn": _across_the_lawn,
    "left object": _left_object,
    "fall": _fall,
}
KINDS = tuple(_STAGES)
