"""The memory estimate: what the features will take in Redis, from a sample of this gold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import CARD_SEED, CUSTOMER_SEED, Key, Transaction
from feature_seed.features.entity import CARDS
from feature_seed.features.feature import HISTORY, LOCATION, STATS, Feature
from feature_seed.loading.stream import FeatureStream
from feature_seed.sql import sql
from feature_seed.store.commands import spared
from feature_seed.warehouse.gold import over_gold

# About how many cards and, at most, customers are looked at.
_SAMPLE = 1000

# What Redis takes on 64 bits: per key beside its name (its entry, object and share of the table), per list or hash,
# and what rounding adds to the elements of a list. Measured on five golds, from 85 % of what Redis 7.0 took to 123 % of
# Valkey 9.1, whose keys are smaller; on gold of many transactions a card, from 97 % to 112 %.
_KEY_BYTES = 62
_VALUE_BYTES = {HISTORY.name: 80, LOCATION.name: 40, STATS.name: 60}
_SEED_BYTES = 56
_ROUNDED = 1.08

_SEEDS = frozenset((CARD_SEED, CUSTOMER_SEED))

# What a live event takes in the seeds of its card and its customer beside two times its id: times, amounts, a place.
_RECORD_BYTES = 2 * 4 + 65 + 35

_ELEMENT_BYTES = len(Transaction("", "", 0.0, "2026-01-01T00:00:00.000+00:00", 0.0, 0.0).encode()) - len('""0.00.00.0')


@dataclass(frozen=True)
class MemoryEstimate:
    """What some features need.

    Attributes:
        needed: bytes, for what is not in the store yet.
        entities: how many of each feature that is, by its name.
    """

    needed: int
    entities: dict[str, int]


@dataclass(frozen=True)
class Sample:
    """Some entities of gold.

    Attributes:
        cards, customers: ids.
        depth: mean length of a history.
        element: mean bytes of one of its elements.
        record: mean bytes of a live event in both of its seeds.
    """

    cards: Sequence[str]
    customers: Sequence[str]
    depth: float
    element: float
    record: float

    def ids(self, feature: Feature) -> Sequence[str]:
        return self.cards if feature.entity is CARDS else self.customers

    def bytes(self, feature: Feature, tags: bool) -> float:
        """Mean bytes per entity, without its seed."""
        keys = [key for key in feature.keys if key not in _SEEDS]
        elements = self.depth * self.element * _ROUNDED if feature == HISTORY else 0
        return sum(self.key_bytes(feature, key, tags) for key in keys) + _VALUE_BYTES[feature.name] + elements

    def key_bytes(self, feature: Feature, key: Key, tags: bool) -> float:
        """Mean bytes of a key beside its value."""
        names = self.names(feature, key, tags)
        return _KEY_BYTES + sum(len(name.encode()) for name in names) / max(len(names), 1)

    def names(self, feature: Feature, key: Key, tags: bool) -> list[str]:
        return [key.of(entity_id, tags=tags) for entity_id in self.ids(feature)]


def estimate_memory(client: redis.Redis, stream: FeatureStream, features: Sequence[Feature]) -> MemoryEstimate:
    """What these features need in the stream's shards, in 0.3 s for 10 M rows; keys that are there need nothing.

    With the records of a day of live events, as many as gold has a day: the next load forgets them.
    """
    tags, profile = stream.layout.key_tags, stream.warehouse.profile()
    sample = _sample(stream)
    share = len(stream.shards) / stream.layout.shard_count
    needed, new = 0.0, {}
    for feature in features:
        entities = profile.entities(feature.entity.id) * share
        new[feature.name] = round(entities * _missing(client, sample.names(feature, feature.keys[0], tags)))
        needed += new[feature.name] * sample.bytes(feature, tags)
        for seed in _SEEDS.intersection(feature.keys):
            unseeded = _missing(client, sample.names(feature, seed, tags))
            needed += entities * unseeded * (sample.key_bytes(feature, seed, tags) + _SEED_BYTES)
            needed += profile.daily * share * unseeded * sample.record / len(_SEEDS)
    return MemoryEstimate(round(needed), new)


def _sample(stream: FeatureStream) -> Sample:
    layout, profile = stream.layout, stream.warehouse.profile()
    cards = profile.cards * len(stream.shards) // layout.shard_count
    parameters = {
        **stream.warehouse.table,
        "shard_count": layout.shard_count,
        "history_length": layout.history_length,
        "shards": [int(shard, 16) for shard in stream.shards],
        "one_in": max(cards // _SAMPLE, 1),
    }
    with stream.warehouse.client() as client, stream.warehouse.errors():
        mapped = stream.warehouse.mapping.over
        counts = _rows(client, mapped(sql("loading/memory_cards")), parameters)
        (values,) = _rows(client, mapped(over_gold("loading/memory_rows")), parameters)
    return Sample(
        [row["id"] for row in counts],
        values["customers"],
        sum(row["transactions"] for row in counts) / max(len(counts), 1),
        _ELEMENT_BYTES + values["values_bytes"],
        _RECORD_BYTES + 2 * values["id_bytes"],
    )


def _rows(client: Client, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    return list(client.query(query, parameters=parameters).named_results())


def _missing(client: redis.Redis, keys: Sequence[str]) -> float:
    """The share of these keys that is not there."""
    there: Any = spared(partial(client.exists, *keys), 0) if keys else 0
    return 1 - there / max(len(keys), 1)
