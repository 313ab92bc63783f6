"""Preflight: whether the store is fit to be seeded, and whether its user has the rights. Nothing is written here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.exceptions import AskError, ClusterDownError, NoPermissionError

from feature_seed.contract import KEYS, READY
from feature_seed.errors import StoreError
from feature_seed.loading.memory import MemoryEstimate
from feature_seed.store.bulk import NEEDS_CLUSTER
from feature_seed.store.cluster import ClusterStore, primaries
from feature_seed.store.lock import KEY as LOCK
from feature_seed.store.online_store import OnlineStore

# The oldest with every command and every rule of the README's ACL; Valkey says 7.2.4 for this.
OLDEST = (6, 2)

_NO_SCRIPT = "0" * 40

# A key of every kind, by the pattern of its kind.
_KEYS = {f"{key.split(':')[0]}:*": key for key in (LOCK, *(key.of("") for key in KEYS))}

# Every command of the seeder, of its scripts and of its checks, with arguments that it takes.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "CLIENT KILL": ("ID", "0"),
    "CLIENT LIST": (),
    "CLIENT SETNAME": ("",),
    "DEL": (READY.pattern,),
    "EVALSHA": (_NO_SCRIPT, "1", READY.pattern),
    "EXISTS": (READY.pattern,),
    "GET": (READY.pattern,),
    "HDEL": (READY.pattern, "state"),
    "HGETALL": (READY.pattern,),
    "HMGET": (READY.pattern, "state"),
    "HSET": (READY.pattern, "state", ""),
    "HSETNX": (READY.pattern, "state", ""),
    "INFO": (),
    "LRANGE": (READY.pattern, "0", "-1"),
    "LTRIM": (READY.pattern, "0", "-1"),
    "MEMORY USAGE": (READY.pattern,),
    "MSET": (READY.pattern, ""),
    "PING": (),
    "RPUSH": (READY.pattern, ""),
    "SCAN": ("0",),
    "SCRIPT LOAD": ("return 1",),
    "SET": (READY.pattern, ""),
    "TIME": (),
}

# The same of a cluster, and of waiting for replicas.
_CLUSTER_COMMANDS = {"ASKING": (), "CLUSTER SLOTS": (), "COMMAND": ()}
_WAIT_COMMANDS = {"WAIT": ("0", "1")}


@dataclass(frozen=True)
class Server:
    """What a Redis says of itself.

    Attributes:
        version: as far as Redis counts, which Valkey goes on telling.
        replica_of: host and port of its primary, '' when it is one.
        cluster: whether it is a node of a Redis Cluster.
        policy: maxmemory-policy.
        used, limit: bytes; a limit of 0 is none.
        run_id: another after every start.
    """

    version: tuple[int, ...]
    replica_of: str
    cluster: bool
    policy: str
    used: int
    limit: int
    run_id: str

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "Server":
        """From the fields of INFO; managed ones forbid CONFIG, and some leave fields out."""
        replica = info.get("role", "master") != "master"
        return cls(
            version=tuple(int(part) for part in str(info["redis_version"]).split(".")[:2]),
            replica_of=f"{info.get('master_host')}:{info.get('master_port')}" if replica else "",
            cluster=bool(info.get("cluster_enabled")),
            policy=str(info.get("maxmemory_policy", "noeviction")),
            used=int(info["used_memory"]),
            limit=int(info.get("maxmemory", 0)),
            run_id=str(info.get("run_id", "")),
        )

    @classmethod
    def together(cls, servers: Sequence["Server"]) -> "Server":
        """As one: slots are spread evenly, so the first node to be full ends the load.

        There is no id of a start: that a failover has lost nothing is looked into where the store is called ready.
        """
        if len(servers) == 1 and not servers[0].cluster:
            return servers[0]
        count = len(servers)
        fullest = min(servers, key=lambda one: one.limit - one.used if one.limit else math.inf)
        policy = next((one.policy for one in servers if one.evicts), fullest.policy)
        return replace(fullest, policy=policy, used=fullest.used * count, limit=fullest.limit * count, run_id="")

    @property
    def evicts(self) -> bool:
        """Whether it may evict features; volatile-* only takes keys that expire, and features do not."""
        return self.limit > 0 and self.policy.startswith("allkeys-")

    def shortage(self, estimate: MemoryEstimate) -> str:
        """What is wrong with its memory, with the figures, for features that need this much; '' if nothing."""
        limit, used = _mb(self.limit), _mb(self.used)
        if self.evicts:
            return (
                f"Redis may evict features: its maxmemory-policy is {self.policy}, its maxmemory is {limit}, {used} "
                f"are in use, and this load needs about {_mb(estimate.needed)}. Set the policy to noeviction"
            )
        if self.limit and estimate.needed > self.limit - self.used:
            entities = ", ".join(f"{count:,} entities of {name}" for name, count in estimate.entities.items())
            return (
                f"Redis has too little memory: {entities} are not there yet and need about {_mb(estimate.needed)}. "
                f"Its maxmemory is {limit}, and {used} are in use. "
                f"Free memory, or raise maxmemory to {_mb(self.used + estimate.needed)} or more"
            )
        return ""


def examine(client: redis.Redis, store: OnlineStore) -> Server:
    """What the store is, all its primaries together.

    Raises:
        StoreError: a replica, a node of a cluster, too old, or its user lacks a right; with what to do.
    """
    clustered = _CLUSTER_COMMANDS if isinstance(store, ClusterStore) else {}
    waited = _WAIT_COMMANDS if store.wait_replicas else {}
    needed = {**COMMANDS, **clustered, **waited}
    return Server.together([_examine(primary, store, needed) for primary in primaries(client)])


def _examine(client: redis.Redis, store: OnlineStore, needed: Mapping[str, tuple[str, ...]]) -> Server:
    info: Any = client.info()
    server = Server.of(info)
    if server.replica_of:
        raise StoreError(
            f"Redis at {store.address} is a replica of {server.replica_of}: point REDIS_URL at the primary"
        )
    if server.version < OLDEST:
        raise StoreError(
            f"Redis at {store.address} is {info['redis_version']}, which lacks commands and rights that are needed: "
            f"use {'.'.join(map(str, OLDEST))} or newer"
        )
    if server.cluster and not isinstance(store, ClusterStore):
        raise StoreError(f"Redis at {store.address} refuses: {NEEDS_CLUSTER}")
    _require_rights(client, store, needed)
    return server


def _require_rights(client: redis.Redis, store: OnlineStore, needed: Mapping[str, tuple[str, ...]]) -> None:
    connection = client.connection_pool.get_connection()
    try:
        lacking = _missing_rights(connection, needed)
    finally:
        connection.disconnect()  # and with it Redis forgets what is queued
        client.connection_pool.release(connection)
    if lacking:
        user = urlsplit(store.url or "").username or "default"
        raise StoreError(
            f"User {user!r} of Redis at {store.address} lacks rights, and nothing was written: "
            f"ACL SETUSER {user} {' '.join(lacking)}"
        )


def _missing_rights(connection: Any, commands: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The rules that the user's ACL lacks, found without running anything.

    Redis looks at a command when MULTI queues it. ACL DRYRUN would need a right of its own, and Redis 7.
    """
    if _refusal(connection, "MULTI"):
        return ["+multi"]  # without it, what follows would be run
    lacking = []
    if _refusal(connection, "EXEC"):
        lacking.append("+exec")
    else:
        _refusal(connection, "MULTI")
    for command, arguments in commands.items():
        if "run the" in _refusal(connection, *command.split(), *arguments):
            lacking.append(f"+{command.replace(' ', '|').lower()}")
    for pattern, key in _KEYS.items():
        if "key" in _refusal(connection, "EVALSHA", _NO_SCRIPT, "1", key):
            lacking.append(f"~{pattern}")
    return lacking


def _refusal(connection: Any, *command: str) -> str:
    """Why the user may not give this command, '' when he may."""
    connection.send_command(*command, check_health=False)
    try:
        connection.read_response()
    except NoPermissionError as e:
        return str(e)
    except (AskError, ClusterDownError):  # rights come first: another node's key is no lack of one
        return ""
    return ""


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
