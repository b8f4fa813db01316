import numpy as np
import pytest

from tests.unit.models.pseudo.conftest import SPEED, TALL, WIDE, Clips, street
from vadcore.models.pseudo.cutouts import LENGTH, cut_of_stretch, cut_out, soft_masks


def test_soft_masks_cover_the_object():
    frames, still = street(0)[:1], street(0, objects=())[0]
    mask = soft_masks(frames, still)[0]
    assert mask[32:48, 12:16].min() == 1
    assert mask[:, 40:].max() == 0


def test_cutouts_follow_the_objects(cutouts):
    assert len(cutouts) > 6
    assert max(map(len, cutouts)) == LENGTH
    for cutout in cutouts:
        assert abs(cutout.height - TALL) <= 4
        assert abs(cutout.speed - SPEED) < 0.2
        step = np.diff(cutout.path, axis=0).mean(0)
        np.testing.assert_allclose(step, (0, SPEED), atol=0.2)
        area = (cutout.alpha > 127).sum((1, 2))
        assert (np.abs(area - TALL * WIDE) < 0.5 * TALL * WIDE).all()
        shown = cutout.pictures[cutout.alpha == 255]
        assert np.median(shown) == 30


def test_objects_that_meet_are_followed_until_they_do():
    frames = street(0, objects=((30, 10.0),), speed=2)
    frames[:, 30:50, 50:58] = 30  # one that stands in its way
    still = street(0, objects=())[0]
    found = cut_of_stretch(frames[:40], still, shortest=8)
    lengths = sorted(map(len, found))
    assert lengths
    assert max(lengths) < 25  # they touch in frame 16


@pytest.mark.parametrize("channels", [1, 3])
def test_still_footage_lends_pieces_of_itself(channels):
    pieces = cut_out(Clips(street(0, objects=(), channels=channels)), 8)
    assert len(pieces) > 1
    assert all(piece.pictures.shape[-1] == channels and len(piece) == 8 for piece in pieces)


def test_colour_objects_keep_their_colour():
    (cutout, *_) = cut_out(Clips(street(0, channels=3)), 8)
    assert cutout.pictures.shape[-1] == 3
