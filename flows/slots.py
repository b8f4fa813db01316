"""Slots of the global concurrency limit ``gpu``, passed from one heavy stage to the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.concurrency.context import ConcurrencyContext
from prefect.concurrency.sync import concurrency

from flows.checkout import Checkout
from flows.kinds import LIMIT
from vadcore.utils.errors import VadError

KEEP_SECONDS = 60.0  # a slot held for longer is released after the stage, so that other flows get one


class Slots:
    """The concurrency slots that one pipeline run holds.

    A Prefect server with an SQLite database refuses every second request for a slot while it records task states, and its
    client retries only after two or four seconds. Therefore short stages share a slot, one after the other.
    """

    def __init__(self, checkout: Checkout, stopping: threading.Event):
        self._checkout, self._stopping = checkout, stopping
        self._lock = threading.Lock()
        self._idle: list[_Slot] = []
        self._used: list[_Slot] = []

    @contextmanager
    def one(self) -> Iterator[bool]:
        """Wait for a slot and hold it. Yield False if the run is stopped first.

        Raises VadError if the server gives no slot.
        """
        with self._lock:
            slot = self._idle.pop() if self._idle else _Slot(self._checkout)
            self._used.append(slot)
        try:
            yield slot.wait(self._stopping)
        finally:
            with self._lock:
                self._used.remove(slot)
                keep = slot.held and time.monotonic() - slot.since < KEEP_SECONDS and not self._stopping.is_set()
                if keep:
                    self._idle.append(slot)
            if not keep:
                slot.release()

    def release_idle(self) -> None:
        """Release the slots that no stage uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for slot in idle:
            slot.release()

    def release_all(self) -> None:
        """Release every slot, at the end of the run."""
        with self._lock:
            used = list(self._used)
        for slot in used:
            slot.release()
        self.release_idle()


class _Slot:
    """One slot, held by its own thread: Prefect binds a slot to the thread and the run that requested it."""

    def __init__(self, checkout: Checkout):
        self.held, self.since = False, time.monotonic()
        self._checkout = checkout
        self._error: Exception | None = None
        self._answered, self._enough = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, name="slot", daemon=True)
        self._thread.start()

    def _hold(self) -> None:
        try:
            with (
                ConcurrencyContext() as context,
                # a training that has a slot survives a temporary outage of the server
                concurrency(LIMIT, occupy=1, strict=True, raise_on_lease_renewal_failure=False),
            ):
                leases = list(map(str, context.cleanup_lease_ids))
                self._checkout.note_leases(leases, held=True)
                self.held, self.since = True, time.monotonic()
                self._answered.set()
                self._enough.wait()
            self._checkout.note_leases(leases, held=False)
        except Exception as error:  # raised in wait()
            self._error = error
        finally:
            self.held = False
            self._answered.set()

    def wait(self, stopping: threading.Event) -> bool:
        """Wait for the slot and return True; return False if ``stopping`` is set first."""
        while not self._answered.wait(0.2):
            if stopping.is_set():
                return False
        if self._error is not None:
            raise VadError(f"no slot of the concurrency limit {LIMIT}: {self._error}") from self._error
        return True

    def release(self) -> None:
        self._enough.set()
        if self.held:
            self._thread.join(10)
