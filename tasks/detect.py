"""Score new footage with a trained system: events, a timeline and an annotated video for each video.

    python -m tasks.detect VIDEO... --dataset street --model convlstm_ae
    python -m tasks.detect --inbox FOLDER --champion street

Results appear in detections/<name>/, complete or not at all. The exit code is 1 when a video could not be read; the others
are scored all the same. With --inbox every video that has come in whole is scored once and moved to FOLDER/done; what cannot
be read is moved to FOLDER/failed, with the reason beside it.
"""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from tasks import paths
from tasks.ending import one_line_endings
from tasks.parallel import per_clip
from tasks.scorer import Scorer, detector_of, keys_of, recipe_of, say, sending
from tasks.tracking.registry import fetch_champion
from vadcore.config import Params, load_params
from vadcore.detect import alerts
from vadcore.detect.calls import Target, target_of
from vadcore.detect.detector import Detector, load_detector
from vadcore.detect.inbox import Inbox
from vadcore.detect.recipe import pack
from vadcore.errors import VadError

OUT = Path("detections")
MOST_AT_ONCE = 64  # calls that work an inbox off, on the machines of a cluster


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.detect", description=__doc__.splitlines()[0])
    parser.add_argument("videos", metavar="VIDEO", nargs="*", type=Path)
    parser.add_argument("--dataset", help="that the system was trained on")
    parser.add_argument("--model", help="name of the system in params.yaml")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--champion", nargs="?", const="", metavar="D", help="instead: what was promoted for data set D")
    which.add_argument("--model-folder", type=Path, metavar="F", help="or a detector folder (see --pack)")
    parser.add_argument("--out", type=Path, default=OUT, help="where a folder for each video appears (%(default)s)")
    parser.add_argument("--inbox", type=Path, metavar="FOLDER", help="score what has come into this folder")
    parser.add_argument("--fps", type=float, help="frame rate of the videos, where their headers are wrong")
    parser.add_argument("--false-alarms-per-hour", type=float, metavar="RATE", help="another rate than calibrated for")
    parser.add_argument("--alert", help="URL, or command line, that is called once an event; else detect.alert")
    parser.add_argument("--pack", type=Path, metavar="F", help="make a detector folder: all that scoring needs")
    arguments = parser.parse_args()
    if not (arguments.videos or arguments.inbox or arguments.pack):
        parser.error("name a video, or a folder with --inbox, or a folder to make with --pack")
    if arguments.fps is not None and arguments.fps <= 0:
        parser.error(f"--fps {arguments.fps:g}: a rate is above 0")
    with one_line_endings():
        sys.exit(run(arguments))


def run(arguments: argparse.Namespace) -> int:
    """What the command line asks for; the exit code."""
    params = load_params()
    if arguments.pack:
        dataset, model = _chosen(params, "dataset", arguments.dataset), _chosen(params, "model", arguments.model)
        recipe, calibration = recipe_of(params, dataset, model), paths.scores(dataset, model) / "calibration.json"
        pack(recipe, paths.model(dataset, model), calibration, arguments.pack)
        say(f"{arguments.pack}: detector {dataset}/{model}")
    inbox = Inbox(arguments.inbox, arguments.out, params.detect.settle_seconds) if arguments.inbox else None
    target = _target(params, arguments.alert)
    if not arguments.videos and (inbox is None or inbox.empty):  # seen before anything is loaded or fetched
        if alerts.any_left(arguments.out):
            with sending(params, arguments.out, target, say):
                return 0
        return 0
    if params.machine.scheduler is not None:
        return _spread(params, arguments, inbox)
    faults = _score(params, arguments, arguments.videos, keys_of(arguments.videos), inbox is not None, say)
    return 1 if faults else 0


def _score(
    params: Params,
    arguments: argparse.Namespace,
    videos: list[Path],
    keys: list[str],
    inbox: bool,
    say: Callable[[str], None],
) -> int:
    """Score ``videos``, and with ``inbox`` what has come into that; how many of the videos could not be read."""
    detector = _detector(params, arguments, say)
    with sending(params, arguments.out, _target(params, arguments.alert), say) as sender:
        scorer = Scorer(detector, params, arguments.out, sender, say)
        faults = scorer.videos(videos, keys, arguments.fps)
        if inbox:
            for _ in scorer.inbox(Inbox(arguments.inbox, arguments.out, params.detect.settle_seconds)):
                pass
    return len(faults)


def _score_there(*work) -> tuple[int, list[str]]:
    """:func:`_score` on another machine, and what it said."""
    said: list[str] = []
    return _score(*work, said.append), said


def _spread(params: Params, arguments: argparse.Namespace, inbox: Inbox | None) -> int:
    """Score on the machines of ``machine.scheduler``: a call for each video, and for the inbox as many as videos have come,
    which work it off together. The exit code."""
    calls = [
        (params, arguments, [video], [key], False)
        for video, key in zip(arguments.videos, keys_of(arguments.videos), strict=True)
    ]
    if inbox:
        calls += [(params, arguments, [], [], True)] * min(max(len(inbox.coming()), 1), MOST_AT_ONCE)
    faults = 0
    for _, result in per_clip(_score_there, calls, params.machine, "detect"):
        if isinstance(result, VadError):
            raise result
        faults += result[0]
        for line in result[1]:
            say(line)
    return 1 if faults else 0


def _target(params: Params, given: str | None) -> Target | None:
    """Whom alerts go to: what the command line says, else params.yaml."""
    if given is None:
        return None if params.detect.alert is None else target_of(params.detect.alert)
    return target_of(given if "://" in given else shlex.split(given))


def _detector(params: Params, arguments: argparse.Namespace, say: Callable[[str], None]) -> Detector:
    """The one that the command line names."""
    device, rate = params.machine.device, arguments.false_alarms_per_hour
    if arguments.champion is not None:
        version, folder = fetch_champion(_chosen(params, "dataset", arguments.champion))
        say(f"champion: {version}")
        return load_detector(folder, device, rate)
    if arguments.model_folder is not None:
        return load_detector(arguments.model_folder, device, rate)
    dataset, model = _chosen(params, "dataset", arguments.dataset), _chosen(params, "model", arguments.model)
    return detector_of(params, dataset, model, rate)


def _chosen(params: Params, kind: str, name: str | None) -> str:
    """``name``, or the only one that params.yaml lists."""
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
