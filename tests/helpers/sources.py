"""Small image folders, videos and archives in the layouts of the published data sets."""

import io
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np


def picture(value: int, size: tuple[int, int] = (16, 24)) -> np.ndarray:
    """A grey picture, uint8 ``[H, W]``: a ramp that starts at ``value``."""
    return np.tile(np.arange(size[1], dtype=np.uint8) + np.uint8(value), (size[0], 1))


def write_frames(
    folder: Path, count: int, ending: str = ".jpg", first: int = 0, size=(16, 24), digits: int = 3
) -> list:
    """``count`` grey image files, numbered from ``first``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{first + number:0{digits}d}{ending}" for number in range(count)]
    for number, path in enumerate(paths):
        assert cv2.imwrite(str(path), picture(number, size))
    return paths


def write_video(path: Path, count: int, fps: float = 10.0, size=(48, 64), codec: str = "MJPG") -> Path:
    """A video whose frame i is a grey ramp that starts at level 10 + i. A flat field would compress to few bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size[::-1])
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.repeat(picture(10 + number, size)[..., None], 3, axis=2))
    writer.release()
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    """A gzipped tar with ``files``."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_000_000_000
            archive.addfile(info, io.BytesIO(data))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """A zip with ``files``."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2001, 9, 9, 1, 46, 40)), data)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """The files below ``folder``, without hidden ones."""
    found = (path for path in folder.rglob("*") if path.is_file())
    relative = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return {name: data for name, data in relative.items() if not any(p.startswith(".") for p in name.split("/"))}


def cells(*entries) -> np.ndarray:
    """A MATLAB cell array ``[1, n]``."""
    made = np.empty((1, len(entries)), object)
    for index, entry in enumerate(entries):
        made[0, index] = entry
    return made
