"""Body motion: joint positions over time from the distance covered.

Segment lengths are the fractions of body height of Drillis & Contini (1966), as reprinted in D. A. Winter,
*Biomechanics and Motor Control of Human Movement*, figure 4.1. The leg swing depends on the distance covered, not on
time, so that feet do not slide: half a step is ``leg * sin(swing)`` plus the roll of the foot.

Body coordinates are ``(forward, left, up)`` in metres. The origin is on the ground below the pelvis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

THIGH, SHIN, FOOT, TRUNK, UPPER_ARM, FOREARM = 0.245, 0.246, 0.039, 0.288, 0.186, 0.20
ROLL = 0.035  # contribution of the foot's roll from heel to toe to half a step, in body heights
Joints = dict[str, np.ndarray]  # name -> [T, 3]


@dataclass(frozen=True)
class Posture:
    """Posture of a body; each value is a number or float ``[T]``.

    ``lean``: forward tilt of the trunk, radians. ``crouch``: 0 (upright) to 1 (squatting). ``fallen``: forward rotation
    of the whole body about its feet, 0 (upright) to pi/2 (flat). ``carrying`` (bool): the right arm does not swing.
    """

    lean: np.ndarray | float = 0.05
    crouch: np.ndarray | float = 0.0
    fallen: np.ndarray | float = 0.0
    carrying: bool = False


def stride_length(height: float, speed: float) -> float:
    """Length of two steps in metres: 0.83 body heights at 1.4 m/s, proportional to speed to the power of 0.45."""
    return 0.83 * height * (speed / 1.4) ** 0.45


def moving_body(
    height: float,
    speed: float,
    distance: np.ndarray,
    pace: np.ndarray,
    phase: float,
    swing_arms: float,
    posture: Posture,
) -> Joints:
    """Compute the joints of a walking or running person.

    Parameters
    ----------
    height: body height, m.
    speed: usual speed, m/s. The person runs above 2.3 m/s.
    distance: ``[T]``, distance covered, m.
    pace: ``[T]``, current speed divided by the usual speed (0: standing).
    phase: phase of the steps at distance 0, radians.
    swing_arms: arm swing as a fraction of leg swing.
    posture: posture of the body.
    """
    runs = speed > 2.3
    stride = stride_length(height, speed)
    swing = np.arcsin(min((stride / 4 - ROLL * height) / ((THIGH + SHIN) * height), 0.68)) * np.minimum(1.0, pace * 1.5)
    turn = 2 * np.pi * distance / stride + phase
    crouch = np.asarray(posture.crouch) + 0.0 * distance
    fallen = np.asarray(posture.fallen) + 0.0 * distance
    lean = np.asarray(posture.lean) + (0.12 if runs else 0.0) + 0.0 * distance
    bend_knee = np.radians(85.0 if runs else 52.0) * np.minimum(1.0, pace * 1.5)

    thighs, shins = {}, {}
    for side, offset in (("l", 0.0), ("r", np.pi)):
        thighs[side] = swing * np.sin(turn + offset) + np.radians(58) * crouch
        lifted = np.maximum(0.0, np.cos(turn + offset + 0.35))  # the knee bends while the leg swings forward
        shins[side] = thighs[side] - np.radians(4) - bend_knee * lifted - np.radians(105) * crouch
    drop = {s: height * (THIGH * np.cos(thighs[s]) + SHIN * np.cos(shins[s])) for s in "lr"}
    pelvis_up = np.maximum(drop["l"], drop["r"]) + FOOT * height  # the lower foot touches the ground

    joints: Joints = {"pelvis": _at(distance * 0, 0, pelvis_up)}
    trunk = _at(np.sin(lean), 0, np.cos(lean)) * TRUNK * height
    joints["neck"] = joints["pelvis"] + trunk
    joints["head"] = joints["neck"] + _at(np.sin(0.6 * lean) * 0.115, 0, np.cos(0.6 * lean) * 0.115) * height
    for side, sign, opposite in (("l", 1, np.pi), ("r", -1, 0.0)):
        hip = joints["pelvis"] + _at(distance * 0, sign * 0.055 * height, 0)
        knee = hip + THIGH * height * _down(thighs[side])
        ankle = knee + SHIN * height * _down(shins[side])
        pointed = np.clip(0.7 * shins[side], -0.9, 0.25) * (1 - crouch)
        joints |= {f"hip_{side}": hip, f"knee_{side}": knee, f"ankle_{side}": ankle}
        joints[f"toe_{side}"] = ankle + height * (
            _at(np.cos(pointed), 0, np.sin(pointed)) * 0.105 - _at(0, 0, FOOT * 0.5)
        )
        held = posture.carrying and side == "r"
        arm = (0.1 if held else swing_arms) * swing * np.sin(turn + opposite) + 1.4 * np.sin(fallen)
        elbow_bend = np.radians(85.0 if runs else (6.0 if held else 22.0)) * (1 - 0.7 * crouch)
        shoulder = joints["neck"] + _at(distance * 0, sign * 0.115 * height, -0.02 * height)
        elbow = shoulder + UPPER_ARM * height * _down(arm)
        joints |= {f"shoulder_{side}": shoulder, f"elbow_{side}": elbow}
        joints[f"hand_{side}"] = elbow + FOREARM * height * _down(arm + elbow_bend)
    return {name: _tip_over(place, fallen) for name, place in joints.items()}


def two_bones(start: np.ndarray, end: np.ndarray, first: float, second: float, bend: int) -> np.ndarray:
    """Compute the joint between two bones from start to end ``[T, 3]``, in the (forward, up) plane, by the law of cosines.

    ``first``, ``second``: lengths of the bones, m. ``bend``: 1 puts the joint in front of the line from start to end (for
    bones that hang down), -1 behind it. If the distance is too long, the bones are almost straight.
    """
    span = end - start
    reach = np.clip(np.linalg.norm(span, axis=-1), 1e-6, 0.999 * (first + second))
    cosine = (first**2 + reach**2 - second**2) / (2 * first * reach)
    angle = bend * np.arccos(np.clip(cosine, -1, 1))
    straight = np.arctan2(span[..., 0], -span[..., 2])  # forward of straight down
    return start + first * _down(straight + angle)


def place_in_world(local: np.ndarray, position: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """Convert body coordinates ``[T, 3]`` (forward, left, up) to world coordinates (a, b, y) ``[T, 3]``.

    ``position``: ``[T, 2]``, (a, b) in m. ``heading``: ``[T]``, radians.
    """
    cos, sin = np.cos(heading), np.sin(heading)
    forward, left, up = np.moveaxis(local, -1, 0)
    return np.stack(
        [position[:, 0] + forward * cos - left * sin, position[:, 1] + forward * sin + left * cos, up], axis=-1
    )


def _at(forward, left, up) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (forward, left, up))), axis=-1)


def _down(angle: np.ndarray) -> np.ndarray:
    """Unit vector ``[T, 3]`` that points down, rotated forward by ``angle`` radians."""
    return _at(np.sin(angle), 0.0, -np.cos(angle))


def _tip_over(place: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotate forward about the feet. A lying body stays half its thickness (10 cm) above the ground."""
    forward, left, up = np.moveaxis(place, -1, 0)
    cos, sin = np.cos(angle), np.sin(angle)
    return _at(forward * cos + up * sin, left, np.maximum(-forward * sin + up * cos, 0.04) + 0.08 * sin)
