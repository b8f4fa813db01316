"""Measure scoring of new footage: speed relative to real time, peak memory and false alarms per hour.

    python -m benchmarks.detect_ratios --model convlstm_ae [--dataset street] [--minutes 1 10] [--hour]
        [--normal-minutes 20] [--out benchmarks/results/detect-ratios.json]

Run it in a project where ``dvc repro`` has trained and scored the system.

Speed and memory: generated street footage, 640x360 at 25 frames per second, MPEG-4, including the annotated video. Each
length (``--hour`` adds one hour) runs in its own process.

False alarms: unseen normal clips of the same scene, generated for this benchmark, with two thresholds: that of the
score stage, and one calibrated on the same amount of fresh footage. The second shows whether a deviation comes from the
method or from too little calibration footage.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import chi2

from benchmarks.result import write_result
from tasks.scorer import detector_of
from vadcore.config import load_params
from vadcore.data.formats.street import StreetConfig
from vadcore.data.synthetic.clip import film, site_of
from vadcore.data.synthetic.storage import write_video
from vadcore.detection.detector import Detector
from vadcore.detection.stream import scan
from vadcore.evaluation.calibration import Calibration, calibrate
from vadcore.evaluation.events import find_events

WANTED_SPEED, WANTED_MEMORY, WANTED_ALARMS = 4.0, 1.1, 1.5
WIDE = StreetConfig(
    format="street", height=360, width=640, frames_per_second=25, train_frames=200, people_per_minute=20
)


def make_film(path: Path, pictures: np.ndarray, minutes: float) -> None:
    """Write an MPEG-4 video of ``pictures``, played forwards and backwards until it is ``minutes`` long."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 25, pictures.shape[2:0:-1])
    there_and_back = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]
    for number in range(round(minutes * 60 * 25)):
        writer.write(pictures[there_and_back[number % len(there_and_back)]])
    writer.release()


def one_video(arguments: argparse.Namespace) -> None:
    """Score one video in a separate process and print time and memory."""
    from vadcore.detection.output import detect

    detector = detector_of(load_params(), arguments.dataset, arguments.model)
    with tempfile.TemporaryDirectory(dir=arguments.one.parent) as out:
        found = detect(detector, arguments.one, out)
    # not ru_maxrss, which starts at the value of the parent process
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    memory = int(peak.split()[1]) / 2**10
    print(
        json.dumps(
            {"seconds": found.seconds, "scan": found.scan_seconds, "memory_mb": memory, "fps": found.about["fps"]}
        )
    )


def speed_and_memory(arguments: argparse.Namespace, folder: Path, lengths: list[float]) -> Iterator[dict]:
    pictures = film(WIDE, site_of(WIDE), "train", 0).frames[..., ::-1]  # BGR
    used = {}
    for minutes in lengths:
        video = folder / f"{minutes:g}.mp4"
        make_film(video, pictures, minutes)
        words = ["--one", video, "--dataset", arguments.dataset, "--model", arguments.model]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.detect_ratios", *map(str, words)],
            capture_output=True,
            text=True,
            check=True,
        )
        said = json.loads(done.stdout.splitlines()[-1])
        video.unlink()
        used[minutes] = said["memory_mb"]
        times = 60 * minutes / said["seconds"]
        yield _say(
            {
                "name": f"{arguments.model}, {minutes:g} min of 640x360 at 25 frames/s: times real time",
                "value": round(times, 2),
                "without the annotated video": round(60 * minutes / said["scan"], 2),
                "peak_memory_mb": round(said["memory_mb"]),
                "wanted": f">= {WANTED_SPEED:g}",
                "met": times >= WANTED_SPEED,
            }
        )
    if len(used) > 1:
        ratio = used[max(used)] / used[min(used)]
        yield _say(
            {
                "name": f"{arguments.model}, memory for {max(used):g} min against {min(used):g} min",
                "value": round(ratio, 3),
                "wanted": f"<= {WANTED_MEMORY:g}",
                "met": ratio <= WANTED_MEMORY,
            }
        )


def fresh_scores(
    detector: Detector, config: StreetConfig, first: int, minutes: float, folder: Path
) -> dict[str, np.ndarray]:
    """Score generated normal clips that are in no data set: clip -> ``[T]``, smoothed as in use.

    first: number of the first clip. Clips are generated until they last ``minutes``.
    """
    scores, seconds, number = {}, 0.0, first
    while seconds < 60 * minutes:
        video = folder / f"{number}.avi"
        write_video(video, film(config, site_of(config), "train", number).frames, config.frames_per_second)
        found = scan(detector, video, folder / "maps")
        found.maps.close()
        video.unlink()
        scores[str(number)] = found.frames["score"].to_numpy()
        seconds += found.length / config.frames_per_second
        number += 1
    return scores


def false_alarms(arguments: argparse.Namespace, folder: Path) -> Iterator[dict]:
    params = load_params()
    config = params.dataset[arguments.dataset]
    if not isinstance(config, StreetConfig):
        return
    detector = detector_of(params, arguments.dataset, arguments.model)
    fps, asked = detector.recipe.fps, detector.calibration
    first = config.train_clips
    judged = fresh_scores(detector, config, first, arguments.normal_minutes, folder)
    other = fresh_scores(detector, config, first + len(judged), arguments.normal_minutes, folder)
    again = calibrate(other, fps, asked.target_far_per_hour, asked.merge_gap_s, asked.min_event_s)
    for calibration, of in ((asked, "of the score stage"), (again, f"from {arguments.normal_minutes:g} fresh minutes")):
        yield _say(_alarm_row(arguments.model, judged, fps, calibration, of))


def _alarm_row(model: str, scores: dict[str, np.ndarray], fps: float, calibration: Calibration, of: str) -> dict:
    rules = calibration.merge_gap_s, calibration.min_event_s
    count = sum(len(find_events(of_clip, calibration.threshold, fps, *rules)) for of_clip in scores.values())
    hours = sum(int((~np.isnan(of_clip)).sum()) for of_clip in scores.values()) / fps / 3600
    low = chi2.ppf(0.025, 2 * count) / 2 / hours if count else 0.0  # exact confidence limits of a Poisson rate
    high = chi2.ppf(0.975, 2 * count + 2) / 2 / hours
    asked = calibration.target_far_per_hour
    ratio = count / hours / asked
    return {
        "name": f"{model}, false alarms an hour on {60 * hours:.0f} fresh normal minutes, threshold {of}",
        "value": round(count / hours, 1),
        "95 percent": [round(float(low), 1), round(float(high), 1)],
        "asked": asked,
        "ratio": round(ratio, 2),
        "calibrated_on_minutes": round(60 * calibration.footage_hours, 1),
        "extrapolated": calibration.extrapolated,
        "wanted": f"within a factor of {WANTED_ALARMS:g}",
        "met": bool(ratio) and abs(math.log(ratio)) <= math.log(WANTED_ALARMS),
    }


def _say(row: dict) -> dict:
    rest = {key: value for key, value in row.items() if key not in ("name", "value", "met")}
    print(f"{row['name']}: {row['value']} ({', '.join(f'{k} {v}' for k, v in rest.items())})", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="street")
    parser.add_argument("--model", default="convlstm_ae")
    parser.add_argument("--minutes", type=float, nargs="*", default=[1, 10])
    parser.add_argument("--hour", action="store_true")
    parser.add_argument("--normal-minutes", type=float, default=20, help="0: no false alarms")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one_video(arguments)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = list(speed_and_memory(arguments, folder, [*arguments.minutes, *([60.0] if arguments.hour else [])]))
        if arguments.normal_minutes:
            rows += false_alarms(arguments, folder)
    if arguments.out:
        write_result(arguments.out, rows, profile=load_params().profile)


if __name__ == "__main__":
    main()
