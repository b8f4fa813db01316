"""Decoding: the right pictures in order, and one line for everything that is wrong with a file."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.helpers.data import data_dir
from tests.helpers.project import ROOT
from tests.helpers.sources import picture, write_frames, write_video
from vadcore.datasets.reading import count_frames, numbered, read_images, read_numbered, read_video, video_fps
from vadcore.errors import VadError


def message_of(call) -> str:
    with pytest.raises(VadError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_video_gives_its_pictures_in_order_as_rgb(tmp_path):
    # FFV1 is lossless: a red picture, then a blue one, come back as they were, channels in the order red, green, blue
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


def test_rate_and_number_of_frames_of_a_video(tmp_path):
    path = write_video(tmp_path / "clip.avi", 23, fps=12.5)
    assert video_fps(path) == 12.5
    assert count_frames(path) == 23 == len(list(read_video(path)))


def test_frames_are_counted_again_when_the_file_changes(tmp_path):
    assert count_frames(write_video(tmp_path / "clip.avi", 5)) == 5
    assert count_frames(write_video(tmp_path / "clip.avi", 8)) == 8


def test_a_missing_video_is_named(tmp_path):
    assert message_of(lambda: list(read_video(tmp_path / "no.avi"))).startswith(f"{tmp_path / 'no.avi'}: missing")


@pytest.mark.parametrize("name", ["bytes.avi", "bytes.mp4", "bytes.mkv"])
def test_what_is_no_video_is_refused(tmp_path, name):
    (tmp_path / name).write_text("this is not footage " * 100)
    message = message_of(lambda: list(read_video(tmp_path / name)))
    assert name in message
    assert "not a readable video" in message
    assert "ffmpeg" in message


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "clip.mp4").touch()
    assert "clip.mp4: empty (0 bytes)" in message_of(lambda: list(read_video(tmp_path / "clip.mp4")))


def test_a_video_without_pictures_is_refused(tmp_path):
    path = write_video(tmp_path / "clip.avi", 0)
    assert "holds no picture" in message_of(lambda: list(read_video(path)))
    assert "holds no picture" in message_of(lambda: count_frames(path))


@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v"), ("clip.mkv", "mp4v")])
def test_a_video_that_is_cut_anywhere_is_refused(tmp_path, name, codec, share):
    path = write_video(tmp_path / name, 40, codec=codec)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    message = message_of(lambda: list(read_video(path)))
    assert "cut short" in message
    assert "bytes it states are missing" in message
    assert "copy it again" in message


def test_a_video_that_stops_decoding_far_before_its_stated_end_is_refused(tmp_path):
    # the header says 40 frames; the file's length is as stated, but the last 30 chunks are no longer video chunks
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
    assert "10 of 40 frames can be decoded" in message_of(lambda: list(read_video(path)))


def test_a_recording_that_states_no_length_is_read_as_far_as_it_goes(tmp_path):
    # a recorder that lost power never went back to write lengths: RIFF size 0, number of frames 0
    path = write_video(tmp_path / "clip.avi", 40)
    data = bytearray(path.read_bytes())
    data[4:8] = bytes(4)
    data[48:52] = bytes(4)  # avih dwTotalFrames
    header = data.find(b"strh") + 8
    data[header + 32 : header + 36] = bytes(4)  # strh dwLength
    path.write_bytes(data[: len(data) // 2])
    assert 10 <= len(list(read_video(path))) <= 25


def test_a_picture_size_that_changes_within_motion_jpeg_is_refused_with_the_frame(tmp_path):
    path = tmp_path / "clip.mjpeg"
    sizes = [(48, 64)] * 5 + [(40, 56)] * 5
    path.write_bytes(b"".join(cv2.imencode(".jpg", picture(n, size))[1].tobytes() for n, size in enumerate(sizes)))
    assert "frame 5 has 56x40 pixels where the first has 64x48" in message_of(lambda: list(read_video(path)))


def test_grey_image_files_give_grey_pictures(tmp_path):
    shown = list(read_images(write_frames(tmp_path, 12, ".png")))
    assert len(shown) == 12
    assert all(np.array_equal(one, picture(number)) for number, one in enumerate(shown))


def test_grey_pictures_stored_as_three_channels_are_read_as_the_same_grey_pixels(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        grey = cv2.GaussianBlur(rng.integers(0, 256, (32, 48), dtype=np.uint8), (5, 5), 0)
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), np.repeat(grey[..., None], 3, axis=2))
    paths = numbered(tmp_path)
    for path, shown in zip(paths, read_images(paths), strict=True):
        stored = cv2.imread(str(path), cv2.IMREAD_COLOR)
        assert shown.ndim == 2
        assert all(np.array_equal(stored[..., channel], shown) for channel in range(3))


def test_a_clip_with_colour_at_its_end_is_read_as_rgb(tmp_path):
    for number in range(12):
        shown = np.full((16, 24, 3), 90, np.uint8)
        if number >= 10:
            shown[..., 2] = 250  # red, in OpenCV's order
        cv2.imwrite(str(tmp_path / f"{number}.png"), shown)
    pictures = list(read_images(numbered(tmp_path)))
    assert all(one.shape == (16, 24, 3) for one in pictures)
    assert (pictures[-1] == [250, 90, 90]).all()


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]])
def test_half_a_jpeg_is_refused_though_opencv_would_fill_the_rest_with_grey(tmp_path, options):
    path = tmp_path / "000.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    cv2.imwrite(str(path), noise, options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = message_of(lambda: list(read_images([path])))
    assert message.startswith(f"{path}: cut short after {path.stat().st_size} bytes")


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path):
    (path,) = write_frames(tmp_path, 1)
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert len(list(read_images([path]))) == 1


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_half_of_any_other_image_is_refused(tmp_path, ending):
    (path,) = write_frames(tmp_path, 1, ending)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    message = message_of(lambda: list(read_images([path])))
    assert message.startswith(f"{path}: ")
    assert "replace it by a whole copy" in message


def test_a_picture_of_another_size_is_named_with_both_sizes(tmp_path):
    paths = write_frames(tmp_path, 6)
    cv2.imwrite(str(paths[4]), picture(0, (20, 30)))
    message = message_of(lambda: list(read_images(paths)))
    assert message.startswith(f"{paths[4]}: 30x20 pixels where the clip's first frame, 000.jpg, has 24x16")


def test_no_pictures_at_all_is_an_error(tmp_path):
    assert "no image files" in message_of(lambda: list(read_images([])))
    assert f"{tmp_path}: holds no frames" in message_of(lambda: numbered(tmp_path))


def test_frames_are_ordered_by_number_not_by_spelling(tmp_path):
    write_frames(tmp_path, 11, digits=1)
    assert [path.stem for path in numbered(tmp_path)] == [str(number) for number in range(11)]


def test_hidden_doubles_of_frames_are_ignored(tmp_path):
    paths = write_frames(tmp_path, 2)
    (tmp_path / "._000.jpg").write_bytes(b"resource fork")
    (tmp_path / ".DS_Store").write_bytes(b"finder")
    assert numbered(tmp_path) == tuple(paths)


def test_a_missing_frame_number_is_an_error(tmp_path):
    paths = write_frames(tmp_path, 6)
    paths[3].unlink()
    message = message_of(lambda: read_numbered(numbered(tmp_path)))
    assert "004.jpg: follows frame 2, so frame 3 is missing" in message


def test_frames_that_start_late_are_an_error(tmp_path):
    write_frames(tmp_path, 3, first=7)
    assert "the first frame has number 7" in message_of(lambda: read_numbered(numbered(tmp_path)))


def test_a_doubled_frame_number_is_an_error(tmp_path):
    write_frames(tmp_path, 2)
    write_frames(tmp_path, 1, first=1, digits=4)
    assert "a second frame with number 1" in message_of(lambda: read_numbered(numbered(tmp_path)))


def test_the_decoders_own_remarks_stay_silent(tmp_path):
    path = write_video(tmp_path / "clip.mp4", 40, codec="mp4v")
    path.write_bytes(path.read_bytes().replace(b"moov", b"mooo"))  # FFmpeg says: moov atom not found
    program = (
        "from vadcore.datasets.reading import read_video\nfrom vadcore.errors import VadError\nimport sys\n"
        "try: list(read_video(sys.argv[1]))\nexcept VadError as error: print(error)"
    )
    root = ROOT
    asked = {"OPENCV_FFMPEG_LOGLEVEL": "16", "OPENCV_LOG_LEVEL": "ERROR"}  # what the person sets comes first
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    for extra, remarks in (({}, False), (asked, True)):
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True, text=True, cwd=root, check=True, env=quiet | extra,
        )  # fmt: skip
        assert "not a readable video" in done.stdout
        lines = (done.stdout + done.stderr).splitlines()  # OpenCV's build decides which of them FFmpeg writes to
        assert (len(lines) > 1) == remarks


def test_real_video_has_the_frames_of_the_footage_it_was_made_from():
    video, frames = data_dir("ped2_mp4", "testing", "03.mp4"), data_dir("ped2", "testing", "frames", "03")
    assert count_frames(video) == len(numbered(frames)) == 150
    assert video_fps(video) == 10.0
    shown = np.stack(list(read_video(video)))[..., 0].astype(float)
    stored = np.stack(list(read_images(numbered(frames))))
    for number in range(1, 149):  # frame i of the video is frame i of the folder, not its neighbour
        errors = [np.mean((shown[number] - stored[other]) ** 2) for other in (number - 1, number, number + 1)]
        assert np.argmin(errors) == 1
