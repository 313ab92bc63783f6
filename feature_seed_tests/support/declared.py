"""Declared features in tests: loading them without Dagster, comparing them with gold, and reading them as a scorer."""

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from feature_seed.features.declared.declared import Declared
from feature_seed.features.declared.entity import DeclaredEntity
from feature_seed.loading.comparison.declared import DeclaredComparison
from feature_seed.loading.declared import DeclaredStream
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse

_OURS = (":history", ":loc", ":last_ts", ":seq", ":seed", ":stats")


def declare(entries: Mapping[str, Mapping[str, Any]]) -> list[Declared]:
    return [Declared.model_validate(entry).called(name) for name, entry in entries.items()]


def load(warehouse: Warehouse, store: OnlineStore, declared: Sequence[Declared], **layout: Any) -> int:
    """Load the features. Returns how many keys Redis has acknowledged; a key of many members counts several times."""
    shards = tuple(shard_names(4))
    total = 0
    for entity in DeclaredEntity.all_of(declared):
        stream = DeclaredStream(warehouse, Layout(shard_count=4, **layout), entity, shards)
        stream.rehearse()
        with store.bulk([entity.guard]) as connection:
            for block in stream:
                connection.write(block)
            connection.drain()
            total += connection.entities
    return total


def differences(warehouse: Warehouse, client: redis.Redis, one: Declared, **layout: Any) -> list[str]:
    """The differences that the check parity finds in all entities."""
    feature, until = DeclaredEntity.of(one).feature(one), warehouse.profile().until
    source = Layout(shard_count=4, **layout)
    with warehouse.client() as gold:
        comparison = DeclaredComparison(
            warehouse, gold, source, shard_names(4), [until], features=[feature], store=client, declared=one
        )
        (found,) = comparison.scans("", None, {})
        verdicts = comparison.differences(feature, found[feature.entity.name].rows)
        return [verdict.difference for verdict in verdicts if verdict.difference]


def declared_keys(client: redis.Redis) -> dict[str, Any]:
    """The value of every key that belongs to no standard feature."""
    names = (key.decode() for key in client.scan_iter(count=1000))
    return {key: _value(client, key) for key in names if not (key.endswith(_OURS) or key.startswith("feature_seed:"))}


def _value(client: Any, key: str) -> Any:
    """The value of a key; numbers in it are numbers."""
    type_ = client.type(key).decode()
    if type_ == "hash":
        return {name.decode(): number(one) for name, one in client.hgetall(key).items()}
    if type_ == "zset":
        return {name.decode(): score for name, score in client.zrange(key, 0, -1, withscores=True)}
    if type_ == "set":
        return {one.decode() for one in client.smembers(key)}
    return [number(one) for one in client.lrange(key, 0, -1)] if type_ == "list" else number(client.get(key))


def number(text: bytes) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text.decode()


def stored(client: redis.Redis) -> dict[bytes, Any]:
    """Every byte of the store, and when each key expires. A set has no order, though its bytes have one."""
    keys = [key for key in client.scan_iter(count=1000) if not key.startswith(b"feature_seed:")]
    content = {key: client.smembers(key) if client.type(key) == b"set" else client.dump(key) for key in keys}
    return {key: (value, client.pexpiretime(key)) for key, value in content.items() if value}
