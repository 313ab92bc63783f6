"""One node of a Redis Cluster during a load: its connection, and the thread that feeds it."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.crc import key_slot

from feature_seed.errors import StoreUnavailableError
from feature_seed.store.block import Block
from feature_seed.store.replication import PrimaryConnection

# Parts of blocks that a slow node may be behind before the others wait for it.
_BLOCKS_AHEAD = 8

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
    """A bulk connection to one node, which sets aside what the node says is to be tried elsewhere or later."""

    def __init__(self, connection: redis.Connection, wait_replicas: int, scripts: Sequence[str]) -> None:
        super().__init__(connection, wait_replicas)
        self._scripts = scripts
        self.redirected: deque[Redirection] = deque()
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
            self.redirected.append(Redirection(one, reply, self._since.get(one.keys[0], time.monotonic())))
            self.shards.subtract(one.shards)
            self.commands -= one.commands
            self.bytes -= len(one.payload)
        self._replies_by_entity.clear()


class NodeSender:
    """A node's connection and the thread that feeds it, so that no node waits for another.

    Without threads, a load of three nodes on two busy cores takes more than twice as long.
    """

    def __init__(self, connection: NodeConnection) -> None:
        self.connection = connection
        self.entities = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=connection.node)
        self._pending: deque[Future[int]] = deque()

    def begin(self, step: Callable[..., object], *arguments: Any) -> None:
        """Have the thread do a step when it has done those before."""

        def run() -> int:
            step(*arguments)
            return self.connection.entities

        self._pending.append(self._thread.submit(run))

    def send(self, block: Block) -> None:
        """Have a block sent; wait while the node is too far behind."""
        self.begin(self.connection.write, block)
        self._take_results(_BLOCKS_AHEAD)

    def keep_alive(self) -> None:
        """Unless it has something to do, or is doing it."""
        self._take_results(_BLOCKS_AHEAD)
        if not self._pending:
            self.begin(self.connection.keep_alive)

    def join(self) -> None:
        self._take_results(0)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.connection.close()  # ends whatever the thread may be waiting for
        self._thread.shutdown()

    def _take_results(self, left: int) -> None:
        """Those that are there, and those that are waited for until so many steps are left."""
        while self._pending and (len(self._pending) > left or self._pending[0].done()):
            with during_the_load(self.connection.node):
                self.entities = self._pending.popleft().result()


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
