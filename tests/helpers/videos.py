"""Videos, and detectors trained on the place that they show, for tests of detection."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tests.helpers.footage import pictures
from vadcore.data import formats as datasets
from vadcore.data.extract import extract_clip
from vadcore.data.formats.base import Clip
from vadcore.data.formats.videos import VideosConfig
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipId, ClipStore
from vadcore.data.synthetic.storage import write_video
from vadcore.data.video import VideoReader
from vadcore.data.windows import Segment
from vadcore.detection.detector import Detector, make_detector
from vadcore.evaluation.calibration import Calibration, calibrate
from vadcore.evaluation.inference import ClipScores, score_clip
from vadcore.evaluation.preprocess import PreprocessSpec, describe
from vadcore.flow.compute import store_flow
from vadcore.models import create_model, save_model
from vadcore.utils.files import write_json, write_text

FPS = 10.0
SIZE = (48, 64)
RUNS = slice(30, 45)  # frames of a test video in which the square moves fast


def make_video(path: Path, frames: int = 80, size=SIZE, seed: int = 0, runs: slice | None = RUNS, fps=FPS) -> Path:
    """A lossless RGB video of a square that moves slowly, and fast in the frames ``runs``."""
    shown = pictures(frames, size, 3, seed)
    if runs:
        fast = pictures(frames, size, 3, seed, speed=7)
        shown[runs] = fast[runs]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, shown, fps)
    return path


class Place:
    """A project folder with the outs of extract, optical_flow, train and score for one system, made without stages.

    ``video``: the file of a test video. ``stored``: the clip of the same video in the store.
    """

    def __init__(self, folder: Path, model: str, config: dict, flow: bool = False, frames: int = 80, **dataset):
        self.folder, self.name = folder, model
        raw = folder / "footage"
        for number in range(2):
            make_video(raw / "train" / f"{number}.avi", seed=number, runs=None)
        self.video = make_video(raw / "test" / "gate.avi", frames, seed=5)
        settings = VideosConfig(format="videos", source=str(raw), **dataset)
        (folder / "data/yard").mkdir(parents=True)
        self.frames = self._extract(settings, raw)
        self.flow = self._flow() if flow else None
        self.stored = ClipId("test", "gate")
        torch.manual_seed(0)
        self.model = create_model(model, config).eval()
        self._save()

    def _extract(self, settings: VideosConfig, raw: Path) -> ClipStore:
        urls = [self.folder / f"data/yard/{kind}.zarr" for kind in ("frames", "masks")]
        for url, kind in zip(urls, ("frames", "masks"), strict=True):
            ClipStore(url, kind, write=True)
        prepared = self.folder / "data/raw/yard"
        datasets.prepare(settings, prepared, lambda text: None)
        for clip in datasets.clips(settings, prepared):
            extract_clip(clip, settings, *urls)
        return ClipStore(urls[0], "frames")

    def _flow(self) -> ClipStore:
        url = self.folder / "data/yard/flow.zarr"
        ClipStore(url, "flow", write=True)
        for clip in self.frames.clips():
            store_flow(clip, self.frames.url, url, "dis", {"preset": "fast"}, (32, 40))
        return ClipStore(url, "flow")

    def _save(self) -> None:
        self.trained, self.scored = self.folder / "models/yard" / self.name, self.folder / "scores/yard" / self.name
        save_model(self.model, self.name, self.trained)
        write_json(self.trained / "metrics.json", {"dataset": "yard", "model": self.name, "precision": "float32"})
        write_json(self.scored / "metrics.json", {"smoothing_frames": 1.5})
        normal = [self.measured(clip).measures[self.model.score] for clip in self.frames.clips("train")]
        named = {str(n): scores.astype(float) for n, scores in enumerate(normal)}
        made = calibrate(named, self.frames.attributes(self.frames.clips()[0])["fps"], 120, 0.5, 0.2)
        write_text(self.scored / "calibration.json", made.to_json())
        self.calibration: Calibration = made

    def measured(self, clip: ClipId) -> ClipScores:
        """The result of :func:`vadcore.evaluation.inference.score_clip` for a stored clip."""
        segment = Segment(clip, 0, self.frames.length(clip))
        return score_clip(self.model, ClipLoader.for_model(self.model, self.frames, [segment], self.flow), 0)

    def measured_video(self, video: Path, folder: Path) -> ClipScores:
        """The result of :func:`vadcore.evaluation.inference.score_clip` for a video, extracted into stores in ``folder``."""
        clip = Clip("test", video.stem, video, None, partial(VideoReader, video))
        urls = [folder / f"{kind}.zarr" for kind in ("frames", "masks", "flow")]
        for url, kind in zip(urls, ("frames", "masks", "flow"), strict=True):
            ClipStore(url, kind, write=True)
        extract_clip(clip, VideosConfig(format="videos", source=str(folder)), *urls[:2])
        frames, flow = ClipStore(urls[0], "frames"), None
        if self.flow:
            store_flow(ClipId("test", video.stem), *urls[::2], "dis", {"preset": "fast"}, (32, 40))
            flow = ClipStore(urls[2], "flow")
        segment = Segment(ClipId("test", video.stem), 0, frames.length(ClipId("test", video.stem)))
        return score_clip(self.model, ClipLoader.for_model(self.model, frames, [segment], flow), 0)

    def recipe(self) -> PreprocessSpec:
        return describe(self.trained, self.scored, self.frames, self.flow)

    def detector(self, **changes) -> Detector:
        return make_detector(self.trained, self.recipe().model_copy(update=changes), self.calibration, "cpu")


def events_of(folder: Path) -> list[dict]:
    return json.loads((folder / "events.json").read_text())["events"]


def square_at(video_frame: int, seed: int, fast: bool, size=SIZE) -> tuple[int, int]:
    """The centre (x, y) of the square in a frame of :func:`make_video`."""
    shown = pictures(video_frame + 1, size, 1, seed, speed=7 if fast else 1)[video_frame, ..., 0]
    rows, columns = np.nonzero(shown == 220)
    return int(columns.mean()), int(rows.mean())
