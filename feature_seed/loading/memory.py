"""The memory estimate: what the features will take in Redis, from a sample of this gold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis

from feature_seed.contract import CARD_SEED, CUSTOMER_SEED, Transaction
from feature_seed.features.entity import CARDS
from feature_seed.features.feature import HISTORY, LOCATION, STATS, Feature
from feature_seed.loading.stream import FeatureStream
from feature_seed.sql import sql
from feature_seed.warehouse.gold import over_gold

# About how many cards and, at most, customers are looked at.
_SAMPLE = 1000

# What Redis takes on 64 bits: per key beside its name (its entry, object and share of the table), per list or hash, and
# what rounding adds to the elements of a list. On five golds the estimate was 85 % of what Redis 7.0 took to 123 % of
# what Valkey 9.1 took, whose keys are smaller. On gold of many transactions a card it was 97 % to 112 %.
_KEY_BYTES = 62
_VALUE_BYTES = {HISTORY.name: 80, LOCATION.name: 40, STATS.name: 60}
_SEED_BYTES = 74
_ROUNDED = 1.08

_SEEDS = frozenset((CARD_SEED, CUSTOMER_SEED))

# The bytes of a live event in the seeds of its card and its customer, beside its id in both: times, amounts, a place.
_RECORD_BYTES = 2 * 4 + 65 + 35

# An element, and its values that memory_rows.sql measures. The rest is the same in every element.
_EMPTY = Transaction("", "", 0.0, "2026-01-01T00:00:00.123+00:00", 0.0, 0.0)
_MEASURED = '""0.00.00.0'


@dataclass(frozen=True)
class MemoryEstimate:
    needed: int  # bytes, for what is not in the store yet
    entities: dict[str, int]  # how many of each feature that is, by its name


@dataclass(frozen=True)
class Sample:
    cards: Sequence[str]  # ids
    customers: Sequence[str]  # likewise
    history: float  # mean bytes of the elements of a history
    record: float  # mean bytes of a live event in both of its seeds


def estimate_memory(client: redis.Redis, stream: FeatureStream, features: Sequence[Feature]) -> MemoryEstimate:
    """What these features need in the stream's shards, in 0.3 s for 10 M rows. Keys that are there need nothing.

    The records of a day of live events are included, as many as gold has a day. The next load forgets them.
    """
    layout, profile, sample = stream.layout, stream.warehouse.profile(), _sample(stream)
    needed, new = 0.0, {}
    entities_of = {feature.entity.name: feature.entity for feature in features}
    expired = {name: stream.expired(entity) for name, entity in entities_of.items()}  # each may be a scan of gold
    for feature in features:
        ids = sample.cards if feature.entity is CARDS else sample.customers
        entities = profile.entities(feature.entity.id) * len(stream.shards) / layout.shard_count
        events = profile.daily / profile.entities(feature.entity.id) * sample.record / len(_SEEDS)
        history = sample.history if feature == HISTORY else 0
        seeds = [key for key in feature.keys if key in _SEEDS]
        values = [key for key in feature.keys if key not in _SEEDS]
        for keys, bytes_ in (seeds, _SEED_BYTES + events), (values, _VALUE_BYTES[feature.name] + history):
            names = [key.of(entity_id, tags=layout.key_tags) for key in keys for entity_id in ids]
            there: Any = client.exists(*names[: len(ids)]) if names else 0
            missing = max(entities * (1 - there / max(len(ids), 1)) - expired[feature.entity.name], 0)
            of_keys = _KEY_BYTES * len(keys) + sum(len(name.encode()) for name in names) / max(len(ids), 1)
            needed += missing * (of_keys + bytes_) if keys else 0
        new[feature.name] = round(missing)
    return MemoryEstimate(round(needed), new)


def _sample(stream: FeatureStream) -> Sample:
    layout, profile = stream.layout, stream.warehouse.profile()
    parameters = {
        **stream.warehouse.table,
        "shard_count": layout.shard_count,
        "history_length": layout.history_length,
        "shards": stream.numbers,
        "one_in": max(profile.cards * len(stream.shards) // layout.shard_count // _SAMPLE, 1),
    }
    with stream.warehouse.client() as client, stream.warehouse.errors():
        cards = client.query(stream.warehouse.mapping.over(sql("loading/memory_cards")), parameters).result_rows
        values = stream.warehouse.only_row(client, over_gold("loading/memory_rows"), parameters)
    depth = sum(transactions for _, transactions in cards) / max(len(cards), 1)
    element = len(_EMPTY.encode(layout.element)) - len(_MEASURED) + values["values_bytes"]
    history = depth * element * _ROUNDED
    return Sample([card for card, _ in cards], values["customers"], history, _RECORD_BYTES + 2 * values["id_bytes"])
