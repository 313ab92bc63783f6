"""Preflight: whether the store is fit to be seeded, and whether its user has the rights. Nothing is written here."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis

from feature_seed.errors import StoreError, StoreUnavailableError
from feature_seed.loading.memory import MemoryEstimate
from feature_seed.loading.rights import require_rights
from feature_seed.store.bulk import NEEDS_CLUSTER
from feature_seed.store.cluster import ClusterStore, primaries
from feature_seed.store.commands import (
    FIELDS,
    NEEDED,
    NEEDED_BY_DECLARED,
    NEEDED_IN_CLUSTERS,
    NEEDED_IN_FAILOVERS,
    NEEDED_TO_WAIT,
    Commands,
    spared,
)
from feature_seed.store.online_store import OnlineStore

# The oldest with every command and every rule of the README's ACL; Valkey says 7.2.4 for this.
OLDEST = (6, 2)


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
        losses: what is less good since the store lacks a command or says too little, in a text each.

    What the store does not say is empty or 0.
    """

    version: tuple[int, ...]
    replica_of: str
    cluster: bool
    policy: str
    used: int
    limit: int
    run_id: str
    losses: tuple[str, ...] = ()

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "Server":
        """From the fields of INFO; managed ones forbid CONFIG, and some leave fields out."""
        replica = info.get("role", "master") != "master"
        return cls(
            version=tuple(int(part) for part in str(info.get("redis_version", "")).split(".")[:2] if part),
            replica_of=f"{info.get('master_host')}:{info.get('master_port')}" if replica else "",
            cluster=bool(info.get("cluster_enabled")),
            policy=str(info.get("maxmemory_policy", "noeviction")),
            used=int(info.get("used_memory", 0)),
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
        losses = tuple(dict.fromkeys(loss for one in servers for loss in one.losses))
        policy = next((one.policy for one in servers if one.evicts), fullest.policy)
        return replace(
            fullest, policy=policy, used=fullest.used * count, limit=fullest.limit * count, run_id="", losses=losses
        )

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


def examine(client: redis.Redis, store: OnlineStore, declared: Sequence[str] = ()) -> Server:
    """What the store is, all its primaries together. `declared` are the keys of declared features, as patterns.

    Raises:
        StoreError: a replica, a node of a cluster, too old, or without a command or right that is needed; with what
            to do.
        StoreUnavailableError: sentinels still name a primary that is none any more.
    """
    needed = {
        **NEEDED,
        **(NEEDED_BY_DECLARED if declared else {}),
        **(NEEDED_IN_CLUSTERS if isinstance(store, ClusterStore) else {}),
        **(NEEDED_IN_FAILOVERS if store.fails_over else {}),
        **(NEEDED_TO_WAIT if store.wait_replicas else {}),
    }
    server = Server.together([_examine(primary, store, needed, declared) for primary in primaries(client)])
    return replace(server, run_id="") if store.fails_over else server


def _examine(client: redis.Redis, store: OnlineStore, needed: Commands, declared: Sequence[str]) -> Server:
    info: Any = spared(client.info, {})
    server = Server.of(info)
    if server.replica_of:
        _refuse_replica(store, server)
    if server.version and server.version < OLDEST:
        raise StoreError(
            f"Redis at {store.address} is {info['redis_version']}, which lacks commands and rights that are needed: "
            f"use {'.'.join(map(str, OLDEST))} or newer"
        )
    if server.cluster and not isinstance(store, ClusterStore):
        raise StoreError(f"Redis at {store.address} refuses: {NEEDS_CLUSTER}")
    losses = require_rights(client, store, needed, declared)
    if store.fails_over and not info.get("master_replid"):
        raise StoreError(
            f"Redis at {store.address} leaves master_replid out of INFO, without which a failover cannot be seen"
        )
    return replace(server, losses=(*losses, *unsaid(store, info)))


def _refuse_replica(store: OnlineStore, server: Server) -> None:
    if store.fails_over:
        raise StoreUnavailableError(
            f"Redis at {store.address} names a replica of {server.replica_of} as a primary: a failover is under way"
        )
    raise StoreError(f"Redis at {store.address} is a replica of {server.replica_of}: point REDIS_URL at the primary")


def unsaid(store: OnlineStore, info: Mapping[str, Any]) -> list[str]:
    """What the fields cost that INFO leaves out; where there is none, that is known already."""
    missing = [field for field in FIELDS if info and field not in info]
    return [f"Redis at {store.address} leaves {field} out of INFO, so {FIELDS[field]}" for field in missing]


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
