"""The Prefect server that a run starts for itself, where PREFECT_API_URL names none."""

from __future__ import annotations

from contextlib import AbstractContextManager

from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings

SECONDS = 300  # to start in; Prefect's own 20 are too few on a busy machine


def patient() -> AbstractContextManager:
    """Runs started within give their own server ``SECONDS`` to start, unless Prefect's setting says otherwise."""
    return temporary_settings(set_defaults={PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: SECONDS})
