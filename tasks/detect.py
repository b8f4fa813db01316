"""Score new videos with a trained system: write events, a timeline and an annotated video for each.

    python -m tasks.detect VIDEO... --dataset street --model convlstm_ae
    python -m tasks.detect --inbox FOLDER --champion street

Results appear in detections/<name>/, complete or not at all. The exit code is 1 if a video could not be read; the others
are still scored. With --inbox, every completely written video is scored once and moved to FOLDER/done. Unreadable files are
moved to FOLDER/failed, together with the reason; the exit code is then 0.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tasks import paths
from tasks.ending import one_line_errors
from tasks.parallel import per_clip
from tasks.scorer import Scorer, detector_of, keys_of, log, recipe_of, sending
from tasks.tracking.registry import fetch_champion
from vadcore.config import Params, load_params
from vadcore.detection import alerts
from vadcore.detection.detector import Detector, load_detector
from vadcore.detection.inbox import Inbox
from vadcore.evaluation.preprocess import pack
from vadcore.utils.errors import VadError
from vadcore.utils.targets import Target, target_of

OUT = Path("detections")
MOST_AT_ONCE = 64  # maximum number of parallel calls for an inbox, on a cluster


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.detect", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("videos", metavar="VIDEO", nargs="*", type=Path)
    add("--dataset", help="data set of the system")
    add("--model", help="name of the system in params.yaml")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--champion", nargs="?", const="", metavar="D", help="use the champion of data set D")
    which.add_argument("--model-folder", type=Path, metavar="F", help="use a detector folder (see --pack)")
    add("--out", type=Path, default=OUT, help="folder for results, one subfolder per video (%(default)s)")
    add("--inbox", type=Path, metavar="FOLDER", help="score new videos in this folder, each once")
    add("--fps", type=float, help="frame rate of these videos, if their headers are wrong")
    add("--target-far-per-hour", type=float, metavar="RATE", help="false alarms per hour (default: calibrated)")
    add("--alert", help="URL or command called once for each event (default: detect.alert)")
    add("--pack", type=Path, metavar="F", help="write a detector folder with all files that scoring needs")
    arguments = parser.parse_args()
    if not (arguments.videos or arguments.inbox or arguments.pack):
        parser.error("give a video, --inbox FOLDER or --pack FOLDER")
    if arguments.fps is not None and arguments.fps <= 0:
        parser.error(f"--fps {arguments.fps:g}: must be above 0")
    with one_line_errors():
        sys.exit(run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    params = load_params()
    _check_choice(arguments)
    there = next(path for path in (arguments.out, *arguments.out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise VadError(f"--out {arguments.out}: {there} is a file; name a folder")
    if arguments.pack:
        dataset, model = _chosen(params, "dataset", arguments.dataset), _chosen(params, "model", arguments.model)
        recipe, calibration = recipe_of(params, dataset, model), paths.scores(dataset, model) / "calibration.json"
        pack(recipe, paths.model(dataset, model), calibration, arguments.pack)
        log(f"{arguments.pack}: detector {dataset}/{model}")
    inbox = Inbox(arguments.inbox, arguments.out, params.detect.settle_seconds) if arguments.inbox else None
    for line in inbox.news() if inbox else ():
        log(f"not scored: {line}")
    asked = params.detect.alert if arguments.alert is None else arguments.alert
    target = None if asked is None else target_of(asked)
    if not arguments.videos and (inbox is None or inbox.empty):  # check before loading or fetching anything
        if alerts.any_left(arguments.out):
            with sending(params, arguments.out, target, log):
                pass
        return 0
    score = _spread if params.machine.scheduler is not None else _score_here
    faults = score(params, arguments, inbox, target)
    if inbox and (waiting := inbox.coming()):
        log(f"{inbox.folder}: {len(waiting)} videos may still be written; the next run scores them")
    return 1 if faults else 0


def _score_here(params: Params, arguments: argparse.Namespace, inbox: Inbox | None, target: Target | None) -> int:
    """Score in this process; return the number of named videos that could not be read."""
    detector = _loader(params, arguments)()
    with sending(params, arguments.out, target, log) as sender:
        scorer = Scorer(lambda: detector, params, arguments.out, log, alert=sender is not None, sender=sender)
        faults = scorer.videos(arguments.videos, keys_of(arguments.videos), arguments.fps)
        if inbox:
            scorer.inbox(inbox, arguments.fps)
    return len(faults)


def _spread(params: Params, arguments: argparse.Namespace, inbox: Inbox | None, target: Target | None) -> int:
    """Score on the cluster of ``machine.scheduler``; return the number of named videos that could not be read.

    There is one call per named video, and as many calls for the inbox as it has videos (at most MOST_AT_ONCE), which share
    its videos. All calls write their alerts to one queue; only this process sends them.
    """
    shared = params, arguments.out, _loader(params, arguments), target is not None, arguments.fps
    named = zip(arguments.videos, keys_of(arguments.videos), strict=True)
    calls = [(*shared, video, key, None) for video, key in named]
    if inbox:
        calls += [(*shared, None, None, arguments.inbox)] * min(max(len(inbox.coming()), 1), MOST_AT_ONCE)
    faults = 0
    with sending(params, arguments.out, target, log):
        for _, result in per_clip(_score_there, calls, params.machine, "detect"):
            if isinstance(result, VadError):
                raise result
            faults += result[0]
            for line in result[1]:
                log(line)
    return faults


def _score_there(
    params: Params,
    out: Path,
    load: Callable[[], Detector],
    alert: bool,
    fps: float | None,
    video: Path | None,
    key: str | None,
    folder: Path | None,
) -> tuple[int, list[str]]:
    """Score ``video``, or the videos in the inbox ``folder``, on a worker of the cluster.

    Returns the number of unreadable videos and the printed lines. The detector is loaded only if other calls have left
    something to score.
    """
    lines: list[str] = []
    scorer = Scorer(load, params, out, lines.append, alert)
    if folder is not None:
        scorer.inbox(Inbox(folder, out, params.detect.settle_seconds), fps)
        return 0, lines
    return len(scorer.videos([video], [key], fps)), lines


def _check_choice(arguments: argparse.Namespace) -> None:
    """Raise :class:`VadError` if two options name different systems."""
    if arguments.champion is None and arguments.model_folder is None:
        return
    option = "--champion" if arguments.champion is not None else "--model-folder"
    if arguments.model:
        raise VadError(f"--model {arguments.model}: {option} already names the system; remove one of them")
    if arguments.dataset and (arguments.model_folder is not None or arguments.champion not in ("", arguments.dataset)):
        given = f"{option} {arguments.champion or arguments.model_folder}"
        raise VadError(f"--dataset {arguments.dataset}: {given} already names the data set; remove one of them")


def _loader(params: Params, arguments: argparse.Namespace) -> Callable[[], Detector]:
    """Return a function that loads the detector named on the command line. A champion is downloaded now."""
    device, rate = params.machine.device, arguments.target_far_per_hour
    if arguments.champion is not None:
        version, folder = fetch_champion(_chosen(params, "dataset", arguments.champion or arguments.dataset))
        log(f"champion: {version}")
        return partial(load_detector, folder, device, rate)
    if arguments.model_folder is not None:
        return partial(load_detector, arguments.model_folder, device, rate)
    dataset, model = _chosen(params, "dataset", arguments.dataset), _chosen(params, "model", arguments.model)
    return partial(detector_of, params, dataset, model, rate)


def _chosen(params: Params, kind: str, name: str | None) -> str:
    """Return ``name``, or the only name that params.yaml lists."""
    there = params.datasets if kind == "dataset" else params.all_models
    if name:
        if name not in there:
            raise VadError(f"--{kind} {name}: params.yaml lists no such {kind}; there are: {', '.join(there)}")
        return name
    if len(there) > 1:
        raise VadError(f"which {kind}? name it with --{kind}; there are: {', '.join(there)}")
    return there[0]


if __name__ == "__main__":
    main()
