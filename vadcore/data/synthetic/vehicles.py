"""A bicycle with its rider, and an electric cart with its driver."""

from __future__ import annotations

import numpy as np

from vadcore.data.synthetic.actor import Actor, Motion, Piece, along_bone, on_plane, stand
from vadcore.data.synthetic.camera import Camera
from vadcore.data.synthetic.people import Look, body_pieces, body_shadows, cast
from vadcore.data.synthetic.skeleton import FOREARM, SHIN, THIGH, TRUNK, UPPER_ARM, Joints, place_in_world, two_bones
from vadcore.data.synthetic.sprites import Cloth, Sprite, limb, paint

WHEEL, WHEELBASE = 0.34, 1.04  # m, a city bicycle: radius, axle to axle
GEAR = 2.4  # turns of a wheel per turn of the pedals


def bicycle(camera: Camera, look: Look, motion: Motion) -> Actor:
    """Create a bicycle with its rider, abnormal in all frames."""
    t = np.zeros(len(motion.distance))
    h = look.height
    turn = motion.distance / (WHEEL * GEAR) + look.phase
    crank = np.stack([t + 0.0, t, t + 0.29], axis=-1)
    joints: Joints = {"pelvis": np.stack([t - 0.22, t, t + 0.93], axis=-1)}
    lean = 0.55
    joints["neck"] = joints["pelvis"] + TRUNK * h * np.array([np.sin(lean), 0, np.cos(lean)])
    joints["head"] = joints["neck"] + 0.115 * h * np.array([0.35, 0, 0.94])
    for side, sign, offset in (("l", 1, 0.0), ("r", -1, np.pi)):
        hip = joints["pelvis"] + [0, sign * 0.05 * h, 0]
        pedal = crank + 0.17 * np.stack([np.sin(turn + offset), t + sign * 0.5, np.cos(turn + offset)], axis=-1)
        ankle = pedal + np.array([-0.06, 0, 0.08])
        shoulder = joints["neck"] + [0, sign * 0.11 * h, -0.02 * h]
        hand = np.stack([t + 0.40, t + sign * 0.24, t + 1.02], axis=-1)
        joints |= {f"hip_{side}": hip, f"ankle_{side}": ankle, f"toe_{side}": ankle + np.array([0.16, 0, -0.04])}
        joints |= {f"shoulder_{side}": shoulder, f"hand_{side}": hand}
        joints[f"knee_{side}"] = two_bones(hip, ankle, THIGH * h, SHIN * h, bend=1)
        joints[f"elbow_{side}"] = two_bones(shoulder, hand, UPPER_ARM * h, FOREARM * h, bend=-1)
    joints = {name: place_in_world(local, motion.position, motion.heading) for name, local in joints.items()}
    actor = stand(camera, "bicycle", motion.position, True, motion.first)
    actor.pieces += body_pieces(camera, look, joints, motion.heading)
    actor.shadows += body_shadows(camera, look, joints)

    def at(forward: float, up: float) -> np.ndarray:
        return _fixed(motion, forward, 0.0, up)

    fine = camera.focal / 9
    colour = Cloth((186, 40, 44), 5, rough=0.04)
    tyre = _wheel(WHEEL, 0.055, 0.30, (40, 40, 42), fine)
    for forward in (-WHEELBASE / 2, WHEELBASE / 2):
        actor.pieces.append(_rolling(camera, tyre, motion, forward, 0.0, WHEEL))
        actor.shadows.append(cast(camera, at(forward, 0.05), at(forward, 2 * WHEEL), 0.35))
    tubes = [((-0.52, 0.34), (0.0, 0.29)), ((0.0, 0.29), (-0.2, 0.90)), ((0.0, 0.29), (0.36, 0.78))]
    tubes += [((-0.15, 0.78), (0.36, 0.80)), ((-0.52, 0.34), (-0.16, 0.78)), ((0.52, 0.34), (0.36, 0.98))]
    for start, end in tubes:
        length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
        tube = limb(length, 0.032, 0.032, colour, fine)
        actor.pieces.append(along_bone(camera, tube, at(*start), at(*end), length))
    return actor


def cart(camera: Camera, look: Look, motion: Motion) -> Actor:
    """Create an electric cart with a roof and a driver, 2.4 m long, abnormal in all frames."""
    t = np.zeros(len(motion.distance))
    h = look.height
    joints: Joints = {"pelvis": np.stack([t - 0.10, t, t + 0.72], axis=-1)}
    joints["neck"] = joints["pelvis"] + TRUNK * h * np.array([-0.12, 0, 0.99])
    joints["head"] = joints["neck"] + 0.115 * h * np.array([0.05, 0, 1.0])
    for side, sign in (("l", 1), ("r", -1)):
        hip = joints["pelvis"] + [0, sign * 0.06 * h, 0]
        ankle = np.stack([t + 0.55, t + sign * 0.12, t + 0.42], axis=-1)
        shoulder = joints["neck"] + [0, sign * 0.11 * h, -0.02 * h]
        hand = np.stack([t + 0.38, t + sign * 0.16, t + 1.05], axis=-1)
        joints |= {f"hip_{side}": hip, f"ankle_{side}": ankle, f"toe_{side}": ankle + np.array([0.17, 0, 0.02])}
        joints |= {f"shoulder_{side}": shoulder, f"hand_{side}": hand}
        joints[f"knee_{side}"] = two_bones(hip, ankle, THIGH * h, SHIN * h, bend=1)
        joints[f"elbow_{side}"] = two_bones(shoulder, hand, UPPER_ARM * h, FOREARM * h, bend=-1)
    joints = {name: place_in_world(local, motion.position, motion.heading) for name, local in joints.items()}
    actor = stand(camera, "cart", motion.position, True, motion.first)
    actor.pieces += body_pieces(camera, look, joints, motion.heading)

    def at(forward: float, left: float, up: float) -> np.ndarray:
        return _fixed(motion, forward, left, up)

    def panel(size: tuple[float, float], centre: tuple, along: tuple, down: tuple, cloth: Cloth, nearer=0.0) -> Piece:
        sprite = _panel(*size, cloth, fine)
        middle = at(*centre)
        right, below = (_fixed(motion, *np.add(centre, axis)) - middle for axis in (along, down))
        return on_plane(camera, sprite, middle, right, below, nearer)

    fine = camera.focal / 9
    white, dark = Cloth((226, 226, 218), 6, rough=0.03), Cloth((62, 66, 72), 7, rough=0.05)
    green = Cloth((54, 112, 84), 8, rough=0.04)
    for left in (-0.6, 0.6):
        actor.pieces.append(panel((2.4, 0.36), (0, left, 0.46), (1, 0, 0), (0, 0, -1), green))
        actor.pieces.append(panel((0.75, 0.30), (0.82, left, 0.76), (1, 0, 0), (0, 0, -1), white))
        actor.pieces.append(panel((0.85, 0.26), (-0.75, left, 0.75), (1, 0, 0), (0, 0, -1), white))
        for forward in (-0.78, 0.80):
            wheel = _wheel(0.26, 0.10, 1.0, (38, 38, 40), fine)
            actor.pieces.append(_rolling(camera, wheel, motion, forward, left * 1.04, 0.26, nearer=0.12))
        for forward, foot in ((-1.0, 0.88), (0.95, 0.9)):
            post = limb(1.9 - foot, 0.035, 0.035, dark, fine)
            top = forward * 0.88
            actor.pieces.append(along_bone(camera, post, at(forward, left, foot), at(top, left, 1.9), 1.9 - foot))
    for forward, cloth in ((-1.2, white), (1.2, white)):
        actor.pieces.append(panel((1.2, 0.62), (forward, 0, 0.58), (0, 1, 0), (0, 0, -1), cloth))
    actor.pieces.append(panel((0.14, 1.1), (-0.45, 0, 0.95), (1, 0, 0), (0, 1, 0), dark, -0.1))
    actor.pieces.append(panel((0.75, 1.2), (0.82, 0, 0.91), (1, 0, 0), (0, 1, 0), white, -0.05))
    actor.pieces.append(panel((0.85, 1.2), (-0.77, 0, 0.88), (1, 0, 0), (0, 1, 0), dark, -0.05))
    actor.pieces.append(panel((2.15, 1.25), (-0.05, 0, 1.93), (1, 0, 0), (0, 1, 0), white, 0.9))
    for up, width in ((0.3, 1.0), (0.7, 1.1), (1.9, 0.8)):
        actor.shadows.append(cast(camera, at(-1.0, 0, up), at(1.0, 0, up), width))
    return actor


def _fixed(motion: Motion, forward: float, left: float, up: float) -> np.ndarray:
    """World coordinates ``[T, 3]`` of a point that is fixed to the vehicle."""
    local = np.broadcast_to([forward, left, up], (len(motion.distance), 3))
    return place_in_world(local, motion.position, motion.heading)


def _rolling(camera: Camera, sprite: Sprite, motion: Motion, forward: float, left: float, radius: float, nearer=0.0):
    """Create a wheel that turns with the distance covered."""
    centre = _fixed(motion, forward, left, radius)
    ahead = _fixed(motion, forward + 1, left, radius) - centre
    below = np.broadcast_to([0.0, 0.0, -1.0], centre.shape)
    angle = (motion.distance / radius)[:, None]
    turned = ahead * np.cos(angle) + below * np.sin(angle), below * np.cos(angle) - ahead * np.sin(angle)
    return on_plane(camera, sprite, centre, *turned, nearer)


def _wheel(radius: float, tyre: float, filled: float, colour: tuple, resolution: float) -> Sprite:
    """Create a wheel with tyre and spokes. ``filled``: opacity between the spokes, 0..1 (1: a solid disc)."""

    def painter(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out, angle = np.hypot(x, y), np.arctan2(y, x)
        spoke = np.abs(np.sin(angle * 3)) * out < 0.03
        hub = 150.0 if filled == 1.0 else 120.0
        colours = np.where(((out < radius - tyre) & ~spoke)[..., None], np.full(3, hub), np.array(colour, float))
        return colours, out - radius

    whole = paint((-radius, -radius, radius, radius), resolution, painter)
    if filled == 1.0:
        return whole
    levels = []
    for k, picture in enumerate(whole.levels):
        y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] * (2**k / resolution)
        out, angle = (
            np.hypot(x + whole.origin[0], y + whole.origin[1]),
            np.arctan2(y + whole.origin[1], x + whole.origin[0]),
        )
        solid = (out > radius - tyre) | (np.abs(np.sin(angle * 3)) * out < 0.03)
        levels.append((picture * np.where(solid, 1.0, filled)[..., None]).astype(np.float32))
    return Sprite(tuple(levels), whole.origin, whole.resolution)


def _panel(width: float, height: float, cloth: Cloth, resolution: float) -> Sprite:
    """Create a rectangle centred at (0, 0), size in metres, slightly darker towards its lower edge."""

    def painter(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shade = (1.0 - 0.18 * np.clip(y / height + 0.5, 0, 1))[..., None]
        return cloth.at(x, y) * shade, np.maximum(np.abs(x) - width / 2, np.abs(y) - height / 2)

    return paint((-width / 2, -height / 2, width / 2, height / 2), resolution, painter)
