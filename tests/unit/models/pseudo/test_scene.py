import numpy as np

from tests.unit.models.pseudo.conftest import TALL, WIDE, Clips, street
from vadcore.models.pseudo.scene import GRID, RARE, Scene, learn_scene


def lanes(*rows: int) -> Clips:
    """One clip for each row in which an object moves through the picture."""
    return Clips(*(street(0, objects=((row, 5.0),)) for row in rows))


def test_occupancy_tells_where_objects_move():
    scene = learn_scene(lanes(30, 30, 30, 31, 29, 30), 1)
    inside, outside = scene.at(np.array([0.5, 0.1]), np.array([0.5, 0.5]))
    assert inside > 1
    assert outside < RARE
    np.testing.assert_allclose(scene.occupancy.mean(), 1, atol=0.01)


def test_occupancy_is_not_used_if_one_clip_has_objects_where_no_other_has():
    assert (learn_scene(lanes(30, 30, 30, 31, 29, 5), 1).occupancy == 1).all()


def test_single_clip_is_cross_validated_in_pieces():
    still = street(0, objects=())
    moving = street(0, objects=((30, 5.0),))
    late = street(0, objects=((5, 5.0),))[:4]
    steady, surprising = np.concatenate([moving] * 6), np.concatenate([moving] * 6 + [late])
    assert learn_scene(Clips(steady), 1).occupancy.min() < RARE
    assert (learn_scene(Clips(surprising), 1).occupancy == 1).all()
    assert np.isfinite(learn_scene(Clips(still), 1).logarithm).all()


def test_background_is_that_of_most_clips():
    empty, parked = street(0, objects=()), street(0, objects=())
    parked[:, 30 : 30 + TALL, 50 : 50 + WIDE] = 30
    scene = learn_scene(Clips(empty, empty, parked), 1)
    np.testing.assert_array_equal(scene.background, empty[0])


def test_scene_is_rebuilt_from_its_logarithm():
    occupancy = np.random.default_rng(0).gamma(0.5, size=GRID).astype(np.float32)
    scene = Scene(np.zeros((4, 6, 1), np.uint8), occupancy)
    np.testing.assert_allclose(Scene.of(scene.background, scene.logarithm).occupancy, occupancy, atol=1e-5)
