"""Sentences on the page that describe the figures."""

from __future__ import annotations

import math

import pandas as pd

from vadcore.report import charts
from vadcore.report.columns import duration, significant
from vadcore.report.load import System


def summary(group: list[System], most: dict | None = None) -> str:
    """Summarise the results table in a few sentences.

    most: the alarm on which most systems agree, from :func:`vadcore.report.raised.foremost`.
    """
    if not group[0].labelled:
        return (
            f"{_raised(group, most)} This footage has no labels, so nothing can be said about how good the systems are: "
            "look at the alarms."
        )
    judged = [system for system in group if system.row.get("auc_micro") is not None]
    trained = [system for system in judged if system.row.get("trained", True)]
    free = [system for system in judged if not system.row.get("trained", True)]
    if not judged:
        return f"The labels hold only one class, so frames cannot be ranked against them. {_raised(group, most)}"
    best = max(trained or free, key=lambda system: system.row["auc_micro"])
    auc = best.row["auc_micro"]
    among = " of the trained systems" if trained and free else ""
    text = f"{best.model} ranks the frames best{among}: raw micro AUC {100 * auc:.1f} %"
    if trained and free:
        rival = max(free, key=lambda system: system.row["auc_micro"])
        gap = round(100 * auc, 1) - round(100 * rival.row["auc_micro"], 1)  # of figures as printed
        side = (
            f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}" if f"{abs(gap):.1f}" != "0.0" else "level with"
        )
        text += f", {side} the untrained {rival.model}"
    return f"{text}. {_alarming(best, judged)}".strip()


def _alarming(best: System, judged: list[System]) -> str:
    """Describe the alarms of ``best``, and name the best system at alarms if it is another one.

    That is the system that detects the most events without exceeding the target false-alarm rate.
    """
    known = [system for system in judged if system.row.get("detection_rate") is not None]
    known = [system for system in known if system.row.get("false_alarms_per_hour") is not None]
    if not known:
        return ""
    asked = best.row.get("target_far_per_hour")
    text = f"At its threshold, set on normal footage alone, it {_finds(best)}" if best in known else ""
    text += f" ({asked:g} an hour asked for). " if text and asked is not None else ". " if text else ""
    kept = [system for system in known if asked is None or system.row["false_alarms"] <= _allowed(system, asked)]
    if not kept:
        return text + "No system keeps to the false alarms asked for."
    most = max(kept, key=lambda system: (system.row["detected"], -system.row["false_alarms"]))
    if most is best or (best in kept and best.row["detected"] == most.row["detected"]):
        return text
    name = most.model if most.row.get("trained", True) else f"the untrained {most.model}"
    return text + f"Of those that keep to the false alarms asked for, {name} finds most: it {_finds(most)}."


def _allowed(system: System, asked: float) -> int:
    """Return the number of false alarms allowed at the target rate, rounded up because there may be little footage."""
    return math.ceil(asked * system.row["normal_hours"] - 1e-9)


def _finds(system: System) -> str:
    row = system.row
    delay = row.get("detection_delay_seconds")
    after = f", {delay:.1f} s after they begin" if delay is not None else ""
    found = f"finds {row['detected']:.0f} of {row['events_true']:.0f} events{after}"
    count, normal = f"{row['false_alarms']:.0f}", duration(3600 * row["normal_hours"])
    # counts instead of a rate per hour, which would be misleading for little footage
    return f"{found}, with {count} false alarm{'s' if count != '1' else ''} in {normal} of normal footage"


def _raised(group: list[System], most: dict | None) -> str:
    """Return how many alarms were raised, in how many clips, and where most systems agree."""
    clips = group[0].frames["clip"].nunique()
    counts = [len(system.events) for system in group]
    where = f" in {len(set().union(*(system.events['clip'] for system in group)))} of {clips} clips"
    if not any(counts):
        return "No system raises an alarm." if len(group) > 1 else f"{group[0].model} raises no alarms."
    if len(group) == 1:
        return f"{group[0].model} raises {_alarms(counts[0])}{where}."
    low, high = min(counts), max(counts)
    text = f"{len(group)} systems raise {_alarms(high) if low == high else f'{low} to {_alarms(high)}'} each,{where}."
    if most is None:
        return text
    if most["agree"] < 2:
        return f"{text} No two are in alarm at once."
    there = f"clip {most['name']}, {most['when']}"
    return f"{text} They agree best on {there}: {most['agree']} of {len(group)} are in alarm at its peak."


def _alarms(count: int) -> str:
    return f"{count} alarm{'s' if count != 1 else ''}"


def protocol(group: list[System]) -> list[str]:
    """Describe how the figures of a table were made, one sentence per line."""
    rows = [system.row for system in group]
    row = rows[0]
    lines = []
    if not group[0].labelled:
        lines.append("No labels: AUC and the like do not exist for this footage.")
    elif row.get("label_set"):
        lines.append(f"Label set: {row['label_set']}.")
    common = shared([made(entry) for entry in rows])
    if common:
        lines.append(f"All systems: {', '.join(common)}.")
    if row.get("frames_scored") is not None:
        least, most = (
            pick(entry["frames_scored"] for entry in rows if entry.get("frames_scored") is not None)
            for pick in (min, max)
        )
        judged = f"{most:,.0f}" if least == most else f"{least:,.0f} to {most:,.0f}"
        text = f"{judged} test frames judged"
        if any(entry.get("frames_unscored") for entry in rows):
            text += "; a frame that a model’s window cannot judge has no score and counts in none of its metrics"
        lines.append(text + ".")
    if row.get("frames_abnormal") is not None and group[0].labelled:
        total = int(group[0].frames["label"].notna().sum())
        lines.append(f"{row['frames_abnormal']:,.0f} of {total:,} labelled frames are abnormal.")
    hours = [entry["footage_hours"] for entry in rows if entry.get("footage_hours") is not None]
    if hours:
        asked = row.get("target_far_per_hour")
        least, most = duration(3600 * min(hours)), duration(3600 * max(hours))
        lines.append(
            f"Thresholds are set{f' for {asked:g} false alarms an hour' if asked is not None else ''} on "
            f"{least if least == most else f'{least} to {most}'} of normal training footage that training did not see; the "
            "pipeline uses nothing of the test footage for training, selection or thresholds."
        )
    for direction in ("higher", "lower"):
        drifted = [str(entry["model"]) for entry in rows if entry.get("calibration_drift") == direction]
        if drifted:
            lines.append(
                f"Drift: most test frames score {direction} than normal footage with {', '.join(drifted)}. The thresholds "
                "do not fit this footage; train again with newer normal footage."
            )
    if any(entry.get("threshold_extrapolated") for entry in rows):
        lines.append(
            "‡ That rate is rarer than so little footage can show: the threshold is extrapolated from the tail of the "
            "normal scores."
        )
    return lines


def made(row: dict) -> list[str]:
    """Describe how a system's scores were made, in short phrases."""
    smoothing, threshold = row.get("smoothing_frames"), row.get("threshold")
    parts = [
        f"score: {row['score_measure']}" if row.get("score_measure") else None,
        f"threshold {significant(threshold)}" if threshold is not None else None,
        f"smoothed over time with sigma {smoothing:g} frames" if smoothing else "not smoothed over time",
        f"seed {row['seed']}" if row.get("seed") is not None else None,
    ]
    return [part for part in parts if part is not None]


def shared(phrases: list[list[str]]) -> list[str]:
    """Return the phrases that all systems share. Empty for a single system, whose phrases stay in its own row."""
    return [part for part in phrases[0] if len(phrases) > 1 and all(part in other for other in phrases)]


def calibrated(calibration: dict) -> str:
    """Describe in sentences how a threshold was calibrated, from calibration.json."""
    clips, tail = calibration["clips"], calibration["normal"]["tail_events"]
    seen = duration(3600 * calibration["seen_hours"]) if calibration["seen_hours"] else None
    text = (
        f"The threshold {significant(calibration['threshold'])} is set for {calibration['target_far_per_hour']:g} false "
        f"alarms an hour, on {duration(3600 * calibration['footage_hours'])} of normal footage that training did not see, "
        f"{clips} clip{'s' if clips != 1 else ''}{f', and on {seen} of training footage' if seen else ''}."
    )
    if calibration["supported_rate"] > calibration["target_far_per_hour"]:
        text += (
            f" So little footage supports no rate below {calibration['supported_rate']:.0f} an hour, so the threshold is "
            "set for that rate. More normal footage allows a lower one."
        )
    elif calibration["extrapolated"]:
        text += (
            f" A single alarm in it would be {calibration['resolvable_rate']:.0f} an hour, so the threshold is extrapolated "
            f"from the highest scores, those of {tail} alarm{'s' if tail != 1 else ''}."
        )
    merged, least = calibration["merge_gap_s"], calibration["min_event_s"]
    return f"{text} Alarms at most {merged:g} s apart are one; one shorter than {least:g} s is none."


def unlabelled(frames: pd.DataFrame) -> list[tuple[int, int]]:
    """Return the intervals (first, last) of unlabelled frames. Empty for a clip without any labels."""
    without = frames["label"].isna()
    return [] if without.all() else charts.intervals(frames["frame"].to_numpy(), without.to_numpy(int))


def truth(frames: pd.DataFrame) -> str:
    """Describe the labels of one clip."""
    if frames["label"].isna().all():
        return "no labels"
    runs = charts.intervals(frames["frame"].to_numpy(), frames["label"].to_numpy())
    if not runs:
        return "all normal"
    shown = ", ".join(f"{start}–{end}" for start, end in runs[:4])
    return f"abnormal {shown}" + (f" and {len(runs) - 4} more" if len(runs) > 4 else "")
