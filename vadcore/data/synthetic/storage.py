"""Files of the generated footage.

``<split>/<name>.avi`` is a lossless FFV1 video. The container is AVI because its bytes depend only on the frames;
Matroska adds random identifiers. ``<split>/<name>.truth.npz`` holds the ground truth. It is written last, so a clip with
this file is complete.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np

from vadcore.data.synthetic.clip import SyntheticClip
from vadcore.data.synthetic.config import StreetConfig
from vadcore.data.video import read_video
from vadcore.utils.errors import VadError
from vadcore.utils.files import digest_of

VERSION = 1  # of the generator: increase it when the same configuration gives different footage
# Settings that affect the clips of each split. A clip does not depend on the number of clips.
_COMMON = ("seed", "height", "width", "frames_per_second", "people_per_minute", "noise")
_FIELDS = {"train": (*_COMMON, "train_frames"), "test": (*_COMMON, "test_frames", "anomalies_per_clip")}


def digest(config: StreetConfig, split: str) -> str:
    """Return a digest of the footage of a split, 16 hexadecimal digits."""
    return digest_of([VERSION, {name: getattr(config, name) for name in _FIELDS[split]}])


def clip_names(count: int) -> list[str]:
    """Return clip names ``01``, ``02``, ... with enough digits that alphabetical and numerical order are the same."""
    digits = max(2, len(str(count)))
    return [f"{number:0{digits}d}" for number in range(1, count + 1)]


def video_path(raw: Path, split: str, name: str) -> Path:
    return raw / split / f"{name}.avi"


def truth_path(raw: Path, split: str, name: str) -> Path:
    return raw / split / f"{name}.truth.npz"


def is_complete(raw: Path, split: str, name: str, wanted: str) -> bool:
    """Whether the clip exists, is complete and has the digest ``wanted``."""
    video, truth = video_path(raw, split, name), truth_path(raw, split, name)
    if not (video.is_file() and truth.is_file()):
        return False
    try:
        with np.load(truth) as stored:
            return str(stored["digest"]) == wanted and int(stored["video_bytes"]) == video.stat().st_size
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return False  # damaged: generate it again


def write_clip(raw: Path, split: str, name: str, footage: SyntheticClip, fps: float, identity: str) -> None:
    """Write video and ground truth atomically, the ground truth last.

    Raises :class:`VadError` if the video cannot be read back unchanged (disk full, OpenCV without FFV1).
    """
    folder = raw / split
    folder.mkdir(parents=True, exist_ok=True)
    truth_path(raw, split, name).unlink(missing_ok=True)
    video = folder / f".{name}.part.avi"
    write_video(video, footage.frames, fps)
    truth = folder / f".{name}.part.npz"
    try:
        np.savez_compressed(
            truth,
            digest=np.array(identity),
            video_bytes=np.array(video.stat().st_size),
            labels=footage.labels,
            masks=np.packbits(footage.masks, axis=-1),
            identity=footage.identity,
            flow=footage.flow,
            object_kind=np.array(footage.kinds, dtype="U24"),
            object_abnormal=np.array(footage.abnormal, dtype=bool),
            light=footage.light,
        )
    except OSError as error:
        raise VadError(f"{truth}: cannot be written ({error.strerror}); free disk space and run again") from error
    video.replace(video_path(raw, split, name))
    truth.replace(truth_path(raw, split, name))


def read_truth(raw: Path, split: str, name: str, *keys: str) -> list[np.ndarray]:
    """Read arrays of a clip's ground truth. Raises :class:`VadError` if the file is missing or unreadable."""
    path = truth_path(raw, split, name)
    try:
        with np.load(path) as stored:
            return [stored[key] for key in keys]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise VadError(f"{path}: not a readable truth file; delete it and run prepare again") from error


def remove_others(raw: Path, keep: set[Path]) -> int:
    """Delete videos, ground truth and unfinished files that are not in ``keep``. Returns the number of deleted files."""
    patterns = ("*.avi", "*.truth.npz", ".*.part.npz")
    found = {path for split in _FIELDS for pattern in patterns for path in (raw / split).glob(pattern)}
    for path in found - keep:
        path.unlink()
    return len(found - keep)


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames uint8 RGB ``[T, H, W, 3]`` as a lossless video and check it by reading it back.

    Raises :class:`VadError` if the frames differ.
    """
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), fps, (width, height))
    if not writer.isOpened():
        raise VadError(f"{path}: this OpenCV cannot write FFV1 video there; install opencv-python, check the folder")
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    count = 0
    for count, read in enumerate(read_video(path), start=1):
        if count > len(frames) or not np.array_equal(read, frames[count - 1]):
            break
    else:
        if count == len(frames):
            return
    raise VadError(f"{path}: frame {count} does not read back as written; free disk space and run prepare again")
