"""The sockets of a client of ClickHouse, so that one thread can end what another is reading.

This is the one file with names that clickhouse-connect and urllib3 do not document: `HttpClient.http`, and its pool
manager's `pool_classes_by_scheme` and `ConnectionCls`. To close a stream, clickhouse-connect first reads it to its end,
however long the server takes. A method of clickhouse-connect that cancels a stream would replace all of this.
"""

import socket
from contextlib import suppress
from threading import Lock
from typing import Any
from weakref import WeakSet

from clickhouse_connect.driver.httpclient import HttpClient
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from feature_seed.errors import WarehouseError


class Sockets:
    """Every socket that a client with a pool of its own opens from now on."""

    def __init__(self, client: HttpClient) -> None:
        self._open: WeakSet[socket.socket] = WeakSet()
        self._lock = Lock()
        self._interrupted = False
        client.http.clear()  # sockets that were opened before are not known here
        client.http.pool_classes_by_scheme = {
            "http": _pool(HTTPConnectionPool, HTTPConnection, self),
            "https": _pool(HTTPSConnectionPool, HTTPSConnection, self),
        }

    def add(self, opened: socket.socket) -> None:
        """Raise a WarehouseError once all are hung up: the client would try an ended query again."""
        with self._lock:
            self._open.add(opened)
            if self._interrupted:
                raise WarehouseError("Nobody waits for this answer any more")

    def interrupt(self) -> None:
        """End all connections. A read that waits for the server returns at once, and the server drops its query."""
        with self._lock:
            self._interrupted = True
            for one in self._open:
                with suppress(OSError):  # closed already
                    socket.socket.shutdown(one, socket.SHUT_RDWR)  # TLS's own takes the session from under the reader


def _pool(pool: Any, connection: Any, sockets: Sockets) -> Any:
    class Connection(connection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self.sock)

    return type("Pool", (pool,), {"ConnectionCls": Connection})
