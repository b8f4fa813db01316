"""People: random appearance, and the pieces of a body from its joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vadcore.data.synthetic.actor import Actor, Motion, Piece, along_bone, stand
from vadcore.data.synthetic.camera import Camera
from vadcore.data.synthetic.site import SUN
from vadcore.data.synthetic.skeleton import (
    FOREARM,
    SHIN,
    THIGH,
    TRUNK,
    UPPER_ARM,
    Joints,
    Posture,
    moving_body,
    place_in_world,
)
from vadcore.data.synthetic.sprites import Cloth, limb, spindle

Colour = tuple[float, float, float]
SKIN: list[Colour] = [(232, 190, 160), (214, 168, 134), (176, 126, 94), (128, 86, 62), (92, 62, 46)]
HAIR: list[Colour] = [(36, 28, 24), (64, 44, 30), (110, 78, 46), (168, 132, 78), (140, 138, 136), (24, 22, 24)]
TOPS: list[Colour] = [
    (178, 44, 46), (42, 70, 130), (226, 222, 214), (40, 42, 48), (206, 160, 60), (58, 104, 76),
    (112, 120, 130), (122, 62, 110), (216, 116, 60), (92, 142, 178), (196, 148, 150), (84, 66, 52),
]  # fmt: skip
BOTTOMS: list[Colour] = [(44, 52, 76), (34, 34, 38), (72, 84, 110), (108, 96, 78), (66, 62, 60), (150, 140, 120)]
SHOES: list[Colour] = [(34, 30, 28), (222, 220, 216), (92, 64, 46), (120, 40, 40)]


@dataclass(frozen=True)
class Look:
    """Body and clothes of a person. ``height`` is in m; ``girth`` scales the width of the body."""

    height: float
    girth: float
    skin: Colour
    hair: Colour
    top: Cloth
    bottom: Cloth
    shoes: Colour
    dress: str  # trousers, shorts, skirt or coat
    long_hair: bool
    short_sleeves: bool
    backpack: Cloth | None
    phase: float
    swing_arms: float
    lean: float


def random_look(rng: np.random.Generator) -> Look:
    """Draw a random person: an adult of 1.52 to 1.92 m, or a child (one in fourteen) of 1.12 to 1.35 m."""
    child = rng.random() < 1 / 14
    height = rng.uniform(1.12, 1.35) if child else float(np.clip(rng.normal(1.71, 0.09), 1.52, 1.92))

    def cloth(colours: list[Colour], striped: float) -> Cloth:
        colour = np.array(colours[rng.integers(len(colours))]) * rng.uniform(0.85, 1.12)
        stripe = tuple(colour * 0.55 + 60) if rng.random() < striped else None
        return Cloth(tuple(np.minimum(colour, 240)), int(rng.integers(2**31)), stripe, rng.uniform(0.09, 0.2))

    return Look(
        height=height,
        girth=float(np.clip(rng.normal(1.0, 0.1), 0.82, 1.3)),
        skin=SKIN[rng.integers(len(SKIN))],
        hair=HAIR[rng.integers(len(HAIR))],
        top=cloth(TOPS, 0.2),
        bottom=cloth(BOTTOMS, 0.0),
        shoes=SHOES[rng.integers(len(SHOES))],
        dress=str(rng.choice(["trousers", "shorts", "skirt", "coat"], p=[0.6, 0.14, 0.13, 0.13])),
        long_hair=bool(rng.random() < 0.35),
        short_sleeves=bool(rng.random() < 0.45),
        backpack=cloth(TOPS, 0.0) if rng.random() < 0.25 else None,
        phase=rng.uniform(0, 2 * np.pi),
        swing_arms=rng.uniform(0.5, 1.1),
        lean=rng.uniform(0.02, 0.1),
    )


def on_foot(
    camera: Camera,
    look: Look,
    motion: Motion,
    kind: str = "pedestrian",
    abnormal: np.ndarray | bool = False,
    posture: Posture | None = None,
) -> tuple[Actor, Joints]:
    """Create a person who walks or runs along ``motion``. Returns the actor and its joints in world coordinates."""
    joints = moving_body(
        look.height,
        motion.speed,
        motion.distance,
        motion.pace,
        look.phase,
        look.swing_arms,
        posture or Posture(look.lean),
    )
    joints = {name: place_in_world(local, motion.position, motion.heading) for name, local in joints.items()}
    actor = stand(camera, kind, motion.position, abnormal, motion.first)
    actor.pieces += body_pieces(camera, look, joints, motion.heading)
    actor.shadows += body_shadows(camera, look, joints)
    return actor, joints


def body_pieces(camera: Camera, look: Look, joints: Joints, heading: np.ndarray) -> list[Piece]:
    """Create the pieces of a body from its ``joints`` (world coordinates, m) and ``heading [T]``."""
    h, g = look.height, look.girth * look.height
    fine = camera.focal / 9  # pixels per metre: slightly finer than the largest scale of a person in the picture
    sideways = np.stack([-np.sin(heading), np.cos(heading)], axis=-1) @ camera.image_right
    forward = np.stack([np.cos(heading), np.sin(heading), np.zeros_like(heading)], axis=-1)
    breadth = np.sqrt(sideways**2 + 0.62**2 * (1 - sideways**2))  # a body is 0.62 times as deep as it is wide
    bare_legs = look.dress in ("shorts", "skirt")
    skin, shoes = Cloth(look.skin, 1, rough=0.03), Cloth(look.shoes, 2, rough=0.04)
    thigh_cloth = skin if look.dress == "skirt" else look.bottom
    shin_cloth = skin if bare_legs else look.bottom
    sleeve = (0.55, look.skin) if look.short_sleeves else None
    fore_cloth = skin if look.short_sleeves else look.top
    thigh = limb(
        THIGH * h, 0.050 * g, 0.036 * g, thigh_cloth, fine, (0.8, look.skin) if look.dress == "shorts" else None
    )
    shin = limb(SHIN * h, 0.034 * g, 0.024 * g, shin_cloth, fine)
    foot = limb(0.10 * h, 0.026 * h, 0.020 * h, shoes, fine)
    upper = limb(UPPER_ARM * h, 0.031 * g, 0.027 * g, look.top, fine, sleeve)
    fore = limb(FOREARM * h, 0.026 * g, 0.021 * g, fore_cloth, fine, (0.80, look.skin))

    def piece(sprite, start, end, length, widen=1.0, nearer=0.0) -> Piece:
        return along_bone(camera, sprite, joints[start], joints[end], length, widen * np.ones_like(heading), nearer)

    pieces = []
    for s in "lr":
        pieces += [
            piece(foot, f"ankle_{s}", f"toe_{s}", 0.10 * h, nearer=-0.02),
            piece(shin, f"knee_{s}", f"ankle_{s}", SHIN * h),
            piece(thigh, f"hip_{s}", f"knee_{s}", THIGH * h, nearer=0.02),
            piece(upper, f"shoulder_{s}", f"elbow_{s}", UPPER_ARM * h),
            piece(fore, f"elbow_{s}", f"hand_{s}", FOREARM * h, nearer=0.01),
        ]
    trunk = TRUNK * h
    top = [(-0.07 * h, 0.098 * g), (0.3 * trunk, 0.088 * g), (0.75 * trunk, 0.112 * g), (0.93 * trunk, 0.112 * g)]
    top += [(1.04 * trunk, 0.06 * g), (1.07 * trunk, 0.03 * g)]
    pieces.append(piece(spindle(top, look.top, fine), "pelvis", "neck", trunk, breadth, 0.03))
    if look.dress in ("skirt", "coat"):
        knees = (joints["knee_l"] + joints["knee_r"]) / 2
        cloth, hem, flare = (look.bottom, 0.95, 0.14) if look.dress == "skirt" else (look.top, 0.8, 0.115)
        cut = spindle([(-0.04 * h, 0.092 * g), (hem * THIGH * h, flare * g)], cloth, fine)
        widen = np.maximum(breadth, 0.85) * np.ones_like(heading)
        pieces.append(along_bone(camera, cut, joints["pelvis"], knees, THIGH * h, widen, 0.12))
    head = limb(0.055 * h, 0.046 * h, 0.056 * h, skin, fine)
    chin = joints["neck"] + 0.48 * (joints["head"] - joints["neck"])
    pieces.append(along_bone(camera, head, chin, joints["head"], 0.055 * h, np.ones_like(heading), 0.02))
    # Hair is a cap slightly above and behind the head. It covers the head of a person who walks away from the camera.
    up = joints["head"] - joints["neck"]
    crown = joints["head"] + 0.22 * up - forward * 0.020 * h
    nape = joints["head"] + (-0.75 if look.long_hair else 0.05) * up - forward * 0.042 * h
    length = (0.115 if look.long_hair else 0.025) * h
    hair = limb(length, 0.054 * h, 0.044 * h, Cloth(look.hair, 3, rough=0.12), fine)
    pieces.append(along_bone(camera, hair, crown, nape, length, np.ones_like(heading), 0.03))
    if look.backpack is not None:
        low = joints["pelvis"] + 0.25 * (joints["neck"] - joints["pelvis"]) - forward * 0.085 * g
        high = joints["pelvis"] + 0.95 * (joints["neck"] - joints["pelvis"]) - forward * 0.085 * g
        pack = limb(0.7 * trunk, 0.085 * h, 0.075 * h, look.backpack, fine)
        pieces.append(along_bone(camera, pack, low, high, 0.7 * trunk, np.maximum(breadth, 0.75), 0.0))
    return pieces


def body_shadows(camera: Camera, look: Look, joints: Joints) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the shadow of a body on the ground as thick lines."""
    bones = [(f"hip_{s}", f"knee_{s}", 0.13) for s in "lr"] + [(f"knee_{s}", f"ankle_{s}", 0.12) for s in "lr"]
    bones += [("pelvis", "neck", 0.22 * look.girth), ("neck", "head", 0.11)]
    return [cast(camera, joints[start], joints[end], width * look.height) for start, end, width in bones]


def cast(camera: Camera, start: np.ndarray, end: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the shadow on the ground of a bar from start to end ``[T, 3]``, ``width`` metres thick, as a thick line."""
    feet = []
    for top in (start, end):
        ground = top * [1.0, 1.0, 0.0]
        ground[:, :2] += top[:, 2:] * np.array(SUN)
        feet.append(ground)
    return camera.project(feet[0]), camera.project(feet[1]), 0.75 * width * camera.scale((feet[0] + feet[1]) / 2)
