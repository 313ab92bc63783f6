"""A TCP line between a run and a server. It breaks after a given number of bytes."""

import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Literal

Direction = Literal["requests", "replies"]
Kind = Literal["reset", "cut", "pause", "call"]


@dataclass
class Break:
    """What happens `times` times, each after so many more bytes in a direction, in whatever connection they come.

    `reset` ends that connection for both sides with an error, `cut` in mid-message as if it were whole, `pause` lets
    nothing more through until the reader leaves, `call` has something else done.
    """

    kind: Kind
    direction: Direction
    after: int
    times: int = 1
    call: Callable[[], None] = lambda: None


class Proxy:
    """Passes connections to a port of this machine on; `passed` counts the bytes in each direction."""

    def __init__(self, upstream: int) -> None:
        self.passed: Counter[Direction] = Counter()
        self.broken = 0
        self._upstream = upstream
        self._break: Break | None = None
        self._left = 0
        self._lock = Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._accept, name="proxy", daemon=True).start()

    def plan(self, planned: Break) -> None:
        self._break, self._left = planned, planned.after

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):  # of a listener that was closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._upstream))
                except OSError:  # the server is away just now
                    client.close()
                    continue
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each small reply waits for 40 ms
                    self._open.append(end)
                was_reset = Event()
                for source, sink, direction in ((client, server, "requests"), (server, client, "replies")):
                    given = (source, sink, direction, was_reset)
                    Thread(target=self._pass, args=given, name="proxy", daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, direction: Direction, was_reset: Event) -> None:
        with suppress(OSError):  # one side hung up, and the other is told
            while data := source.recv(65536):
                self._deliver(data, source, sink, direction, was_reset)
        for end in (source, sink):
            with suppress(OSError):
                if not was_reset.is_set():
                    end.shutdown(socket.SHUT_RDWR)

    def _deliver(
        self, data: bytes, source: socket.socket, sink: socket.socket, direction: Direction, was_reset: Event
    ) -> None:
        broken, before = self._due(len(data), direction)
        if not broken:
            sink.sendall(data)
            return
        sink.sendall(data[:before])
        if broken.kind == "pause":
            while not _has_left(sink):
                time.sleep(0.05)
            return
        broken.call()
        for end in (source, sink):
            if broken.kind == "reset":
                was_reset.set()
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RD)  # wakes the other thread, whose recv keeps the socket open
                end.close()
            else:
                end.shutdown(socket.SHUT_RDWR)

    def _due(self, count: int, direction: Direction) -> tuple[Break | None, int]:
        """The break within the next so many bytes, and after how many of them it comes."""
        with self._lock:
            self.passed[direction] += count
            planned = self._break
            if not planned or planned.direction != direction:
                return None, 0
            if count < self._left:
                self._left -= count
                return None, 0
            before, self._left = self._left, planned.after
            self.broken += 1
            if self.broken >= planned.times:
                self._break = None
            return planned, before


def _has_left(reader: socket.socket) -> bool:
    try:
        return not reader.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


@contextmanager
def proxy(upstream: int) -> Iterator[Proxy]:
    line = Proxy(upstream)
    try:
        yield line
    finally:
        line.close()
