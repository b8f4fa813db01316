"""The generated street scene: its labels, masks, identities and flow match its pictures."""

from functools import cache

import cv2
import numpy as np
import pytest

from vadcore.data.formats.street import StreetConfig
from vadcore.data.synthetic.actor import Actor, Piece
from vadcore.data.synthetic.anomalies import KINDS
from vadcore.data.synthetic.camera import Camera
from vadcore.data.synthetic.clip import LEAST_VISIBLE, SyntheticClip, film, planned_events, site_of
from vadcore.data.synthetic.render import Painter
from vadcore.data.synthetic.site import Site
from vadcore.data.synthetic.sprites import Cloth, paint
from vadcore.data.synthetic.traffic import Clock, pedestrians

pytestmark = pytest.mark.xdist_group("street_truth")  # the tests share generated clips

TWELVE_SECONDS = {"frames_per_second": 6.25, "test_frames": 75}  # half the default rate, the default duration
SMALL = {"height": 64, "width": 96}


def street(**fields) -> StreetConfig:
    return StreetConfig(format="street", **fields)


@cache
def filmed(split: str, index: int, **fields) -> SyntheticClip:
    config = street(**fields)
    return film(config, site(config.height, config.width), split, index)


@cache
def site(height: int, width: int) -> Site:
    return site_of(street(height=height, width=width))


def test_same_configuration_gives_identical_clips():
    config = street(**SMALL, train_frames=12, test_frames=12)
    sites = [site_of(config) for _ in range(2)]
    for split, index in (("train", 0), ("test", 0), ("test", 5)):
        one, two = (film(config, site, split, index) for site in sites)
        for field in ("frames", "labels", "masks", "identity", "flow", "light"):
            assert np.array_equal(getattr(one, field), getattr(two, field)), (split, index, field)
        assert one.kinds == two.kinds


def test_clips_and_seeds_differ():
    config = street(**SMALL, train_frames=4)
    first, second = (film(config, site(64, 96), "train", index) for index in (0, 1))
    assert not np.array_equal(first.identity, second.identity)
    assert not np.allclose(first.light, second.light)
    other = street(**SMALL, train_frames=4, seed=1)
    assert not np.array_equal(film(other, site_of(other), "train", 0).identity, first.identity)


@pytest.mark.parametrize("index", range(7))
def test_labels_match_abnormal_pixels(index):
    clip = filmed("test", index, **TWELVE_SECONDS)
    pixels = clip.masks.sum(axis=(1, 2))
    assert np.array_equal(clip.labels == 1, pixels > 0)
    assert pixels[pixels > 0].min() >= LEAST_VISIBLE
    assert clip.labels[0] == 0
    assert clip.labels[-1] == 0
    assert clip.labels.sum() >= 10
    # The masks contain pixels of the abnormal objects only.
    bad = [number for number, abnormal in enumerate(clip.abnormal, start=1) if abnormal]
    assert set(np.unique(clip.identity[clip.masks])) == set(bad)
    assert [clip.kinds[number - 1] for number in bad] == [KINDS[index]]


def test_bicycle_mask_needs_enough_pixels():
    clip = filmed("test", 0, **TWELVE_SECONDS)
    shown = (clip.identity == clip.kinds.index("bicycle") + 1).sum(axis=(1, 2))
    assert np.array_equal(clip.labels == 1, shown >= LEAST_VISIBLE)


def test_bag_is_abnormal_only_when_unattended():
    clip = filmed("test", 5, **TWELVE_SECONDS)
    shown = (clip.identity == clip.kinds.index("left object") + 1).sum(axis=(1, 2)) >= LEAST_VISIBLE
    assert (shown & (clip.labels == 0)).sum() > 5  # carried in and carried away
    still = np.flatnonzero(clip.labels[:-1])
    assert np.abs(clip.flow[still].transpose(0, 2, 3, 1)[clip.masks[still]]).max() == 0


def test_normal_clips():
    for clip in (filmed("train", 0), filmed("test", 7, **TWELVE_SECONDS)):
        assert not clip.labels.any()
        assert not clip.masks.any()
        assert set(clip.kinds) == {"pedestrian"}


def test_event_kinds_alternate():
    config = street(anomalies_per_clip=2)
    planned = [planned_events(config, "test", index) for index in range(16)]
    assert planned[7] == planned[15] == []
    in_order = [kind for kinds in planned for kind in kinds]
    assert in_order == [KINDS[k % 7] for k in range(28)]
    assert all(planned_events(config, "train", index) == [] for index in range(8))


def test_several_events_in_one_clip():
    clip = filmed("test", 0, anomalies_per_clip=3, **TWELVE_SECONDS)
    assert sorted(np.array(clip.kinds)[np.array(clip.abnormal)]) == ["bicycle", "cart", "runner"]
    seen = {clip.kinds[number - 1] for number in np.unique(clip.identity[clip.masks])}
    assert seen == {"bicycle", "cart", "runner"}


def test_flow_of_rotating_and_sliding_piece():
    """A square turns by 0.1 rad and slides by (1.5, -0.75) px: a point p goes to R (p - c) + c + d."""
    camera = Camera(64, 64)
    empty = Site(camera, np.full((64, 64, 3), 90, np.float32), (), np.ones((64, 64), np.float32))
    sprite = paint(
        (-1, -1, 1, 1), 16.0, lambda x, y: (Cloth((200, 90, 40), 1).at(x, y), np.maximum(abs(x), abs(y)) - 1)
    )
    centre, slide = np.array([30.0, 33.0]), np.array([1.5, -0.75])

    def turned(angle: float, at: np.ndarray) -> np.ndarray:
        cos, sin = 12 * np.cos(angle), 12 * np.sin(angle)
        return np.array([[cos, -sin, at[0]], [sin, cos, at[1]]])

    maps = np.stack([turned(0.3, centre), turned(0.4, centre + slide)])
    actor = Actor(
        "square", 0, np.full(2, 10.0), np.stack([centre] * 2), np.zeros(2, bool), [Piece(sprite, maps, np.ones(2))]
    )
    painter = Painter(empty, [actor])
    _, numbers = painter.paint(0)
    flow = painter.flow(0, numbers) / 64.0
    y, x = np.mgrid[:64, :64]
    dx, dy = x - centre[0], y - centre[1]
    cos, sin = np.cos(0.1), np.sin(0.1)
    expected = np.stack([cos * dx - sin * dy + slide[0] - dx, sin * dx + cos * dy + slide[1] - dy])
    inside = numbers > 0
    assert 24**2 * 0.95 < inside.sum() < 24**2 * 1.05  # 2 m at 12 px a metre
    assert np.abs(flow - expected)[:, inside].max() <= 1 / 128 + 1e-9  # half a step of the stored integers
    assert not flow[:, ~inside].any()


@pytest.mark.parametrize("index", [0, 1, 2, 6])  # bicycle, cart, runner, fall, each among pedestrians
def test_flow_warps_next_frame_onto_current(index):
    """Without noise, on moving pixels that show the same object in both frames, away from the edges of its pieces."""
    clip = filmed("test", index, height=192, width=288, noise=0, test_frames=40)
    grey = clip.frames.astype(np.float32).mean(axis=-1)
    y, x = np.mgrid[:192, :288].astype(np.float32)
    warped_error, still_error = [], []
    for t in range(12, 36, 2):
        u, v = clip.flow[t].astype(np.float32) / 64
        identity, following = (clip.identity[k].astype(np.float32) for k in (t, t + 1))
        warped = cv2.remap(grey[t + 1], x + u, y + v, cv2.INTER_LINEAR)
        arrives = cv2.remap(following, x + u, y + v, cv2.INTER_NEAREST, borderValue=-1) == identity
        inner = np.all([spread(channel) < limit for channel, limit in ((identity, 0.5), (u, 0.5), (v, 0.5))], axis=0)
        judged = (identity > 0) & (np.hypot(u, v) > 0.5) & arrives & inner
        warped_error.append(np.abs(warped - grey[t])[judged])
        still_error.append(np.abs(grey[t + 1] - grey[t])[judged])
    warped_error, still_error = np.concatenate(warped_error), np.concatenate(still_error)
    assert len(warped_error) > 1000
    assert np.median(warped_error) < 2.55  # one hundredth of the range of grey levels
    assert warped_error.mean() < 0.15 * still_error.mean()


def spread(channel: np.ndarray) -> np.ndarray:
    """Range of the values within 3 x 3 pixels."""
    kernel = np.ones((3, 3), np.uint8)
    return cv2.dilate(channel, kernel) - cv2.erode(channel, kernel)


def test_dis_approximates_true_flow():
    """On frames without noise, the end-point error of DIS on moving pixels is well under that of zero flow."""
    clip = filmed("test", 1, height=192, width=288, noise=0, test_frames=40)
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found, none = [], []
    for t in range(12, 36, 2):
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames[t : t + 2]]
        truth = clip.flow[t].transpose(1, 2, 0) / 64
        moving = clip.identity[t] > 0
        found.append(np.linalg.norm(estimator.calc(*grey, None) - truth, axis=-1)[moving])
        none.append(np.linalg.norm(truth, axis=-1)[moving])
    assert np.concatenate(found).mean() < 0.5 * np.concatenate(none).mean()


def test_only_light_changes_without_people():
    # One person a year: the clip is empty.
    clip = filmed("train", 0, people_per_minute=2e-6, noise=0, train_frames=60)
    assert not clip.identity.any()
    assert not clip.flow.any()
    reflected = clip.frames / clip.light[:, None, None, :]
    # Rounding moves each value by at most half a grey level, so two frames differ by at most one, divided by the light.
    assert np.ptp(reflected, axis=0).max() <= 1.0 / clip.light.min() + 1e-3
    assert 0.001 < np.ptp(clip.light[:, 1]) < 0.12
    assert np.abs(np.diff(clip.light, axis=0)).max() < 0.003


@pytest.mark.parametrize("sigma", [1.0, 4.0])
def test_noise_has_configured_standard_deviation(sigma):
    quiet = filmed("train", 0, people_per_minute=2e-6, noise=0, train_frames=6)
    noisy = filmed("train", 0, people_per_minute=2e-6, noise=sigma, train_frames=6)
    grey = [cv2.cvtColor(clip.frames.reshape(-1, 192, 3), cv2.COLOR_RGB2GRAY).astype(float) for clip in (quiet, noisy)]
    # Rounding of both pictures to whole levels adds 2 / 12 to the variance at most.
    measured = (grey[1] - grey[0]).std()
    assert sigma * 0.97 < measured < np.sqrt(sigma**2 + 2 / 12) * 1.03


def test_identities_follow_flow():
    """In the next frame, most pixels of an object are where its flow points."""
    clip = filmed("train", 0)
    y, x = np.mgrid[:128, :192]
    kept = moved = 0
    for t in range(0, 149, 10):
        here = np.nonzero(clip.identity[t])
        to_x = np.rint(x[here] + clip.flow[t, 0][here] / 64).astype(int)
        to_y = np.rint(y[here] + clip.flow[t, 1][here] / 64).astype(int)
        inside = (to_x >= 0) & (to_x < 192) & (to_y >= 0) & (to_y < 128)
        moved += inside.sum()
        kept += (clip.identity[t + 1][to_y[inside], to_x[inside]] == clip.identity[t][here][inside]).sum()
    assert moved > 1000
    assert kept / moved > 0.85
    for number in np.unique(clip.identity)[1:]:
        frames = np.flatnonzero((clip.identity == number).any(axis=(1, 2)))
        assert len(frames) > 0.6 * (frames[-1] - frames[0])  # hidden only by posts and other people


def test_size_and_direction_of_people():
    """In the foreground people are 25 to 48 px tall at 128 x 192 and move 0.6 to 3 px a frame.

    Below the middle of the walkway they walk to the right, above it to the left.
    """
    camera = Camera(128, 192)
    near_heights, far_heights = [], []
    for index in range(2):
        clip = filmed("train", index)
        for number in range(1, len(clip.kinds) + 1):
            shown = [np.nonzero(picture) for picture in clip.identity == number]
            whole = [t for t, (ys, xs) in enumerate(shown) if len(ys) > 60 and xs.min() > 2 and xs.max() < 189]
            if len(whole) < 25:
                continue
            lowest = np.array([shown[t][0].max() for t in whole])
            centres = np.array([shown[t][1].mean() for t in whole])
            speed = np.polyfit(whole, centres, 1)[0]  # px a frame
            line = np.interp(centres, *camera.project(np.array([[a, 0, 0.0] for a in range(-12, 13)])).T)
            near = np.median(lowest - line) > 0
            assert 0.6 < (speed if near else -speed) < 3.0, (index, number)
            height = np.median([np.ptp(shown[t][0]) + 1 for t in whole])
            (near_heights if near else far_heights).append(height)
    assert len(near_heights) >= 4
    assert len(far_heights) >= 4
    assert 25 < np.median(near_heights) < 48
    assert np.median(far_heights) < 0.85 * np.median(near_heights)


def test_people_arrive_at_configured_rate():
    """Poisson arrivals in 3 minutes and the 20 s of a crossing before them: 40 a minute are 133, within 3 sigma."""
    people = pedestrians(Camera(128, 192), Clock(180, 1.0), np.random.default_rng(3), 40.0, [])
    expected, sigma = 40 * (3 + 20 / 60), np.sqrt(133 * 1.2)  # pairs raise the variance 1.2 times
    assert abs(len(people) - expected) < 3 * sigma


@pytest.mark.parametrize("shape", [(9, 64, 240), (12, 96, 64)])
def test_size_and_length_are_parameters(shape):
    config = street(test_frames=shape[0], height=shape[1], width=shape[2])
    clip = film(config, site_of(config), "test", 1)
    assert clip.frames.shape == (*shape, 3)
    assert clip.identity.shape == clip.masks.shape == shape
    assert clip.flow.shape == (shape[0] - 1, 2, *shape[1:])
    assert clip.labels.shape == (shape[0],)


def test_doubled_frame_rate_halves_motion():
    speeds = []
    for rate in (10.0, 20.0):
        clip = filmed("train", 0, frames_per_second=rate, train_frames=60)
        motion = np.abs(clip.flow[:, 0]) / 64
        speeds.append(np.median(motion[clip.identity[:-1] > 0]))
    assert speeds[1] == pytest.approx(speeds[0] / 2, rel=0.25)
