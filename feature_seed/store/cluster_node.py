"""One node of a Redis Cluster during a load."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import redis
from redis.crc import key_slot

from feature_seed.errors import StoreUnavailableError
from feature_seed.store.block import Block
from feature_seed.store.replication import PrimaryConnection

# Replies that say to try elsewhere or later. Nothing was done then; of a transaction, nothing at all. What an ASK is
# about waits until its slot has moved, as after TRYAGAIN: an entity has several keys, and they move one by one.
_REDIRECTS = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "NOSCRIPT")


@dataclass(frozen=True)
class Redirection:
    """An entity that a node did not take, what it replied, and when (by the monotonic clock) that was so first."""

    block: Block
    reply: str
    since: float

    @property
    def slot(self) -> int:
        return key_slot(self.block.keys[0])


class NodeConnection(PrimaryConnection):
    """A bulk connection to one node. What the node says is to be tried elsewhere or later, it adds to `redirected`."""

    # Parts of blocks that a node may be behind before the others wait for it.
    blocks_ahead = 8

    def __init__(
        self,
        connection: redis.Connection,
        wait_replicas: int,
        scripts: Sequence[str],
        redirected: list[Redirection],
    ) -> None:
        super().__init__(connection, wait_replicas)
        self._scripts = scripts
        self._redirected = redirected
        self._replies_by_entity: dict[int, str] = {}
        self._since: dict[bytes, float] = {}
        self._load_scripts()

    def resend(self, ones: Sequence[Redirection]) -> None:
        """Send what was redirected, by this node or another. The node may have lost its scripts."""
        self.flush()
        self._load_scripts()
        self._since = {one.block.keys[0]: one.since for one in ones}
        for one in ones:
            self.write(one.block)
        self.flush()
        self._since = {}

    def _load_scripts(self) -> None:
        for script in self._scripts:
            self.ask("SCRIPT", "LOAD", script)

    def _refuse(self, block: Block, entity: int, reply: str) -> None:
        if _span_slots(block.keys[entity]):
            super()._refuse(
                block, entity, f"{reply} (an id that begins with '}}' has no slot: Redis takes no such tag)"
            )
        if reply.startswith(_REDIRECTS):
            self._replies_by_entity.setdefault(entity, reply)
        elif entity not in self._replies_by_entity:  # where it is, EXEC says that it has discarded everything
            super()._refuse(block, entity, reply)

    def _acknowledge(self, block: Block) -> None:
        super()._acknowledge(block)
        for entity, reply in self._replies_by_entity.items():
            one = block.pick([entity])
            self._redirected.append(Redirection(one, reply, self._since.get(one.keys[0], time.monotonic())))
            self.shards.subtract(one.shards)
            self.commands -= one.commands
            self.bytes -= len(one.payload)
        self._replies_by_entity.clear()


@contextmanager
def during_the_load(node: str) -> Iterator[None]:
    try:
        yield
    except redis.AuthenticationError:
        raise
    except (redis.ConnectionError, redis.TimeoutError, OSError) as e:
        raise StoreUnavailableError(
            f"Node {node} of the Redis Cluster went away during the load, and a replica that takes over may lack what "
            f"it had acknowledged: run again. {e}"
        ) from e


def _span_slots(keys: bytes) -> bool:
    """Whether these are several keys that share no slot, since their tag is empty."""
    return keys.partition(b"{")[2].startswith(b"}") and b", " in keys
