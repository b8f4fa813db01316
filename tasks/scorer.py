"""New footage scored with a detector: results, an MLflow run for each video, alerts."""

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
from vadcore.detection.making import Taken
from vadcore.detection.naming import result_key, shown
from vadcore.detection.reading import UnreadableVideo
from vadcore.detection.results import Detection, detect
from vadcore.evaluation.preprocess import PreprocessSpec, describe
from vadcore.utils.targets import Target

PATIENCE_SECONDS = 10  # how long the end waits for alerts that are still to be sent


def recipe_of(params: Params, dataset: str, model: str) -> PreprocessSpec:
    """Of a system that the stages of this project have trained and scored."""
    flow = weights = None
    if params.reads_flow(model):
        flow = ClipStore(paths.flow(dataset), "flow")
        weights = getattr(params.optical_flow, "weights", None)
    frames = ClipStore(paths.frames(dataset), "frames")
    return describe(paths.model(dataset, model), paths.scores(dataset, model), frames, flow, weights)


def detector_of(params: Params, dataset: str, model: str, rate: float | None = None) -> Detector:
    """The detector of this project's ``dataset`` and ``model``. rate: false alarms an hour, where they shall be others than
    its threshold was made for."""
    calibration = read_calibration(paths.scores(dataset, model) / "calibration.json")
    recipe = recipe_of(params, dataset, model)
    return make_detector(paths.model(dataset, model), recipe, calibration, params.machine.device, rate)


@contextmanager
def sending(
    params: Params, out: Path, target: Target | None, say: Callable[[str], None]
) -> Iterator[alerts.Sender | None]:
    """What sends the alerts of results in ``out`` meanwhile, those that a killed process left included; None where there is
    no ``target``. At the end it waits a while for those that are still to be sent."""
    if target is None:
        yield None
        return
    out.mkdir(parents=True, exist_ok=True)
    alerts.queue_left(out)
    sender = alerts.Sender(out, target, give_up=3600 * params.detect.alert_hours, say=say)
    patience = 0
    try:
        yield sender
        patience = PATIENCE_SECONDS
    finally:
        left = sender.close(patience)
        if left:
            say(f"{left} alerts are not sent yet; they lie in {sender.spool}, for the next run")


class Scorer:
    """Scores videos one by one, each in an MLflow run of its own.

    load: gives the detector; called when there is a first video to score. alert: make alerts, and put them into the spool
    in ``out``. sender: that sends them, where it is in this process; it is told that there are some.
    """

    def __init__(
        self,
        load: Callable[[], Detector],
        params: Params,
        out: Path | str,
        say: Callable[[str], None],
        alert: bool = False,
        sender: alerts.Sender | None = None,
    ):
        self._load, self.params, self.out, self.say = load, params, Path(out), say
        self.alert, self.sender = alert, sender

    @cached_property
    def detector(self) -> Detector:
        return self._load()

    def score(
        self, video: Path, key: str | None = None, name: str | None = None, fps: float | None = None
    ) -> Detection:
        """The results of one video, in ``out/<key>``; see :func:`vadcore.detection.results.detect`."""
        recipe, calibration = self.detector.recipe, self.detector.calibration
        called = shown(name or video.name)
        asked = {
            "video": called,
            "detector": self.detector.digest,
            "threshold": calibration.threshold,
            "target_far_per_hour": calibration.target_far_per_hour,
        }
        experiment, tags = self.params.tracking.experiment, {"vad.video": called}
        with (
            stage_run("detect", recipe.dataset, recipe.name, asked, experiment, tags=tags) as run,
            tqdm(desc=called, unit="frame", mininterval=1 if sys.stderr.isatty() else 10) as bar,
        ):
            title = f"{called} detect {recipe.dataset} {recipe.name}"
            run.tags({"mlflow.runName": title})
            found = detect(
                self.detector,
                video,
                self.out,
                key,
                name,
                fps,
                film=self.params.detect.film,
                alert=self.alert,
                progress=lambda frames: bar.update(frames - bar.n),
            )
            self.announce(found.folder.name)  # before anything of MLflow's is waited for
            about = found.about
            run.metrics(
                {
                    "events": len(found.events),
                    "frames": about["frames"],
                    "scored_frames": about["scored_frames"],
                    "video_seconds": about["seconds"],
                    "seconds": found.seconds,
                    "times_real_time": about["seconds"] / found.seconds,
                }
            )
            run.tags({"vad.video_sha256": about["sha256"]})
            for file in sorted(path for path in found.folder.iterdir() if path.is_file()):
                run.artifact(file)
            run.made(found.folder)
        for remark in about["remarks"]:
            self.say(f"note: {remark}")
        self.say(
            f"{found.folder}: {len(found.events)} events in {about['seconds']:.1f} s of {about['video']}, "
            f"{about['seconds'] / found.seconds:.1f} times real time"
        )
        return found

    def announce(self, key: str) -> None:
        """Hand on the alerts of the results ``out/<key>``, where there are any that nobody has sent."""
        if self.alert:
            alerts.queue(self.out / key)
            if self.sender:
                self.sender.wake()

    def videos(self, videos: list[Path], keys: list[str], fps: float | None = None) -> list[str]:
        """Score them all, results under ``keys``; what is wrong with those that cannot be read, or whose place is taken."""
        faults = []
        for video, key in zip(videos, keys, strict=True):
            try:
                self.score(video, key, fps=fps)
            except (UnreadableVideo, Taken) as error:
                faults.append(str(error))
                self.say(f"error: {error}")
        return faults

    def inbox(self, inbox: Inbox, fps: float | None = None) -> None:
        """Score what has come in whole; what cannot be read is set aside."""
        for _, reason in work_off(
            inbox,
            lambda claim: self.score(claim.path, claim.key, claim.name, fps),
            lambda claim: self.announce(claim.key),
        ):
            if reason:
                self.say(f"set aside: {reason}")


def keys_of(videos: list[Path]) -> list[str]:
    """A name for the results of each video: that of its file, and a number where two have the same."""
    keys: list[str] = []
    for video in videos:
        plain = result_key(video.stem)
        key, number = plain, 1
        while key in keys:
            number += 1
            key = f"{plain}-{number}"
        keys.append(key)
    return keys


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, flush=True)
