"""A real Redis Sentinel of a test's own: a primary, a replica of it, and three sentinels that watch both."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from feature_seed.store.local import server_binary
from feature_seed_tests.support.processes import eventually
from feature_seed_tests.support.redis_server import free_port, redis_server

NAME = "my-primary"

# Two of three agree within this time that the primary is gone.
_DOWN_MILLISECONDS = 400


@dataclass(frozen=True)
class Sentinels:
    """Two servers that share `password`, and sentinels that ask for `sentinel_password`."""

    servers: Sequence[redis.Redis]
    ports: Sequence[int]
    password: str
    sentinel_password: str

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/{NAME}"

    def sentinel(self) -> redis.Redis:
        return redis.Redis(port=self.ports[0], password=self.sentinel_password)

    def primary(self) -> redis.Redis:
        """The server that the first sentinel names."""
        with self.sentinel() as sentinel:
            _, port = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return next(one for one in self.servers if one.connection_pool.connection_kwargs["port"] == int(port))

    def fail_over(self) -> None:
        """On purpose, and both servers go on: the sentinels make the replica the primary, and the other its replica."""
        before = self.primary()
        with self.sentinel() as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", NAME)
        eventually(lambda: self.primary() is not before and role(self.primary()) == "master", "failover")

    def kill(self) -> None:
        """The primary, at once and without a word."""
        os.kill(self.primary().info("server")["process_id"], signal.SIGKILL)


def role(server: redis.Redis) -> str:
    return server.info("replication")["role"]


@contextmanager
def redis_sentinels(password: str, sentinel_password: str) -> Iterator[Sentinels]:
    """Start all five, and wait until every sentinel knows of everyone; all are gone afterwards."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="sentinels-")))
        options = ("--masterauth", password, "--repl-diskless-sync-delay", "0", "--dir", str(home))
        primary = stack.enter_context(redis_server(*options, password=password))
        follows = ("--replicaof", "127.0.0.1", str(primary), "--dbfilename", "replica.rdb")
        replica = stack.enter_context(redis_server(*options, *follows, password=password))
        servers = [stack.enter_context(redis.Redis(port=port, password=password)) for port in (primary, replica)]
        eventually(lambda: servers[1].info("replication")["master_link_status"] == "up", "replication")
        ports = [stack.enter_context(_sentinel(home, primary, password, sentinel_password)) for _ in range(3)]
        for port in ports:
            with redis.Redis(port=port, password=sentinel_password) as sentinel:
                eventually(lambda asked=sentinel: _knows_all(asked), "sentinels")
        yield Sentinels(servers, ports, password, sentinel_password)


@contextmanager
def _sentinel(home: Path, primary: int, password: str, sentinel_password: str) -> Iterator[int]:
    port = free_port()
    config = home / f"sentinel-{port}.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\nrequirepass {sentinel_password}\ndir {home}\n"
        f"sentinel monitor {NAME} 127.0.0.1 {primary} 2\n"
        f"sentinel auth-pass {NAME} {password}\n"
        f"sentinel down-after-milliseconds {NAME} {_DOWN_MILLISECONDS}\n"
        f"sentinel failover-timeout {NAME} 3000\n"
    )
    process = subprocess.Popen([server_binary(), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def _knows_all(sentinel: redis.Redis) -> bool:
    try:
        found = sentinel.sentinel_masters()[NAME]  # type: ignore[index]
    except redis.ConnectionError:
        return False
    return found["num-other-sentinels"] == 2 and found["num-slaves"] == 1 and found["flags"] == "master"
