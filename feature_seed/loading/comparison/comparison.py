"""The comparison of gold and store: the entities of a feature, read on both sides."""

import random
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from math import ceil
from typing import Any

import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import Key
from feature_seed.errors import printable
from feature_seed.features.feature import Feature
from feature_seed.loading.comparison.state import (
    BESIDE,
    State,
    difference,
    expected,
    expires,
    stored,
    wrong_end,
)
from feature_seed.loading.stream import Layout
from feature_seed.sql import sql
from feature_seed.store.cluster import primaries
from feature_seed.warehouse.gold import Identifier
from feature_seed.warehouse.mapping import GoldMapping

# Rows of gold that are held at a time: more are compared in slices, each of which is one more scan of gold.
_SLICE_ROWS = 1_000_000

# Rows of gold for each entity of a sample that are paid for. Where entities have more on average, fewer of them are
# compared, but so many at least.
_ENTITY_ROWS, _FEWEST = 1000, 10

# Calls and keys per call of the search for keys that gold does not know.
_SCAN_CALLS, _SCAN_COUNT = 10, 1000

# Entities whose keys are read in one round trip.
_READ_ENTITIES = 1000


# How often an entity that differs is looked at.
_LOOKS = 3


@dataclass(frozen=True)
class Verdict:
    """What is found of an entity: whether it has live events, recorded or not, and what differs."""

    live: bool
    unrecorded: bool
    difference: str


# So many hashes has an id.
HASHES = 2**64


@dataclass(frozen=True)
class Comparison:
    """A feature in the shards of a run, in gold and in the store.

    `watermarks` are those that the shards were loaded up to, in microseconds since 1970.
    """

    feature: Feature
    gold: Client
    store: redis.Redis
    table: Mapping[str, Identifier]
    layout: Layout
    shards: Sequence[str]
    watermarks: Set[int]
    mapping: GoldMapping = field(default_factory=GoldMapping)

    @property
    def expire(self) -> int:
        """After how many seconds entities expire; 0 where they do not."""
        return self.layout.expire.get(self.feature.entity.name, 0)

    def entities(self, scanned: Sequence[int]) -> list[dict[str, Any]]:
        """How many entities and transactions each shard has, and the ids whose hashes were `scanned`."""
        return self._ask("entities", ("usable",), scanned=scanned, expire=self.expire)

    def _ask(self, select: str, relations: Sequence[str], **parameters: Any) -> list[dict[str, Any]]:
        named = ", ".join(f"{name} AS ({sql(f'loading/comparison/{name}')})" for name in relations)
        query = f"WITH {named} {sql(f'loading/comparison/{select}')}"
        return self._rows(query, self.feature.entity.id, **parameters)

    def _rows(self, query: str, entity: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of a query over gold that shares nothing with the one that seeds."""
        common = {
            **self.table,
            "entity": entity,
            "shard_count": self.layout.shard_count,
            "shards": [int(shard, 16) for shard in self.shards],
        }
        # Ids are bytes, and need not be text.
        # ClickHouse 24.8 names the elements of tuples, which would come as dicts.
        formats = {"String": "bytes", "Tuple": "tuple"}
        rows = self.gold.query(self.mapping.over(query), parameters={**common, **parameters}, query_formats=formats)
        return list(rows.named_results())

    def sample(self, run_id: str, share: float, slices: int) -> Iterator[list[dict[str, Any]]]:
        """This share of gold's entities in these shards, others for every run, in slices of their hashes."""
        end = max(int(share * HASHES), 1)
        for number in range(slices):
            first, last = end * number // slices, end * (number + 1) // slices - 1
            yield self._sampled(run_id=run_id, first=first, last=last)

    def _sampled(self, **slice_: Any) -> list[dict[str, Any]]:
        length = self.layout.history_length
        return self._ask(self.feature.name, ("usable", "sampled"), history_length=length, **slice_)

    def differences(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Verdict]:
        """What is found of each sampled entity; of what differs, when it is looked at again: an event may have come."""
        for first in range(0, len(rows), _READ_ENTITIES):
            some = rows[first : first + _READ_ENTITIES]
            verdicts = list(self._looked_at(some))
            for _ in range(_LOOKS - 1):
                differ = [i for i, verdict in enumerate(verdicts) if verdict and verdict.difference]
                for i, verdict in zip(differ, self._looked_at([some[i] for i in differ]), strict=True):
                    verdicts[i] = verdict
            yield from filter(None, verdicts)

    def _looked_at(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Verdict | None]:
        """None of an entity that has expired by the store's clock."""
        before = self._now() if self.expire else 0
        stores = list(self._read([row["id"] for row in rows]))
        after = self._now() if self.expire else 0
        for row, (store, left) in zip(rows, stores, strict=True):
            if self.expire and row["newest"] // 1000 + self.expire * 1000 <= after:
                yield None
                continue
            should = expected(row, store, self.layout, self.watermarks)
            end = expires(row, store, self.expire) if self.expire and not should.unrecorded else None
            found = (
                f"{printable(self._name(key, row['id']))} {text}"
                for key in self.feature.keys
                if (text := difference(should.state[key], store[key]) or wrong_end(end, left[key], before, after))
            )
            yield Verdict(should.live, should.unrecorded, next(found, ""))

    def _now(self) -> int:
        """The store's clock, in milliseconds."""
        seconds, micros = primaries(self.store)[0].time()  # type: ignore[misc]
        return seconds * 1000 + micros // 1000

    def _read(self, entity_ids: Sequence[bytes]) -> Iterator[tuple[State, Mapping[Key, Any]]]:
        """What is in the keys, and how many milliseconds they have left."""
        keys = dict.fromkeys(
            [*self.feature.keys, *chain.from_iterable(BESIDE.get(key, ()) for key in self.feature.keys)]
        )
        with self.store.pipeline(transaction=False) as pipeline:
            read = {"LIST": partial(pipeline.lrange, start=0, end=-1), "HASH": pipeline.hgetall, "STRING": pipeline.get}
            for entity_id in entity_ids:
                for key in keys:
                    read[key.type](self._name(key, entity_id))
                for key in keys if self.expire else ():
                    pipeline.pttl(self._name(key, entity_id))
            replies = iter(pipeline.execute(raise_on_error=False))
        for _ in entity_ids:
            state = {key: stored(key, next(replies)) for key in keys}
            yield state, {key: next(replies) if self.expire else None for key in keys}

    def _name(self, key: Key, entity_id: bytes) -> bytes:
        return key.of(entity_id, tags=self.layout.key_tags)

    def scanned_keys(self, limit: int) -> dict[bytes, bytes]:
        """Some of the feature's keys in the store, of at most `limit` entities, with the id in each."""
        pattern = self.feature.keys[0].template.partition("{}")[0] + "*"
        found: dict[bytes, bytes] = {}
        for name in scanned(self.store, pattern):
            if isinstance(name, bytes) and (entity_id := self._id_in(name)) is not None:
                found[name] = entity_id
        looked_up = set(islice(dict.fromkeys(found.values()), limit))
        return {name: entity_id for name, entity_id in found.items() if entity_id in looked_up}

    def _id_in(self, name: bytes) -> bytes | None:
        """The id in a key of the feature, empty where the layout's tags are missing; None in another key."""
        for key in self.feature.keys:
            before, _, after = key.template.encode().partition(b"{}")
            if name.startswith(before) and name.endswith(after) and len(name) >= len(before + after):
                entity_id = name[len(before) : len(name) - len(after)]
                tagged = entity_id[:1] + entity_id[-1:] == b"{}"
                return entity_id if not self.layout.key_tags else entity_id[1:-1] if tagged else b""
        return None


def sample_share(size: int | None, entities: int, transactions: int) -> tuple[float, int]:
    """Which share of the entities is compared when `size` of them are asked for, and in how many slices."""
    if size is None:
        compared = float(entities)
    else:
        paid_for = size * min(_ENTITY_ROWS * entities / max(transactions, 1), 1)
        compared = min(max(paid_for, min(size, _FEWEST)), entities)
    share = compared / max(entities, 1)
    return share, max(min(ceil(share * transactions / _SLICE_ROWS), ceil(compared)), 1)


def scanned(store: redis.Redis, pattern: str) -> Iterator[Any]:
    """Some of the store's keys, others each time; some of them twice."""
    nodes = primaries(store)
    return (name for node in nodes for name in _scan(node, pattern, ceil(_SCAN_CALLS / len(nodes))))


def _scan(node: redis.Redis, pattern: str, calls: int) -> Iterator[Any]:
    # A cursor is a place in the keyspace. Starting at any other, each run looks at other keys; from the end it goes on
    # at the start, once.
    cursor, ends = random.getrandbits(32), 0
    for _ in range(calls):
        cursor, names = node.scan(cursor, match=pattern, count=_SCAN_COUNT)
        yield from names
        ends += not cursor
        if ends == 2:
            break
