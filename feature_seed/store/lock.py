"""The lock: one run at a time writes to a store, on whatever machine and Dagster instance the runs are.

The lock is a lease. A thread renews the lease while its run writes, and the lease of a killed run ends by itself. All
steps of a run share the lock, and so do the runs of one backfill.
"""

import os
import socket
import time
from dataclasses import dataclass
from functools import partial
from threading import Event, Thread
from typing import Any

import dagster as dg

from feature_seed.errors import StoreError, StoreUnavailableError
from feature_seed.sql import lua
from feature_seed.store.cluster import primaries
from feature_seed.store.commands import spared
from feature_seed.store.online_store import OnlineStore

KEY = "feature_seed:lock"

# How long a killed run keeps others out. The lease is renewed three times as often, so a slow answer costs nothing.
LEASE_SECONDS = 30.0

# How long a run waits for another: long enough for the lease of a killed run, or for a small run, to end.
WAIT_SECONDS = 90.0

_POLL_SECONDS = 0.5

_FREE, _OURS = 1, 2

# How the names of connections that write begin.
_WRITERS = "feature_seed:"

_SCRIPT = lua("store/lock")


@dataclass(frozen=True)
class Owner:
    name: str  # the same in all processes that share the lock
    shared: bool  # whether others may share it: then nobody frees it, and it runs out

    @classmethod
    def of(cls, run: dg.DagsterRun, *, processes: bool) -> "Owner":
        """The backfill that the run belongs to, or else the run. Its steps may have `processes` of their own."""
        backfill = run.tags.get("dagster/backfill")
        return cls(f"backfill {backfill}", True) if backfill else cls(f"run {run.run_id}", processes)

    @property
    def prefix(self) -> str:
        """How the text of the lock begins while this owner holds it."""
        return f"{self.name} on "

    @property
    def connection(self) -> str:
        """The name of connections that write while this owner holds the lock."""
        return f"{_WRITERS}{self.name.replace(' ', ':')}"

    @property
    def text(self) -> str:
        return f"{self.prefix}{socket.gethostname()} (process {os.getpid()})"


class StoreLock:
    """A run's hold on a store, in one process of the run."""

    def __init__(self, store: OnlineStore, owner: Owner, *, wait_seconds: float | None = None) -> None:
        self._store = store
        self.owner = owner
        self._wait_seconds = WAIT_SECONDS if wait_seconds is None else wait_seconds
        self._until = 0.0
        self._lost = ""
        self._stopped = Event()
        self._thread: Thread | None = None
        self._ours_to_release = False

    def acquire(self, log: Any) -> bool:
        """Take or renew the lock. Returns whether the lock was free, and not held by this run already.

        A StoreError says who has kept the lock for longer than this run waits, or has taken it since.
        """
        if self._thread:
            self.confirm()
            return False
        was_free = self._wait_until_free(log) == _FREE
        if was_free:
            self._disconnect_others()
        self._ours_to_release |= was_free and not self.owner.shared
        self._stopped = Event()
        self._thread = Thread(target=self._renew_until_stopped, args=(self._stopped,), name="lock", daemon=True)
        self._thread.start()
        return was_free

    def require_held(self) -> None:
        """Raise a StoreError if the lock is known to be lost. That costs nothing, so every block can ask."""
        if not self._lost and time.monotonic() > self._until:
            self._lost = "its lease ran out"
        if self._lost:
            raise StoreError(
                f"{self.owner.name} lost the lock of Redis at {self._store.address} while it wrote: {self._lost}. "
                "Another run may have written in between: run again"
            )

    def confirm(self) -> None:
        """Ask the store itself. Without an error, no other run has had the lock up to now."""
        self._renew()
        self.require_held()

    def stop_renewing(self) -> None:
        """Stop renewing. The lock stays this owner's for the rest of its lease."""
        self._stopped.set()
        if self._thread:
            self._thread.join()
        self._thread, self._lost = None, ""

    def release(self) -> None:
        """Free the lock if this process took it. A lock that the run's processes share is left to run out."""
        self.stop_renewing()
        if self._ours_to_release:
            self._call(0)

    def _wait_until_free(self, log: Any) -> int:
        deadline = time.monotonic() + self._wait_seconds
        told = None
        while isinstance(answer := self._ask(), str):
            if answer != told:
                log.info(f"Redis at {self._store.address} is being seeded by {answer}: waiting for it")
                told = answer
            if time.monotonic() > deadline:
                raise StoreError(
                    f"Redis at {self._store.address} is being seeded by {answer}. This run has waited "
                    f"{self._wait_seconds:g} s for it: let it finish or terminate it, then run again. "
                    f"The lock of a run that was killed ends within {LEASE_SECONDS:g} s"
                )
            time.sleep(_POLL_SECONDS)
        return answer

    def _disconnect_others(self) -> None:
        """Close other runs' connections. A run whose lease ran out while it was suspended may have a block to send."""
        with self._store.client() as client:
            for primary in primaries(client):
                database = primary.connection_pool.connection_kwargs.get("db") or 0
                for other in spared(primary.client_list, []):
                    writes = other["name"].startswith(_WRITERS) and other["name"] != self.owner.connection
                    if writes and int(other["db"]) == database:
                        spared(partial(primary.client_kill_filter, _id=other["id"]), 0)

    def _renew_until_stopped(self, stopped: Event) -> None:
        while not stopped.wait(LEASE_SECONDS / 3) and not self._lost:
            self._renew_in_the_background()

    def _renew_in_the_background(self) -> None:
        try:
            self._renew()
        except StoreUnavailableError:
            return  # tried again until the lease has run out, which `require_held` sees
        except StoreError as e:
            self._lost = str(e)

    def _renew(self) -> None:
        answer = self._ask()
        if answer != _OURS:
            self._lost = f"it is held by {answer}" if isinstance(answer, str) else "its lease ran out"

    def _ask(self) -> int | str:
        """Take the lock or renew it. Returns `_FREE` if it was free, `_OURS`, or the text of another owner."""
        asked = time.monotonic()
        answer = self._call(LEASE_SECONDS)
        if isinstance(answer, bytes):
            return answer.decode(errors="backslashreplace")
        self._until = asked + LEASE_SECONDS
        return answer

    def _call(self, lease_seconds: float) -> Any:
        with self._store.client() as client:
            arguments = [self.owner.prefix, self.owner.text, round(lease_seconds * 1000)]
            return client.register_script(_SCRIPT)([KEY], arguments)
