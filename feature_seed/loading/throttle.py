"""The throttle: small writes, no faster than a cap, and slower while the store is slow for the scorer that reads it.

Probes find the rate. Each probe that is answered within the limit raises the rate a little, and each late one halves
it. A halving undoes 99 rises, so the rate settles where one probe in a hundred is late: the limit is their p99.
"""

import logging
import socket
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from threading import Event

import redis

from feature_seed.store.block import SLICE_ENTITIES, Block
from feature_seed.store.cluster import primaries
from feature_seed.store.online_store import OnlineStore
from feature_seed.store.redis_py import opened_socket

# At slow rates, a slice is what may be written in this time.
_SLICE_SECONDS = 0.02

# How much of the time that a late timer or a slow answer took may be caught up with.
_CREDIT_SECONDS = 0.05

# Entities per second, under a limit. The slowest rate takes a 25th of the server's time: it disturbs nobody, and ends.
_FIRST_RATE = 8_000.0
_SLOWEST_RATE = 2_000.0

_CUT = 0.5
_RAISE = _CUT ** (-1 / 99)

# So many late answers at the slowest rate, beyond a hundredth of all answers, do not come from this load.
_MAX_LATE_AT_SLOWEST = 20

# The time between two probes.
_INTERVAL_SECONDS = 0.01

# By how much two machines' clocks may drift apart.
_CLOCK_DRIFT = 50e-6


class Throttle:
    """How fast one load writes: at most `max_rate` entities per second, and slow enough for `max_latency_ms`.

    Without a limit, blocks pass as they are.
    """

    def __init__(self, max_rate: float | None = None, max_latency_ms: float | None = None) -> None:
        fastest = max_rate or float("inf")
        self.max_latency_ms = max_latency_ms
        self.waited = 0.0
        self._free = max_rate is None and max_latency_ms is None
        self._bounds = min(_SLOWEST_RATE, fastest), fastest
        self._rate = fastest if max_latency_ms is None else min(_FIRST_RATE, fastest)
        self._due = 0.0
        self._held_back = False
        self._late_at_slowest = 0.0
        self._told = False
        self._latencies = array("d")

    @contextmanager
    def applied(self, blocks: Iterator[Block], store: OnlineStore, log: logging.Logger) -> Iterator[Iterator[Block]]:
        """The blocks, in slices that come when they may be written. The probes end with the context."""
        if self._free:
            yield blocks
            return
        with probes(store, self._adapt) if self.max_latency_ms else nullcontext(lambda: None) as require_probes:
            yield self._slices(blocks, require_probes, log)

    @property
    def metadata(self) -> dict[str, float]:
        """What the probes measured, for the metadata of a load."""
        if not self._latencies:
            return {}
        p99 = sorted(self._latencies)[int(len(self._latencies) * 0.99)]
        return {"probe_p99_ms": round(p99 * 1000, 3)}

    @property
    def summary(self) -> str:
        """How much a load was slowed down, for the end of its log line."""
        slowed = "" if self._free else f", throttled for {self.waited:.1f} s"
        return slowed + "".join(f", p99 of the store's answers {p99:.2f} ms" for p99 in self.metadata.values())

    def _slices(
        self, blocks: Iterator[Block], require_probes: Callable[[], None], log: logging.Logger
    ) -> Iterator[Block]:
        for block in blocks:
            first = 0
            while first < len(block.keys):
                size = max(int(min(self._rate * _SLICE_SECONDS, SLICE_ENTITIES)), 1)
                part = range(first, min(first + size, len(block.keys)))
                self._wait(len(part))
                require_probes()
                self._warn(log)
                yield block.pick(part)
                first = part.stop

    def _warn(self, log: logging.Logger) -> None:
        """Warn once for every time that the store is slow."""
        if self._late_at_slowest >= _MAX_LATE_AT_SLOWEST and not self._told:
            self._told = True
            log.warning(
                f"Redis takes longer than FEATURE_SEED_MAX_LATENCY_MS={self.max_latency_ms:g}, however slow this "
                f"load is: it goes on at {self._bounds[0]:g} entities per second"
            )
        self._told = self._told and self._late_at_slowest > 0

    def _wait(self, entities: int) -> None:
        now = time.monotonic()
        self._due = max(self._due, now - _CREDIT_SECONDS) + entities / self._rate
        if self._due > now:
            self._held_back = True
            time.sleep(self._due - now)
            self.waited += time.monotonic() - now

    def _adapt(self, seconds: float) -> None:
        slowest, fastest = self._bounds
        missed = seconds
        while missed > 0:  # a stall also delays the probes that would have been sent meanwhile
            self._latencies.append(missed)
            missed -= _INTERVAL_SECONDS
        if self.max_latency_ms and seconds * 1000 > self.max_latency_ms:
            self._late_at_slowest = min(self._late_at_slowest + (self._rate == slowest), _MAX_LATE_AT_SLOWEST)
            self._rate = max(self._rate * _CUT, slowest)
            return
        self._late_at_slowest = max(self._late_at_slowest - 1 / 99, 0)
        if self._held_back:  # a load that is slow by itself says nothing about what a faster one would do
            self._held_back = False
            self._rate = min(self._rate * _RAISE, fastest)


@contextmanager
def probes(store: OnlineStore, on_latency: Callable[[float], None]) -> Iterator[Callable[[], None]]:
    """Measure the store's latency in a thread that ends with the context, and tell `on_latency` each time, in seconds.

    Gives a function that raises the error that ended the probes before their time.
    """
    left = Event()

    def probe(clock: "_Stopwatch") -> None:
        while not left.wait(_INTERVAL_SECONDS):
            on_latency(clock.answer())

    with store.client() as whole:
        client = primaries(whole)[0]  # one node of a cluster stands for all
        connection = client.connection_pool.get_connection()
        opened = opened_socket(connection)
        thread = ThreadPoolExecutor(1, "probes")
        probing = thread.submit(probe, _Stopwatch(connection))
        try:
            yield lambda: probing.result() if probing.done() else None
        finally:
            left.set()
            # A read that waits for a server that does not answer ends; TLS's own shutdown would break its reader.
            with suppress(OSError):  # closed already
                socket.socket.shutdown(opened, socket.SHUT_RDWR)
            thread.shutdown()
            connection.disconnect()
            client.connection_pool.release(connection)


class _Stopwatch:
    """Measures how long the store takes to answer, not how long this process takes to notice.

    A busy seeder wakes up milliseconds late (2 % of its answers on two full cores). So the store says when it served
    the probe. Only changes of its clock count: a probe has waited for the time beyond that of the soonest answer.
    """

    def __init__(self, connection: redis.Connection) -> None:
        self._connection = connection
        self._shortest = self._soonest = float("inf")

    def answer(self) -> float:
        """Seconds."""
        sent, started = time.time(), time.perf_counter()
        self._connection.send_command("TIME")
        whole, micro = self._connection.read_response()
        noticed = time.perf_counter() - started
        served = int(whole) + int(micro) / 1e6 - sent
        self._shortest = min(self._shortest, noticed)
        self._soonest = min(self._soonest + _INTERVAL_SECONDS * _CLOCK_DRIFT, served)
        return min(self._shortest + served - self._soonest, noticed)  # also when somebody sets a clock
