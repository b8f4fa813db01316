"""Extraction of clips: colours, frame rates, labels, masks and repeated extraction."""

import shutil

import cv2
import numpy as np
import pytest

from tests.helpers.encode import encode, zero_packet
from tests.helpers.footage import pictures
from vadcore.data.extract import compared, extract_clip
from vadcore.data.formats import clips
from vadcore.data.formats.base import Clip, DatasetConfig
from vadcore.data.formats.frames import FramesConfig
from vadcore.data.formats.videos import VideosConfig
from vadcore.data.store import ClipId, ClipStore
from vadcore.data.windows import Segment, split_at_pauses
from vadcore.utils.errors import VadError

FRAMES = pictures(90, (24, 32), channels=3)
LABELS = (np.arange(90) // 30 == 1).astype(np.uint8)  # frames 30 to 59


@pytest.fixture
def urls(tmp_path):
    urls = tmp_path / "frames.zarr", tmp_path / "masks.zarr"
    ClipStore(urls[0], "frames", write=True)
    ClipStore(urls[1], "masks", write=True)
    return urls


@pytest.fixture
def clip(tmp_path):
    source = tmp_path / "01.avi"
    source.write_bytes(b"the bytes that identify the clip")

    def make(frames=FRAMES, labels=LABELS, masks=None, split="test"):
        return Clip(
            split,
            "01",
            source,
            25.0,
            lambda: iter(frames),
            labels=None if labels is None else lambda: labels,
            masks=None if masks is None else lambda: masks,
        )

    return make


NAME = ClipId("test", "01")


def test_rgb_and_grey_are_stored_exactly(clip, urls):
    extract_clip(clip(), DatasetConfig(color="rgb"), *urls)
    np.testing.assert_array_equal(ClipStore(urls[0], "frames").read(NAME), FRAMES)
    extract_clip(clip(), DatasetConfig(color="grey"), *urls)
    expected = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in FRAMES])[..., None]
    np.testing.assert_array_equal(ClipStore(urls[0], "frames").read(NAME), expected)


def test_grey_footage_as_rgb(clip, urls):
    grey = FRAMES[..., 0]  # [T, H, W]
    extract_clip(clip(grey), DatasetConfig(color="rgb"), *urls)
    np.testing.assert_array_equal(ClipStore(urls[0], "frames").read(NAME), np.repeat(grey[..., None], 3, axis=3))


def test_labels_fps_and_source_are_stored(clip, urls):
    result = extract_clip(clip(), DatasetConfig(), *urls)
    assert (result.frames, result.masks, result.kept) == (90, False, False)
    store = ClipStore(urls[0], "frames")
    np.testing.assert_array_equal(store.labels(NAME), LABELS)
    known = store.attributes(NAME)
    assert known["fps"] == 25.0
    assert known["source"] == "01.avi"
    assert len(known["source_sha256"]) == 64


def test_training_footage_is_labelled_normal(clip, urls):
    extract_clip(clip(labels=None, split="train"), DatasetConfig(), *urls)
    assert ClipStore(urls[0], "frames").labels(ClipId("train", "01")).sum() == 0


def test_unlabelled_test_footage_has_no_labels(clip, urls):
    extract_clip(clip(labels=None), DatasetConfig(), *urls)
    assert ClipStore(urls[0], "frames").labels(NAME) is None


@pytest.mark.parametrize(
    ("rate", "kept"), [(12.5, range(0, 90, 2)), (5.0, range(0, 90, 5)), (25.0, range(90)), (99, range(90))]
)
def test_lower_frame_rate_drops_frames(clip, urls, rate, kept):
    extract_clip(clip(), DatasetConfig(fps=rate, color="rgb"), *urls)
    store = ClipStore(urls[0], "frames")
    np.testing.assert_array_equal(store.read(NAME), FRAMES[list(kept)])
    np.testing.assert_array_equal(store.labels(NAME), LABELS[list(kept)])
    assert store.attributes(NAME)["fps"] == min(rate, 25.0)


def test_fractional_frame_rate_step(clip, urls):
    extract_clip(clip(), DatasetConfig(fps=10.0), *urls)  # every 2.5th frame
    assert ClipStore(urls[0], "frames").length(NAME) == 36


def test_masks_match_frames(clip, urls):
    masks = np.zeros((90, 24, 32), np.uint8)
    masks[30:60, 8:16, 8:24] = 1
    extract_clip(clip(masks=masks), DatasetConfig(size=(12, 16), fps=5.0), *urls)
    stored = ClipStore(urls[1], "masks").read(NAME)
    np.testing.assert_array_equal(stored, masks[::5, ::2, ::2])


def test_existing_clip_is_not_extracted_again(clip, urls):
    extract_clip(clip(), DatasetConfig(), *urls)

    def decoding():
        pytest.fail("decoded again")

    again = Clip("test", "01", clip().source, 25.0, decoding, labels=lambda: LABELS)
    result = extract_clip(again, DatasetConfig(), *urls)
    assert result.kept
    assert result.frames == 90


@pytest.mark.parametrize("change", ["bytes", "size", "labels"])
def test_changed_clip_is_extracted_again(clip, urls, change):
    extract_clip(clip(), DatasetConfig(), *urls)
    settings, labels = DatasetConfig(), LABELS
    if change == "bytes":
        clip().source.write_bytes(b"other bytes")
    elif change == "size":
        settings = DatasetConfig(size=(12, 16))
    else:
        labels = np.roll(LABELS, 1)
    assert not extract_clip(clip(labels=labels), settings, *urls).kept


@pytest.mark.parametrize("count", [80, 100])
def test_labels_of_wrong_length_are_refused(clip, urls, count):
    with pytest.raises(VadError, match=rf"01\.avi.*\b{count} labels.*\b90 frames"):
        extract_clip(clip(labels=np.zeros(count, np.uint8)), DatasetConfig(), *urls)
    assert ClipStore(urls[0], "frames").clips() == []


def test_masks_of_wrong_length_are_refused(clip, urls):
    with pytest.raises(VadError, match=r"01\.avi.*\b7 masks.*\b90 frames"):
        extract_clip(clip(masks=np.zeros((7, 24, 32), np.uint8)), DatasetConfig(), *urls)


def test_broken_footage_leaves_nothing(clip, urls):
    def breaking():
        yield from FRAMES[:40]
        raise VadError("01.avi: truncated after 40 frames")

    broken = Clip("test", "01", clip().source, 25.0, breaking)
    with pytest.raises(VadError, match="truncated"):
        extract_clip(broken, DatasetConfig(), *urls)
    assert ClipStore(urls[0], "frames").clips() == []
    assert not (urls[0] / "test" / "01").exists()


VARYING = np.concatenate([np.arange(20) * 0.2, 4 + np.arange(40) * 0.04])  # 5 frames a second to 4 s, then 25


def extracted(folder, urls, table="clip,start,end\na,4.4,4.8\n", **settings) -> ClipStore:
    """Extract ``test/a.*`` of a folder of videos."""
    (folder / "labels.csv").write_text(table)
    config = VideosConfig(format="videos", source=str(folder), labels="labels.csv", **settings)
    (clip,) = [clip for clip in clips(config, folder) if clip.split == "test"]
    extract_clip(clip, config, *urls)
    return ClipStore(urls[0], "frames")


@pytest.fixture
def folder(tmp_path):
    encode(tmp_path / "footage/train/n.mkv", 5)
    return tmp_path / "footage"


def test_times_of_a_varying_rate(folder, urls):
    encode(folder / "test/a.mkv", 60, times=VARYING)
    store = extracted(folder, urls)
    np.testing.assert_allclose(store.times(ClipId("test", "a")), VARYING, atol=1e-3)
    known = store.attributes(ClipId("test", "a"))
    assert known["fps"] == 25.0
    assert store.seconds(ClipId("test", "a")) == pytest.approx(VARYING[-1] + 0.04, abs=1e-3)
    assert known["abnormal"] == [[30, 40]]  # 4.4 to 4.8 s
    assert "varies" in known["remarks"][0]


def test_labels_without_a_frame_are_not_lost_in_silence(folder, urls):
    encode(folder / "test/a.mkv", 60)
    store = extracted(folder, urls, "clip,first_frame,last_frame\na,11,13\na,30,40\n", fps=5)
    (remark,) = store.attributes(ClipId("test", "a"))["remarks"]
    assert "1 of 2 labelled intervals have no frame in the store, the first is frames 11 to 13" in remark
    encode(folder / "test/a.mkv", 60, times=np.arange(60) / 25 + np.repeat([0, 60], 30))
    with pytest.raises(VadError, match=r"labels.csv, line 3: 10 to 20 s has no frame, clip a pauses there; remove"):
        extracted(folder, urls, "clip,start,end\na,0.2,61\na,10,20\n")


def test_pauses_are_no_footage(folder, urls):
    times = np.arange(60) / 25 + np.repeat([0, 300, 600], 20)
    encode(folder / "test/a.mkv", 60, times=times)
    store = extracted(folder, urls, "clip,start,end\na,300.8,301.6\n")
    clip = ClipId("test", "a")
    assert store.seconds(clip) == pytest.approx(60 / 25, abs=1e-3)
    assert store.attributes(clip)["abnormal"] == [[20, 40]]
    parts = split_at_pauses([Segment(clip, 0, 25), Segment(clip, 25, 60)], store)
    assert [(part.start, part.stop) for part in parts] == [(0, 20), (20, 25), (25, 40), (40, 60)]


def test_times_of_a_varying_rate_at_a_lower_rate(folder, urls):
    encode(folder / "test/a.mkv", 60, times=VARYING)
    store = extracted(folder, urls, fps=5)
    times = store.times(ClipId("test", "a"))
    assert store.attributes(ClipId("test", "a"))["fps"] == 5.0
    assert len(times) == 20 + 8
    np.testing.assert_allclose(times, np.arange(28) * 0.2, atol=0.021)
    assert store.attributes(ClipId("test", "a"))["abnormal"] == [[22, 24]]


def test_busy_stretch_of_an_idle_recording_at_a_lower_rate(folder, urls):
    times = np.concatenate([np.arange(50) * 0.2, 10 + np.arange(40) * 0.04])
    encode(folder / "test/a.mkv", len(times), times=times)
    store, clip = extracted(folder, urls, "clip,start,end\n", fps=10), ClipId("test", "a")
    assert store.length(clip) == 50 + 16  # 10 s at 5 frames a second, 1.6 s at 10
    np.testing.assert_allclose(store.times(clip)[50:], 10 + np.arange(16) / 10, atol=0.021)
    assert "a.mkv: its frame rate varies: mostly 5 frames a second, up to 25" in store.attributes(clip)["remarks"]
    assert extracted(folder, urls, "clip,start,end\n", fps=5).length(clip) == 50 + 8


@pytest.mark.parametrize(("pixels", "said"), [("gray16le", 1), ("gray", 0), ("yuv420p10le", 0)])
def test_grey_video_of_16_bits_is_said(folder, urls, pixels, said):
    encode(folder / "test/a.mkv", 5, "ffv1", pixels=pixels)
    store = extracted(folder, urls, "clip,start,end\n")
    remarks = store.attributes(ClipId("test", "a"))["remarks"]
    assert len(remarks) == said
    assert not said or "a.mkv: 16-bit grey (gray16le): 0 to 65535 become 0 to 255" in remarks[0]


def test_constant_rate_needs_no_times(folder, urls):
    for fps in (None, 10):
        encode(folder / "test/a.mkv", 60)
        store = extracted(folder, urls, "clip,start,end\n", fps=fps)
        assert "times" not in store.root["test/a"]
        assert store.times(ClipId("test", "a")).tolist() == [
            k / (fps or 25) for k in range(store.length(ClipId("test", "a")))
        ]


def test_labels_stay_on_their_frames_beside_a_damaged_one(folder, urls):
    zero_packet(encode(folder / "test/a.mkv", 60, bf="0"), 20)
    store = extracted(folder, urls, "clip,first_frame,last_frame\na,30,39\n")
    clip = ClipId("test", "a")
    assert store.length(clip) == 59
    assert store.attributes(clip)["abnormal"] == [[29, 39]]
    np.testing.assert_allclose(store.times(clip), np.delete(np.arange(60), 20) / 25)
    assert store.attributes(clip)["remarks"] == ["a.mkv: 1 of 60 frames are missing (1 at 0.80 s)"]


def test_differences_between_clips_are_said(folder, urls):
    def said() -> list[str]:
        found = clips(VideosConfig(format="videos", source=str(folder)), folder)
        for clip in found:
            extract_clip(clip, VideosConfig(format="videos", source=str(folder)), *urls)
        return compared(ClipStore(urls[0], "frames"), found)

    encode(folder / "test/a.mkv", 10)
    assert said() == []
    encode(folder / "test/b.mkv", 10, fps=6.25)
    (rates,) = said()
    assert "25 frames a second in 2 clips, 6.25 frames a second in 1 (test/b)" in rates
    assert "dataset.*.fps: 6.25" in rates
    (folder / "test/b.mkv").unlink()
    encode(folder / "test/c.mkv", np.zeros((10, 60, 80, 3), np.uint8))
    (sizes,) = (remark for remark in said() if "sizes" in remark)
    assert "128x96 in 3 clips, 80x60 in 1 (test/c)" in sizes
    assert "dataset.*.size: [96, 128]" in sizes
    shutil.copy(folder / "test/a.mkv", folder / "test/again.mkv")
    assert (
        "clips with equal content: test/a, test/again; their content counts several times: remove the copies" in said()
    )
    shutil.copy(folder / "test/a.mkv", folder / "train/a.mkv")
    assert [
        remark for remark in said() if "train/a, test/a, test/again; test footage must not be in the training" in remark
    ]


def test_types_of_pixels_that_differ_between_clips_are_said(tmp_path, urls):
    shown = np.arange(256, dtype=np.uint8).reshape(16, 16)
    stored = {
        "training/frames/1/0.png": shown.astype(np.uint16) + 7000,
        "training/frames/2/0.png": shown.astype(np.uint16) + 7000,
        "testing/frames/a/0.png": shown,
        "testing/frames/b/0.tif": shown.astype(np.float32) + 7000,
    }
    for name, picture in stored.items():
        (tmp_path / name).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name), picture)
    config = FramesConfig(format="frames", source=str(tmp_path), pixel_range=(7000, 7255))
    found = clips(config, tmp_path)
    for clip in found[:2]:
        extract_clip(clip, config, *urls)
    store = ClipStore(urls[0], "frames")
    assert compared(store) == []
    for clip in found[2:]:
        extract_clip(clip, config, *urls)
    assert all(np.array_equal(store.read(clip)[0, ..., 0], shown) for clip in store.clips())
    (remark,) = compared(store)
    assert (
        "types of pixels: uint16 in 2 clips, uint8 in 1 (test/a), float32 in 1 (test/b); uint8 is taken as it" in remark
    )
