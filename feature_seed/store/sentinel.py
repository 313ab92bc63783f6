"""Redis Sentinel: where the primary is, as its sentinels say."""

from collections.abc import Callable, Iterable
from typing import Any

import redis

from feature_seed import tls
from feature_seed.errors import StoreError, StoreUnavailableError
from feature_seed.store.block import Block
from feature_seed.store.replication import PrimaryConnection, ReplicationState


def primary(name: str, sentinels: Iterable[redis.Redis]) -> tuple[str, int]:
    """The host and port of the primary, by the first sentinel that knows it.

    It may be out of date: what is found there has to be looked at.

    Raises:
        StoreError: a sentinel refuses the login or is none, or they do not know the name.
        StoreUnavailableError: none that may know it can be reached.
    """
    away: list[str] = []
    for sentinel in sentinels:
        where = "{host}:{port}".format(**sentinel.connection_pool.connection_kwargs)
        try:
            found: Any = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        except redis.AuthenticationError as e:
            raise StoreError(f"Sentinel {where} refuses the login: check REDIS_SENTINEL_PASSWORD. {e}") from e
        except (redis.ConnectionError, redis.TimeoutError) as e:
            if tls.mistaken(e):
                raise
            away.append(f"{where}: {e}")
        except redis.ResponseError as e:
            raise StoreError(f"{where} does not answer as a sentinel: check the ports in REDIS_URL. {e}") from e
        else:
            if found:
                return found[0].decode(), int(found[1])
    if away:
        raise StoreUnavailableError(f"No sentinel that knows the primary {name!r} can be reached. {'; '.join(away)}")
    raise StoreError(f"The sentinels know no primary {name!r}: check its name in REDIS_URL")


class SentinelConnection(PrimaryConnection):
    """A bulk connection to the primary that sentinels named. At the end of a load, they are asked again.

    One that was replaced goes on as a primary for up to ten seconds, and what it takes then is lost.

    Args:
        successor: gives the state of the primary that they name now.
    """

    def __init__(
        self, connection: redis.Connection, wait_replicas: int, successor: Callable[[], ReplicationState]
    ) -> None:
        super().__init__(connection, wait_replicas)
        self._successor = successor

    def drain(self) -> None:
        super().drain()
        reached = self.confirm()
        if not self._successor().includes(reached.id, reached.offset):
            raise self.replaced()
        self.replication_offsets = {reached.id: reached.offset}

    def _refuse(self, block: Block, entity: int, reply: str) -> None:
        if "READONLY" in reply:
            raise self.replaced()
        super()._refuse(block, entity, reply)
