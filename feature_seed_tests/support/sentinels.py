"""A real Redis Sentinel of a test's own: a primary, a replica of it, and three sentinels that watch both."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis

from feature_seed.store.block import Block
from feature_seed.store.local import server_binary
from feature_seed.store.replication import PrimaryConnection
from feature_seed_tests.support.patience import eventually
from feature_seed_tests.support.redis_server import answers, free_port, redis_server

NAME = "my-primary"

# After this time, two of three sentinels agree that the primary is gone.
_DOWN_MILLISECONDS = 2000


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
            address: Any = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return next(one for one in self.servers if one.connection_pool.connection_kwargs["port"] == int(address[1]))

    def fail_over(self) -> None:
        """Fail over on purpose. The replica becomes the primary, the other server its replica. Both go on."""
        before = self.primary()
        with self.sentinel() as sentinel:
            eventually(lambda: _accepted(sentinel))
        eventually(lambda: self.primary() is not before and role(self.primary()) == "master")

    @property
    def other(self) -> redis.Redis:
        """The server that is not the primary."""
        return next(one for one in self.servers if one is not self.primary())

    def settle(self) -> None:
        """Have the former primary follow the new one at once. Sentinels let it go on for ten seconds."""
        other, place = self.other, self.primary().connection_pool.connection_kwargs
        other.replicaof("127.0.0.1", place["port"])
        eventually(lambda: other.info("replication").get("master_link_status") == "up")

    def kill(self) -> None:
        """End the primary, at once and without a word."""
        os.kill(self.primary().info("server")["process_id"], signal.SIGKILL)


def _accepted(sentinel: redis.Redis) -> bool:
    """Whether the sentinel accepts a failover: not while it has only just met the replica."""
    try:
        return bool(sentinel.execute_command("SENTINEL", "FAILOVER", NAME))
    except redis.ResponseError as e:
        assert "NOGOODSLAVE" in str(e) or "INPROG" in str(e)
        return False


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
        eventually(lambda: servers[1].info("replication")["master_link_status"] == "up")
        ports = [stack.enter_context(sentinel_of(primary, password, sentinel_password)) for _ in range(3)]
        for port in ports:
            with redis.Redis(port=port, password=sentinel_password) as sentinel:
                eventually(lambda asked=sentinel: _knows_all(asked))
        yield Sentinels(servers, ports, password, sentinel_password)


@contextmanager
def sentinel_of(
    primary: int, password: str, sentinel_password: str, *config_lines: str, name: str = NAME
) -> Iterator[int]:
    """Start a sentinel that takes the server at this port for the primary of this name. Gives the sentinel's port."""
    port = free_port()
    with TemporaryDirectory(prefix="sentinel-") as home:
        config = Path(home) / "sentinel.conf"
        config.write_text(
            "".join(f"{line}\n" for line in config_lines)
            + f"port {port}\nbind 127.0.0.1\nrequirepass {sentinel_password}\ndir {home}\n"
            f"sentinel monitor {name} 127.0.0.1 {primary} 2\n"
            f"sentinel auth-pass {name} {password}\n"
            f"sentinel down-after-milliseconds {name} {_DOWN_MILLISECONDS}\n"
            f"sentinel failover-timeout {name} 3000\n"
        )
        process = subprocess.Popen([server_binary(), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
        try:
            eventually(lambda: answers(redis.Redis(port=port, password=sentinel_password)))
            yield port
        finally:
            process.kill()
            process.wait()


def _knows_all(sentinel: redis.Redis) -> bool:
    found: Any = sentinel.sentinel_masters()
    known = found[NAME]
    return known["num-other-sentinels"] == 2 and known["num-slaves"] == 1 and known["flags"] == "master"


def at_first_block(happen: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Have something happen once, before the next load sends its first block."""
    write, happened = PrimaryConnection.write, False

    def breaking(self: PrimaryConnection, block: Block) -> None:
        nonlocal happened
        if not happened:
            happened = True
            happen()
        write(self, block)

    patch.setattr(PrimaryConnection, "write", breaking)
