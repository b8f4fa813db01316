"""Choose the champion of a data set, the system that scores its new footage, or roll back to the previous one.

    python -m tasks.promote DATASET                    # compare the registered systems and promote the best
    python -m tasks.promote DATASET --by auc_micro     # by a metric of the labelled test footage instead
    python -m tasks.promote DATASET --back             # roll back to the previous champion

The champion is the model version with the alias ``champion`` in the MLflow registry. The default rule uses no test label:
each system scores held-out normal clips with artificial anomalies (vadcore/evaluation/synthetic_anomalies.py). The system
that raises an alarm at most of them, at the requested false-alarm rate, wins. A tie goes to the higher raw micro AUC.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from tasks import paths
from tasks.ending import one_line_errors
from tasks.tracking import StageRun, stage_run
from tasks.tracking.client import connect, wanted_uri
from tasks.tracking.registry import (
    CHAMPION,
    PREVIOUS,
    Version,
    aliased,
    download,
    latest_versions,
    move_aliases,
    registered_name,
)
from vadcore.config import AlarmRule, Params, load_params
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipStore
from vadcore.data.windows import Segment, hold_out
from vadcore.detection.detector import System, load_detector
from vadcore.evaluation.evaluate import result_row, score_table
from vadcore.evaluation.frame_metrics import join_labels
from vadcore.evaluation.inference import score_clip
from vadcore.evaluation.preprocess import FlowRecipe
from vadcore.evaluation.trial import make_trial, val_digest
from vadcore.flow.compute import store_flow
from vadcore.report.table import COLUMNS
from vadcore.utils.errors import VadError
from vadcore.utils.files import digest_of, sha256_files

ARTIFICIAL = "artificial"  # the rule that needs no labels
SHOWN = ("detection_rate", "auc_micro", "false_alarms_per_hour")  # printed metrics of the trial
SEED = 0  # of the artificial anomalies: the same for all systems and all comparisons
Measures = dict[str, dict[str, np.ndarray]]  # clip -> measure -> [T]
BETTER = {column.key: column.better for column in COLUMNS if column.better}  # metrics that can rank systems


@dataclass(frozen=True)
class Candidate:
    """A registered version and its rank: tuples are compared from left to right, higher is better."""

    version: Version
    merit: tuple[float, ...]
    figures: dict


def compare(params: Params, dataset: str, versions: list[Version], by: str) -> list[Candidate]:
    """Return the candidates, best first."""
    if by == ARTIFICIAL:
        found = _by_trial(params, dataset, versions)
    else:
        found = []
        for version in versions:
            known = [key for key in BETTER if version.tags.get(key) not in (None, "None")]
            if by not in known:
                raise VadError(f"--by {by}: {version} has no such metric; it has: {', '.join(known)}")
            value = float(version.tags[by])
            found.append(Candidate(version, (value if BETTER[by] == "high" else -value,), {by: value}))
    return sorted(found, key=lambda candidate: (candidate.merit, candidate.version.number), reverse=True)


def _by_trial(params: Params, dataset: str, versions: list[Version]) -> list[Candidate]:
    frames = ClipStore(paths.frames(dataset), "frames")
    clips = frames.arrays("train")
    lengths = {clip: array.shape[0] for clip, array in clips.items()}
    groups = {clip: array.attrs.get("group") for clip, array in clips.items()}
    _, held = hold_out(lengths, params.train.val_share, params.seed, groups)
    same = val_digest([(segment.clip.name, segment.start, segment.stop) for segment in held])
    asked = params.of(dataset).calibrate.target_far_per_hour
    fit = []
    for version in versions:
        rate = float(version.tags.get("target_far_per_hour", "nan"))
        if "vad.val" not in version.tags:
            print(f"left out: {version}: registered by an earlier version of vadcore; run dvc repro")
        elif version.tags["vad.val"] != same:
            print(f"left out: {version}: its held-out footage is not that of params.yaml; train it again")
        elif rate != asked:
            said = f"its threshold is for {rate:g} false alarms an hour, not {asked:g}; score it again"
            print(f"left out: {version}: {said}")
        else:
            fit.append(version)
    if not fit:
        raise VadError(f"{registered_name(dataset)}: no version that can be compared; run dvc repro")
    with tempfile.TemporaryDirectory() as temporary:
        trial = make_trial(frames, held, Path(temporary) / "frames.zarr", SEED)
        count = len(trial.clips("test"))
        print(f"{count} held-out clips with an artificial anomaly each, {asked:g} false alarms an hour")
        known: dict[str, Measures] = {}
        return [
            Candidate(version, (row["detection_rate"], row["auc_micro"]), {key: row[key] for key in SHOWN})
            for version in tqdm(fit, desc="trial", unit="system", disable=None)
            for row in [_tried(params, version, trial, Path(temporary), known)]
        ]


def _tried(params: Params, version: Version, trial: ClipStore, folder: Path, known: dict[str, Measures]) -> dict:
    """Return the metrics of one system on the trial, with its own optical flow, smoothing and event rules.

    ``known``: cache of :func:`_measured`.
    """
    detector = load_detector(download(version, folder / f"version-{version.number}"), params.machine.device)
    recipe, calibration = detector.recipe, detector.calibration
    flow = _flow(recipe.flow, trial, folder, str(detector.systems[0].device)) if recipe.flow else None
    segments = [Segment(clip, 0, trial.length(clip)) for clip in trial.clips("test")]
    judged = [_measured(system, trial, segments, flow, known) for system in detector.systems]
    measures = {clip: detector.measures([of_system[clip] for of_system in judged]) for clip in judged[0]}
    fps = {segment.clip.name: trial.attributes(segment.clip)["fps"] for segment in segments}
    times = trial.own_times(segment.clip for segment in segments)
    scored = measures, detector.score, fps, recipe.smoothing
    labels = {segment.clip.name: trial.labels(segment.clip) for segment in segments}
    table = join_labels(score_table(*scored, calibration, times), labels)
    rules = {key: getattr(calibration, key) for key in AlarmRule.model_fields}
    return result_row(table, calibration, AlarmRule(**rules), {}, {})


def _measured(
    system: System, trial: ClipStore, segments: list[Segment], flow: ClipStore | None, known: dict[str, Measures]
) -> Measures:
    """Return the measures of a system on the trial.

    ``known``: cache of measures, extended here, because members of a fusion are also registered as versions of their own.
    """
    flow = flow if system.model.config.needs_flow else None
    key = digest_of([system.digest, str(system.dtype), str(flow.url) if flow else None])
    if key not in known:
        known[key] = {}
        for segment in segments:
            footage = ClipLoader.for_model(system.model, trial, [segment], flow, device=system.device, cache="ram")
            known[key][segment.clip.name] = score_clip(system.model, footage, 0, system.dtype).measures
    return known[key]


def _flow(recipe: FlowRecipe, trial: ClipStore, folder: Path, device: str) -> ClipStore:
    """Return the optical flow of the trial's clips, computed once for all systems with the same settings."""
    weights = Path(recipe.options["weights"]) if "weights" in recipe.options else None
    alike = {**recipe.model_dump(mode="json"), "weights": weights and sha256_files([weights])}
    alike["options"] = {key: value for key, value in recipe.options.items() if key != "weights"}
    url = folder / f"flow-{digest_of(alike)}.zarr"
    if not url.exists():
        ClipStore(url, "flow", write=True)
        for clip in trial.clips():
            store_flow(clip, trial.url, url, recipe.estimator, recipe.options, recipe.size, device)
    return ClipStore(url, "flow")


def promote(params: Params, dataset: str, by: str, run: StageRun) -> None:
    client = connect(wanted_uri())
    versions = latest_versions(client, dataset)
    if not versions:
        raise VadError(f"{registered_name(dataset)}: no registered version; run the score stage with MLflow reachable")
    ranked = compare(params, dataset, versions, by)
    before = aliased(client, dataset, CHAMPION)
    table = pd.DataFrame(
        [
            {
                "system": candidate.version.model,
                "version": candidate.version.number,
                **candidate.figures,
                "champion": "now" if candidate is ranked[0] else "before" if candidate.version == before else "",
            }
            for candidate in ranked
        ]
    )
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"), flush=True)
    best = ranked[0].version
    if before == best:
        print(f"{best} stays champion of {dataset}")
    else:
        move_aliases(client, dataset, best, before)
        print(f"{best} is champion of {dataset}" + (f"; before: {before}" if before else ""))
    run.params({"by": by, "champion": best.model, "version": best.number})
    for candidate in ranked:
        run.metrics({f"{key} {candidate.version.model}": value for key, value in candidate.figures.items()})
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "comparison.csv"
        table.to_csv(file, index=False)
        run.artifact(file)


def back(dataset: str) -> None:
    """Roll back to the previous champion. The current champion becomes the previous one."""
    client = connect(wanted_uri())
    now, before = aliased(client, dataset, CHAMPION), aliased(client, dataset, PREVIOUS)
    if before is None:
        raise VadError(f"{registered_name(dataset)}: no previous champion; promote another system first")
    move_aliases(client, dataset, before, now)
    print(f"{before} is champion of {dataset} again")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tasks.promote", description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="a name listed in params.yaml under datasets")
    said = "artificial, or a metric of the test footage such as auc_micro"
    parser.add_argument("--by", default=ARTIFICIAL, help=said)
    parser.add_argument("--back", action="store_true", help="roll back to the previous champion")
    arguments = parser.parse_args()
    with one_line_errors():
        params = load_params()
        if arguments.dataset not in params.datasets:
            raise VadError(f"{arguments.dataset}: not listed under datasets; there are: {', '.join(params.datasets)}")
        if arguments.back:
            back(arguments.dataset)
            return
        with stage_run("promote", arguments.dataset, experiment=params.tracking.experiment) as run:
            promote(params, arguments.dataset, arguments.by, run)


if __name__ == "__main__":
    main()
