"""How much a store holds: of whoever's keys, since Redis counts no other way."""

from dataclasses import dataclass
from typing import Any

import redis

from feature_seed.store.cluster import primaries
from feature_seed.store.lock import KEY


@dataclass(frozen=True)
class Size:
    """Attributes:
    keys: in the database, without the lock.
    memory_bytes: of all that the servers hold, other databases included.
    """

    keys: int
    memory_bytes: int

    @classmethod
    def of(cls, client: redis.Redis) -> "Size":
        nodes = primaries(client)
        locks: Any = client.exists(KEY)
        return cls(sum(map(_keys, nodes)) - locks, sum(_info(node, "memory").get("used_memory", 0) for node in nodes))


def _keys(node: redis.Redis) -> int:
    database = node.connection_pool.connection_kwargs.get("db") or 0
    return _info(node, "keyspace").get(f"db{database}", {}).get("keys", 0)


def _info(node: redis.Redis, section: str) -> dict[str, Any]:
    found: Any = node.info(section)
    return found
