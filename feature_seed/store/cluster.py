"""Redis Cluster: every entity goes straight to the primary of its slot, and all primaries receive at the same time."""

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import redis
from redis.cluster import RedisCluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ClusterDownError, NoPermissionError, RedisClusterException

from feature_seed.environment import flag, home, is_set, number, secret
from feature_seed.errors import ConfigurationError, StoreError, StoreUnavailableError, printable
from feature_seed.store.block import Block
from feature_seed.store.bulk import Loading
from feature_seed.store.client import give_name, options_of
from feature_seed.store.cluster_node import BLOCKS_AHEAD, NodeConnection, during_the_load
from feature_seed.store.online_store import OnlineStore
from feature_seed.store.replication import FAILOVER_SECONDS, PAUSE_SECONDS
from feature_seed.store.url import StoreUrl

# How many parts of blocks may wait for their slots. Then the load waits too.
_REDIRECTED_AT_MOST = 100


class ClusterStore(OnlineStore):
    """The Redis Cluster that the scorer reads; `url` names one of its nodes. See feature_seed/store/README.md."""

    @property
    def fails_over(self) -> bool:
        return True

    @contextmanager
    def client(self, name: str | None = None) -> Iterator[redis.Redis]:
        """A client that sends every command to the node it concerns, once every primary answers."""
        self.target.require_node()
        with super().client(name) as node:
            try:
                node.execute_command("CLUSTER SLOTS")
            except NoPermissionError:
                raise  # RedisCluster would not tell the two apart
            except redis.ResponseError as e:
                raise StoreError(
                    f"REDIS_CLUSTER=1 and Redis at {self.address} is not a node of a Redis Cluster: unset "
                    f"REDIS_CLUSTER, or name a node of one in REDIS_URL. {e}"
                ) from e
            cluster = self._connect_to_all(name)
            try:
                yield cast(redis.Redis, cluster)
            finally:
                cluster.close()

    def _loading(self, client: redis.Redis, scripts: Sequence[str]) -> Loading:
        return ClusterConnection(cast(RedisCluster, client), scripts, self.wait_replicas)

    def _connect_to_all(self, name: str | None) -> RedisCluster:
        (host, port), options = self.target.hosts[0], options_of(self.target, self.password)
        del options["retry"]  # RedisCluster's own follows a slot that has moved
        deadline = time.monotonic() + FAILOVER_SECONDS
        while True:
            try:
                cluster = RedisCluster(
                    host, port, ssl=self.target.tls, redis_connect_func=partial(give_name, name), **options
                )
                cluster.ping(target_nodes=RedisCluster.PRIMARIES)
                return cluster
            except redis.AuthenticationError:
                raise
            except (redis.ConnectionError, redis.TimeoutError, ClusterDownError, RedisClusterException):
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_SECONDS)


def store_from_environment() -> OnlineStore:
    """The store that the environment names. A ConfigurationError says what REDIS_URL has that is not understood."""
    url = StoreUrl.of(os.environ["REDIS_URL"]) if is_set("REDIS_URL") else None
    if url and flag("REDIS_CLUSTER"):
        url.require_node()
    if url and is_set("REDIS_SENTINEL_PASSWORD") and not url.primary:
        raise ConfigurationError(
            "REDIS_SENTINEL_PASSWORD is set and REDIS_URL names no sentinels: unset it, or name them as "
            "redis+sentinel://host:26379/mymaster"
        )
    return (ClusterStore if flag("REDIS_CLUSTER") else OnlineStore)(
        url=secret("REDIS_URL"),
        password=secret("REDIS_PASSWORD"),
        sentinel_password=secret("REDIS_SENTINEL_PASSWORD"),
        home=home(),
        wait_replicas=number("FEATURE_SEED_WAIT_REPLICAS", 0, 0, 5),
    )


def primaries(client: redis.Redis) -> list[redis.Redis]:
    """A client of every node that owns slots. For a single Redis, that is the client itself."""
    if not isinstance(client, RedisCluster):
        return [client]
    return [client.get_redis_connection(node) for node in client.get_primaries()]


class ClusterConnection(Loading):
    """A bulk connection to every primary of a cluster.

    Raises StoreUnavailableError when a primary goes away: replication is asynchronous, so a replica that takes over may
    lack what was acknowledged. Only the load as a whole can be repeated.
    """

    def __init__(self, cluster: RedisCluster, scripts: Sequence[str], wait_replicas: int) -> None:
        super().__init__()
        self._cluster = cluster
        self._scripts = scripts
        self._wait_replicas = wait_replicas
        self._owners = _owners(cluster)
        self._nodes: dict[str, NodeConnection] = {}
        self._redirected: deque[tuple[Block, str]] = deque()
        self.resent = 0

    @property
    def entities(self) -> int:
        return sum(node.entities for node in self._nodes.values())

    def write(self, block: Block) -> None:
        self._send(block)
        if len(self._redirected) > _REDIRECTED_AT_MOST:
            self._resend()

    def keep_alive(self) -> None:
        for node in self._nodes.values():
            if not node.join(BLOCKS_AHEAD):
                node.begin(node.keep_alive)

    def drain(self) -> None:
        self._resend()
        self._join(NodeConnection.drain)
        for node in self._nodes.values():
            for history, offset in node.replication_offsets.items():
                self.replication_offsets[history] = max(offset, self.replication_offsets.get(history, 0))
            self.shards.update(node.shards)
            for shard, outcome in node.outcomes.items():
                self.outcomes[shard] += outcome
            self.commands += node.commands
            self.bytes += node.bytes

    def close(self) -> None:
        for node in self._nodes.values():
            node.close()

    def _send(self, block: Block) -> None:
        owners, positions = self._owners, defaultdict[str, list[int]](list)
        for position, key in enumerate(block.keys):  # 0.5 µs per entity
            positions[owners[key_slot(key)]].append(position)
        for name, its in positions.items():
            node = self._node(name)
            node.begin(node.write, block.pick(its))

    def _node(self, name: str) -> NodeConnection:
        if name not in self._nodes:
            node = self._cluster.get_node(node_name=name)
            assert node  # names come from the cluster's own nodes
            with during_the_load(name):
                connection: Any = self._cluster.get_redis_connection(node).connection_pool.make_connection()
                connection.connect()
                self._nodes[name] = NodeConnection(connection, self._scripts, self._wait_replicas, self._redirected)
        return self._nodes[name]

    def _join(self, step: Callable[[NodeConnection], None]) -> None:
        """Have all nodes do something at the same time, and wait for it."""
        for node in self._nodes.values():
            node.begin(step, node)
        for node in self._nodes.values():
            node.join()

    def _resend(self) -> None:
        """Send what was redirected to the present owners of the slots, until all of it is taken."""
        deadline = time.monotonic() + FAILOVER_SECONDS
        self._join(NodeConnection.flush)
        while self._redirected:
            block, reply = self._redirected[0]
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"Redis Cluster has not taken {printable(block.keys[0])} (slot {key_slot(block.keys[0])}) "
                    f"for {FAILOVER_SECONDS:g} s: {reply}. Look at its slots (redis-cli --cluster check). Run again"
                )
            some = [block for block, _ in self._redirected]
            self._redirected.clear()
            self._refresh()
            self._join(NodeConnection.load_scripts)  # a node may have lost them
            for block in some:
                self._send(block)
            self._join(NodeConnection.keep_alive)  # a node that had nothing to take may close an idle connection
            self.resent += sum(len(block.keys) for block in some)
            if self._redirected:
                time.sleep(PAUSE_SECONDS)

    def _refresh(self) -> None:
        with suppress(RedisClusterException, redis.RedisError):  # in a failover: the next attempt may find an owner
            self._cluster.nodes_manager.initialize()
            self._owners = _owners(self._cluster)


def _owners(cluster: RedisCluster) -> list[str]:
    """The name of the primary of every slot."""
    slots = cluster.nodes_manager.slots_cache
    return [slots[slot][0].name for slot in range(REDIS_CLUSTER_HASH_SLOTS)]
