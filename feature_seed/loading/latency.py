"""The latency of the store: how long a reader waits for an answer during a load."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import redis

from feature_seed.store.cluster import primaries
from feature_seed.store.online_store import OnlineStore
from feature_seed.store.redis_py import opened_socket

INTERVAL_SECONDS = 0.01

# By how much two machines' clocks may drift apart.
_CLOCK_DRIFT = 50e-6


@contextmanager
def probes(store: OnlineStore, on_latency: Callable[[float], None]) -> Iterator[Callable[[], None]]:
    """Measure the store's latency in a thread that ends with the context, and tell `on_latency` each time, in seconds.

    Gives a function that raises the error that ended the probes before their time.
    """
    left = Event()
    failures: list[redis.RedisError] = []

    def probe(clock: "_Stopwatch") -> None:
        try:
            while not left.wait(INTERVAL_SECONDS):
                on_latency(clock.answer())
        except redis.RedisError as e:
            failures.append(e)

    def require() -> None:
        if failures:
            raise failures[0]

    with store.client() as whole:
        client = primaries(whole)[0]  # of a cluster, one for all
        connection = client.connection_pool.get_connection()
        opened = opened_socket(connection)
        thread = Thread(target=probe, args=(_Stopwatch(connection),), name="probes", daemon=True)
        thread.start()
        try:
            yield require
        finally:
            left.set()
            _interrupt(opened)
            thread.join()
            connection.disconnect()
            client.connection_pool.release(connection)


class _Stopwatch:
    """Measures how long the store takes to answer, not how long this process takes to notice.

    A busy seeder wakes up milliseconds late (2 % of its answers on two full cores). So the store says when it served
    the probe; of its clock, only changes count: what it shows beyond the soonest answer was spent waiting there.
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
        self._soonest = min(self._soonest + INTERVAL_SECONDS * _CLOCK_DRIFT, served)
        return min(self._shortest + served - self._soonest, noticed)  # also when somebody sets a clock


def _interrupt(opened: socket.socket) -> None:
    """End a read that may be waiting for a server that does not answer; TLS's own shutdown would break its reader."""
    with suppress(OSError):  # closed already
        socket.socket.shutdown(opened, socket.SHUT_RDWR)
