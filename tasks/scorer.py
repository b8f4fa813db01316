"""Score new footage with a detector: write results, log an MLflow run per video, send alerts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from tasks import paths
from tasks.tracking import stage_run
from vadcore.config import Params
from vadcore.data.store import ClipStore
from vadcore.detection import alerts
from vadcore.detection.detector import Detector, make_detector, read_calibration
from vadcore.detection.inbox import Inbox, work_off
from vadcore.detection.naming import free_name, printable, result_key
from vadcore.detection.output import Detection, Taken, detect
from vadcore.detection.source import UnreadableVideo
from vadcore.evaluation.preprocess import PreprocessSpec, describe
from vadcore.utils.targets import Target

PATIENCE_SECONDS = 10  # how long to wait at the end for unsent alerts


def recipe_of(params: Params, dataset: str, model: str) -> PreprocessSpec:
    """Return the preprocessing of a system that this project has trained and scored."""
    flow = weights = None
    if params.reads_flow(model):
        flow = ClipStore(paths.flow(dataset), "flow")
        weights = getattr(params.optical_flow, "weights", None)
    frames = ClipStore(paths.frames(dataset), "frames")
    return describe(paths.model(dataset, model), paths.scores(dataset, model), frames, flow, weights)


def detector_of(params: Params, dataset: str, model: str, rate: float | None = None) -> Detector:
    """Return the detector of this project's ``dataset`` and ``model``.

    ``rate``: false alarms per hour, if other than the rate that its threshold was calibrated for.
    """
    calibration = read_calibration(paths.scores(dataset, model) / "calibration.json")
    recipe = recipe_of(params, dataset, model)
    return make_detector(paths.model(dataset, model), recipe, calibration, params.machine.device, rate)


@contextmanager
def sending(
    params: Params, out: Path, target: Target | None, log: Callable[[str], None]
) -> Iterator[alerts.Sender | None]:
    """Send the alerts of the results in ``out`` while the block runs, also those left by a killed process.

    Yields the sender, or None without a ``target``. At the end, waits up to PATIENCE_SECONDS for unsent alerts.
    """
    if target is None:
        yield None
        return
    out.mkdir(parents=True, exist_ok=True)
    alerts.queue_left(out)
    sender = alerts.Sender(out, target, give_up=3600 * params.detect.alert_hours, log=log)
    patience = 0
    try:
        yield sender
        patience = PATIENCE_SECONDS
    finally:
        left = sender.close(patience)
        if left:
            log(f"{left} alerts are not sent yet; they are in {sender.folder}, and the next run sends them")


class Scorer:
    """Scores videos one by one, each in its own MLflow run.

    Parameters
    ----------
    load: returns the detector; called before the first video is scored.
    log: prints a line.
    alert: whether to create alerts, in the queue in ``out``.
    sender: sender of the alerts, if it is in this process; it is notified of new alerts.
    """

    def __init__(
        self,
        load: Callable[[], Detector],
        params: Params,
        out: Path | str,
        log: Callable[[str], None],
        alert: bool = False,
        sender: alerts.Sender | None = None,
    ):
        self._load, self.params, self.out, self.log = load, params, Path(out), log
        self.alert, self.sender = alert, sender

    @cached_property
    def detector(self) -> Detector:
        return self._load()

    def score(
        self, video: Path, key: str | None = None, name: str | None = None, fps: float | None = None
    ) -> Detection:
        """Score one video, with results in ``out/<key>``; see :func:`vadcore.detection.output.detect`."""
        recipe, calibration = self.detector.recipe, self.detector.calibration
        called = printable(name or video.name)
        asked = {"video": called, "detector": self.detector.digest}
        asked |= {key: getattr(calibration, key) for key in ("threshold", "target_far_per_hour")}
        experiment, tags = self.params.tracking.experiment, {"vad.video": called}
        with (
            stage_run("detect", recipe.dataset, recipe.name, asked, experiment, tags=tags) as run,
            tqdm(desc=called, unit="frame", mininterval=1 if sys.stderr.isatty() else 10) as bar,
        ):
            run.tags({"mlflow.runName": f"{called} detect {recipe.dataset} {recipe.name}"})
            settings = self.params.detect.film, self.alert, lambda frames: bar.update(frames - bar.n)
            max_missing = self.params.extract.max_missing
            found = detect(self.detector, video, self.out, key, name, fps, *settings, max_missing)
            self.announce(found.folder.name)  # before waiting for MLflow
            about = found.about
            measured = {"events": len(found.events), "video_seconds": about["seconds"], "seconds": found.seconds}
            measured["times_real_time"] = about["seconds"] / found.seconds
            run.metrics(measured | {key: about[key] for key in ("frames", "scored_frames")})
            run.tags({"vad.video_sha256": about["sha256"]})
            for file in sorted(path for path in found.folder.iterdir() if path.is_file()):
                run.artifact(file)
            run.made(found.folder)
        for remark in about["remarks"]:
            self.log(f"note: {remark}")
        self.log(
            f"{found.folder}: {len(found.events)} events in {about['seconds']:.1f} s of {about['video']}, "
            f"{about['seconds'] / found.seconds:.1f} times real time"
        )
        return found

    def announce(self, key: str) -> None:
        """Queue the unsent alerts of the results ``out/<key>``."""
        if self.alert:
            alerts.queue(self.out / key)
            if self.sender:
                self.sender.wake()

    def videos(self, videos: list[Path], keys: list[str], fps: float | None = None) -> list[str]:
        """Score videos, with results under ``keys``. Return an error message for each unreadable video or key in use."""
        faults = []
        for video, key in zip(videos, keys, strict=True):
            try:
                self.score(video, key, fps=fps)
            except (UnreadableVideo, Taken) as error:
                faults.append(str(error))
                self.log(f"error: {error}")
        return faults

    def inbox(self, inbox: Inbox, fps: float | None = None) -> None:
        """Score the completely written videos of an inbox; set unreadable ones aside."""
        for _, reason in work_off(
            inbox,
            lambda claim: self.score(claim.path, claim.key, claim.name, fps),
            lambda claim: self.announce(claim.key),
        ):
            if reason:
                self.log(f"set aside: {reason}")


def keys_of(videos: list[Path]) -> list[str]:
    """Return a name for the results of each video: its file name, with a number if two are the same."""
    keys: list[str] = []
    for video in videos:
        keys.append(free_name(result_key(video.stem), keys))
    return keys


def log(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)
