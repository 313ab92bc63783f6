"""One node of a Redis Cluster during a load: its connection, and the thread that feeds it."""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import redis

from feature_seed.errors import StoreUnavailableError
from feature_seed.store.block import Block
from feature_seed.store.replication import PrimaryConnection

# How many parts of blocks a slow node may be behind. Then the other nodes wait for it.
BLOCKS_AHEAD = 8

# Replies that say to try elsewhere or later. The node has done nothing then, and nothing of a transaction. After ASK,
# as after TRYAGAIN, an entity waits until its slot has moved: an entity has several keys, which move one by one.
_REDIRECTS = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "NOSCRIPT")


class NodeConnection(PrimaryConnection):
    """A bulk connection to one node, with a thread that feeds it, so that no node waits for another.

    Without threads, a load of three nodes on two busy cores takes more than twice as long. Entities that are to be
    tried elsewhere or later go into `redirected`, with the node's reply to the first of them.
    """

    def __init__(
        self,
        connection: redis.Connection,
        scripts: Sequence[str],
        wait_replicas: int,
        redirected: deque[tuple[Block, str]],
    ) -> None:
        super().__init__(connection, scripts, wait_replicas)
        self._redirected = redirected
        self._replies_by_entity: dict[int, str] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=self.node)
        self._pending: deque[Future[None]] = deque()

    def begin(self, step: Callable[..., None], *arguments: Any) -> None:
        """Have the thread do a step after the earlier ones. Wait while the node is too far behind."""
        self._pending.append(self._thread.submit(step, *arguments))
        self.join(BLOCKS_AHEAD)

    def join(self, left: int = 0) -> bool:
        """Wait until at most `left` steps are left. Returns whether some are. Raises the error of an ended step."""
        while self._pending and (len(self._pending) > left or self._pending[0].done()):
            with during_the_load(self.node):
                self._pending.popleft().result()
        return bool(self._pending)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        super().close()  # ends whatever the thread may be waiting for
        self._thread.shutdown()

    def _refuse(self, block: Block, entity: int, reply: str) -> None:
        several = b"" if block.collect else b".*, "  # an entity with one key has no keys that must share a slot
        if re.match(rb"[^{]*\{\}" + several, block.keys[entity], re.DOTALL):  # the tag is empty
            super()._refuse(
                block, entity, f"{reply} (an id that begins with '}}' has no slot: Redis takes no such tag)"
            )
        if reply.startswith(_REDIRECTS):
            self._replies_by_entity.setdefault(entity, reply)
        elif entity not in self._replies_by_entity:  # of a redirected one, EXEC says that it has discarded all
            super()._refuse(block, entity, reply)

    def _acknowledge(self, block: Block) -> None:
        super()._acknowledge(block)
        if replies := self._replies_by_entity:
            aside, self._replies_by_entity = block.pick([*replies]), {}
            self._redirected.append((aside, next(iter(replies.values()))))
            self.shards.subtract(aside.shards)
            self.commands -= len(aside.keys) * aside.commands
            self.bytes -= len(aside.payload)


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
