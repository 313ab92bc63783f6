"""A real Redis server of a test's own, on a free loopback port."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis

from feature_seed.store.local import server_binary


def free_port() -> int:
    """A free port, low enough that 10,000 above it is a port too: nodes of a cluster talk there."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            if (port := probe.getsockname()[1]) < 55_536:
                return port


@contextmanager
def redis_server(
    *options: str, password: str | None = None, port: int | None = None, wait: bool = True
) -> Iterator[int]:
    """Start a server with these command-line options. Gives its port once it answers. It is gone afterwards."""
    port = port or free_port()
    config = f"port {port}\nbind 127.0.0.1\nsave ''\n" + (f"requirepass {password}\n" if password else "")
    server = subprocess.Popen([server_binary(), "-", *options], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert server.stdin
    server.stdin.write(config.encode())
    server.stdin.close()
    try:
        if wait:
            _wait(server, redis.Redis(port=port, password=password))
        yield port
    finally:
        server.kill()
        server.wait()


def _wait(server: subprocess.Popen[bytes], client: redis.Redis) -> None:
    while not answers(client):
        assert server.poll() is None, "redis-server did not start"
        time.sleep(0.01)


def calls(client: redis.Redis, command: str) -> int:
    """How often the server has run this command."""
    stats: Any = client.info("commandstats")
    return stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]


def wait_until_refused(port: int) -> None:
    """Wait until the server that listened there is gone."""
    with suppress(ConnectionError):
        while True:
            with socket.create_connection(("127.0.0.1", port)):
                time.sleep(0.01)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.BusyLoadingError):
        return False
