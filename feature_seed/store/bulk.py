"""The bulk connection: it sends blocks of ready commands and reads their acknowledgements."""

import math
from abc import ABC, abstractmethod
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from socket import AF_UNIX, SO_SNDBUF, SOL_SOCKET
from typing import Any

import hiredis
import redis

from feature_seed.errors import StoreError, printable
from feature_seed.features.outcome import Outcome
from feature_seed.store.block import SLICE_ENTITIES, Block
from feature_seed.store.redis_py import opened_socket

NEEDS_CLUSTER = "this is a node of a Redis Cluster: set REDIS_CLUSTER=1 and FEATURE_SEED_KEY_TAGS=1"

# What to do about the replies that Redis gives when it will not take a write, by a part of their text.
_ADVICE = {
    "'maxmemory'": "raise maxmemory, or free memory, and run again",
    "read only replica": "point REDIS_URL at the primary",
    "WRONGTYPE": "another program keeps something else there: delete it, or use another database",
    "MISCONF": "Redis cannot persist and refuses writes: look into its log",
    "permissions": "the user lacks a right: feature_seed/store/README.md lists them",
    "MOVED": NEEDS_CLUSTER,
    "CROSSSLOT": NEEDS_CLUSTER,
    "NOSCRIPT": "the script cache was flushed during the load: run again",
}

# TCP gives a connection up to 4 MB by itself, a unix socket 0.2 MB. With 0.2 MB, Redis idles a tenth of the time while
# replies are read.
_SEND_BUFFER = 4_000_000

# How many blocks are sent before replies are waited for: twice what the send buffer holds, if net.core.wmem_max allows
# it. By then the replies of the first lie ready. With one block, each side wakes the other for each 16 KB, a tenth of
# the time of a load. Replies that nobody reads fill buffers: so many are 0.5 MB.
_BLOCKS_BEHIND, _REPLIES_BEHIND = 16, 40_000

# The same of blocks whose replies are what the store has, and may be large.
_READS_BEHIND = 2

# How long replicas may take to acknowledge the end of a load. An answer may take longer.
REPLICATION_SECONDS = 30.0


class Loading(ABC):
    """A load under way, and what Redis has acknowledged of it."""

    def __init__(self) -> None:
        self.shards: Counter[int] = Counter()  # how many entities of each shard, written or kept
        self.outcomes: defaultdict[int, Outcome] = defaultdict(Outcome)  # what the guards replied, by shard
        self.commands = 0
        self.bytes = 0
        # Where the load ended in the replication of each primary that may be replaced, by replication id.
        self.replication_offsets: dict[str, int] = {}

    @property
    def entities(self) -> int:
        """How many entities Redis has acknowledged, written or kept."""
        return self.shards.total()

    @abstractmethod
    def write(self, block: Block) -> None:
        """Send a block."""

    @abstractmethod
    def keep_alive(self) -> None:
        """Send a PING while there is no block to send: many stores close an idle connection."""

    @abstractmethod
    def drain(self) -> None:
        """Wait until Redis, and as many replicas as are asked for, have acknowledged everything that was sent."""

    @abstractmethod
    def close(self) -> None:
        """End the connection, whatever is outstanding."""


class BulkConnection(Loading):
    """Sends blocks of ready commands and reads their acknowledgements in bulk, some blocks behind.

    redis-py's own `read_response` costs microseconds per reply, hiredis alone a tenth. redis-py sets up the
    connection, with TLS, login and timeouts. This class uses the socket of that connection.
    """

    def __init__(self, connection: redis.Connection, scripts: Sequence[str] = (), wait_replicas: int = 0) -> None:
        super().__init__()
        self._connection = connection
        self._scripts = scripts
        self._wait_replicas = wait_replicas
        socket = opened_socket(connection)
        if socket.family == AF_UNIX:
            socket.setsockopt(SOL_SOCKET, SO_SNDBUF, _SEND_BUFFER)
        self._socket = socket
        self._replies = hiredis.Reader()
        self._unacknowledged: deque[Block] = deque()
        self.load_scripts()

    def load_scripts(self) -> None:
        for script in self._scripts:
            self.ask("SCRIPT", "LOAD", script)

    def write(self, block: Block) -> None:
        """Send a block, and acknowledge what was sent some blocks before. A slice waits for the one before it."""
        self._connection.send_packed_command([block.payload], check_health=False)
        self._unacknowledged.append(block)
        behind = 1 if len(block.keys) <= SLICE_ENTITIES else _READS_BEHIND if block.collect else _BLOCKS_BEHIND
        while len(self._unacknowledged) > (behind if self._awaited <= _REPLIES_BEHIND else 1):
            self._acknowledge(self._unacknowledged.popleft())

    @property
    def _awaited(self) -> int:
        return sum(len(block.keys) * block.commands for block in self._unacknowledged)

    def keep_alive(self) -> None:
        self.flush()
        assert self.ask("PING") == b"PONG", "there are more replies than the blocks say"

    def drain(self) -> None:
        self.keep_alive()
        if self._wait_replicas:
            self._require_replicas()

    def flush(self) -> None:
        """Wait until Redis has acknowledged everything that was sent."""
        while self._unacknowledged:
            self._acknowledge(self._unacknowledged.popleft())

    def close(self) -> None:
        self._connection.disconnect()

    def ask(self, *command: str | int) -> Any:
        """Send one more command and return its reply. Everything that was sent before must be acknowledged."""
        assert not self._unacknowledged
        self._connection.send_command(*command, check_health=False)
        while (reply := self._replies.gets()) is False:
            self._receive()
        if isinstance(reply, hiredis.ReplyError):
            raise redis.ResponseError(str(reply))
        return reply

    def _require_replicas(self) -> None:
        seconds = min(REPLICATION_SECONDS, (self._socket.gettimeout() or math.inf) / 2)
        acknowledged = self.ask("WAIT", self._wait_replicas, round(seconds * 1000))
        if acknowledged < self._wait_replicas:
            raise StoreError(
                f"{acknowledged} of {self._wait_replicas} replicas of Redis at {self.node} have acknowledged the load "
                f"within {seconds:g} s: look at them, or lower FEATURE_SEED_WAIT_REPLICAS. Run again"
            )

    @property
    def node(self) -> str:
        """Host and port of the server, or its socket."""
        place = self._connection.repr_pieces()
        return ":".join(str(value) for name, value in place if name in ("host", "port", "path"))

    def _acknowledge(self, block: Block) -> None:
        expected = len(block.keys) * block.commands
        if block.collect:
            self._collect(block, block.collect, expected)
        else:
            self._count(block, expected)
        self.shards.update(block.shards)
        self.commands += expected
        self.bytes += len(block.payload)

    def _count(self, block: Block, expected: int) -> None:
        next_reply = self._replies.gets
        for position in range(expected):
            while (reply := next_reply()) is False:
                self._receive()
            if type(reply) is bytes:  # OK or QUEUED, five of six replies
                continue
            if type(reply) is int:
                if reply and block.guarded:
                    self.outcomes[block.shards[position]].add(reply, block.keys[position])
            elif error := _refusal(reply):
                self._refuse(block, position // block.commands, str(error))

    def _collect(self, block: Block, collect: Callable[[Block, Sequence[Any]], None], expected: int) -> None:
        next_reply, replies = self._replies.gets, list[Any]()
        while len(replies) < expected:
            if (reply := next_reply()) is False:
                self._receive()
            else:
                replies.append(reply)
        refused = _refused(block, replies) if hiredis.ReplyError in map(type, replies) else {}
        for entity, error in refused.items():
            self._refuse(block, entity, error)
        if refused:  # and to be sent again
            block = block.pick([i for i in range(len(block.keys)) if i not in refused])
            replies = [reply for i, reply in enumerate(replies) if i // block.commands not in refused]
        collect(block, replies)

    def _refuse(self, block: Block, entity: int, reply: str) -> None:
        raise StoreError(f"Redis refused {printable(block.keys[entity])}: {advised(reply)}")

    def _receive(self) -> None:
        try:
            received = self._socket.recv(65536)
        except OSError as e:
            raise redis.ConnectionError(f"Redis did not acknowledge: {e}") from e
        if not received:
            raise redis.ConnectionError("Redis closed the connection before it acknowledged every command")
        self._replies.feed(received)


def _refused(block: Block, replies: Sequence[Any]) -> dict[int, str]:
    """The entities of a block by their positions, each with its first error that is not allowed."""
    refused: dict[int, str] = {}
    for position, reply in enumerate(replies):
        if isinstance(reply, hiredis.ReplyError) and not str(reply).startswith(block.allowed):
            refused.setdefault(position // block.commands, str(reply))
    return refused


def _refusal(reply: object) -> hiredis.ReplyError | None:
    """The error that a reply is, or that EXEC's list of replies holds."""
    replies = reply if isinstance(reply, list) else [reply]
    if hiredis.ReplyError not in map(type, replies):
        return None
    return next((one for one in replies if isinstance(one, hiredis.ReplyError)), None)


def advised(message: str) -> str:
    return next((f"{message} ({advice})" for text, advice in _ADVICE.items() if text in message), message)
