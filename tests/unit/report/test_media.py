"""Excerpts of strips, and decoding of animations."""

import numpy as np
import pytest

from vadcore.report.media import decode_animation, excerpt
from vadcore.utils.render import animation, encode_animation, strip


def numbered(frames, height=6, width=10, channels=1):
    """Frame n is n / 10 everywhere: float32 [T, C, H, W]."""
    levels = np.arange(frames, dtype=np.float32).reshape(frames, 1, 1, 1) / 10
    return np.broadcast_to(levels, (frames, channels, height, width))


def test_excerpt_keeps_first_and_last_frame():
    whole = strip(numbered(10), numbered(10))
    few = excerpt(np.concatenate((whole, 255 - whole)), (6, 10), 4)
    assert few.shape == (whole.shape[0], 4 * 12 - 2, 3)
    assert few[0, ::12, 0].tolist() == whole[0, [0, 36, 72, 108], 0].tolist()  # frames 0, 3, 6, 9, twelve pixels apart
    assert (few[:, 10] == 128).all()


def test_excerpt_of_a_short_window():
    short = strip(numbered(3), numbered(3))
    assert (excerpt(short, (6, 10), 4) == short).all()


def test_excerpt_returns_other_pictures_unchanged():
    picture = np.zeros((22, 100, 3), np.uint8)
    assert excerpt(picture, (6, 10), 4) is picture  # 102 is no multiple of 12
    assert excerpt(picture[:20, :94], (6, 10), 4).shape == (20, 94, 3)  # 20 rows are not 22


def test_animation_round_trip():
    film = animation([(numbered(4, 64, 96), numbered(4, 64, 96))])
    again = decode_animation(encode_animation(film))
    assert len(again) == 4
    for ours, read in zip(film, again, strict=True):
        assert abs(ours.astype(int) - read).mean() < 3  # lossy


def test_repeated_frames_keep_their_duration():
    dark, bright = numbered(5, 64, 96)[:1], numbered(5, 64, 96)[4:]
    inputs = np.concatenate((dark, dark, dark, bright, bright))
    again = decode_animation(encode_animation(animation([(inputs, inputs)])))
    assert [picture.mean() > 50 for picture in again] == [False, False, False, True, True]


@pytest.mark.parametrize("data", [b"", b"no animation"])
def test_invalid_animation_is_refused(data):
    with pytest.raises(ValueError, match="not an animation"):
        decode_animation(data)
