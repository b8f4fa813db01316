"""Decoding of videos: all frames with their times, and no missing frame without a remark."""

from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from tests.helpers.data import data_dir
from tests.helpers.encode import encode, walking_square, zero_packet
from tests.helpers.sources import picture, write_video
from vadcore.data.image_files import numbered, read_images
from vadcore.data.video import VideoReader, read_video
from vadcore.data.video_index import (
    continuous,
    count_frames,
    merge_fields,
    packets,
    video_fps,
    video_index,
    without_spikes,
)
from vadcore.utils.errors import VadError

KINDS = [  # ending, codec, options
    (".mp4", "libx264", {}),
    (".mp4", "libx265", {"x265-params": "log-level=none"}),
    (".mp4", "libsvtav1", {}),
    (".mov", "mjpeg", {"pixels": "yuvj420p"}),
    (".3gp", "mpeg4", {}),
    (".m4v", "mpeg4", {}),
    (".mkv", "libx264", {}),
    (".mkv", "ffv1", {"pixels": "bgr0"}),
    (".mkv", "ffv1", {"pixels": "gray16le"}),
    (".webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "25"}),
    (".webm", "libvpx-vp9", {}),
    (".avi", "mjpeg", {"pixels": "yuvj420p"}),
    (".avi", "mpeg4", {"bf": "2"}),
    (".avi", "libx264", {}),  # with frames out of order, which AVI cannot time
    (".avi", "libx264", {"bf": "0"}),
    (".asf", "libx264", {}),  # FFmpeg writes the times of decoding
    (".mxf", "libx264", {}),
    (".ts", "libx264", {}),
    (".m2ts", "mpeg2video", {}),
    (".mts", "libx264", {}),
    (".mpg", "mpeg2video", {}),
    (".vob", "mpeg2video", {}),
    (".flv", "libx264", {}),
    (".flv", "flv", {}),
    (".wmv", "wmv2", {}),
    (".asf", "wmv2", {}),
    (".h264", "libx264", {}),
    (".264", "libx264", {"container": "h264"}),
    (".h265", "libx265", {"container": "hevc", "x265-params": "log-level=none"}),
    (".dav", "libx264", {"container": "h264"}),
    (".mjpeg", "mjpeg", {"pixels": "yuvj420p"}),
]


def error_of(call) -> str:
    """The one-line message of the error that ``call`` raises."""
    with pytest.raises(VadError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def read(path, **options) -> tuple[VideoReader, list[np.ndarray]]:
    reader = VideoReader(path, **options)
    return reader, list(reader)


def square_of(shown: np.ndarray) -> float:
    """The left edge of the bright square of :func:`walking_square`, in pixels."""
    return float(np.nonzero((shown[40:56] > 225).all(axis=2).mean(axis=0) > 0.5)[0].min())


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


@pytest.mark.parametrize(("ending", "codec", "options"), KINDS, ids=[kind[0] + "-" + kind[1] for kind in KINDS])
def test_every_container_and_codec(tmp_path, ending, codec, options):
    path = encode(tmp_path / f"clip{ending}", 40, codec, **options)
    reader, shown = read(path)
    assert (len(shown), reader.length, reader.fps, reader.numbers) == (40, 40, 25.0, list(range(40)))
    assert reader.times.tolist() == [number / 25 for number in range(40)]
    assert count_frames(path) == 40
    assert [square_of(one) for one in shown] == pytest.approx([square_of(one) for one in walking_square(40)], abs=5)
    assert [remark for remark in reader.remarks if "no times" not in remark and "16-bit grey" not in remark] == []


@pytest.mark.parametrize("fps", [25, 12.5, 10, Fraction(30000, 1001), 6.25, 60])
@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".ts", ".flv"])
def test_constant_rates(tmp_path, ending, fps):
    reader, _ = read(encode(tmp_path / f"clip{ending}", 30, fps=fps))
    assert reader.fps == pytest.approx(float(fps), rel=1e-3)
    assert reader.times.tolist() == [number / reader.fps for number in range(30)]


def test_pictures_equal_those_of_opencv(tmp_path):
    for name, codec in (("a.mp4", "libx264"), ("b.avi", "mpeg4")):
        path = encode(tmp_path / name, 10, codec)
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        for shown in read_video(path):
            np.testing.assert_array_equal(shown, capture.read()[1][..., ::-1])


VARYING = np.concatenate([np.arange(20) * 0.2, 4 + np.arange(40) * 0.04])  # 5 a second to 4 s, then 25 a second


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov", ".ts"])
def test_varying_rate_keeps_its_times(tmp_path, ending):
    reader, shown = read(encode(tmp_path / f"clip{ending}", 60, times=VARYING))
    assert len(shown) == 60
    assert reader.fps == 25.0
    np.testing.assert_allclose(reader.times, VARYING, atol=1e-3)
    assert "varies, from 5 to 25 frames a second" in " ".join(reader.remarks)


def test_dropped_frames_and_pauses_are_gaps(tmp_path):
    times = np.delete(np.arange(100) / 25, [30, 31, 60])
    times[70:] += 5
    reader, _ = read(encode(tmp_path / "clip.mkv", 97, times=times))
    np.testing.assert_allclose(reader.times, times, atol=1e-3)
    assert reader.fps == 25.0
    remarks = " ".join(reader.remarks)
    assert "no frames for 5.0 s in all; pauses: 1, the longest from 2.88 to 7.92 s" in remarks
    assert "its frame rate varies" in remarks


def test_set_rate_replaces_the_times(tmp_path):
    path = encode(tmp_path / "clip.mp4", 20)
    reader, _ = read(path, fps=5)
    assert reader.fps == 5
    assert reader.times[-1] == 19 / 5
    assert "its times say 25 frames a second; 5 are used" in reader.remarks[0]
    assert read(path, fps=25)[0].remarks == []


@pytest.mark.parametrize("number", [12, 37])
@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov", ".flv"])
def test_damaged_packet_is_passed_over(tmp_path, ending, number):
    path = zero_packet(encode(tmp_path / f"clip{ending}", 40, bf="0", g="5"), number)
    reader, shown = read(path)
    assert reader.numbers == [other for other in range(40) if other != number]
    assert reader.times[reader.numbers[-1]] == pytest.approx(39 / 25)
    assert f"1 of 40 frames are missing (1 at {number / 25:.2f} s)" in reader.remarks[0]
    assert square_of(shown[30]) == pytest.approx(square_of(walking_square(40)[reader.numbers[30]]), abs=5)


def test_zeroed_packet_of_ffv1_is_passed_over(tmp_path):
    path = zero_packet(encode(tmp_path / "clip.mkv", 20, "ffv1", pixels="bgr0", g="1"), 7)
    assert read(path)[0].numbers == [number for number in range(20) if number != 7]
    black = encode(tmp_path / "raw.avi", np.zeros((5, 96, 128, 3), np.uint8), "rawvideo", pixels="bgr24")
    assert len(read(black)[1]) == 5  # here, zeros are pictures


def test_too_many_missing_frames_are_refused(tmp_path):
    path = encode(tmp_path / "clip.mkv", 40, bf="0", g="1")
    for number in range(20, 30):
        zero_packet(path, number)
    message = error_of(lambda: read(path))
    assert "10 of 40 frames are missing (10 at 0.80 s)" in message
    setting = float(message.split("extract.max_missing: ")[1].split()[0])  # the remedy that it gives
    assert len(read(path, max_missing=setting)[1]) == 30


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("clip.avi", "mjpeg", {"pixels": "yuvj420p"}),
        ("clip.mp4", "libx264", {"bf": "0", "muxer": {"movflags": "faststart"}}),
        ("clip.mp4", "libx264", {"g": "5", "bf": "0", "muxer": {"movflags": "frag_keyframe+empty_moov"}}),
        ("clip.mkv", "libx264", {"bf": "0"}),
        ("clip.webm", "libvpx", {}),
        ("clip.flv", "libx264", {"bf": "0"}),
    ],
)
def test_cut_off_end_is_reported(tmp_path, name, codec, options):
    path = encode(tmp_path / name, 40, codec, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
    reader, shown = read(path, max_missing=1)
    assert 5 < len(shown) < 38
    assert "which is cut off" in reader.remarks[-1]
    if "frag" not in str(options):  # a fragmented file states the length of its fragments only
        assert reader.length + reader.index.cut_off == pytest.approx(40, abs=1)
        assert "copy it again" in error_of(lambda: read(path))


def test_zeros_in_a_program_stream_are_reported(tmp_path):
    data = encode(tmp_path / "whole.mpg", walking_square(200, (56, 64)), "mpeg2video").read_bytes()
    assert read(tmp_path / "whole.mpg")[0].remarks == []
    for name, start, said in (
        ("hole.mpg", len(data) // 3, ": 1, the longest from "),
        (
            "end.mpg",
            data.rindex(b"\0\0\x01\xe0") + 300,
            "its end may be missing",
        ),  # after the last time in the file
    ):
        (tmp_path / name).write_bytes(data[:start] + bytes(300) + data[start + 300 :])
        assert said in " ".join(read(tmp_path / name)[0].remarks)


def test_cut_off_asf_takes_the_length_in_its_header(tmp_path):
    path = encode(tmp_path / "clip.wmv", 200, "wmv2")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader, shown = read(path, max_missing=1)
    assert len(shown) < 150
    assert reader.length + reader.index.cut_off == 200
    assert "which is cut off" in reader.remarks[-1]
    assert "copy it again" in error_of(lambda: read(path))
    data = bytearray(path.read_bytes())
    start = data.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    data[start + 88] |= 1  # a broadcast: the header states no length
    path.write_bytes(data)
    assert "whether its end is missing cannot be known" in " ".join(read(path)[0].remarks)


@pytest.mark.parametrize(
    ("name", "codec", "muxer"),
    [
        ("clip.ts", "libx264", {}),
        ("clip.m2ts", "libx264", {"mpegts_m2ts_mode": "1"}),
        ("clip.mpg", "mpeg2video", {}),
        ("clip.m2v", "mpeg2video", {}),
        ("clip.h264", "libx264", {}),
    ],
)
def test_cut_off_end_of_containers_that_state_no_length(tmp_path, name, codec, muxer):
    container = "mpegts" if name.endswith("ts") else None
    path = encode(tmp_path / name, 60, codec, container=container, muxer=muxer)
    assert not any("its end may be missing" in remark for remark in read(path)[0].remarks)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.95) - 3])
    reader, shown = read(path, max_missing=1)
    assert 40 < len(shown) <= 60
    assert len(shown) == 60 or "its end may be missing" in " ".join(reader.remarks)


@pytest.mark.parametrize(
    ("name", "codec", "muxer"),
    [
        ("live.mkv", "libx264", {"live": "1", "cluster_time_limit": "400"}),
        ("live.flv", "libx264", {"flvflags": "no_duration_filesize"}),
        ("clip.ogv", "libvpx", {}),
        ("fragments.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
        ("first_whole.mov", "libx264", {"movflags": "frag_keyframe"}),
    ],
)
def test_cut_between_frames_where_the_length_is_not_stated(tmp_path, name, codec, muxer):
    path = encode(tmp_path / name, 60, codec, muxer=muxer, g="10")
    data = path.read_bytes()
    third = len(data) // 3
    starts = {".mp4": b"moof", ".mov": b"moof", ".ogv": b"OggS", ".flv": b"", ".mkv": b"\x1f\x43\xb6\x75"}
    cut = data.index(starts[path.suffix], third)  # before a fragment, page or cluster
    path.write_bytes(data[: cut - 4 if starts[path.suffix] == b"moof" else cut])
    reader, shown = read(path)
    assert 5 < len(shown) < 60
    assert "whether its end is missing cannot be known" in " ".join(reader.remarks)


def test_avi_of_an_interrupted_recorder_is_read(tmp_path):
    path = encode(tmp_path / "clip.avi", 40, "mjpeg", pixels="yuvj420p")
    data = bytearray(path.read_bytes())
    for name, offset in ((b"avih", 24), (b"strh", 40)):  # the numbers of frames, which are written when they are known
        place = data.index(name) + offset
        assert int.from_bytes(data[place : place + 4], "little") == 40
        data[place : place + 4] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(data)
    reader, shown = read(path)
    assert (len(shown), reader.index.cut_off) == (40, 0)
    assert "whether its end is missing cannot be known" in reader.remarks[-1]


def test_frame_out_of_order_does_not_move_the_rest(tmp_path):
    # without its first packet, MPEG-4 gives frame 4 first, then 1, 2, 3, 4
    path = zero_packet(encode(tmp_path / "clip.mp4", 100, "mpeg4", bf="3", g="12"), 0)
    reader, shown = read(path)
    assert reader.numbers == list(range(1, 100))
    assert "1 of 100 frames are missing (1 at 0.00 s)" in reader.remarks[0]
    truth = walking_square(100)
    assert [square_of(one) for one in shown[30:]] == pytest.approx([square_of(one) for one in truth[31:]], abs=5)


@pytest.mark.parametrize("untimed", [[30, 44], range(10, 50)])
def test_frames_without_times_leave_the_other_times(tmp_path, untimed):
    path = encode(tmp_path / "clip.ts", 60, times=VARYING, bf="2")
    head, *frames = path.read_bytes().split(b"\x00\x00\x01\xe0")
    assert len(frames) == 60
    for number in untimed:  # the flags that say which times follow
        frames[number] = frames[number][:3] + b"\x00" + frames[number][4:]
    path.write_bytes(b"\x00\x00\x01\xe0".join([head, *frames]))
    with av.open(str(path)) as file:
        assert sum(packet.pts is None for packet in file.demux(video=0) if packet.size) >= len(untimed) // 2
    reader, shown = read(path)
    assert reader.times[-1] == pytest.approx(VARYING[-1], abs=0.05)
    assert "frames have no time" in " ".join(reader.remarks)
    if len(untimed) == 2:
        assert np.abs(reader.times[:, None] - VARYING).min(axis=1).max() < 1e-3
        expected = walking_square(60)[[np.abs(VARYING - reader.second(number)).argmin() for number in reader.numbers]]
        assert [square_of(one) for one in shown] == pytest.approx([square_of(one) for one in expected], abs=5)


def test_lost_packets_of_avi_do_not_move_the_rest(tmp_path):
    # AVI has no presentation times, and without a P frame MPEG-4 gives none of the B frames before it
    path = encode(tmp_path / "clip.avi", 100, "mpeg4", bf="2", g="15")
    for number in (7, 37, 67):  # P frames
        zero_packet(path, number)
    reader, shown = read(path)
    assert len(shown) == 91
    assert reader.numbers[-1] == 99
    assert "9 of 100 frames are missing (3 at 0.24 s, 3 at 1.44 s, 3 at 2.64 s)" in reader.remarks[0]
    truth = walking_square(100)[reader.numbers[-25:]]
    assert [square_of(one) for one in shown[-25:]] == pytest.approx([square_of(one) for one in truth], abs=5)


def test_stream_that_a_flipped_bit_adds_is_passed_over():
    class Container:
        """Raises what PyAV raises at the end of a file with a stream that its table did not name."""

        times = iter([0, 1])

        def demux(self, *streams):
            for dts in self.times:
                yield SimpleNamespace(size=1, dts=dts)
                raise IndexError("list index out of range")

    assert [packet.dts for packet in packets(Container())] == [0, 1]


def test_cut_off_file_without_index_is_refused(tmp_path):
    path = encode(tmp_path / "clip.mp4", 40)  # its index is at the end
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "copy it again" in error_of(lambda: read(path))


def test_whole_files_are_not_called_cut(tmp_path):
    for name, muxer in (
        ("fast.mp4", {"movflags": "faststart"}),
        ("fragments.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("seekable.mkv", {}),
    ):
        path = encode(tmp_path / name, 40, muxer=muxer)
        reader, shown = read(path)
        assert (len(shown), reader.remarks) == (40, [])
        path.write_bytes(path.read_bytes() + b"free" * 20)  # bytes after the end
        assert len(read(path)[1]) == 40


def test_edit_list_hides_frames(tmp_path):
    # as a phone trims: the file still holds the frames before the cut, back to the last key frame
    whole = encode(tmp_path / "whole.mp4", 100, g="250", bf="0")
    data = bytearray(whole.read_bytes())
    at = data.find(b"elst")
    assert int.from_bytes(data[at + 8 : at + 12], "big") == 1  # one entry: duration (ms), first time (ticks), rate
    ticks = int.from_bytes(data[data.find(b"mdhd") + 16 : data.find(b"mdhd") + 20], "big")
    data[at + 12 : at + 16] = (2400).to_bytes(4, "big")
    data[at + 16 : at + 20] = int(1.6 * ticks).to_bytes(4, "big")
    (tmp_path / "trimmed.mp4").write_bytes(data)
    reader, shown = read(tmp_path / "trimmed.mp4")
    assert (len(shown), reader.length, reader.remarks) == (60, 60, [])
    assert reader.times[-1] == 59 / 25
    assert square_of(shown[0]) == pytest.approx(square_of(walking_square(41)[40]), abs=2)


def combs(shown: np.ndarray) -> float:
    """How much even and odd rows differ in the square."""
    rows = shown[42:54].astype(float)
    return np.abs(rows[::2].mean(axis=0) - rows[1::2].mean(axis=0)).max()


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("dvd.mpg", "mpeg2video", {"flags": "+ilme+ildct"}),
        ("dvr.mp4", "libx264", {"x264opts": "tff=1"}),
        ("camera.ts", "libx264", {"x264opts": "bff=1"}),
        ("xvid.avi", "mpeg4", {"flags": "+ilme+ildct"}),
    ],
)
def test_interlaced_video_is_deinterlaced(tmp_path, name, codec, options):
    frames = walking_square(40)
    woven = frames.copy()
    woven[:-1, 1::2] = frames[1:, 1::2]  # the second field shows the next moment
    path = encode(tmp_path / name, woven, codec, **options)
    with av.open(str(path)) as file:
        assert any(frame.interlaced_frame for frame in file.decode(video=0))
    reader, shown = read(path)
    assert (len(shown), reader.numbers) == (40, list(range(40)))
    for number in (5, 20, 35):
        assert combs(shown[number]) < 0.5 * combs(woven[number])
        assert shown[number].mean() == pytest.approx(frames[number].mean(), abs=3)


def test_interlaced_video_without_a_mark_is_reported(tmp_path):
    frames = walking_square(80)
    encode(tmp_path / "plain.mp4", frames[:40])
    woven = frames[::2].copy()
    woven[:, 1::2] = frames[1::2, 1::2]
    encode(tmp_path / "woven.mp4", woven)
    assert read(tmp_path / "plain.mp4")[0].remarks == []
    (said,) = read(tmp_path / "woven.mp4")[0].remarks
    assert "its frames look interlaced" in said
    assert "-vf yadif NEW.mp4" in said
    with av.open(str(tmp_path / "woven.mp4")) as file:
        stream, graph = file.streams.video[0], av.filter.Graph()
        graph.link_nodes(graph.add_buffer(template=stream), graph.add("yadif"), graph.add("buffersink")).configure()
        for frame in [*file.decode(stream), None]:
            graph.push(frame)
        filtered = [graph.pull().to_ndarray(format="rgb24") for _ in range(40)]
    reader, shown = read(encode(tmp_path / "NEW.mp4", np.stack(filtered)))
    assert (len(shown), reader.remarks) == (40, [])


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_in_the_header_is_applied(tmp_path, degrees):
    path = encode(tmp_path / "phone.mp4", 3, rotation=degrees)
    _, shown = read(path)
    _, expected = cv2.VideoCapture(str(path)).read()
    np.testing.assert_array_equal(shown[0], expected[..., ::-1])


def test_clock_that_goes_back_is_joined():
    shown = np.array([0, 3, 1, 2, 4, 0, 1, 2, 3, 4]) * 100
    order, resets = continuous(shown, np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4]) * 100, 0.01)
    assert (order // 100).tolist() == list(range(10))
    assert resets == [5.0]


@pytest.mark.parametrize(("name", "fps"), [("a.h264", 10), ("a.h264", 12.5), ("a.h265", 30)])
def test_rate_of_a_raw_stream(tmp_path, name, fps):
    kind = ("libx264", "h264") if name == "a.h264" else ("libx265", "hevc")
    options = {"x265-params": "log-level=none"} if name == "a.h265" else {}
    reader, shown = read(encode(tmp_path / name, 20, kind[0], fps, container=kind[1], **options))
    assert (len(shown), reader.fps) == (20, fps)
    assert f"{fps:g} frames a second are assumed" in reader.remarks[0]


def test_wrong_times_are_estimated():
    times = np.arange(100) * 40
    for wrong in ([50], [50, 51, 52]):
        for by in (4000, -1500):
            spiked = times.copy()
            spiked[wrong] += by
            assert without_spikes(spiked, 1e-3).tolist() == times.tolist()
    reordered = np.array([0, 120, 40, 80, 240, 160, 200])
    reordered = np.concatenate([reordered + 280 * k for k in range(8)])
    spiked = reordered.copy()
    spiked[29] += 1024
    assert without_spikes(spiked, 1e-3).tolist() == reordered.tolist()
    for kept in (times + 5000 * (times > 1000), np.arange(20) * 2000, np.tile(times, 2)):  # pause, slow, joined
        assert without_spikes(kept, 1e-3).tolist() == kept.tolist()


def test_one_wrong_time_in_the_file(tmp_path):
    path = encode(tmp_path / "a.mkv", 60, bf="0")
    with av.open(str(path)) as file:
        packet = [packet for packet in file.demux(video=0) if packet.size][30]
        place = path.read_bytes().index(bytes(packet)[:16], packet.pos)
    data = bytearray(path.read_bytes())
    data[place - 3] ^= 0x04  # 1024 ms in the time of the block
    path.write_bytes(data)
    reader, shown = read(path)
    assert reader.times.tolist() == [number / 25 for number in range(60)]
    assert reader.numbers == list(range(60))
    assert "1 of its frames have wrong times" in reader.remarks[0]
    assert square_of(shown[30]) == pytest.approx(square_of(walking_square(60)[30]), abs=5)


def test_times_that_are_all_equal(tmp_path):
    source = encode(tmp_path / "a.mkv", 20, bf="0")
    with av.open(str(source)) as file, av.open(str(tmp_path / "zero.mkv"), "w") as copy:
        stream = copy.add_stream_from_template(file.streams.video[0])
        for packet in file.demux(video=0):
            if packet.size:
                packet.pts = packet.dts = 0
                packet.stream = stream
                copy.mux(packet)
    reader, shown = read(tmp_path / "zero.mkv")
    assert (len(shown), reader.times.tolist()) == (20, [number / 25 for number in range(20)])
    assert "it has no times; 25 frames a second are assumed" in reader.remarks[0]


def test_frames_after_a_gap_in_avi_keep_their_places(tmp_path):
    path = encode(tmp_path / "a.avi", 60, "mjpeg", pixels="yuvj420p")
    data = bytearray(path.read_bytes())
    start = len(data) * 4 // 10
    data[start : start + len(data) // 12] = bytes(len(data) // 12)
    path.write_bytes(data)
    reader, shown = read(path, max_missing=0.2)
    assert reader.length == 60
    assert 50 < len(shown) < 60
    truth = walking_square(60)[reader.numbers]
    after = [k for k, number in enumerate(reader.numbers) if number > 40]
    assert [square_of(shown[k]) for k in after] == pytest.approx([square_of(truth[k]) for k in after], abs=5)
    assert f"{60 - len(shown)} of 60 frames are missing" in reader.remarks[-1]
    assert "at the end" not in reader.remarks[-1]


def test_thumbnail_stream_is_not_read(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        small, large = (file.add_stream("libx264", rate=25) for _ in range(2))
        large.disposition = av.stream.Disposition.default
        for stream, (height, width) in ((small, (48, 64)), (large, (96, 128))):
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for stream, pictures in ((small, np.zeros((1, 48, 64, 3), np.uint8)), (large, walking_square(30))):
            for picture in pictures:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            file.mux(stream.encode())
    reader, shown = read(tmp_path / "a.mp4")
    assert (len(shown), shown[0].shape) == (30, (96, 128, 3))
    assert "it holds 2 video streams; only stream 1 is read" in reader.remarks[0]


@pytest.mark.parametrize("start", [1.2, 1.0])
def test_overlapping_recordings_are_joined(tmp_path, start):
    first = encode(tmp_path / "a.ts", 40).read_bytes()
    second = encode(tmp_path / "b.ts", 40, times=start + np.arange(40) / 25).read_bytes()
    (tmp_path / "joined.ts").write_bytes(first + second)
    reader, shown = read(tmp_path / "joined.ts")
    assert (len(shown), reader.numbers) == (80, list(range(80)))
    assert reader.times == pytest.approx(np.arange(80) / 25, abs=0.05)
    assert "its clock goes back at 1.60 s" in reader.remarks[0]


def test_joined_recordings_are_read_to_the_end(tmp_path):
    part = encode(tmp_path / "part.ts", 40).read_bytes()
    (tmp_path / "joined.ts").write_bytes(part + part)
    reader, shown = read(tmp_path / "joined.ts")
    assert len(shown) == 80
    assert reader.times[-1] == pytest.approx(79 / 25, abs=0.05)
    assert "its clock goes back at 1.60 s" in reader.remarks[0]


def test_fields_in_packets_of_their_own_are_one_frame():
    fields = np.arange(80) * 1800  # 50 a second, in 1/90 000 s
    assert merge_fields(fields, 1 / 90000, [25.0]).tolist() == (np.arange(40) * 3600).tolist()
    assert len(merge_fields(fields * 2, 1 / 90000, [25.0])) == 80


def test_changed_file_is_counted_again(tmp_path):
    assert count_frames(write_video(tmp_path / "clip.avi", 5)) == 5
    assert count_frames(write_video(tmp_path / "clip.avi", 8)) == 8


def test_missing_video_is_named(tmp_path):
    assert error_of(lambda: list(read_video(tmp_path / "no.avi"))).startswith(f"{tmp_path / 'no.avi'}: missing")


@pytest.mark.parametrize("name", ["bytes.avi", "bytes.mp4", "bytes.mkv"])
def test_non_video_is_refused(tmp_path, name):
    (tmp_path / name).write_text("this is not footage " * 100)
    message = error_of(lambda: list(read_video(tmp_path / name)))
    assert f"{name}: not a readable video" in message


def test_picture_with_the_ending_of_a_video_is_refused(tmp_path):
    for number, ending in enumerate((".jpg", ".png", ".bmp")):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(cv2.imencode(ending, picture(0, (48, 64)))[1].tobytes())
        assert "a picture" in error_of(lambda path=path: video_index(path))


def test_list_of_files_is_refused(tmp_path):
    encode(tmp_path / "clip.mp4", 5)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    assert "a list of files" in error_of(lambda: video_index(tmp_path / "list.mp4"))


def test_sound_without_pictures_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    assert "holds no video stream" in error_of(lambda: video_index(tmp_path / "sound.mp4"))


def test_unknown_codec_is_named(tmp_path):
    path = encode(tmp_path / "clip.mp4", 10)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))
    message = error_of(lambda: read(path))
    assert [part for part in ("clip.mp4", "zzz1", "-c:v libx264") if part not in message] == []


def test_longer_sound_is_no_missing_end(tmp_path):
    for name in ("clip.mkv", "clip.mp4"):
        with av.open(str(tmp_path / name), "w") as file:
            stream, sound = file.add_stream("libx264", rate=25), file.add_stream("aac", rate=48000)
            stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
            for shown in walking_square(25):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
            for _ in range(140):  # 3 s
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                frame.sample_rate = 48000
                file.mux(sound.encode(frame))
            file.mux(stream.encode())
            file.mux(sound.encode())
        reader, shown = read(tmp_path / name)
        assert (len(shown), reader.remarks) == (25, [])


def test_empty_file_is_refused(tmp_path):
    (tmp_path / "clip.mp4").touch()
    assert "clip.mp4: empty" in error_of(lambda: list(read_video(tmp_path / "clip.mp4")))


def test_video_without_frames_is_refused(tmp_path):
    path = write_video(tmp_path / "clip.avi", 0)
    assert str(path) in error_of(lambda: list(read_video(path)))
    assert str(path) in error_of(lambda: count_frames(path))


@pytest.mark.parametrize("name", ["12:30:05.mp4", "\udcff\udcfe.mp4", "a b\u00fc#%.mp4", "u\u0308.mp4"])
def test_names_of_every_kind(tmp_path, monkeypatch, name):
    encode(tmp_path / "clip.mp4", 10).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(list(read_video(name))) == 10  # a relative path, too: FFmpeg must not take "12:" for a protocol
    assert len(list(read_video(tmp_path / name))) == 10


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
    assert [part for part in ("frame 5", "56x40", "64x48", "0.20 s") if part not in message] == []
    small, large = (
        encode(tmp_path / name, walking_square(20, size)) for name, size in (("s.ts", (48, 64)), ("l.ts", (96, 128)))
    )
    (tmp_path / "joined.ts").write_bytes(large.read_bytes() + small.read_bytes())
    assert "64x48" in error_of(lambda: list(read_video(tmp_path / "joined.ts")))


def test_real_video_matches_its_images():
    video, frames = data_dir("ped2_mp4", "testing", "03.mp4"), data_dir("ped2", "testing", "frames", "03")
    assert count_frames(video) == len(numbered(frames)) == 150
    assert video_fps(video) == 10.0
    shown = np.stack(list(read_video(video)))[..., 0].astype(float)
    stored = np.stack(list(read_images(numbered(frames))))
    for number in range(1, 149):  # frame i of the video matches frame i of the folder best
        errors = [np.mean((shown[number] - stored[other]) ** 2) for other in (number - 1, number, number + 1)]
        assert np.argmin(errors) == 1
