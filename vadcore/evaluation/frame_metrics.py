"""Frame-level metrics: ROC AUC (micro, macro), average precision, equal error rate, ROC curve.

They are computed from a table with one row per frame: clip, frame, label (0 = normal, 1 = abnormal, NaN = unlabelled),
score (NaN = not scored; higher = more anomalous). Only frames with a score and a label are evaluated. A metric is None
if the evaluated frames contain only one class.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from vadcore.utils.errors import VadError

CURVE_POINTS = 500


def join_labels(scores: pd.DataFrame, labels: Mapping[str, np.ndarray | None]) -> pd.DataFrame:
    """Add a column ``label`` to a score table, joined by clip and frame number.

    scores: clip, frame, score, ...; one row for every frame, scored or not. labels: clip -> uint8 ``[T]``, 0 = normal,
    1 = abnormal; None = unlabelled (label NaN). Raises :class:`VadError` if the labels and the scores of a clip do not
    cover the same frames.
    """
    lacking = sorted(set(labels) - set(scores["clip"]))
    if lacking:
        raise VadError(f"clip {lacking[0]}: has labels but no scores; score it, or remove its labels")
    joined = scores.copy()
    joined["label"] = np.nan
    for clip, frames in scores.groupby("clip", sort=True)["frame"]:
        if labels.get(clip) is None:
            continue
        of_clip = np.asarray(labels[clip])
        if len(of_clip) != len(frames):
            raise VadError(f"clip {clip}: {len(of_clip)} labels for {len(frames)} frames; mend its label file")
        if not np.array_equal(np.sort(frames), np.arange(len(frames))):
            raise VadError(
                f"clip {clip}: its scores are not for frames 0 to {len(frames) - 1}, once each; score it again"
            )
        if not np.isin(of_clip, (0, 1)).all():
            wrong = of_clip[~np.isin(of_clip, (0, 1))][0]
            raise VadError(f"clip {clip}: label {wrong} is neither 0 (normal) nor 1 (abnormal); mend its label file")
        joined.loc[frames.index, "label"] = of_clip[frames].astype(np.float64)
    return joined


def frame_metrics(table: pd.DataFrame) -> dict[str, int | float | None]:
    """All frame-level metrics, as a flat dictionary that can be written to JSON.

    - ``auc_micro``: ROC AUC over all clips pooled, raw scores.
    - ``auc_micro_minmax``: pooled ROC AUC after min-max normalisation of each clip's scores to 0..1, as in most papers.
      It needs the whole test clip in advance. A clip with constant score becomes 0.
    - ``auc_macro``: mean ROC AUC of single clips, over the ``macro_clips`` clips whose evaluated frames contain both
      classes.
    - ``ap``: average precision, pooled.
    - ``eer``: equal error rate: the point of the linearly interpolated ROC curve where the false-positive rate equals
      the miss rate.
    - ``frames_evaluated``: frames with a score and a label. All other counts are over all frames of the table.
    """
    used = _evaluated(table)
    label, score = used["label"].to_numpy(), used["score"].to_numpy()
    both = _both_classes(label)
    of_clips = [
        _auc(rows["label"].to_numpy(), rows["score"].to_numpy())
        for _, rows in used.groupby("clip", sort=True)
        if _both_classes(rows["label"].to_numpy())
    ]
    return {
        "auc_micro": _auc(label, score) if both else None,
        "auc_micro_minmax": _auc(label, per_clip_min_max(table)[used.index].to_numpy()) if both else None,
        "auc_macro": float(np.mean(of_clips)) if of_clips else None,
        "macro_clips": len(of_clips),
        "ap": _average_precision(label, score) if both else None,
        "eer": _equal_error_rate(label, score) if both else None,
        "clips": int(table["clip"].nunique()),
        "frames_scored": int(table["score"].notna().sum()),
        "frames_unscored": int(table["score"].isna().sum()),
        "frames_normal": int((table["label"] == 0).sum()),
        "frames_abnormal": int((table["label"] == 1).sum()),
        "frames_unlabelled": int(table["label"].isna().sum()),
        "frames_evaluated": len(used),
    }


def per_clip_min_max(table: pd.DataFrame) -> pd.Series:
    """Min-max normalise the scores of each clip to 0..1. A constant clip becomes 0; infinite scores are clipped."""

    def stretch(scores: pd.Series) -> pd.Series:
        finite = scores[np.isfinite(scores)]
        if finite.empty:
            return scores.where(scores.isna(), 0.0)
        low, high = finite.min(), finite.max()
        return (scores.clip(low, high) - low) / (high - low if high > low else 1.0)

    return table.groupby("clip")["score"].transform(stretch)


def roc_curve(table: pd.DataFrame) -> pd.DataFrame:
    """Pooled ROC curve of the raw scores: fpr, tpr, threshold (descending; positive = score >= threshold).

    Collinear points are dropped. The curve is then thinned to at most ``CURVE_POINTS`` evenly spaced points, which
    changes its area by at most 1e-3. Empty if the evaluated frames contain only one class.
    """
    used = _evaluated(table)
    if not _both_classes(used["label"].to_numpy()):
        return pd.DataFrame({"fpr": [], "tpr": [], "threshold": []}, dtype=np.float64)
    fpr, tpr, threshold = _roc(used["label"].to_numpy(), used["score"].to_numpy())
    return _thin(pd.DataFrame({"fpr": fpr, "tpr": tpr, "threshold": threshold}))


def _evaluated(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["label"].notna() & table["score"].notna()]


def _both_classes(label: np.ndarray) -> bool:
    return 0 < label.sum() < len(label)


def rank_auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """ROC AUC from weights: the share of (positive, negative) pairs in the right order, ties counted half.

    positive, negative: ``[n]``, total weight of the positives and negatives at each distinct score, ascending by score.
    """
    below = np.cumsum(negative) - negative
    return float(np.sum(positive * (below + negative / 2)) / (positive.sum() * negative.sum()))


def _counts(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(distinct scores in ascending order, number of positives at each, number of negatives at each)."""
    distinct, ranks = np.unique(score, return_inverse=True)
    positive = np.bincount(ranks, label, len(distinct))
    return distinct, positive, np.bincount(ranks, minlength=len(distinct)) - positive


def _auc(label: np.ndarray, score: np.ndarray) -> float:
    return rank_auc(*_counts(label, score)[1:])


def _average_precision(label: np.ndarray, score: np.ndarray) -> float:
    """Average precision: sum of precision times gain in recall over the distinct scores, from the highest down."""
    _, positive, negative = (values[::-1] for values in _counts(label, score))
    found, false = np.cumsum(positive), np.cumsum(negative)
    return float(np.sum(found / (found + false) * positive) / found[-1])


def _roc(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ROC curve (fpr, tpr, threshold), from no frame predicted positive to all frames; collinear points are dropped."""
    distinct, positive, negative = (values[::-1] for values in _counts(label, score))
    found, false = np.append(0, np.cumsum(positive)), np.append(0, np.cumsum(negative))
    # first point, no positives: the next float above the highest score, because infinity cannot be plotted
    threshold = np.append(np.nextafter(distinct[0], np.inf), distinct)
    bends = np.flatnonzero(np.diff(found, 2).astype(bool) | np.diff(false, 2).astype(bool)) + 1
    kept = np.concatenate(([0], bends, [len(found) - 1]))
    return false[kept] / false[-1], found[kept] / found[-1], threshold[kept]


def _equal_error_rate(label: np.ndarray, score: np.ndarray) -> float:
    fpr, tpr, _ = _roc(label, score)
    # fpr equals the miss rate 1 - tpr where fpr + tpr = 1; fpr + tpr increases strictly along the curve
    return float(np.interp(1.0, fpr + tpr, fpr))


def _thin(curve: pd.DataFrame) -> pd.DataFrame:
    """Thin a ROC curve to at most CURVE_POINTS rows, evenly spaced along its city-block length; both ends are kept."""
    if len(curve) <= CURVE_POINTS:
        return curve
    along = np.concatenate(([0.0], np.cumsum(curve["fpr"].diff().abs() + curve["tpr"].diff().abs())[1:]))
    kept = np.searchsorted(along, np.linspace(0.0, along[-1], CURVE_POINTS - 1))
    return curve.iloc[np.unique(np.append(kept, len(curve) - 1))].reset_index(drop=True)
