"""How much a store holds, with the keys of other programs: Redis counts them together."""

from dataclasses import dataclass
from typing import Any

import redis

from feature_seed.store.cluster import primaries
from feature_seed.store.commands import spared
from feature_seed.store.lock import KEY


@dataclass(frozen=True)
class Size:
    """What INFO says of a store; None where it does not."""

    keys: int | None  # in the database, without the lock
    memory_bytes: int | None  # of all that the servers hold, other databases included

    @classmethod
    def of(cls, client: redis.Redis) -> "Size":
        nodes = primaries(client)
        infos: list[Any] = [spared(node.info, {}) for node in nodes]
        if not all(infos):
            return cls(None, None)
        # INFO does not name a database without keys.
        database = f"db{nodes[0].connection_pool.connection_kwargs.get('db') or 0}"
        keys = sum(info.get(database, {"keys": 0})["keys"] for info in infos)
        memory = [info.get("used_memory") for info in infos]
        return cls(keys - (client.get(KEY) is not None), None if None in memory else sum(memory))
