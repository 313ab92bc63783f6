"""The comparison of gold and store: the entities of a feature, read on both sides."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from math import ceil
from typing import Any

import redis

from feature_seed.contract import Key
from feature_seed.errors import printable
from feature_seed.features.feature import Feature
from feature_seed.loading.comparison.scan import Row, Scan
from feature_seed.loading.comparison.state import BESIDE, State, difference, expected, expires, stored, wrong_end
from feature_seed.store.cluster import primaries

# How many calls search for keys that gold does not know, and how many keys a call looks at.
_SCAN_CALLS, _SCAN_COUNT = 10, 1000

# Entities whose keys are read in one round trip.
_READ_ENTITIES = 1000


# How often an entity that differs is looked at.
_LOOKS = 3


@dataclass(frozen=True)
class Verdict:
    """What is found out about an entity: whether it has live events, recorded or not, and what differs."""

    live: bool
    unrecorded: bool
    difference: str


@dataclass(frozen=True, kw_only=True)
class Comparison(Scan):
    """Features in the shards of a run, in gold and in the store."""

    features: Sequence[Feature]
    store: redis.Redis

    def differences(self, feature: Feature, rows: Sequence[Row]) -> Iterator[Verdict]:
        """A verdict on each sampled entity. One that differs is looked at again: an event may have come meanwhile."""
        rows = [row for row in rows if row.get(feature.name, True)]
        for first in range(0, len(rows), _READ_ENTITIES):
            some = rows[first : first + _READ_ENTITIES]
            verdicts = list(self._looked_at(feature, some))
            for _ in range(_LOOKS - 1):
                differ = [i for i, verdict in enumerate(verdicts) if verdict and verdict.difference]
                for i, verdict in zip(differ, self._looked_at(feature, [some[i] for i in differ]), strict=True):
                    verdicts[i] = verdict
            yield from filter(None, verdicts)

    def _looked_at(self, feature: Feature, rows: Sequence[Row]) -> Iterator[Verdict | None]:
        """The verdict is None for an entity that has expired by the store's clock."""
        expire = self.layout.expire.get(feature.entity.name, 0)
        before = self._now() if expire else 0
        stores = list(self._read(feature, [row["id"] for row in rows]))
        after = self._now() if expire else 0
        for row, (store, left) in zip(rows, stores, strict=True):
            if expire and row["newest"] // 1000 + expire * 1000 <= after:
                yield None
                continue
            should = expected(row, store, self.layout, {*self.untils})
            end = expires(row, store, expire) if expire and not should.unrecorded else None
            found = (
                f"{printable(self._name(key, row['id']))} {text}"
                for key in feature.keys
                if (text := difference(should.state[key], store[key]) or wrong_end(end, left[key], before, after))
            )
            yield Verdict(should.live, should.unrecorded, next(found, ""))

    def _now(self) -> int:
        """The store's clock, in milliseconds."""
        seconds, micros = primaries(self.store)[0].time()  # type: ignore[misc]
        return seconds * 1000 + micros // 1000

    def _read(self, feature: Feature, entity_ids: Sequence[bytes]) -> Iterator[tuple[State, Mapping[Key, int]]]:
        """What is in the keys, and how many milliseconds the keys have left if any may expire."""
        timed = self.layout.expire
        keys = dict.fromkeys([*feature.keys, *chain.from_iterable(BESIDE.get(key, ()) for key in feature.keys)])
        with self.store.pipeline(transaction=False) as pipeline:
            read = {"LIST": partial(pipeline.lrange, start=0, end=-1), "HASH": pipeline.hgetall, "STRING": pipeline.get}
            for entity_id in entity_ids:
                for key in keys:
                    read[key.type](self._name(key, entity_id))
                for key in keys if timed else ():
                    pipeline.pttl(self._name(key, entity_id))
            replies = iter(pipeline.execute(raise_on_error=False))
        for _ in entity_ids:
            state = {key: stored(key, next(replies)) for key in keys}
            yield state, {key: next(replies) if timed else -1 for key in keys}

    def _name(self, key: Key, entity_id: bytes) -> bytes:
        return key.of(entity_id, tags=self.layout.key_tags)

    def scanned_keys(self, feature: Feature, limit: int) -> dict[bytes, bytes]:
        """Some of a feature's keys in the store, of at most `limit` entities, with the id in each."""
        pattern = feature.keys[0].template.partition("{}")[0] + "*"
        found: dict[bytes, bytes] = {}
        for name in scanned(self.store, pattern):
            if isinstance(name, bytes) and (entity_id := self._id_in(feature, name)) is not None:
                found[name] = entity_id
        looked_up = set(islice(dict.fromkeys(found.values()), limit))
        return {name: entity_id for name, entity_id in found.items() if entity_id in looked_up}

    def _id_in(self, feature: Feature, name: bytes) -> bytes | None:
        """The id in a key of the feature, empty if the layout's tags are missing; None in another key."""
        for key in feature.keys:
            before, _, after = key.template.encode().partition(b"{}")
            if name.startswith(before) and name.endswith(after) and len(name) >= len(before + after):
                entity_id = name[len(before) : len(name) - len(after)]
                tagged = entity_id[:1] + entity_id[-1:] == b"{}"
                return entity_id if not self.layout.key_tags else entity_id[1:-1] if tagged else b""
        return None


def scanned(store: redis.Redis, pattern: str) -> Iterator[Any]:
    """Some of the store's keys, other ones each time. A key may come twice."""
    nodes = primaries(store)
    return (name for node in nodes for name in _scan(node, pattern, ceil(_SCAN_CALLS / len(nodes))))


def _scan(node: redis.Redis, pattern: str, calls: int) -> Iterator[Any]:
    # A cursor is a place in the keyspace. Each run starts at another place, and so looks at other keys. From the end
    # the scan goes on at the start, once.
    cursor, ends = random.getrandbits(32), 0
    for _ in range(calls):
        cursor, names = node.scan(cursor, match=pattern, count=_SCAN_COUNT)
        yield from names
        ends += not cursor
        if ends == 2:
            break
