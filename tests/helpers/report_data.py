"""Made-up results of scoring and training, the report built from them, and parsers of its charts."""

import json
import re
from functools import cache

import numpy as np
import pandas as pd

from vadcore.evaluation.cost import read_cost, write_cost
from vadcore.evaluation.evaluate import EVENT_COLUMNS
from vadcore.evaluation.frame_metrics import frame_metrics, roc_curve
from vadcore.evaluation.snapshots import Snapshot, write_sheets
from vadcore.report import build_report
from vadcore.report.text import intervals
from vadcore.utils.files import write_json
from vadcore.utils.render import animation, encode, encode_animation, strip, write_png

DATASETS, MODELS = ["street", "ped2_small"], ["future_frame", "convlstm_ae", "frame_diff"]
RUN = {
    "command": "dvc repro",
    "profile": "demo",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "hardware": "Some CPU, 2 cores",
    "versions": {"python": "3.11.2", "torch": "2.13.0"},
    "date": "2026-01-02T03:04:05+00:00",
}
SAME = {
    key: value for key, value in RUN.items() if key not in ("commit", "date")
}  # the part that is stored with results
TRUTH = (40, 69)  # first and last abnormal frame of each even clip
THRESHOLD = 1.25
PSNR_AHEAD = {"future_frame": 1.5, "convlstm_ae": 0.0, "gru_ae": 1.5, "conv3d_ae": 0.0}  # dB


def write_system(
    root, dataset, model, clips=4, frames=120, labelled=True, names=None, seed=0, check_points=(), unlabelled=()
):
    """Write all outputs of scoring and training for one model, from a seeded generator.

    Frames 40 to 69 of every other clip are abnormal, starting with the first clip. ``unlabelled``: numbers of the
    frames without a label, in every clip.
    """
    random = np.random.default_rng([seed, *map(ord, model)])
    trained = model != "frame_diff"
    scored, learned = root / "scores" / dataset / model, root / "models" / dataset / model
    (scored / "worst").mkdir(parents=True)
    (learned / "samples").mkdir(parents=True)
    parts, events = [], []
    for clip in range(clips):
        label = np.zeros(frames)
        if clip % 2 == 0:
            label[TRUTH[0] : TRUTH[1] + 1] = 1
        abnormal = label.copy()
        label[list(unlabelled)] = np.nan
        score = 0.5 + 0.3 * np.sin(np.arange(frames) / 9) + 0.2 * random.standard_normal(frames)
        score += abnormal * (1.2 if trained else 0.6)
        score[:4] = np.nan
        name = names[clip] if names else f"{clip + 1:02d}"
        table = {"clip": name, "frame": np.arange(frames), "label": label if labelled else np.nan, "fps": 10.0}
        parts.append(pd.DataFrame({**table, "score": score, "p_value": 0.5, "mse": score}))
        for start, end in intervals(np.arange(frames), np.nan_to_num(score) >= THRESHOLD):
            peak = start + int(np.argmax(score[start : end + 1]))
            event = {"start_frame": start, "end_frame": end, "peak_frame": peak, "peak_score": score[peak]}
            events.append(
                {"clip": name, **event, "p_value": 0.001, "start_seconds": start / 10, "end_seconds": end / 10}
            )
    table = pd.concat(parts, ignore_index=True)
    table.to_parquet(scored / "frames.parquet")
    pd.DataFrame(events, columns=EVENT_COLUMNS).to_csv(scored / "events.csv", index=False)
    judged = table.dropna(subset=["score", "label"] if labelled else "score")
    auc = frame_metrics(table)["auc_micro"] if labelled else None
    if labelled:
        roc_curve(table).to_csv(scored / "roc.csv", index=False)
    row = {
        "dataset": dataset,
        "model": model,
        "seed": 1,
        "label_set": "generated" if labelled else None,
        "auc_micro": auc,
        "auc_micro_minmax": auc and auc + 0.01,
        "auc_macro": auc and auc - 0.02,
        "macro_clips": 2 if labelled else None,
        "ap": 0.8123 if labelled else None,
        "eer": 0.1567 if labelled else None,
        "pixel_auc": None,
        "rbdc": None,
        "tbdc": None,
        "alarms": len(events),
        "alarms_per_hour": 3600 * len(events) / (len(judged) / 10),
        "events_true": 2 if labelled else 0,
        "detected": 1 if labelled else 0,
        "detection_rate": 0.5 if labelled else None,
        "detection_delay_seconds": 0.7 if labelled else None,
        "false_alarms": 1 if labelled else 0,
        "false_alarms_per_hour": 31.5 if labelled else None,
        "normal_hours": 1 / 31.5 if labelled else 0.0,
        "normal_alarmed": 0.021 if labelled else None,
        "target_far_per_hour": 12.0,
        "threshold": THRESHOLD,
        "threshold_extrapolated": True,
        "footage_hours": 0.02,
        "frames_scored": len(judged),
        "frames_unscored": 4 * clips,
        "frames_abnormal": int(table["label"].sum()) if labelled else None,
        "score_measure": "psnr",
        "smoothing_frames": 3.0,
        "trained": trained,
    }
    (scored / "metrics.json").write_text(json.dumps(row))
    write_cost(scored, {"score_fps": 107.4})
    worst = []
    for number, (_, frame) in enumerate(judged.nlargest(2, "score").iterrows()):
        (scored / "worst" / f"{number}.png").write_bytes(_worst_picture())
        label = frame["label"] if labelled else None
        entry = {"clip": frame["clip"], "frame": int(frame["frame"]), "score": frame["score"], "p_value": 0.001}
        worst.append({**entry, "label": label, "picture": f"{number}.png"})
    (scored / "worst" / "worst.json").write_text(json.dumps(worst))

    measured = {"parameters": 1_234_567 if trained else 0}
    cost = {"train_seconds": 95.0 if trained else 0.0, "windows_per_second": 61.25 if trained else None}
    if trained:
        measured |= {"iterations": 400, "best_iteration": 300, "val_loss": 0.0123, "device": "cpu"}
        iteration = np.arange(10, 401, 10)
        loss = np.exp(-iteration / 60) + 0.01
        val = np.where(iteration % 100 == 0, loss * 1.1, np.nan)
        history = {"phase": "autoencoder", "iteration": iteration, "mse": loss, "val": val}
        if check_points:
            there = np.isin(iteration, check_points)
            history["psnr"] = np.where(there, 20 + iteration / 100 + PSNR_AHEAD[model], np.nan)
            history["ssim"] = np.where(there, 0.5 + iteration / 1000, np.nan)
            history["sharpness"] = np.where(there, 0.8 - PSNR_AHEAD[model] / 10, np.nan)
            measured |= {"psnr": 23 + PSNR_AHEAD[model], "ssim": 0.8, "sharpness": 0.65}
            measured |= {"image_size": [32, 48], "color": "grey"}
        pd.DataFrame(history).to_csv(learned / "history.csv", index=False)
        for at in check_points or range(100, 401, 100):
            path = learned / "samples" / f"autoencoder-{at:06d}.png"
            for file, data in zip((path, path.with_suffix(".webp")), _sample(), strict=True):
                file.write_bytes(data)
    (learned / "metrics.json").write_text(json.dumps(measured))
    write_cost(learned, cost | {"peak_memory_mb": 1234})
    (learned / "config.yaml").write_text("image_size: [32, 48]\ncolor: grey\n")
    val = np.sort(random.normal(0.5, 0.3, 720))
    calibration = {"scores": val.tolist(), "above": list(range(719, -1, -1))}
    calibration |= {
        "threshold": THRESHOLD,
        "target_far_per_hour": 12.0,
        "extrapolated": True,
        "resolvable_rate": 50.0,
        "supported_rate": 50.0 / 3,
        "seen_hours": 0.0,
        "normal": {"tail_events": 9},
    }
    calibration |= {"footage_hours": 0.02, "frames": 720, "clips": 3, "merge_gap_s": 1.0, "min_event_s": 0.2}
    (scored / "calibration.json").write_text(json.dumps(calibration))
    operating = pd.DataFrame({"target_far_per_hour": [1.0, 12.0, 100.0], "threshold": [2.0, THRESHOLD, 0.9]})
    figures = {"alarm_precision": [1.0, 0.5, 0.25], "detection_rate": [0.25, 0.5, 1.0]}
    figures |= {"detection_delay_seconds": [np.nan, 0.7, 0.2], "false_alarms_per_hour": [0.0, 31.5, 200.0]}
    operating = operating.assign(
        chosen=[False, True, False],
        extrapolated=False,
        **(figures if labelled else dict.fromkeys(figures)),
    )
    operating.to_csv(scored / "operating.csv", index=False)
    measures = pd.DataFrame({"measure": ["psnr", "map_box"], "auc_micro": [0.8, 0.912] if labelled else None})
    measures.assign(auc_micro_minmax=0.7, auc_macro=0.75).to_csv(scored / "measures.csv", index=False)
    (scored / "snapshots").mkdir()
    shown = np.arange(5, frames, 10)
    pictures = [
        Snapshot(
            np.full((24, 32), 2 * number % 256, np.uint8),
            np.full((12, 16, 1), number % 256, np.uint8) if trained else None,
            np.full((6, 8), number / frames),
            None,
        )
        for number in shown
    ]
    sheets = write_sheets(scored / "snapshots", "clips", shown, pictures, (0.0, 1.0))  # the same for all clips
    every = names or [f"{clip + 1:02d}" for clip in range(clips)]
    write_json(scored / "snapshots" / "snapshots.json", dict.fromkeys(every, sheets))


@cache
def _worst_picture():
    """A PNG of 240 x 480."""
    picture = np.random.default_rng(0).integers(0, 255, (8, 16, 3), dtype=np.uint8)
    return encode(picture.repeat(30, axis=0).repeat(30, axis=1), ".png")


@cache
def _sample():
    """Two windows of six frames of 32 x 48: a PNG of them as strips and a WebP animation."""
    inputs = np.random.default_rng(0).random((6, 1, 32, 48), dtype=np.float32)
    strips = np.concatenate([strip(inputs, 1 - inputs)] * 2)
    return encode(strips, ".png"), encode_animation(animation([(inputs, 1 - inputs)] * 2))


@cache
def _rollout_animation():
    frames = np.random.default_rng(0).random((4, 1, 32, 48), dtype=np.float32)
    return encode_animation(animation([(frames, frames, frames)]))


AHEAD_BASELINES = {
    "repeat last frame": 14.0,
    "constant velocity": 17.0,
    "mean training frame": 15.0,
    "reconstruction": 24.0,
}


def change_row(scored, **figures):
    """Change metrics of a system, and keep its cost valid."""
    cost, file = read_cost(scored), scored / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | figures))
    write_cost(scored, cost)


def rollout_table(start, fall, steps=10):
    """Rows of steps.csv: baselines, and predictions whose PSNR starts at ``start`` and drops four times by ``fall``."""
    own = [start - fall * min(step, 4) for step in range(steps)]
    every = {"prediction": own, **{what: [value] * steps for what, value in AHEAD_BASELINES.items()}}
    return [
        {"what": what, "step_ahead": step + 1, "psnr": value, "psnr_std": 1.5, "ssim": value / 30, "ssim_std": 0.1}
        | {"sequences": 12}
        for what, values in every.items()
        for step, value in enumerate(values)
    ]


def write_rollouts(scored, start, fall):
    """Write :func:`rollout_table` and pictures beside the scores of a system."""
    change_row(scored, variant=scored.name.replace("latent_lstm-", "vcae, "))
    folder = scored / "rollouts"
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rollout_table(start, fall)).to_csv(folder / "steps.csv", index=False)
    write_png(folder / "01-00003.png", np.zeros((96, 200, 3), np.uint8))
    (folder / "rollouts.webp").write_bytes(_rollout_animation())


def write_systems(root):
    """Every system on every data set, with four check points."""
    for dataset in DATASETS:
        for model in MODELS:
            write_system(root, dataset, model, check_points=(100, 200, 300, 400))
    return root


def build(root, datasets=DATASETS, models=MODELS, out="reports", run=RUN, **more):
    facts = {
        name: {"format": "street", "clips": {"train": 6, "test": 4}, "frames": 480, "fps": 10.0} for name in datasets
    }
    build_report(root / "scores", root / "models", root / out, datasets, models, run, {"seed": 1}, facts, **more)
    return (root / out / "index.html").read_text(encoding="utf-8")


def curve_points(svg, style=None):
    """Decode a path like the page's script. ``style``: the CSS class of the path, if there are several."""
    points = []
    of_class = "" if style is None else f'class="{style}" '
    for piece in re.search(rf'<path {of_class}d="([^"]*)"', svg)[1].split("M")[1:]:
        numbers = [int(number) for number in re.findall(r"-?\d+", piece)]
        x, y = numbers[:2]
        points.append((x, y))
        for dx, dy in zip(numbers[2::2], numbers[3::2], strict=True):
            x, y = x + dx, y + dy
            points.append((x, y))
    return points


def axis(svg):
    return float(re.search(r'data-low="([^"]*)"', svg)[1]), float(re.search(r'data-high="([^"]*)"', svg)[1])
