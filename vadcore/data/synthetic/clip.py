"""Generate one clip: frames and ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vadcore.data.synthetic.actor import Actor
from vadcore.data.synthetic.anomalies import KINDS, stage
from vadcore.data.synthetic.camera import Camera
from vadcore.data.synthetic.config import StreetConfig
from vadcore.data.synthetic.render import Painter
from vadcore.data.synthetic.site import Site, build_site
from vadcore.data.synthetic.traffic import Clock, pedestrians

NORMAL_EVERY = 8  # every 8th test clip has no anomalies
LEAST_VISIBLE = 8  # minimum number of visible abnormal pixels in an abnormal frame


@dataclass(frozen=True)
class SyntheticClip:
    """A clip and its ground truth.

    Attributes
    ----------
    frames: uint8 ``[T, H, W, 3]``, RGB.
    labels: uint8 ``[T]``, 1 = abnormal. These are exactly the frames with a non-empty mask.
    masks: bool ``[T, H, W]``, visible pixels of abnormal objects. Empty if fewer than ``LEAST_VISIBLE`` are visible.
    identity: uint16 ``[T, H, W]``, number of the object at each pixel; 0 = background.
    flow: int16 ``[T-1, 2, H, W]``, 1/64 px (u right, v down): motion of the pixels of frame t to frame t + 1.
    kinds: kind of each object 1, 2, ...
    abnormal: whether each object 1, 2, ... is abnormal in any frame.
    light: float32 ``[T, 3]``, factors for the red, green and blue of each frame.
    """

    frames: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    identity: np.ndarray
    flow: np.ndarray
    kinds: list[str]
    abnormal: list[bool]
    light: np.ndarray


def planned_events(config: StreetConfig, split: Literal["train", "test"], index: int) -> list[str]:
    """Return the kinds of events in clip ``index`` (from 0). The test clips with events cycle through all kinds."""
    if split == "train" or index % NORMAL_EVERY == NORMAL_EVERY - 1:
        return []
    first = (index - index // NORMAL_EVERY) * config.anomalies_per_clip
    return [KINDS[(first + k) % len(KINDS)] for k in range(config.anomalies_per_clip)]


def site_of(config: StreetConfig) -> Site:
    """Create the empty scene that all clips of this configuration share."""
    return build_site(Camera(config.height, config.width), config.seed)


def film(config: StreetConfig, site: Site, split: Literal["train", "test"], index: int) -> SyntheticClip:
    """Generate clip ``index`` (from 0) of a split. The clip depends only on the configuration, split and index."""
    streams = np.random.SeedSequence([config.seed, split == "test", index]).spawn(4)
    events, people, weather, sensor = (np.random.default_rng(stream) for stream in streams)
    clock = Clock(config.train_frames if split == "train" else config.test_frames, config.frames_per_second)
    actors: list[Actor] = []
    taken = []
    kinds = planned_events(config, split, index)
    for k, kind in enumerate(kinds):
        at = clock.length * (0.12 + 0.5 * k / len(kinds) + events.uniform(0.03, 0.12))
        staged, ways = stage(kind, site.camera, clock, events, at)
        actors += staged
        taken += ways
    actors += pedestrians(site.camera, clock, people, config.people_per_minute, taken)
    return _shoot(Painter(site, actors), actors, _light(clock, weather), config.noise, sensor)


def _light(clock: Clock, rng: np.random.Generator) -> np.ndarray:
    """Slow changes of daylight, float32 ``[T, 3]``: two waves of 15 to 60 s around a level and tint per clip."""
    level, tint = rng.uniform(0.86, 1.06), rng.uniform(-0.025, 0.025)
    waves = [share * np.sin(2 * np.pi * (clock.times / rng.uniform(15, 60) + rng.uniform())) for share in (0.035, 0.02)]
    wave = waves[0] + waves[1]
    return ((level + wave)[:, None] * np.array([1 + tint, 1.0, 1 - tint])).astype(np.float32)


def _shoot(
    painter: Painter, actors: list[Actor], light: np.ndarray, noise: float, rng: np.random.Generator
) -> SyntheticClip:
    count = len(light)
    size = painter.size
    frames = np.empty((count, *size, 3), np.uint8)
    identity = np.empty((count, *size), np.uint16)
    flow = np.empty((count - 1, 2, *size), np.int16)
    masks = np.zeros((count, *size), bool)
    for t in range(count):
        picture, numbers = painter.paint(t)
        picture *= light[t]
        if noise > 0:
            # Sensor noise is mostly brightness noise: one value for all three colours, and so the same in grey.
            picture += (noise * rng.standard_normal(size, np.float32))[..., None]
        frames[t] = np.clip(np.rint(picture), 0, 255)
        identity[t] = painter.owners(numbers)
        if t < count - 1:
            flow[t] = painter.flow(t, numbers)
        wanted = [i + 1 for i, actor in enumerate(actors) if actor.is_abnormal(t)]
        if wanted:
            mask = np.isin(identity[t], wanted)
            masks[t] = mask if mask.sum() >= LEAST_VISIBLE else False
    return SyntheticClip(
        frames=frames,
        labels=np.asarray(masks.any(axis=(1, 2)), np.uint8),
        masks=masks,
        identity=identity,
        flow=flow,
        kinds=[actor.kind for actor in actors],
        abnormal=[bool(actor.abnormal.any()) for actor in actors],
        light=light,
    )
