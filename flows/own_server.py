"""Startup timeout of the Prefect server that a run starts if PREFECT_API_URL is not set."""

from __future__ import annotations

from contextlib import AbstractContextManager

from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings

SECONDS = 300  # startup timeout; Prefect's default of 20 is too short on a busy machine


def patient() -> AbstractContextManager:
    """Give the temporary Prefect server ``SECONDS`` to start, unless Prefect's own setting is set."""
    return temporary_settings(set_defaults={PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: SECONDS})
