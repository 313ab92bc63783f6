"""What can go wrong between a ClickHouse server and its client, played by the endpoint of the tests."""

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, TypeVar

Counts = TypeVar("Counts")

# Faults of the line come after some bytes of the response. The other faults come after some blocks of the result.
LINE = ("cut", "reset", "stall")

_PROGRESS_SECONDS = 0.2

# ClickHouse's http_send_timeout, unless its default profile has another.
SEND_SECONDS = 30


@dataclass(frozen=True)
class Fault:
    """What is played in the next `times` streamed SELECTs, or in any requests with `everything`.

    - cut, reset, stall: after `after` bytes of the response the connection is closed, reset, or left open in silence.
    - end: after `after` blocks the response ends as a whole one does.
    - exception, old_exception: after `after` blocks an error as ClickHouse reports it since 25.11, and before that.
    - run: after `after` blocks `sql` is run, by another connection.
    - slow: from block `after` on, `seconds` before each block.
    - impatient: an http_send_timeout of `seconds`.
    - busy: status 503 in place of an answer.
    - none: nothing more.
    - late: for `seconds` only headers of progress.
    """

    kind: str
    after: int = 0
    times: int = 1
    seconds: float = 0
    sql: str = ""
    everything: bool = False


class HungUpError(Exception):
    """The connection was broken on purpose."""


class Faults:
    """The fault to be played next, and what was noticed of readers."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._next: Fault | None = None
        self.played = self.left = self.gave_up = self.ended = 0

    def plan(self, fault: Fault) -> None:
        with self._lock:
            self._next = fault
            self.played = self.left = self.gave_up = self.ended = 0

    def take(self, *, streamed: bool) -> Fault | None:
        with self._lock:
            fault = self._next
            if fault is None or not (streamed or fault.everything):
                return None
            self.played += 1
            self._next = replace(fault, times=fault.times - 1) if fault.times > 1 else None
            return fault


class Line:
    """A response's way to the socket, on which `fault` happens."""

    closed = False

    def __init__(self, wire: Any, connection: socket.socket, fault: Fault) -> None:
        self._wire = wire
        self._connection = connection
        self._kind = fault.kind
        self._left = fault.after

    def write(self, data: bytes) -> int:
        self._wire.write(data[: self._left])
        if len(data) > self._left:
            self._wire.flush()
            self._break()
        self._left -= len(data)
        return len(data)

    def flush(self) -> None:
        self._wire.flush()

    def close(self) -> None:
        self._wire.close()

    def _break(self) -> None:
        if self._kind == "stall":
            while self._connection.recv(65536):
                """Wait until the reader leaves."""
            raise ConnectionResetError("The reader left")
        if self._kind == "reset":
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, self._connection.fileno())  # closed at once, whoever still holds the socket
            os.close(nothing)
        else:
            self._connection.shutdown(socket.SHUT_RDWR)
        raise HungUpError


def disturbed(
    fault: Fault, blocks: Iterator[tuple[bytes, Counts]], push: Callable[[], None], run: Callable[[str], None]
) -> Iterator[tuple[bytes, Counts]]:
    """The blocks of a result, with the `fault`. A fault that is an exception raises its text."""
    memory = "Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED)"
    for number, (data, counts) in enumerate(blocks):
        if fault.kind in LINE:
            push()  # without this a small answer is one chunk, and a reader gets nothing of a chunk that is cut
        elif fault.kind == "slow" and number >= fault.after:
            push()
            time.sleep(fault.seconds)
        elif number == fault.after:
            if fault.kind == "end":
                return
            if fault.kind == "exception":
                push()
                raise RuntimeError(memory)
            if fault.kind == "old_exception":
                yield memory.encode() + b"\n", counts
                return
            if fault.kind == "run":
                run(fault.sql)
        yield data, counts


def hang_up_on_a_slow_reader(connection: socket.socket, fault: Fault) -> None:
    """Behave like a server that can send nothing for so long, by a BlockingIOError."""
    seconds = fault.seconds if fault.kind == "impatient" else SEND_SECONDS
    whole = int(seconds)
    timeout = struct.pack("ll", whole, int((seconds - whole) * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)


def late(fault: Fault, send: Callable[[], None]) -> None:
    """Behave like a server that only scans for a while."""
    until = time.monotonic() + fault.seconds
    while time.monotonic() < until:
        send()
        time.sleep(_PROGRESS_SECONDS)
