"""The online store: the Redis that the scorer reads."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from socket import socket
from ssl import SSLSocket
from typing import Any
from urllib.parse import SplitResult, urlsplit

import dagster as dg
import redis
from pydantic import Field
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import parse_url
from redis.exceptions import AuthorizationError, MovedError
from redis.retry import Retry

from feature_seed import tls
from feature_seed.errors import ConfigurationError, StoreError, StoreUnavailableError
from feature_seed.store.bulk import NEEDS_CLUSTER, BulkConnection, Loading, advised
from feature_seed.store.local import LocalRedis

_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 60

# For half a second, as long as a small server takes to start; a longer absence is for the retries of a step.
_CONNECT = Retry(ExponentialBackoff(cap=1, base=0.1), 2, (redis.ConnectionError, redis.TimeoutError))


class OnlineStore(dg.ConfigurableResource):
    """The Redis that the scorer reads; without `url` a server of its own under `home`.

    A load is done when `wait_replicas` replicas have acknowledged it. See feature_seed/store/README.md.
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
    def bulk(self, scripts: Sequence[str] = (), name: str | None = None) -> Iterator[Loading]:
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
            raise StoreError(f"Redis at {self.address} refuses: {advised(str(e))}") from e


class _TLSConnection(redis.SSLConnection):
    """Bounds the handshake as the connecting; redis-py waits for it as long as for an answer."""

    def _wrap_socket_with_ssl(self, sock: socket) -> SSLSocket:
        sock.settimeout(self.socket_connect_timeout)
        try:
            wrapped = super()._wrap_socket_with_ssl(sock)
        except FileNotFoundError as e:  # which is an OSError as those of a server that is away
            files = (self.ca_certs, self.ca_path, self.certfile, self.keyfile)
            raise StoreError(f"REDIS_URL names a file that does not exist: {', '.join(filter(None, files))}") from e
        wrapped.settimeout(self.socket_timeout)
        return wrapped


def _tls_advice(pool: redis.ConnectionPool) -> str:
    """What to change in REDIS_URL where it asks for TLS and there is none, or for none and there is; else ''."""
    host, port = (pool.connection_kwargs.get(name, unset) for name, unset in (("host", "localhost"), ("port", 6379)))
    if issubclass(pool.connection_class, redis.SSLConnection):
        return "that port speaks no TLS: begin REDIS_URL with redis://" if tls.speaks_redis(host, port) else ""
    if issubclass(pool.connection_class, redis.Connection):
        return "that port speaks TLS: begin REDIS_URL with rediss://" if tls.speaks_tls(host, port) else ""
    return ""


def require_url(url: str) -> None:
    """Raise a ConfigurationError for a URL that redis-py cannot read, whose own errors may quote the password.

    And for one that it reads as another than was meant: a `/`, `?` or `#` in a password ends it, and the rest is taken
    for database, options or nothing, the beginning for host and port.
    """
    try:
        parse_url(url)
        readable = not _is_misread(urlsplit(url))
    except ValueError:
        readable = False
    if not readable:
        raise ConfigurationError(
            "REDIS_URL cannot be read. It begins with redis://, rediss:// or unix://, and its port and database are "
            "numbers. In user and password, percent-encode everything but letters and digits, or give the password in "
            "REDIS_PASSWORD"
        )


def _is_misread(parts: SplitResult) -> bool:
    if parts.scheme == "unix":
        return bool(parts.netloc.rpartition("@")[2] or parts.fragment)
    cut = "@" in parts.query and "@" not in parts.netloc
    return cut or bool(parts.fragment) or not re.fullmatch(r"/?\d*", parts.path)


def _passes(error: Exception) -> bool:
    """Whether an error of the connection may pass by itself: no wrong password or certificate does."""
    permanent = (redis.AuthenticationError, AuthorizationError)
    return not isinstance(error, permanent) and not tls.mistaken(error)
