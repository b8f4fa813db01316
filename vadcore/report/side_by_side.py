"""Section of the page that compares checkpoints of several systems: charts, figures, pictures, a verdict."""

from __future__ import annotations

import cv2
from markupsafe import Markup

from vadcore.report import charts
from vadcore.report.checkpoints import MEASURES, CheckPoints, Measure, check_points, chosen
from vadcore.report.finding import finding
from vadcore.report.load import System
from vadcore.report.media import QUALITY, film, reduced, uri
from vadcore.utils.errors import VadError
from vadcore.utils.render import encode, excerpt

STRIP_FRAMES = 4  # frames per window
STRIP_WIDTH = 420  # maximum width of a strip in pixels


def side_by_side(group: list[System], styles: list[str], asked: tuple[int, ...] | None) -> dict | None:
    """Return the content of the section for one data set, or None if no system has checkpoints.

    asked: iterations from the configuration. None selects them automatically.
    """
    known = [
        points
        for system, style in zip(group, styles, strict=True)
        if (points := check_points(system, style)) is not None
    ]
    if not known:
        return None
    iterations = chosen(known, asked)
    return {
        "systems": [(points.style, points.model) for points in known],
        "charts": [_chart(measure, known) for measure in MEASURES if measure.more_is_better],
        "iterations": iterations,
        "measures": MEASURES,
        "rows": _rows(known, iterations),
        "strips": [(iteration, [_strip(points, iteration) for points in known]) for iteration in iterations],
        "kept": [_strip(points, points.kept) for points in known],
        "films": [film for points in known if (film := _film(points)) is not None],
        "verdict": [verdict(known, iteration) for iteration in iterations],
        "finding": finding(known, iterations),
        "remarks": remarks(known, iterations, asked),
    }


def verdict(known: list[CheckPoints], iteration: int) -> str:
    """Return one sentence that names the leading system at an iteration for each measure, with margins as printed."""
    leads: dict[str, list[str]] = {}
    others = []
    for measure in MEASURES:
        figures = [(value, points.model) for points in known if (value := points.value(measure, iteration)) is not None]
        if not figures:
            continue
        figures.sort(key=lambda figure: -figure[0])
        most, model = measure.write(figures[0][0]), figures[0][1]
        if len(figures) == 1:
            others.append(f"{model} has {measure.title} {most}{measure.unit}")
            continue
        if measure.most is not None and float(most) > measure.most:
            others.append(
                f"{model} has {measure.title} {most}{measure.unit}, which is noise: the footage has {measure.most:g}"
            )
            continue
        gap = float(most) - float(measure.write(figures[1][0]))
        if gap:
            by = f"{gap:.{measure.digits}f} above {figures[1][1]}"
            more = "higher" if len(figures) == 2 else "highest"
            leads.setdefault(model, []).append(f"the {more} {measure.title} ({most}{measure.unit}, {by})")
        else:
            level = [other for value, other in figures if measure.write(value) == most]
            others.append(f"{measure.title} is {most}{measure.unit} for {_joined(level)} alike")
    said = [f"{model} has {_joined(what)}" for model, what in leads.items()]
    return f"At iteration {iteration:,}: {'; '.join([*said, *others])}."


def _joined(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def remarks(known: list[CheckPoints], iterations: list[int], asked: tuple[int, ...] | None) -> list[str]:
    """Return notes needed to interpret the figures, one or two sentences each."""
    every = sorted({int(iteration) for points in known for iteration in points.table.index})
    said = [
        f"Iteration {missing:,}, listed under report.check_points, is no check point of any system; there are "
        f"{_listed(every)}."
        for missing in sorted(set(asked or ()) - set(every))
    ]
    for iteration in iterations:
        lacking = [points.model for points in known if iteration not in points.table.index]
        if lacking:
            said.append(f"No check point at iteration {iteration:,}: {', '.join(lacking)}.")
    if len(known) == 1:
        said.append("Only one system shows what it makes of the footage, so there is nothing to compare it with.")
    sizes = {points.model: _size(points.system) for points in known}
    if len(set(sizes.values())) > 1:
        differ = ", ".join(f"{model} at {size}" for model, size in sizes.items())
        said.append(f"The systems work on different pictures, which moves these figures: {differ}.")
    said.append(
        "Every figure is a mean over evenly spread windows of held-out normal footage, the same windows at every check "
        "point, from one training of each system: small differences may be chance. An iteration is one batch, which "
        "takes one system longer than another. A closer picture is not a better detector: what shows anomalies well, "
        "too, does not notice them."
    )
    return said


def _size(system: System) -> str:
    size = system.training.get("image_size")
    return f"{size[0]} × {size[1]} {system.training.get('color', '')}".strip() if size else "an unknown size"


def _listed(iterations: list[int], most: int = 8) -> str:
    shown = ", ".join(f"{iteration:,}" for iteration in iterations[:most])
    return shown + (f" and {len(iterations) - most} more, up to {iterations[-1]:,}" if len(iterations) > most else "")


def _chart(measure: Measure, known: list[CheckPoints]) -> dict:
    curves = [(points.style, points.table[measure.key].dropna()) for points in known]
    svg, low, high = charts.quality(curves)
    ends = [int(end) for _, curve in curves for end in (curve.index[0], curve.index[-1])]
    return {
        "measure": measure,
        "svg": Markup(svg),
        "low": measure.write(low),
        "high": measure.write(high),
        "first": min(ends),
        "last": max(ends),
        "curves": [
            (points.style, points.model, f"{measure.write(curve.iloc[-1])}{measure.unit}")
            for points, (_, curve) in zip(known, curves, strict=True)
        ],
    }


def _rows(known: list[CheckPoints], iterations: list[int]) -> list[dict]:
    """Return the table: one row per system, and for every measure one column per iteration."""
    rows = [{"model": points.model, "style": points.style, "cells": []} for points in known]
    for measure in MEASURES:
        for iteration in iterations:
            values = [points.value(measure, iteration) for points in known]
            texts = [measure.write(value) for value in values]
            there = [value for value in values if value is not None]
            # Compared as printed, as in the results table.
            distinct = len({measure.write(value) for value in there}) > 1
            best = measure.write(max(there)) if measure.more_is_better and distinct else None
            for row, value, text in zip(rows, values, texts, strict=True):
                row["cells"].append({"text": text, "value": value, "best": text == best})
    return rows


def _strip(points: CheckPoints, iteration: int) -> dict | None:
    """Return one system's picture at one iteration (some frames of one window) with its figures, or None."""
    path = points.picture(iteration)
    if path is None:
        return None
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise VadError(f"{path}: not a readable picture; run the stage that writes it again with `dvc repro --force`")
    size = points.system.training.get("image_size")
    image = reduced(excerpt(image, tuple(size), STRIP_FRAMES) if size else image, STRIP_WIDTH)
    figures = [
        f"{measure.title} {measure.write(value)}{measure.unit}"
        for measure in MEASURES
        if (value := points.value(measure, iteration)) is not None
    ]
    return {
        "model": points.model,
        "iteration": iteration,
        "uri": uri(encode(image, ".webp", cv2.IMWRITE_WEBP_QUALITY, QUALITY)),
        "width": image.shape[1],
        "height": image.shape[0],
        "figures": figures,
    }


def _film(points: CheckPoints) -> dict | None:
    """Return the animation of the kept checkpoint and its first frame, or None if there is none."""
    path = points.picture(points.kept)
    shown = film(path.with_suffix(".webp")) if path else None
    return shown and {"model": points.model, "style": points.style, "iteration": points.kept, **shown}
