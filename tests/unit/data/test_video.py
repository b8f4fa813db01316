"""Decoding of videos and image files: frames in order, one-line errors for damaged files."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.helpers.data import data_dir
from tests.helpers.project import ROOT
from tests.helpers.sources import picture, write_frames, write_video
from vadcore.data.video import count_frames, numbered, read_images, read_numbered, read_video, video_fps
from vadcore.utils.errors import VadError


def error_of(call) -> str:
    """The one-line message of the error that ``call`` raises."""
    with pytest.raises(VadError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_video_gives_rgb_frames_in_order(tmp_path):
    # FFV1 is lossless
    path = tmp_path / "colours.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 5, (64, 48))
    red, blue = np.zeros((2, 48, 64, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes blue, green, red
    blue[..., 0] = 255
    for shown in (red, blue):
        writer.write(shown)
    writer.release()
    first, second = read_video(path)
    assert first.dtype == np.uint8
    assert (first == [255, 0, 0]).all()
    assert (second == [0, 0, 255]).all()


def test_fps_and_frame_count(tmp_path):
    path = write_video(tmp_path / "clip.avi", 23, fps=12.5)
    assert video_fps(path) == 12.5
    assert count_frames(path) == 23 == len(list(read_video(path)))


def test_changed_file_is_counted_again(tmp_path):
    assert count_frames(write_video(tmp_path / "clip.avi", 5)) == 5
    assert count_frames(write_video(tmp_path / "clip.avi", 8)) == 8


def test_missing_video_is_named(tmp_path):
    assert error_of(lambda: list(read_video(tmp_path / "no.avi"))).startswith(f"{tmp_path / 'no.avi'}: missing")


@pytest.mark.parametrize("name", ["bytes.avi", "bytes.mp4", "bytes.mkv"])
def test_non_video_is_refused(tmp_path, name):
    (tmp_path / name).write_text("this is not footage " * 100)
    message = error_of(lambda: list(read_video(tmp_path / name)))
    assert name in message
    assert "ffmpeg" in message


def test_empty_file_is_refused(tmp_path):
    (tmp_path / "clip.mp4").touch()
    assert "clip.mp4: empty" in error_of(lambda: list(read_video(tmp_path / "clip.mp4")))


def test_video_without_frames_is_refused(tmp_path):
    path = write_video(tmp_path / "clip.avi", 0)
    assert str(path) in error_of(lambda: list(read_video(path)))
    assert str(path) in error_of(lambda: count_frames(path))


@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v"), ("clip.mkv", "mp4v")])
def test_truncated_video_is_refused(tmp_path, name, codec, share):
    path = write_video(tmp_path / name, 40, codec=codec)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    message = error_of(lambda: list(read_video(path)))
    assert str(path) in message
    assert "copy it again" in message


def test_partly_undecodable_video_is_refused(tmp_path):
    # the header says 40 frames and the file has its full length, but the last 30 chunks are no longer video chunks
    path = write_video(tmp_path / "clip.avi", 40)
    data = bytearray(path.read_bytes())
    index = data.rfind(b"idx1")
    starts = []
    at = data.find(b"00dc", data.find(b"movi"))
    while 0 <= at < index:
        starts.append(at)
        at = data.find(b"00dc", at + 4)
    assert len(starts) == 40
    for start in starts[10:]:
        data[start : start + 4] = b"JUNK"
    data[index : index + 4] = b"JUNK"
    path.write_bytes(data)
    assert "10 of 40 frames" in error_of(lambda: list(read_video(path)))


def test_recording_without_length_is_read(tmp_path):
    # a recorder that lost power did not write the lengths: RIFF size 0, number of frames 0
    path = write_video(tmp_path / "clip.avi", 40)
    data = bytearray(path.read_bytes())
    data[4:8] = bytes(4)
    data[48:52] = bytes(4)  # avih dwTotalFrames
    header = data.find(b"strh") + 8
    data[header + 32 : header + 36] = bytes(4)  # strh dwLength
    path.write_bytes(data[: len(data) // 2])
    assert 10 <= len(list(read_video(path))) <= 25


def test_changing_frame_size_is_refused(tmp_path):
    path = tmp_path / "clip.mjpeg"
    sizes = [(48, 64)] * 5 + [(40, 56)] * 5
    path.write_bytes(b"".join(cv2.imencode(".jpg", picture(n, size))[1].tobytes() for n, size in enumerate(sizes)))
    message = error_of(lambda: list(read_video(path)))
    assert [part for part in ("frame 5", "56x40", "64x48") if part not in message] == []


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


def test_decoder_logs_only_on_request(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 40, codec="mp4v")
    path.write_bytes(path.read_bytes().replace(b"moov", b"mooo"))  # FFmpeg logs: moov atom not found
    program = (
        "from vadcore.data.video import read_video\nfrom vadcore.utils.errors import VadError\nimport sys\n"
        "try: list(read_video(sys.argv[1]))\nexcept VadError as error: print(error)"
    )
    asked = {"OPENCV_FFMPEG_LOGLEVEL": "16", "OPENCV_LOG_LEVEL": "ERROR"}  # values in the environment take precedence
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    for extra, logs in (({}, False), (asked, True)):
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True, text=True, cwd=ROOT, check=True, env=quiet | extra,
        )  # fmt: skip
        assert str(path) in done.stdout
        lines = (done.stdout + done.stderr).splitlines()  # FFmpeg writes to either, depending on the build of OpenCV
        assert (len(lines) > 1) == logs


def test_real_video_matches_its_images():
    video, frames = data_dir("ped2_mp4", "testing", "03.mp4"), data_dir("ped2", "testing", "frames", "03")
    assert count_frames(video) == len(numbered(frames)) == 150
    assert video_fps(video) == 10.0
    shown = np.stack(list(read_video(video)))[..., 0].astype(float)
    stored = np.stack(list(read_images(numbered(frames))))
    for number in range(1, 149):  # frame i of the video matches frame i of the folder best
        errors = [np.mean((shown[number] - stored[other]) ** 2) for other in (number - 1, number, number + 1)]
        assert np.argmin(errors) == 1
