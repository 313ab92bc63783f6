"""The online store: Redis, as the scorer knows it, and the connection that loads it in bulk."""

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from socket import AF_UNIX, SO_SNDBUF, SOL_SOCKET, socket
from ssl import SSLSocket
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import dagster as dg
import hiredis
import redis
from pydantic import Field
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import parse_url
from redis.exceptions import AuthorizationError, MovedError
from redis.retry import Retry

from feature_seed import tls
from feature_seed.block import Block
from feature_seed.errors import ConfigurationError, StoreError, StoreUnavailableError, shown
from feature_seed.local_redis import LocalRedis

NEEDS_CLUSTER = "this is a node of a Redis Cluster: set REDIS_CLUSTER=1 and FEATURE_SEED_KEY_TAGS=1"

# What to do about the replies that Redis gives when it will not take a write, by a part of their text.
_ADVICE = {
    "'maxmemory'": "raise maxmemory, or free memory, and run again",
    "read only replica": "point REDIS_URL at the primary",
    "WRONGTYPE": "another program keeps something else there: delete it, or use another database",
    "MISCONF": "Redis cannot persist and refuses writes: look into its log",
    "permissions": "the user lacks a right: see the ACL in the README",
    "MOVED": NEEDS_CLUSTER,
    "CROSSSLOT": NEEDS_CLUSTER,
    "NOSCRIPT": "the script cache was flushed during the load: run again",
}

# TCP gives a connection up to 4 MB by itself, a unix socket 0.2: Redis would idle while replies are read, for a tenth
# of the time.
_SEND_BUFFER = 4_000_000

_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 60

# How long replicas may take over the end of a load; less than an answer may.
REPLICATION_SECONDS = 30.0

# For half a second, as long as a small server takes to start; a longer absence is for the retries of a step.
_CONNECT = Retry(ExponentialBackoff(cap=1, base=0.1), 2, (redis.ConnectionError, redis.TimeoutError))


class OnlineStore(dg.ConfigurableResource):
    """The Redis that the scorer reads; without `url` a server of its own under `home`.

    A load is done when `wait_replicas` replicas have acknowledged it.
    """

    url: str | None = Field(default=None, repr=False)
    password: str | None = Field(default=None, repr=False)
    home: str = ".feature_seed"
    wait_replicas: int = 0

    @property
    def address(self) -> str:
        """Where the store is, without user and password."""
        if self.url is None:
            return str(LocalRedis(self.home).socket)
        require_url(self.url)
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @contextmanager
    def client(self, name: str | None = None) -> Iterator[redis.Redis]:
        """A connected client, with a name for its connections; errors come out as StoreError with the address."""
        if self.url:
            require_url(self.url)
        url = self.url or f"unix://{LocalRedis(self.home).ensure()}"
        options: dict[str, Any] = {"password": self.password} if self.password else {}
        if url.startswith("rediss://"):
            options["connection_class"] = _TLSConnection
        with self.errors():
            client = redis.Redis.from_url(
                url,
                **options,
                client_name=name,
                protocol=2,  # RESP3 may interleave push messages with the acknowledgements
                socket_connect_timeout=_CONNECT_SECONDS,
                socket_timeout=_ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),  # of commands: nobody knows whether one that got no answer was run
                driver_info=None,  # CLIENT SETINFO needs a right of its own
            )
            try:
                _CONNECT.call_with_retry(lambda: self._ping(client), lambda _: None, is_retryable=_passes)
                yield client
            finally:
                client.close()

    def _ping(self, client: redis.Redis) -> None:
        """Raises a StoreError where one side alone speaks TLS: it only looks like a server that is away."""
        try:
            client.ping()
        except (redis.ConnectionError, redis.TimeoutError) as e:
            if _passes(e) and (advice := _tls_advice(client.connection_pool)):
                raise StoreError(f"Redis at {self.address} cannot be reached: {advice}") from e
            raise

    @contextmanager
    def bulk(self, scripts: Sequence[str] = (), name: str | None = None) -> Iterator["Loading"]:
        """A connection for ready commands, on which `scripts` are loaded."""
        with self.client(name) as client:
            for script in scripts:
                client.script_load(script)
            connection = client.connection_pool.get_connection()
            try:
                yield BulkConnection(connection, self.wait_replicas)
            finally:
                connection.disconnect()  # never back to the pool: replies may be outstanding
                client.connection_pool.release(connection)

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except redis.AuthenticationError as e:
            raise StoreError(
                f"Redis at {self.address} refuses the login: check REDIS_PASSWORD and REDIS_URL. {e}"
            ) from e
        except MovedError as e:
            raise StoreError(f"Redis at {self.address} refuses: {NEEDS_CLUSTER}") from e
        except (redis.ConnectionError, redis.TimeoutError) as e:  # an OSError is of what the body reads besides
            kind = StoreUnavailableError if _passes(e) else StoreError
            raise kind(f"Redis at {self.address} cannot be reached or went away: check REDIS_URL. {e}") from e
        except redis.ResponseError as e:
            raise StoreError(f"Redis at {self.address} refuses: {_advised(str(e))}") from e


class _TLSConnection(redis.SSLConnection):
    """Bounds the handshake as the connecting; redis-py waits for it as long as for an answer."""

    def _wrap_socket_with_ssl(self, sock: socket) -> SSLSocket:
        sock.settimeout(self.socket_connect_timeout)
        try:
            wrapped = super()._wrap_socket_with_ssl(sock)
        except FileNotFoundError as e:  # which is an OSError as those of a server that is away
            files = (self.ca_certs, self.ca_path, self.certfile, self.keyfile)
            raise StoreError(f"No such file, of those that REDIS_URL names: {', '.join(filter(None, files))}") from e
        wrapped.settimeout(self.socket_timeout)
        return wrapped


def _tls_advice(pool: redis.ConnectionPool) -> str:
    """What to change in REDIS_URL where it asks for TLS and there is none, or for none and there is; else ''."""
    host, port = (pool.connection_kwargs.get(name, unset) for name, unset in (("host", "localhost"), ("port", 6379)))
    if issubclass(pool.connection_class, redis.SSLConnection):
        return "it speaks no TLS there, so REDIS_URL starts with redis://" if tls.speaks_redis(host, port) else ""
    if issubclass(pool.connection_class, redis.Connection):
        return "it speaks TLS there, so REDIS_URL starts with rediss://" if tls.speaks_tls(host, port) else ""
    return ""


def require_url(url: str) -> None:
    """Raise a ConfigurationError for a URL that redis-py cannot read, whose own errors may quote the password.

    And for one that it reads as another than was meant: a `/`, `?` or `#` in a password ends it, and the rest is taken
    for database, options or nothing, the beginning for host and port.
    """
    try:
        parse_url(url)
        readable = not _misread(urlsplit(url))
    except ValueError:
        readable = False
    if not readable:
        raise ConfigurationError(
            "REDIS_URL cannot be read: it starts with redis://, rediss:// or unix://, its port and database are "
            "numbers, and all but letters and digits is percent-encoded in user and password; or give the password in "
            "REDIS_PASSWORD"
        )


def _misread(parts: SplitResult) -> bool:
    if parts.scheme == "unix":
        return bool(parts.netloc.rpartition("@")[2] or parts.fragment)
    cut = "@" in parts.query and "@" not in parts.netloc
    return cut or bool(parts.fragment) or not re.fullmatch(r"/?\d*", parts.path)


class Loading(Protocol):
    """A load under way, and what Redis has acknowledged of it.

    Attributes:
        shards: how many entities of each shard, written or kept.
        kept: of how many the store's newer state was kept.
        commands, bytes: of all of them.
        positions: where the load ended in the replication of each primary, by replication id; in a cluster alone.
    """

    shards: Counter[int]
    kept: int
    commands: int
    bytes: int
    positions: Mapping[str, int]

    @property
    def entities(self) -> int: ...

    def write(self, block: Block) -> None: ...

    def drain(self) -> None: ...


class BulkConnection:
    """Sends blocks of ready commands and reads their acknowledgements in bulk, one block behind.

    redis-py's own `read_response` costs microseconds per reply, hiredis alone a tenth. TLS, login and timeouts stay
    redis-py's: this uses the socket of a connection that it has set up.
    """

    def __init__(self, connection: redis.Connection, wait_replicas: int = 0) -> None:
        self._connection = connection
        self._wait_replicas = wait_replicas
        socket = connection._get_socket()
        assert socket  # the pool gives out connections that are set up
        if socket.family == AF_UNIX:
            socket.setsockopt(SOL_SOCKET, SO_SNDBUF, _SEND_BUFFER)
        self._socket = socket
        self._replies = hiredis.Reader()
        self._unacknowledged: deque[Block] = deque()
        self.shards: Counter[int] = Counter()
        self.kept = 0
        self.commands = 0
        self.bytes = 0
        self.positions: Mapping[str, int] = {}

    @property
    def entities(self) -> int:
        """How many entities Redis has acknowledged, written or kept."""
        return self.shards.total()

    def write(self, block: Block) -> None:
        """Send a block and acknowledge the one before it, so that Redis always has work."""
        self._connection.send_packed_command([block.payload], check_health=False)
        self._unacknowledged.append(block)
        if len(self._unacknowledged) > 1:
            self._acknowledge(self._unacknowledged.popleft())

    def drain(self) -> None:
        """Wait until Redis, and as many replicas as are asked for, have acknowledged everything that was sent."""
        self.flush()
        if self._wait_replicas:
            self._require_replicas()

    def flush(self) -> None:
        """Wait until Redis has acknowledged everything that was sent."""
        while self._unacknowledged:
            self._acknowledge(self._unacknowledged.popleft())

    def close(self) -> None:
        self._connection.disconnect()

    def ask(self, *command: str | int) -> Any:
        """The reply to one more command, when everything that was sent is acknowledged."""
        assert not self._unacknowledged
        self._connection.send_command(*command, check_health=False)
        reply = self._next_reply()
        if isinstance(reply, hiredis.ReplyError):
            raise redis.ResponseError(str(reply))
        return reply

    def _require_replicas(self) -> None:
        acknowledged = self.ask("WAIT", self._wait_replicas, round(REPLICATION_SECONDS * 1000))
        if acknowledged < self._wait_replicas:
            raise StoreError(
                f"{acknowledged} of {self._wait_replicas} replicas of Redis at {self.node} have acknowledged the load "
                f"within {REPLICATION_SECONDS:g} s: see to its replicas, or lower FEATURE_SEED_WAIT_REPLICAS; run again"
            )

    @property
    def node(self) -> str:
        """Its host and port, or its socket."""
        place = self._connection.repr_pieces()
        return ":".join(str(value) for name, value in place if name in ("host", "port", "path"))

    def _acknowledge(self, block: Block) -> None:
        expected = len(block.keys) * block.commands
        kept = 0
        next_reply = self._replies.gets
        for position in range(expected):
            while (reply := next_reply()) is False:
                self._receive()
            if type(reply) is bytes:  # OK or QUEUED, five of six replies
                continue
            if reply == 0:
                kept += 1
            elif error := _refusal(reply):
                self._refuse(block, position // block.commands, str(error))
        self.shards.update(block.shards)
        self.kept += kept if block.guarded else 0
        self.commands += expected
        self.bytes += len(block.payload)

    def _refuse(self, block: Block, entity: int, reply: str) -> None:
        raise StoreError(f"Redis refused {shown(block.keys[entity])}: {_advised(reply)}")

    def _next_reply(self) -> Any:
        while (reply := self._replies.gets()) is False:
            self._receive()
        return reply

    def _receive(self) -> None:
        try:
            received = self._socket.recv(65536)
        except OSError as e:
            raise redis.ConnectionError(f"Redis did not acknowledge: {e}") from e
        if not received:
            raise redis.ConnectionError("Redis closed the connection before it acknowledged every command")
        self._replies.feed(received)


def _passes(error: Exception) -> bool:
    """Whether an error of the connection may pass by itself: no wrong password or certificate does."""
    permanent = (redis.AuthenticationError, AuthorizationError)
    return not isinstance(error, permanent) and not tls.mistaken(error)


def _refusal(reply: object) -> hiredis.ReplyError | None:
    """The error that a reply is, or that EXEC's list of replies holds."""
    replies = reply if isinstance(reply, list) else [reply]
    if hiredis.ReplyError not in map(type, replies):
        return None
    return next(one for one in replies if isinstance(one, hiredis.ReplyError))


def _advised(message: str) -> str:
    return next((f"{message} ({advice})" for text, advice in _ADVICE.items() if text in message), message)
