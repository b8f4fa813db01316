"""Frame metrics: compared with hand-computed values and scikit-learn, and undefined cases."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from tests.helpers.data import data_dir
from vadcore.evaluation.frame_metrics import CURVE_POINTS, frame_metrics, join_labels, per_clip_min_max, roc_curve
from vadcore.utils.errors import VadError

NAN = np.nan


def table(**clips):
    """clip=(labels, scores) -> one row for each frame."""
    parts = [
        pd.DataFrame({"clip": clip, "frame": range(len(scores)), "label": labels, "score": scores}, dtype=object)
        for clip, (labels, scores) in clips.items()
    ]
    return pd.concat(parts, ignore_index=True).astype({"frame": int, "label": float, "score": float})


def random_table(seed, clips=3, frames=400, decimals=2):
    rng = np.random.default_rng(seed)
    made = {}
    for clip in range(clips):
        label = rng.random(frames) < 0.3
        made[f"c{clip}"] = (label.astype(float), np.round(rng.normal(label + clip), decimals))
    return table(**made)


def test_hand_computed_case():
    # pairs (abnormal, normal): .35 > .1, .8 > .1, .8 > .4 are right, .35 < .4 is wrong: AUC 3/4.
    # Falling scores 1 0 1 0: precision at the abnormal ones 1/1 and 2/3, each half of the recall: AP 5/6.
    # ROC (0,0) (0,.5) (.5,.5) (.5,1) (1,1): as many false positives as misses at (.5, .5).
    found = frame_metrics(table(a=([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])))
    assert found["auc_micro"] == pytest.approx(3 / 4, abs=1e-12)
    assert found["ap"] == pytest.approx(5 / 6, abs=1e-12)
    assert found["eer"] == pytest.approx(1 / 2, abs=1e-12)


def test_equal_error_rate_is_interpolated():
    # ROC (0,0) (0,.5) (.5,1) (1,1): on the middle piece tpr = fpr + .5, and fpr = 1 - tpr gives fpr = .25
    assert frame_metrics(table(a=([0, 0, 1, 1], [0, 1, 1, 2])))["eer"] == pytest.approx(0.25, abs=1e-12)


@pytest.mark.parametrize(("scores", "auc", "eer"), [([0, 1], 1.0, 0.0), ([1, 0], 0.0, 1.0), ([1, 1], 0.5, 0.5)])
def test_perfect_inverted_and_constant_scores(scores, auc, eer):
    found = frame_metrics(table(a=([0, 1], scores)))
    assert (found["auc_micro"], found["auc_micro_minmax"], found["eer"]) == (auc, auc, eer)


def test_raw_min_max_and_macro_auc():
    # a: normal 0, abnormal 1; b: normal 2, abnormal 3. Raw: 3 of 4 pairs right (1 < 2 is wrong).
    # Stretched per clip both become 0, 1: all right. Macro: both clips are perfect.
    found = frame_metrics(table(a=([0, 1], [0, 1]), b=([0, 1], [2, 3])))
    assert (found["auc_micro"], found["auc_micro_minmax"], found["auc_macro"]) == (0.75, 1.0, 1.0)


def test_macro_averages_clips_with_both_classes():
    # a: perfect, 1; b: inverted, 0; c and d hold one class and have no AUC
    found = frame_metrics(table(a=([0, 1], [0, 1]), b=([0, 1], [1, 0]), c=([1, 1], [5, 6]), d=([0, 0], [7, 8])))
    assert (found["auc_macro"], found["macro_clips"], found["clips"]) == (0.5, 2, 4)


def test_no_auc_for_single_judged_class():
    assert frame_metrics(table(a=([0, 1, 1], [NAN, 1, 2]), b=([0, 1], [0, 1])))["macro_clips"] == 1


def test_per_clip_min_max():
    stretched = per_clip_min_max(table(a=([0, 1, NAN], [2, 4, 6]), b=([0, 1, 1], [3, 3, NAN])))
    np.testing.assert_array_equal(stretched, [0, 0.5, 1, 0, 0, NAN])


def test_frames_without_score_or_label():
    whole = table(a=([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]))
    holes = table(a=([0, 0, 1, 1, 1, 0, NAN], [0.1, 0.4, 0.35, 0.8, NAN, NAN, 99.0]))
    found = frame_metrics(holes)
    for key in ("auc_micro", "ap", "eer", "auc_macro"):
        assert found[key] == frame_metrics(whole)[key]
    counts = ("frames_scored", "frames_unscored", "frames_normal", "frames_abnormal", "frames_unlabelled")
    assert [found[key] for key in counts] == [5, 2, 3, 3, 1]
    assert found["frames_evaluated"] == 4


@pytest.mark.parametrize(
    "only",
    [
        table(a=([1, 1], [0, 1])),
        table(a=([0, 0], [0, 1])),
        table(a=([NAN, NAN], [0, 1])),
        table(a=([0, 1], [NAN, NAN])),
        table(a=([0, 1], [1, NAN])),
    ],
    ids=["all abnormal", "all normal", "unlabelled", "unscored", "one class judged"],
)
def test_undefined_metrics_are_none(only):
    found = frame_metrics(only)
    assert all(found[key] is None for key in ("auc_micro", "auc_micro_minmax", "auc_macro", "ap", "eer"))
    assert found["macro_clips"] == 0
    json.dumps(found, allow_nan=False)
    assert list(roc_curve(only)) == ["fpr", "tpr", "threshold"]
    assert roc_curve(only).empty


def test_infinite_scores():
    # a psnr of identical frames is infinite. Stretched, -inf and +inf take the clip's finite limits 0 and 1.
    found = frame_metrics(table(a=([0, 0, 1, 1], [-np.inf, 0, 1, np.inf])))
    assert (found["auc_micro"], found["auc_micro_minmax"], found["ap"], found["eer"]) == (1, 1, 1, 0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decimals", [0, 1, 8])  # many ties, some, none
def test_agrees_with_scikit_learn(seed, decimals):
    made = random_table(seed, decimals=decimals)
    made.loc[::7, "score"] = NAN
    used = made.dropna()
    found = frame_metrics(made)
    assert found["auc_micro"] == pytest.approx(sk.roc_auc_score(used["label"], used["score"]), abs=1e-9)
    assert found["ap"] == pytest.approx(sk.average_precision_score(used["label"], used["score"]), abs=1e-9)
    each = [sk.roc_auc_score(rows["label"], rows["score"]) for _, rows in used.groupby("clip")]
    assert found["auc_macro"] == pytest.approx(np.mean(each), abs=1e-9)
    stretched = [(s - s.min()) / (s.max() - s.min()) for _, s in used.groupby("clip")["score"]]
    assert found["auc_micro_minmax"] == pytest.approx(
        sk.roc_auc_score(used["label"], pd.concat(stretched)[used.index]), abs=1e-9
    )
    fpr, tpr, _ = sk.roc_curve(used["label"], used["score"], drop_intermediate=False)
    # where the interpolated curve crosses fpr = 1 - tpr
    miss = 1 - tpr
    at = np.flatnonzero(fpr >= miss)[0]
    step = (miss[at - 1] - fpr[at - 1]) / ((fpr[at] - fpr[at - 1]) + (miss[at - 1] - miss[at]))
    assert found["eer"] == pytest.approx(fpr[at - 1] + step * (fpr[at] - fpr[at - 1]), abs=1e-9)


def test_order_and_monotonic_transform_change_nothing():
    made = random_table(5)
    shuffled = made.sample(frac=1, random_state=0)
    assert frame_metrics(shuffled) == pytest.approx(frame_metrics(made), abs=1e-12)
    risen = made.assign(score=np.exp(made["score"]))
    for key in ("auc_micro", "auc_macro", "ap", "eer"):
        assert frame_metrics(risen)[key] == pytest.approx(frame_metrics(made)[key], abs=1e-12)


def test_long_roc_curve_is_thinned():
    made = random_table(1, clips=4, frames=10_000, decimals=12)
    curve = roc_curve(made)
    assert 400 < len(curve) <= CURVE_POINTS
    assert tuple(curve.iloc[0, :2]) == (0, 0)
    assert tuple(curve.iloc[-1, :2]) == (1, 1)
    assert np.isfinite(curve["threshold"]).all()
    assert (np.diff(curve["threshold"]) < 0).all()
    assert sk.auc(curve["fpr"], curve["tpr"]) == pytest.approx(frame_metrics(made)["auc_micro"], abs=1e-4)


def test_roc_curve_rows_match_their_thresholds():
    made = random_table(2, frames=2000)
    normal, abnormal = (made[made["label"] == label]["score"].to_numpy() for label in (0, 1))
    for row in roc_curve(made).itertuples():
        assert row.fpr == pytest.approx(np.mean(normal >= row.threshold), abs=1e-12)
        assert row.tpr == pytest.approx(np.mean(abnormal >= row.threshold), abs=1e-12)


def scores(**clips):
    parts = [pd.DataFrame({"clip": clip, "frame": range(n), "score": 0.5}) for clip, n in clips.items()]
    return pd.concat(parts, ignore_index=True)


def test_labels_are_joined_by_frame_number():
    labels = {"a": np.array([0, 1, 1], np.uint8), "b": None}
    joined = join_labels(scores(a=3, b=2, c=1).iloc[::-1], labels).sort_values(["clip", "frame"])
    np.testing.assert_array_equal(joined["label"], [0, 1, 1, NAN, NAN, NAN])
    assert list(joined["clip"]) == ["a", "a", "a", "b", "b", "c"]


@pytest.mark.parametrize("count", [2, 4])
def test_labels_of_wrong_length_are_refused(count):
    with pytest.raises(VadError, match=rf"clip a: .*\b{count} labels.*\b3 frames"):
        join_labels(scores(a=3), {"a": np.zeros(count, np.uint8)})


def test_labels_without_scores_are_refused():
    with pytest.raises(VadError, match="clip b: "):
        join_labels(scores(a=3), {"a": None, "b": np.zeros(3, np.uint8)})


def test_labels_must_be_0_or_1():
    with pytest.raises(VadError, match=r"clip a: .*255"):
        join_labels(scores(a=2), {"a": np.array([0, 255], np.uint8)})


def test_duplicate_frame_is_refused():
    twice = scores(a=3).assign(frame=[0, 1, 1])
    with pytest.raises(VadError, match=r"clip a: .*frames 0 to 2"):
        join_labels(twice, {"a": np.zeros(3, np.uint8)})


def test_real_ped2_labels():
    # as published: 1648 of 2010 test frames are abnormal, and all of clips 8 to 11
    with np.load(data_dir("ped2", "pixel_masks.npz")) as masks:
        labels = {clip: masks[clip].any(axis=(1, 2)).astype(np.uint8) for clip in masks}
    found = frame_metrics(join_labels(scores(**{clip: len(of_clip) for clip, of_clip in labels.items()}), labels))
    assert (found["frames_abnormal"], found["frames_normal"], found["macro_clips"]) == (1648, 362, 8)
    assert (found["auc_micro"], found["auc_macro"]) == (0.5, 0.5)
