"""Pictures: heat maps, strips, animations, flow colours, PNG files."""

import cv2
import numpy as np
import pytest

from vadcore.utils.render import (
    animation,
    beside,
    flow_to_rgb,
    heat,
    strip,
    write_animation,
    write_png,
)


def luminance(rgb):
    """Rec. 709 weights."""
    return rgb.astype(float) @ (0.2126, 0.7152, 0.0722)


def test_heat_brightens_with_the_error():
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    assert (np.diff(luminance(heat(ramp, 0, 1))[0]) > -1).all()
    assert luminance(heat(ramp, 0, 1))[0, -1] > 200


def test_heat_saturates_outside_its_scale():
    picture = heat(np.array([[-5.0, 2.0, 3.0, 4.0, 99.0]]), 2, 4)
    assert (picture[0, 0] == picture[0, 1]).all()
    assert (picture[0, 4] == picture[0, 3]).all()
    assert (picture[0, 2] != picture[0, 3]).any()


def test_heat_paints_nan_black():
    assert heat(np.array([[np.nan, 1.0]]), 0, 1)[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, float("nan"))])
def test_heat_refuses_an_empty_scale(low, high):
    with pytest.raises(ValueError, match="high > low"):
        heat(np.zeros((2, 2)), low, high)


def test_beside_enlarges_to_240_pixels():
    frame = np.zeros((64, 96), np.uint8)  # 64 * 4 = 256 >= 240 > 64 * 3
    assert beside(frame, np.zeros((64, 96)), 0, 1).shape == (256, 2 * 384 + 2, 3)
    assert beside(np.zeros((300, 200, 3), np.uint8), np.zeros((30, 20)), 0, 1).shape == (300, 2 * 200 + 2, 3)


def test_beside_enlarges_without_interpolation():
    frame = np.array([[10, 200]], np.uint8).repeat(120, axis=0)
    left = beside(frame, np.zeros((1, 1)), 0, 1)[:, :4]  # factor 2
    assert (left[:, :2] == 10).all()
    assert (left[:, 2:] == 200).all()


def test_beside_shows_heat_at_errors():
    frame = np.full((240, 100), 90, np.uint8)
    error = np.zeros((240, 100))
    error[:, 50:] = 1
    right = beside(frame, error, 0, 1)[:, 102:]
    assert (right[:, :45] == 90).all()
    assert (luminance(right[:, 55:]) > 180).all()


def test_beside_paints_nan_black():
    error = np.zeros((240, 100))
    error[:100] = np.nan
    right = beside(np.full((240, 100), 90, np.uint8), error, 0, 1)[:, 102:]
    assert (right[:100] == 0).all()
    assert (right[100:] == 90).all()


def test_beside_outlines_the_mask():
    frame = np.full((240, 100, 3), 90, np.uint8)
    mask = np.zeros((240, 100), np.uint8)
    mask[50:100, 20:60] = 1
    picture = beside(frame, np.zeros((24, 10)), 0, 1, mask)
    for left in (0, 102):
        assert picture[50, left + 40].tolist() == [0, 255, 255]
        assert picture[75, left + 20].tolist() == [0, 255, 255]
        assert picture[75, left + 40].tolist() == [90, 90, 90]
    assert (frame == 90).all()  # the input is not changed


def test_beside_refuses_wrong_mask_size():
    with pytest.raises(ValueError, match="mask"):
        beside(np.zeros((240, 100), np.uint8), np.zeros((24, 10)), 0, 1, np.zeros((24, 10)))


@pytest.mark.parametrize("channels", [1, 3])
def test_strip_rows_are_inputs_outputs_errors(channels):
    inputs = np.zeros((4, channels, 10, 8), np.float32)
    outputs = np.full_like(inputs, 0.2)
    picture = strip(inputs, outputs)
    assert picture.shape == (3 * 10 + 2 * 2, 4 * 8 + 3 * 2, 3)
    assert (picture[:10, :8] == 0).all()
    assert (picture[12:22, :8] == 51).all()  # 0.2 * 255
    assert (picture[24:, :8] == heat(np.full((10, 8), 0.2), 0, 0.25)).all()
    assert (picture[10:12] == 128).all()
    assert (picture[:, 8:10] == 128).all()


def test_strip_shows_every_second_frame():
    inputs = np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1) / 255 * np.ones((5, 1, 6, 6), np.float32)
    picture = strip(inputs, inputs, every=2)
    assert [int(picture[0, column, 0]) for column in (0, 8, 16)] == [0, 2, 4]
    assert picture.shape[1] == 3 * 6 + 2 * 2


def test_strips_share_one_error_scale():
    inputs = np.zeros((1, 1, 8, 8), np.float32)
    early, late = (strip(inputs, inputs + error)[-1, 0] for error in (0.2, 0.02))
    assert luminance(early) > 5 * luminance(late)


def test_strip_refuses_windows_of_different_size():
    with pytest.raises(ValueError, match="same"):
        strip(np.zeros((4, 1, 8, 8)), np.zeros((3, 1, 8, 8)))


def numbered(frames, height=6, width=10, channels=1):
    """Frame n is n / 10 everywhere: float32 [T, C, H, W]."""
    levels = np.arange(frames, dtype=np.float32).reshape(frames, 1, 1, 1) / 10
    return np.broadcast_to(levels, (frames, channels, height, width))


def test_animation_layout():
    inputs, outputs = numbered(5, 64, 96), 1 - numbered(5, 64, 96)
    film = animation([(inputs, outputs), (outputs, inputs)])
    assert len(film) == 5
    for number, picture in enumerate(film):
        assert picture.shape == (2 * 128 + 2, 2 * 192 + 2, 3)  # 64 x 96 enlarged twice
        level = round(number * 25.5)
        for row, column, value in ((0, 0, level), (130, 0, 255 - level), (0, 194, 255 - level), (130, 194, level)):
            assert abs(picture[row : row + 128, column : column + 192].astype(int) - value).max() <= 1
        assert (picture[128:130] == 128).all()


def test_animation_enlarges_without_interpolation():
    inputs = np.random.default_rng(0).random((2, 3, 32, 8), dtype=np.float32)
    (picture, _) = animation([(inputs, inputs)])
    assert picture.shape == (2 * 128 + 2, 32, 3)  # four times
    assert (picture[:128] == picture[:128:4, ::4].repeat(4, axis=0).repeat(4, axis=1)).all()


def test_animation_reduces_large_frames():
    assert animation([(numbered(2, 512, 640), numbered(2, 512, 640))])[0].shape == (2 * 256 + 2, 320, 3)


def test_animation_loops_at_eight_frames_per_second(tmp_path):
    write_animation(tmp_path / "deep" / "film.webp", animation([(numbered(5, 64, 96), numbered(5, 64, 96))]))
    data = (tmp_path / "deep" / "film.webp").read_bytes()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["film.webp"]
    # container: "VP8X" flags with bit 1 for animation; "ANIM": background colour, then loop count, 0 = infinite
    assert (data[:4], data[8:16]) == (b"RIFF", b"WEBPVP8X")
    assert data[20] & 0b10
    at = data.index(b"ANIM") + 8
    assert int.from_bytes(data[at + 4 : at + 6], "little") == 0
    # "ANMF": x, y, width - 1, height - 1 and duration in milliseconds, three bytes each
    durations = []
    at = data.index(b"ANMF")
    while at < len(data):
        assert data[at : at + 4] == b"ANMF"
        durations.append(int.from_bytes(data[at + 20 : at + 23], "little"))
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    assert durations == [125] * 5


# The wheel has 55 hues: 15 from red to yellow, 6 to green, 4 to cyan, 11 to blue, 13 to magenta, 6 back to red; a
# direction sits at (atan2(-v, -u) / pi + 1) / 2 * 54.
@pytest.mark.parametrize(
    ("u", "v", "rgb"),
    [
        (1, 0, (255, 0, 0)),  # 0: red
        (0, 1, (255, 229, 0)),  # 13.5: between floor(255 * 13 / 15) = 221 and floor(255 * 14 / 15) = 238: 229.5
        (-1, 0, (0, 209, 255)),  # 27: 2 steps of 11 from cyan to blue: 255 - floor(255 * 2 / 11) = 209
        (0, -1, (88, 0, 255)),  # 40.5: between floor(255 * 4 / 13) = 78 and floor(255 * 5 / 13) = 98: 88
    ],
)
def test_flow_colours_of_the_cardinal_directions(u, v, rgb):
    flow = np.array([u, v], dtype=float).reshape(2, 1, 1)
    assert flow_to_rgb(flow)[0, 0].tolist() == list(rgb)


def test_short_flow_fades_to_white():
    flow = np.zeros((2, 1, 3))
    flow[0, 0] = 0, 2, 4
    # radius 0.5 of pure red: 1 - 0.5 * (1 - 0) = 0.5, floor(127.5) = 127
    assert flow_to_rgb(flow)[0].tolist() == [[255, 255, 255], [255, 127, 127], [255, 0, 0]]


def test_too_long_flow_is_darkened():
    flow = np.array([3.0, 0]).reshape(2, 1, 1)
    assert flow_to_rgb(flow, max=2)[0, 0].tolist() == [191, 0, 0]  # floor(0.75 * 255)


def test_nan_flow_is_black():
    flow = np.zeros((2, 1, 3))
    flow[0, 0] = np.nan, np.inf, 1
    assert flow_to_rgb(flow)[0].tolist() == [[0, 0, 0], [0, 0, 0], [255, 0, 0]]


def test_png_round_trip(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    write_png(tmp_path / "deep" / "picture.png", picture)
    stored = cv2.imread(str(tmp_path / "deep" / "picture.png"))
    assert (cv2.cvtColor(stored, cv2.COLOR_BGR2RGB) == picture).all()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["picture.png"]


def test_wrong_picture_type_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="uint8"):
        write_png(tmp_path / "picture.png", np.zeros((4, 4, 3)))
    assert not list(tmp_path.iterdir())
