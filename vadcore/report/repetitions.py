"""Group rows that are the same system with several seeds, and format their figures together."""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import mean, stdev


def repetitions(rows: list[dict]) -> dict[str, list[dict]]:
    """Group rows by system name.

    Names that differ only in a trailing number (``gru_ae``, ``gru_ae-2``) are seeds of one system if each has a
    different seed and all have the same losses and the same variant. Otherwise the numbers denote variants
    (``conv_ae-64``, ``conv_ae-128``).
    """
    stems: dict[str, list[dict]] = {}
    for row in rows:
        stems.setdefault(_stem(row), []).append(row)
    groups: dict[str, list[dict]] = {}
    for row in rows:
        name = _stem(row) if _are_seeds(stems[_stem(row)]) else row["model"]
        groups.setdefault(name, []).append(row)
    return groups


def _stem(row: dict) -> str:
    return re.sub(r"-\d+$", "", row["model"])


def _are_seeds(rows: list[dict]) -> bool:
    seeds, made = {row["seed"] for row in rows}, {(row.get("losses"), row.get("variant")) for row in rows}
    return 1 < len(rows) == len(seeds) and len(made) == 1


def spread(values: list, write: Callable[..., str]) -> str:
    """Format values as mean and standard deviation, ``76.5% ± 0.7%``, or as one value if all are equal.

    Empty if there are no values. If some are None, the text says how many count: ``76.5% (1 of 2)``.
    """
    there = [value for value in values if value is not None]
    if not there:
        return ""
    text = write(there[0]) if len(set(there)) == 1 else f"{write(mean(there))} ± {write(stdev(there))}"
    return text if len(there) == len(values) else f"{text} ({len(there)} of {len(values)})"
