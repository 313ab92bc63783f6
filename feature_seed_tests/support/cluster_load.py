"""A load of a cluster without Dagster, in small blocks, and what may happen beside it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import redis

from feature_seed.features.entity import ENTITIES, Entity, OnConflict
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.block import Block
from feature_seed.store.cluster import ClusterConnection
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse

_ENTITIES_OF_A_BLOCK = 50


def small_blocks(warehouse: Warehouse, entity: Entity, on_conflict: OnConflict = "keep_newer") -> Iterator[Block]:
    layout = Layout(key_tags=True, on_conflict=on_conflict)
    for block in FeatureStream(warehouse, layout, entity, tuple(shard_names(layout.shard_count))):
        for first in range(0, len(block.keys), _ENTITIES_OF_A_BLOCK):
            yield block.pick(range(len(block.keys))[first : first + _ENTITIES_OF_A_BLOCK])


def load(
    store: OnlineStore,
    warehouse: Warehouse,
    on_conflict: OnConflict = "keep_newer",
    before: Callable[[int], object] = lambda sent: None,
) -> int:
    """Load every entity. Returns how many entities were sent a second time.

    `before` is called before every block, with how many blocks were sent.
    """
    sent = resent = 0
    for entity in ENTITIES:
        with store.bulk([entity.guard]) as connection:
            for block in small_blocks(warehouse, entity, on_conflict):
                before(sent)
                connection.write(block)
                sent += 1
            connection.drain()
        assert isinstance(connection, ClusterConnection)
        assert connection.entities == connection.shards.total() == warehouse.profile().entities(entity.id)
        resent += connection.resent
    return resent


@contextmanager
def meanwhile(work: Callable[[Event], None]) -> Iterator[None]:
    """Have another thread work beside a load. The event tells the thread that the load has ended. Its errors count."""
    ended, errors = Event(), []

    def run() -> None:
        try:
            work(ended)
        except (redis.RedisError, AssertionError) as e:
            errors.append(e)

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not errors
