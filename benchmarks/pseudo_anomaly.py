"""Compare settings of pseudo_anomaly without test labels, and ablate the parts of its recipe.

    python -m benchmarks.pseudo_anomaly [--dataset ped2] [--iterations 500] [--seeds 1]
        [--variants base no-unaltered ...] [--out benchmarks/results/pseudo-anomaly.json]

Run it in a project where ``dvc repro`` has extracted the data set. Two kinds of alterations (``--unseen``) are excluded
from every training. Each trained network is measured on held-out normal clips by two figures: the AUC between windows
with an object altered by an unseen kind and windows with unaltered objects only, and the same AUC for the kinds in
training. If the data set has frame labels, the AUC on the test clips is reported for information only; it is not used
for selection.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.result import write_result
from tasks import paths
from vadcore.config import load_params
from vadcore.data.loader import ClipLoader
from vadcore.data.store import ClipStore
from vadcore.data.windows import Segment, hold_out
from vadcore.evaluation.inference import score_clip
from vadcore.models import create_model
from vadcore.models.pseudo.alterations import ALTERATIONS
from vadcore.models.pseudo.windows import PastedWindows
from vadcore.models.pseudo_anomaly import PseudoAnomaly, PseudoAnomalyConfig, by_region
from vadcore.training.checkpoint import CheckpointFolder
from vadcore.training.trainer import Callback, TrainSettings, spread, train
from vadcore.utils.device import choose_device, choose_precision

WINDOWS = 256  # held-out windows per class
VARIANTS = {
    "base": {},
    "no-unaltered": {"unaltered": 0},
    **{f"no-{kind}": {"without": kind} for kind in ALTERATIONS},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ped2")
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--unseen", nargs="+", choices=ALTERATIONS, default=["rotated", "texture"])
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pseudo-anomaly.json"))
    arguments = parser.parse_args()
    rows = []
    for variant in arguments.variants:
        if VARIANTS[variant].get("without") in arguments.unseen:
            continue
        for seed in arguments.seeds:
            settings = {
                "variant": variant,
                "seed": seed,
                "iterations": arguments.iterations,
                "unseen": arguments.unseen,
            }
            rows.append({**settings, **one(variant, seed, arguments)})
            print(rows[-1], flush=True)
            write_result(arguments.out, rows, None)


def one(variant: str, seed: int, arguments: argparse.Namespace) -> dict:
    """Train a variant and measure it."""
    params = load_params()
    frames = ClipStore(paths.frames(arguments.dataset), "frames")
    lengths = {clip: array.shape[0] for clip, array in frames.arrays("train").items()}
    groups = {clip: array.attrs.get("group") for clip, array in frames.arrays("train").items()}
    kept, held = hold_out(lengths, params.train.val_share, params.seed, groups)
    changes = dict(VARIANTS[variant])
    out = {*arguments.unseen, changes.pop("without", None)}
    usual = PseudoAnomalyConfig().alterations
    weights = {kind: 0.0 if kind in out else usual[kind] for kind in ALTERATIONS}
    torch.manual_seed(seed)
    model = create_model("pseudo_anomaly", {**changes, "alterations": weights, "iterations": arguments.iterations})
    device = choose_device(params.machine.device)
    dtype, _ = choose_precision(arguments.precision, device)
    footage, val = (ClipLoader.for_model(model, frames, part, None, device=device) for part in (kept, held))
    settings = TrainSettings(seed, dtype, check_every=arguments.iterations, val_windows=64)
    with tempfile.TemporaryDirectory() as folder:
        trained = train(model, footage, val, settings, CheckpointFolder(Path(folder), "train"), Callback())
    row = {"train_seconds": round(trained.seconds), "val_loss": trained.val_loss}
    source = model.phases()[0].source(val, dtype)
    unseen = {kind: float(kind in arguments.unseen) for kind in ALTERATIONS}
    row["auc_unseen"], row["auc_seen"] = (separation(model, source, kinds) for kinds in (unseen, weights))
    row |= {f"auc_{kind}": separation(model, source, {kind: 1.0}) for kind in ALTERATIONS}
    tests = [Segment(clip, 0, array.shape[0]) for clip, array in frames.arrays("test").items()]
    return row | test_auc(model, frames, tests, device, dtype)


@torch.inference_mode()
def separation(model: PseudoAnomaly, source: PastedWindows, weights: dict[str, float]) -> float:
    """Return the AUC between held-out windows with one object altered by the kinds in ``weights`` and windows without."""
    scores = []
    for pasting in (
        replace(source.pasting, altered=0),
        replace(source.pasting, altered=1, least=1, weights=weights),
    ):
        windows = PastedWindows(source.footage, source.cutouts, source.scene, pasting, seed=7)
        picks = spread(source.lengths, model.windows, WINDOWS)
        batches = windows.batches(np.array_split(picks, -(-len(picks) // 16)), model.windows.length)
        logits = [model(b.frames, b.background, b.usual, b.view)[:, model.middle] for b in batches]
        scores.append(np.concatenate([by_region(part, model.config.places).amax((1, 2)).numpy() for part in logits]))
    return float(roc_auc_score(np.repeat([0, 1], [len(part) for part in scores]), np.concatenate(scores)))


def test_auc(model: PseudoAnomaly, frames: ClipStore, tests: list[Segment], device, dtype) -> dict:
    """Return raw micro and macro AUC on the test clips. Empty unless all test clips are labelled."""
    labels = [frames.labels(segment.clip) for segment in tests]
    if any(label is None for label in labels):
        return {}
    footage = ClipLoader.for_model(model, frames, tests, None, device=device)
    scores = [score_clip(model, footage, number, dtype).measures[model.score] for number in range(len(tests))]
    judged = [~np.isnan(score) for score in scores]
    pairs = [(label[there], score[there]) for label, score, there in zip(labels, scores, judged, strict=True)]
    micro = roc_auc_score(*(np.concatenate(part) for part in zip(*pairs, strict=True)))
    macro = np.mean([roc_auc_score(label, score) for label, score in pairs if 0 < label.mean() < 1])
    return {"test_auc_micro": float(micro), "test_auc_macro": float(macro)}


if __name__ == "__main__":
    main()
