"""A real Redis Cluster of a test's own: three primaries, and a replica of the first one."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from feature_seed.store.cluster import ClusterStore
from feature_seed_tests.support.patience import HANG_SECONDS, eventually, patient
from feature_seed_tests.support.redis_server import redis_server

# The port that nodes talk to each other on is this much higher than a client's.
_BUS = 10_000

# A third of the slots each, in order.
THIRDS = [range(i * REDIS_CLUSTER_HASH_SLOTS // 3, (i + 1) * REDIS_CLUSTER_HASH_SLOTS // 3) for i in range(3)]


@dataclass(frozen=True, eq=False)
class Node:
    """A server of the cluster."""

    port: int
    password: str
    client: redis.Redis

    @property
    def id(self) -> str:
        return self.ask("CLUSTER", "MYID")

    def ask(self, *command: object) -> Any:
        reply: Any = self.client.execute_command(*command)  # type: ignore[arg-type]
        return reply.decode() if isinstance(reply, bytes) else reply

    def info(self, field: str) -> Any:
        info: Any = self.client.info()
        return info.get(field)

    def kill(self) -> None:
        """End it at once and without a word, like a machine that loses its power."""
        os.kill(int(self.info("process_id")), signal.SIGKILL)

    def owned(self) -> set[int]:
        """The slots that it says are its own."""
        ranges = self.ask("CLUSTER", "SLOTS")
        return {
            slot for first, last, primary, *_ in ranges if primary[1] == self.port for slot in range(first, last + 1)
        }

    def open_slots(self) -> list[str]:
        """Slots whose migration from or to this node has begun and not ended."""
        return re.findall(r"\[(\d+)-[<>]-", self.ask("CLUSTER", "NODES"))


@dataclass(frozen=True)
class Cluster:
    """Three primaries with a third of the slots each, in order; `replica` is of the first. `url` names the second."""

    primaries: tuple[Node, ...]
    replica: Node

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.primaries[1].port}"

    def store(self, **options: Any) -> ClusterStore:
        return ClusterStore(url=self.url, password=self.replica.password, **options)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name it."""
        password = self.replica.password
        return {"REDIS_URL": self.url, "REDIS_PASSWORD": password, "REDIS_CLUSTER": "1", "FEATURE_SEED_KEY_TAGS": "1"}

    def client(self) -> Any:
        return redis.RedisCluster.from_url(
            self.url, password=self.replica.password, protocol=2, socket_timeout=HANG_SECONDS
        )

    def begin_migration(self, slot: int, source: Node, target: Node) -> None:
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)

    def move_keys(self, source: Node, target: Node, *keys: str) -> None:
        auth = ("AUTH", target.password)
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, HANG_SECONDS * 1000, *auth, "KEYS", *keys)

    def end_migration(self, slot: int, source: Node, target: Node) -> None:
        """Move the keys that are left. The target is told first, as redis-cli does."""
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.move_keys(source, target, *keys)
        others = [node for node in self.primaries if node not in (source, target)]
        for node in (target, source, *others):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    def migrate(self, slot: int, source: Node, target: Node) -> None:
        """Move the whole slot, key by key, while the cluster serves."""
        self.begin_migration(slot, source, target)
        self.end_migration(slot, source, target)

    def promote(self, node: Node, *how: str) -> None:
        """Make a replica of the first third its primary."""
        node.ask("CLUSTER", "FAILOVER", *how)
        eventually(lambda: node.info("role") == "master")

    def restore(self) -> None:
        """Roles and slots as they were at first, and no key."""
        first = self.primaries[0]
        self.replica.client.config_set("masterauth", self.replica.password)
        if first.info("role") == "slave":
            eventually(lambda: first.info("master_link_status") == "up")
            self.promote(first, "TAKEOVER")  # a second election would have to wait for twice the node timeout
        eventually(lambda: self.replica.info("master_link_status") == "up")
        for node in self.primaries:
            node.client.flushall()
            for slot in node.open_slots():
                node.ask("CLUSTER", "SETSLOT", slot, "STABLE")
        for node, third in zip(self.primaries, THIRDS, strict=True):
            for slot in set(third) - node.owned():
                self.migrate(slot, next(other for other in self.primaries if slot in other.owned()), node)

    def assert_placed(self) -> None:
        """Every node that is a primary now has keys, and all of them are of slots that it owns."""
        for node in (*self.primaries, self.replica):
            if node.info("role") == "slave":
                continue
            owned = node.owned()
            keys: Any = list(node.client.scan_iter(count=10_000))
            assert keys, node
            assert not [key for key in keys if key_slot(key) not in owned], node


@contextmanager
def redis_cluster(password: str, *options: str) -> Iterator[Cluster]:
    """Start the servers, join them and wait until each knows the others; all are gone afterwards."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="cluster-")))
        nodes = [stack.enter_context(_node(directory / str(i), password, options)) for i in range(4)]
        *primaries, replica = nodes
        for i, node in enumerate(primaries):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            node.ask("CLUSTER", "ADDSLOTS", *THIRDS[i])
        for node, other in combinations(nodes, 2):  # by themselves they spread the word once a second
            node.ask("CLUSTER", "MEET", "127.0.0.1", other.port)
        eventually(lambda: all(_joined(node) for node in nodes))
        replica.ask("CLUSTER", "REPLICATE", primaries[0].id)
        eventually(lambda: replica.info("master_link_status") == "up")
        eventually(lambda: all(node.ask("CLUSTER", "REPLICAS", primaries[0].id) for node in nodes))
        yield Cluster(tuple(primaries), replica)


@contextmanager
def _node(directory: Path, password: str, options: tuple[str, ...]) -> Iterator[Node]:
    directory.mkdir()
    given = {
        "--dir": str(directory),
        "--cluster-enabled": "yes",
        "--cluster-node-timeout": "60000",  # no node counts as dead that only waits for its turn on the CPU
        "--masterauth": password,
        "--repl-diskless-sync-delay": "0",
    }
    settings = [word for option in given.items() for word in option]
    with (
        redis_server(*settings, *options, password=password, port=_free_port()) as port,
        patient(port=port, password=password) as client,
    ):
        yield Node(port, password, client)


def _free_port() -> int:
    """A port whose bus port is free as well."""
    while True:
        with socket.socket() as client, socket.socket() as bus:
            client.bind(("127.0.0.1", 0))
            port = client.getsockname()[1]
            if port + _BUS < 1 << 16:
                try:
                    bus.bind(("127.0.0.1", port + _BUS))
                except OSError:
                    continue
                return port


def _joined(node: Node) -> bool:
    info = node.ask("CLUSTER", "INFO")
    fields = info if isinstance(info, dict) else dict(line.split(":") for line in info.split())
    return fields["cluster_state"] == "ok" and fields["cluster_known_nodes"] == "4"


def ids_in(slot: int) -> Iterator[str]:
    """Ids whose tags are of this slot: one in 16,384 is."""
    return (str(number) for number in count() if key_slot(str(number).encode()) == slot)
