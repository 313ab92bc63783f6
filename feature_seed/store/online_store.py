"""The online store: the Redis that the scorer reads."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

import dagster as dg
import redis
from pydantic import Field
from redis.backoff import ExponentialBackoff
from redis.exceptions import ClusterError, MovedError, RedisClusterException
from redis.retry import Retry

from feature_seed.errors import StoreError, StoreUnavailableError
from feature_seed.store.bulk import NEEDS_CLUSTER, BulkConnection, Loading, advised
from feature_seed.store.client import client_of, passes, tls_advice
from feature_seed.store.local import LocalRedis
from feature_seed.store.replication import PrimaryConnection, ReplicationState
from feature_seed.store.url import StoreUrl

# Tried for half a second, as long as a small server takes to start. After a longer absence the step is tried again.
_CONNECT = Retry(ExponentialBackoff(cap=1, base=0.1), 2, (redis.ConnectionError, redis.TimeoutError))


class OnlineStore(dg.ConfigurableResource):
    """The Redis that the scorer reads. Without `url`, that is a server of feature_seed's own under `home`.

    A load is done when `wait_replicas` replicas have acknowledged it. See feature_seed/store/README.md.
    """

    url: str | None = Field(default=None, repr=False)
    password: str | None = Field(default=None, repr=False)
    sentinel_password: str | None = Field(default=None, repr=False)
    home: str = ".feature_seed"
    wait_replicas: int = 0

    @property
    def target(self) -> StoreUrl:
        return StoreUrl.of(self.url or f"unix://{quote(str(LocalRedis(self.home).socket))}")

    @property
    def address(self) -> str:
        """Where the store is, without user and password."""
        return self.target.address if self.url else self.target.path

    @property
    def fails_over(self) -> bool:
        """Whether another primary may take over, so that only replication tells what the store has."""
        return bool(self.target.primary)

    @contextmanager
    def client(self, name: str | None = None) -> Iterator[redis.Redis]:
        """A connected client, whose connections get this name. Its errors are StoreErrors with the address."""
        target = self.target
        if not self.url:
            LocalRedis(self.home).ensure()
        with self.errors(), client_of(target, self.password, self.sentinel_password, name) as client:
            _CONNECT.call_with_retry(lambda: self._ping(client), lambda _: None, is_retryable=passes)
            yield client

    def _ping(self, client: redis.Redis) -> None:
        """Raise a StoreError if only one side speaks TLS: that looks like a server that is away."""
        try:
            client.ping()
        except (redis.ConnectionError, redis.TimeoutError) as e:
            if passes(e) and (advice := tls_advice(client.connection_pool)):
                raise StoreError(f"Redis at {self.address} cannot be reached: {advice}") from e
            raise

    @contextmanager
    def bulk(self, scripts: Sequence[str] = (), name: str | None = None) -> Iterator[Loading]:
        """A connection for ready commands, on which `scripts` are loaded."""
        with self.client(name) as client, closing(self._loading(client, scripts)) as loading:
            yield loading

    def _loading(self, client: redis.Redis, scripts: Sequence[str]) -> Loading:
        connection: Any = client.connection_pool.get_connection()  # never given back: replies may be outstanding
        if self.fails_over:
            return PrimaryConnection(connection, scripts, self.wait_replicas, self._replication_state)
        return BulkConnection(connection, scripts, self.wait_replicas)

    def _replication_state(self) -> ReplicationState:
        """The replication state of the server that is the primary now."""
        with self.client() as client:
            return ReplicationState.of(client.info("replication"))  # type: ignore[arg-type]

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
        except (redis.ConnectionError, redis.TimeoutError) as e:  # an OSError is of something else that the body reads
            kind = StoreUnavailableError if passes(e) else StoreError
            raise kind(f"Redis at {self.address} cannot be reached or went away: check REDIS_URL. {e}") from e
        except (RedisClusterException, ClusterError) as e:
            raise StoreUnavailableError(f"Redis Cluster at {self.address} is not whole: {e}") from e
        except redis.ResponseError as e:
            # A primary that was replaced refuses to write. Its sentinels name another one at the next attempt.
            replaced = self.fails_over and isinstance(e, redis.ReadOnlyError)
            kind = StoreUnavailableError if replaced else StoreError
            raise kind(f"Redis at {self.address} refuses: {advised(str(e))}") from e
