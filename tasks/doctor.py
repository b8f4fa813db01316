"""Check this machine for what the pipeline needs: packages, GPU, codecs, disk, browser, ports."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

LEAST_DISK_GB = 5
PORTS = {4200: "Prefect's server", 5000: "MLflow"}


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes
    ----------
    what: what was checked.
    ok: whether it is as it should be.
    text: details.
    needed: whether the pipeline requires it.
    """

    what: str
    ok: bool
    text: str
    needed: bool = False


def examine() -> list[Finding]:
    """Run all checks, in order of importance."""
    return [_python(), _torch(), _precision(), _gpu(), _codecs(), _commands(), _disk(), _chromium(), *map(_port, PORTS)]


def _python() -> Finding:
    version = sys.version.split()[0]
    return Finding("Python", sys.version_info >= (3, 11), f"{version} (3.11 or later is needed)", needed=True)


def _torch() -> Finding:
    import torch

    return Finding("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads", needed=True)


def _precision() -> Finding:
    from vadcore.utils.device import choose_device, choose_precision

    return Finding("precision", True, f"auto is {choose_precision('auto', choose_device('auto'))[1]}")


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", True, torch.cuda.get_device_name())
    return Finding("GPU", False, "none that torch can use; training runs on the CPU")


def _codecs() -> Finding:
    """Check that OpenCV can write and read back the video formats that the pipeline uses."""
    import cv2
    import numpy as np

    from vadcore.detection.film import muted_stderr

    frame, broken = np.zeros((48, 64, 3), np.uint8), []
    for name, code in (("video.avi", "FFV1"), ("video.avi", "MJPG"), ("video.mp4", "mp4v"), ("video.webm", "VP80")):
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / name)
            with muted_stderr():
                writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*code), 10, (64, 48))
            writer.write(frame)
            writer.release()
            if not cv2.VideoCapture(path).read()[0]:
                broken.append(code)
    able = (
        f"cannot write {', '.join(broken)}; install opencv-python" if broken else "writes FFV1, MJPEG, MPEG-4 and VP8"
    )
    return Finding("OpenCV", not broken, f"{cv2.__version__} {able}", needed=True)


def _commands() -> Finding:
    missing = [name for name in ("git", "make") if shutil.which(name) is None]
    return Finding("commands", not missing, f"missing: {', '.join(missing)}" if missing else "git, make", needed=True)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    text = f"{free:.0f} GB free here (the demo needs 1, an hour of video about 5)"
    return Finding("disk", free >= LEAST_DISK_GB, text)


def _chromium() -> Finding:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    missing = "missing; only tests of the report need it: apt-get install chromium"
    return Finding("Chromium", found is not None, found or missing)


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        free = probe.connect_ex(("127.0.0.1", port)) != 0
    text = f"free, for {PORTS[port]}" if free else f"in use; {PORTS[port]} may be running already"
    return Finding(f"port {port}", free, text)
