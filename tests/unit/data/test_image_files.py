"""Reading of image files: frames in order, one-line errors for damaged files, pixels of every kind."""

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.helpers.sources import picture, write_frames
from tests.unit.data.test_video import error_of
from vadcore.data.image_files import ImageReader, numbered, read_image, read_images, read_numbered


def test_grey_images_give_grey_frames(tmp_path):
    shown = list(read_images(write_frames(tmp_path, 12, ".png")))
    assert len(shown) == 12
    assert all(np.array_equal(one, picture(number)) for number, one in enumerate(shown))


def test_equal_channels_are_read_as_grey(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        grey = cv2.GaussianBlur(rng.integers(0, 256, (32, 48), dtype=np.uint8), (5, 5), 0)
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), np.repeat(grey[..., None], 3, axis=2))
    paths = numbered(tmp_path)
    for path, shown in zip(paths, read_images(paths), strict=True):
        stored = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert shown.ndim == 2
        assert all(np.array_equal(stored[..., channel], shown) for channel in range(3))


def test_partly_coloured_clip_is_rgb(tmp_path):
    for number in range(12):
        shown = np.full((16, 24, 3), 90, np.uint8)
        if number >= 10:
            shown[..., 2] = 250  # red, in OpenCV's order
        cv2.imwrite(str(tmp_path / f"{number}.png"), shown)
    pictures = list(read_images(numbered(tmp_path)))
    assert all(one.shape == (16, 24, 3) for one in pictures)
    assert (pictures[-1] == [250, 90, 90]).all()


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]])
def test_truncated_jpeg_is_refused(tmp_path, options):
    path = tmp_path / "000.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    cv2.imwrite(str(path), noise, options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = error_of(lambda: list(read_images([path])))
    assert message.startswith(f"{path}: ")
    assert f"{path.stat().st_size} bytes" in message


def test_bytes_after_a_jpeg_are_ignored(tmp_path):
    (path,) = write_frames(tmp_path, 1)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert len(list(read_images([path]))) == 1


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_truncated_image_is_refused(tmp_path, ending):
    (path,) = write_frames(tmp_path, 1, ending)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = error_of(lambda: list(read_images([path])))
    assert message.startswith(f"{path}: ")
    assert "copy" in message


def test_image_of_another_size_is_named(tmp_path):
    paths = write_frames(tmp_path, 6)
    cv2.imwrite(str(paths[4]), picture(0, (20, 30)))
    message = error_of(lambda: list(read_images(paths)))
    assert message.startswith(f"{paths[4]}: ")
    assert [part for part in ("30x20", "000.jpg", "24x16") if part not in message] == []


def test_no_images_is_an_error(tmp_path):
    assert error_of(lambda: list(read_images([])))
    assert str(tmp_path) in error_of(lambda: numbered(tmp_path))


def test_frames_are_ordered_by_number(tmp_path):
    write_frames(tmp_path, 11, digits=1)
    assert [path.stem for path in numbered(tmp_path)] == [str(number) for number in range(11)]


def test_hidden_files_are_ignored(tmp_path):
    paths = write_frames(tmp_path, 2)
    (tmp_path / "._000.jpg").write_bytes(b"resource fork")
    (tmp_path / ".DS_Store").write_bytes(b"finder")
    assert numbered(tmp_path) == tuple(paths)


def test_missing_frame_number_is_an_error(tmp_path):
    paths = write_frames(tmp_path, 6)
    paths[3].unlink()
    message = error_of(lambda: read_numbered(numbered(tmp_path)))
    assert "004.jpg" in message
    assert "frame 3" in message


def test_frame_numbers_start_at_0_or_1(tmp_path):
    write_frames(tmp_path, 3, first=7)
    message = error_of(lambda: read_numbered(numbered(tmp_path)))
    assert str(tmp_path) in message
    assert "number 7" in message


def test_duplicate_frame_number_is_an_error(tmp_path):
    write_frames(tmp_path, 2)
    write_frames(tmp_path, 1, first=1, digits=4)
    message = error_of(lambda: read_numbered(numbered(tmp_path)))
    assert str(tmp_path) in message
    assert "number 1" in message


GREY = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, np.ones((4, 4), np.uint8))  # [32, 32]
COLOURED = np.stack([GREY, GREY[::-1], GREY.T], axis=2)


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("P", ".png"), ("P", ".bmp"), ("P", ".tif"), ("RGBA", ".png"), ("CMYK", ".tif"), ("CMYK", ".jpg"), ("LA", ".png"),
     ("1", ".tif")],
)  # fmt: skip
def test_colours_of_every_kind_of_picture(tmp_path, mode, ending):
    source = Image.fromarray(GREY if mode in ("LA", "1") else COLOURED)
    stored = source.quantize(256) if mode == "P" else source.convert(mode)
    if mode in ("RGBA", "LA"):
        stored.putalpha(Image.fromarray(GREY))  # transparency must not change the colours
    stored.save(tmp_path / f"0{ending}", quality=98)
    expected = np.asarray(Image.open(tmp_path / f"0{ending}").convert("RGB")).astype(int)
    shown = read_image(tmp_path / f"0{ending}")
    shown = shown if shown.ndim == 3 else shown[..., None]
    assert np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize("ending", [".png", ".tif", ".pgm"])
def test_16_bit_pictures_use_the_whole_range(tmp_path, ending):
    cv2.imwrite(str(tmp_path / f"0{ending}"), GREY.astype(np.uint16) * 257)
    reader = ImageReader([tmp_path / f"0{ending}"])
    np.testing.assert_array_equal(next(iter(reader)), GREY)
    assert reader.remarks == []


def test_16_bit_pictures_with_a_set_range(tmp_path):
    thermal = GREY.astype(np.uint16) * 2 + 21000  # 21000 to 21504
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.tif"), thermal)
    dark = ImageReader(numbered(tmp_path))
    assert max(picture.max() for picture in dark) == 84  # 21504 // 256
    assert [part for part in ("21000", "21504", "pixel_range: [21000, 21504]") if part not in dark.remarks[0]] == []
    bright = ImageReader(numbered(tmp_path), (21000, 21510))
    np.testing.assert_array_equal(next(iter(bright)), GREY)
    assert bright.remarks == []


def test_float_pictures_need_a_range(tmp_path):
    celsius = GREY.astype(np.float32) / 10 + 20
    cv2.imwrite(str(tmp_path / "0.tif"), celsius)
    message = error_of(lambda: read_image(tmp_path / "0.tif"))
    assert [part for part in ("0.tif", "float32", "pixel_range", "20", "45.2") if part not in message] == []
    np.testing.assert_array_equal(read_image(tmp_path / "0.tif", (20, 45.5)), GREY)


def test_nan_pixels_are_refused(tmp_path):
    holes = GREY.astype(np.float32)
    holes[0, :3] = np.nan
    cv2.imwrite(str(tmp_path / "0.tif"), holes)
    assert "3 pixels are NaN" in error_of(lambda: read_image(tmp_path / "0.tif", (0, 255)))


def test_mixed_depths_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), GREY)
    cv2.imwrite(str(tmp_path / "1.png"), GREY.astype(np.uint16) * 257)
    message = error_of(lambda: list(read_images(numbered(tmp_path))))
    assert [part for part in ("1.png", "uint16", "uint8") if part not in message] == []


def test_only_the_first_picture_of_a_file_is_read_and_that_is_said(tmp_path):
    for number in range(3):
        cv2.imwritemulti(str(tmp_path / f"{number}.tif"), [np.full((8, 9), 50 * page, np.uint8) for page in range(4)])
    reader = ImageReader(sorted(tmp_path.iterdir()))
    assert [int(picture.max()) for picture in reader] == [0, 0, 0]
    assert reader.remarks == ["0.tif: holds 4 pictures; only the first one in each file is read"]
