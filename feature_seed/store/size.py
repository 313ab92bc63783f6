"""How much a store holds: of whoever's keys, since Redis counts no other way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from feature_seed.store.cluster import primaries
from feature_seed.store.commands import spared
from feature_seed.store.lock import KEY


@dataclass(frozen=True)
class Size:
    """What INFO says of a store; None where it does not.

    Attributes:
        keys: in the database, without the lock.
        memory_bytes: of all that the servers hold, other databases included.
    """

    keys: int | None
    memory_bytes: int | None

    @classmethod
    def of(cls, client: redis.Redis) -> "Size":
        nodes = primaries(client)
        keys = _sum([_keys(node) for node in nodes])
        if keys is not None and client.get(KEY) is not None:
            keys -= 1
        return cls(keys, _sum([_info(node, "memory").get("used_memory") for node in nodes]))


def _keys(node: redis.Redis) -> int | None:
    """A database without keys is not named."""
    database = node.connection_pool.connection_kwargs.get("db") or 0
    keyspace = _info(node, "keyspace")
    return keyspace.get(f"db{database}", {"keys": 0}).get("keys") if keyspace else None


def _info(node: redis.Redis, section: str) -> dict[str, Any]:
    found: Any = spared(lambda: node.info(section), {})
    return found


def _sum(parts: Sequence[int | None]) -> int | None:
    known = [one for one in parts if one is not None]
    return sum(known) if len(known) == len(parts) else None
