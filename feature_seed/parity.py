"""The checks of the features: the store against gold, before it is called ready."""

import math
import random
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import chain, islice
from math import ceil
from typing import Any

import dagster as dg
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.checks import check_result, check_specs
from feature_seed.cluster import primaries
from feature_seed.contract import (
    CARD_HISTORY,
    CARD_LAST_TS,
    CARD_LOCATION,
    CARD_SEEDED,
    CARD_SEQ,
    CUSTOMER_STATS,
    Key,
    Transaction,
    Welford,
)
from feature_seed.entity import sql
from feature_seed.errors import shown
from feature_seed.feature import FEATURES, Feature
from feature_seed.limits import GoldLimits
from feature_seed.online_store import OnlineStore
from feature_seed.readiness import LOADS, Seeded, latest
from feature_seed.retries import retried
from feature_seed.stream import Layout, shard_names
from feature_seed.warehouse import Identifier, Warehouse

# Rows of gold that are held at a time: more are compared in slices, each of which is one more scan of gold.
_SLICE_ROWS = 1_000_000

# Rows of gold for each entity of a sample that are paid for. Where entities have more on average, fewer of them are
# compared, but so many at least.
_ENTITY_ROWS, _FEWEST = 1000, 10

# Calls and keys per call of the search for keys that gold does not know, and entities that are looked up there.
_SCAN_CALLS, _SCAN_COUNT, _MET_ENTITIES = 10, 1000, 1000

# Entities whose keys are read in one round trip.
_READ_ENTITIES = 1000

_EXAMPLES = 10

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_CHECKS = {
    "entity_count": "Every shard was given as many entities as gold has.",
    "parity": "A sample of entities, another one in every run, is in the store as gold has it, value by value.",
    "unknown_entities": "Gold knows the entities of the keys in the store, unless a scorer has met new ones since.",
}

# What one side knows of an entity: the values of each key by their names; "" names a key that cannot be read.
State = Mapping[Key, Mapping[str, Any]]

# The values that events move on: where one of the store's is past gold's, a scorer has been at work on the key.
_PROGRESS = {
    CARD_HISTORY: {CARD_SEQ: "value"},
    CARD_LOCATION: {CARD_LAST_TS: "value", CARD_SEQ: "value"},  # of the same time, only the count tells
    CARD_LAST_TS: {CARD_LAST_TS: "value"},
    CARD_SEQ: {CARD_SEQ: "value"},
    CARD_SEEDED: {},
    CUSTOMER_STATS: {CUSTOMER_STATS: "count"},
}


@dataclass(frozen=True, eq=False)
class Near:
    """A sum of floats; the same as another that rounding moved by a billionth, or by `slack`."""

    value: float
    slack: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and math.isclose(self.value, other, rel_tol=1e-9, abs_tol=self.slack)

    def __repr__(self) -> str:
        return repr(self.value)


def _gold_state(row: Mapping[str, Any], layout: Layout) -> State:
    """What the store should hold for a row of a feature's query in sql/checks."""
    if "amounts" in row:
        return {CUSTOMER_STATS: _stats(row["amounts"])}
    count = {"value": row["transactions"]}
    if "latest" in row:
        latest = [_transaction(*one) for one in row["latest"]]
        history = _elements(latest if layout.newest_first else latest[::-1])
        return {CARD_HISTORY: history, CARD_SEQ: count, CARD_SEEDED: count}
    place = dict(zip(CARD_LOCATION.fields, row["place"], strict=True)) if row["located"] else {}
    return {CARD_LOCATION: place, CARD_LAST_TS: {"value": row["newest"] // 1000 / 1000}, CARD_SEQ: count}


def _transaction(
    micros: int, number: bytes, paid: float, category: bytes | None, lat: float | None, lon: float | None
) -> Transaction:
    time = (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="milliseconds")
    return Transaction(_text(number), None if category is None else _text(category), paid, time, lat, lon)


def _text(value: bytes) -> str:
    """As JSON holds it: each run of bytes that are no UTF-8 is one U+FFFD."""
    return re.sub("[\udc80-\udcff]+", "\ufffd", value.decode(errors="surrogateescape"))


def _elements(transactions: Iterable[Transaction]) -> dict[str, Any]:
    return {f"[{i}].{name}": value for i, one in enumerate(transactions) for name, value in vars(one).items()}


def _stats(amounts: Sequence[float]) -> dict[str, Any]:
    mean = math.fsum(amounts) / len(amounts)
    m2 = math.fsum((amount - mean) * (amount - mean) for amount in amounts)
    # Amounts that cancel leave a mean, and equal ones an M2, of nothing but rounding.
    slack = 1e-12 * max(map(abs, amounts))
    return {"count": len(amounts), "mean": Near(mean, slack), "M2": Near(m2, len(amounts) * slack * slack)}


def _stored(key: Key, reply: Any) -> Mapping[str, Any]:
    """A reply of Redis as a scorer would read it."""
    try:
        return _decoded(key, reply) if reply else {}
    except (ValueError, KeyError, TypeError) as e:
        return {"": e}


def _decoded(key: Key, reply: Any) -> Mapping[str, Any]:
    if isinstance(reply, redis.ResponseError):
        return {"": reply}
    if key == CARD_HISTORY:
        return _elements(map(Transaction.decode, reply))
    if key == CARD_LOCATION:
        return {field: float(reply[field.encode()]) for field in key.fields}
    if key == CUSTOMER_STATS:
        state = Welford.decode(reply)
        return {"count": state.count, "mean": state.mean, "M2": state.m2}
    return {"value": int(reply) if key in (CARD_SEQ, CARD_SEEDED) else float(reply)}


def _ahead(gold: State, store: State, key: Key) -> bool:
    if key == CARD_HISTORY and not store[key]:
        return False  # the guard writes a list that is missing, whatever the count
    leaders = _PROGRESS[key].items()
    return any(store[leader].get(field, -math.inf) > gold[leader][field] for leader, field in leaders)


def _difference(gold: Mapping[str, Any], store: Mapping[str, Any]) -> str:
    """The first value of a key that is not the same on both sides, '' if all are."""
    if "" in store:
        return f"cannot be read: {type(store['']).__name__} {store['']}"
    for field in [*gold, *store]:
        if field not in store or field not in gold or gold[field] != store[field]:
            ours, theirs = (shown(repr(side[field]).encode()) if field in side else "nothing" for side in (gold, store))
            return f"{field}: gold has {ours}, the store {theirs}"
    return ""


@dataclass(frozen=True)
class Comparison:
    """A feature in the shards of a run, in gold and in the store."""

    feature: Feature
    gold: Client
    store: redis.Redis
    table: Mapping[str, Identifier]
    layout: Layout
    shards: Sequence[str]

    def ask(self, select: str, relations: Sequence[str], **parameters: Any) -> list[dict[str, Any]]:
        """Rows of a query over gold that shares nothing with the one that seeds."""
        named = ", ".join(f"{name} AS ({sql(f'checks/{name}')})" for name in relations)
        common = {**self.table, "entity": self.feature.entity.id, "shard_count": self.layout.shard_count}
        query = f"WITH {named} {sql(f'checks/{select}')}"
        # Ids are bytes, and need not be text.
        rows = self.gold.query(query, parameters={**common, **parameters}, query_formats={"String": "bytes"})
        return list(rows.named_results())

    def sample(self, run_id: str, share: float, slices: int) -> Iterator[list[dict[str, Any]]]:
        """This share of gold's entities in these shards, others for every run, in slices of their hashes."""
        end = max(int(share * 2**64), 1)
        for number in range(slices):
            yield self.ask(
                self.feature.name,
                ("usable", "sampled"),
                run_id=run_id,
                first=end * number // slices,
                last=end * (number + 1) // slices - 1,
                shards=[int(shard, 16) for shard in self.shards],
                history_length=self.layout.history_length,
            )

    def differences(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[bool, str]]:
        """Whether the store is ahead of gold, and what differs, for each sampled entity."""
        for first in range(0, len(rows), _READ_ENTITIES):
            some = rows[first : first + _READ_ENTITIES]
            for row, store in zip(some, self._read([row["id"] for row in some]), strict=True):
                gold = _gold_state(row, self.layout)
                ahead = [key for key in self.feature.keys if _ahead(gold, store, key)]
                found = (
                    f"{shown(self._name(key, row['id']))} {text}"
                    for key in self.feature.keys
                    if key not in ahead and (text := _difference(gold[key], store[key]))
                )
                yield bool(ahead), next(found, "")

    def _read(self, entity_ids: Sequence[bytes]) -> Iterator[State]:
        """The state of each entity; times come after what goes with them, so that an event in between looks ahead."""
        keys = dict.fromkeys([*self.feature.keys, *chain.from_iterable(map(_PROGRESS.__getitem__, self.feature.keys))])
        with self.store.pipeline(transaction=False) as pipeline:
            read = {"LIST": partial(pipeline.lrange, start=0, end=-1), "HASH": pipeline.hgetall, "STRING": pipeline.get}
            for entity_id in entity_ids:
                for key in keys:
                    read[key.type](self._name(key, entity_id))
            replies = iter(pipeline.execute(raise_on_error=False))
        return ({key: _stored(key, next(replies)) for key in keys} for _ in entity_ids)

    def _name(self, key: Key, entity_id: bytes) -> bytes:
        return key.of(entity_id, tags=self.layout.key_tags)

    def met(self, limit: int) -> dict[bytes, bytes]:
        """Some of the feature's keys in the store, of at most `limit` entities, with the id in each."""
        pattern = self.feature.keys[0].template.partition("{}")[0] + "*"
        met: dict[bytes, bytes] = {}
        nodes = primaries(self.store)
        for name in (one for node in nodes for one in _scan(node, pattern, ceil(_SCAN_CALLS / len(nodes)))):
            if isinstance(name, bytes) and (entity_id := self._id_in(name)) is not None:
                met[name] = entity_id
        looked_up = set(islice(dict.fromkeys(met.values()), limit))
        return {name: entity_id for name, entity_id in met.items() if entity_id in looked_up}

    def _id_in(self, name: bytes) -> bytes | None:
        """The id in a key of the feature, empty where the layout's tags are missing; None in another key."""
        for key in self.feature.keys:
            before, _, after = key.template.encode().partition(b"{}")
            if name.startswith(before) and name.endswith(after) and len(name) >= len(before + after):
                entity_id = name[len(before) : len(name) - len(after)]
                tagged = entity_id[:1] + entity_id[-1:] == b"{}"
                return entity_id if not self.layout.key_tags else entity_id[1:-1] if tagged else b""
        return None

    def check(self, run_id: str, size: int | None, seeded: Mapping[str, Seeded]) -> Iterator[dg.AssetCheckResult]:
        """Two scans of gold, some 3 CPU-seconds for 10 M rows, and about `size` entities of either side.

        Without a size all of them, and a scan for every million rows.
        """
        met = self.met(_MET_ENTITIES)
        ids = [zlib.crc32(entity_id) for entity_id in set(met.values())]
        rows = {f"{row['shard']:02x}": row for row in self.ask("entities", ("usable",), met=ids)}
        counts = {shard: rows[shard]["entities"] if shard in rows else 0 for shard in self.shards}
        yield _entity_count(self.feature.name, counts, seeded)
        transactions = sum(rows[shard]["transactions"] for shard in self.shards if shard in rows)
        share, slices = portion(size, sum(counts.values()), transactions)
        # A chain lets go of a slice before it asks for the next.
        found = chain.from_iterable(map(self.differences, self.sample(run_id, share, slices)))
        yield _parity(self.feature.name, found, seeded)
        known = {entity_id for row in rows.values() for entity_id in row["known"]}
        unknown = [name for name, entity_id in met.items() if entity_id not in known]
        yield _unknown_entities(self.feature.name, len(met), unknown)


def portion(size: int | None, entities: int, transactions: int) -> tuple[float, int]:
    """Which share of the entities is compared when `size` of them are asked for, and in how many slices."""
    if size is None:
        compared = float(entities)
    else:
        paid_for = size * min(_ENTITY_ROWS * entities / max(transactions, 1), 1)
        compared = min(max(paid_for, min(size, _FEWEST)), entities)
    share = compared / max(entities, 1)
    return share, max(min(ceil(share * transactions / _SLICE_ROWS), ceil(compared)), 1)


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


def _entity_count(feature: str, counts: Mapping[str, int], seeded: Mapping[str, Seeded]) -> dg.AssetCheckResult:
    written = {shard: one.entities for shard, one in seeded.items()}
    wrong = [
        f"shard {shard}: gold has {count}, the store was given {written.get(shard, 'none yet')}"
        for shard, count in counts.items()
        if written.get(shard) != count
    ]
    total = sum(written.values())
    text = f"{total:,} entities in {len(counts)} shards, {len(wrong)} of which differ from gold"
    metadata = {"entities": total, **_loads(seeded)}
    return check_result("entity_count", not wrong, "; ".join([text, *wrong]), metadata, feature)


def _loads(seeded: Mapping[str, Seeded]) -> dict[str, Any]:
    """What was looked at, by which `warm_start` knows that it was verified."""
    return {LOADS: {shard: one.run_id for shard, one in seeded.items()}}


def _parity(feature: str, found: Iterable[tuple[bool, str]], seeded: Mapping[str, Seeded]) -> dg.AssetCheckResult:
    sampled = ahead = different = 0
    examples: list[str] = []
    for is_ahead, difference in found:
        sampled += 1
        ahead += is_ahead
        different += bool(difference)
        if difference and len(examples) < _EXAMPLES:
            examples.append(difference)
    text = f"{different:,} of {sampled:,} entities differ from gold, {ahead:,} are ahead of it"
    counts = {"sampled": sampled, "ahead": ahead, "different": different}
    metadata = {**counts, "examples": examples, **_loads(seeded)}
    return check_result("parity", not different, "; ".join([text, *examples[:1]]), metadata, feature)


def _unknown_entities(feature: str, looked_at: int, unknown: Sequence[bytes]) -> dg.AssetCheckResult:
    examples = [shown(name) for name in unknown[:_EXAMPLES]]
    text = f"{len(unknown):,} of {looked_at:,} keys looked at are of entities that gold does not know"
    metadata = {"looked_at": looked_at, "unknown": len(unknown), "examples": examples}
    return check_result("unknown_entities", not unknown, "; ".join([text, *examples[:1]]), metadata, feature)


def _feature_checks(feature: Feature) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(name=f"{feature.name}_checks", specs=check_specs(feature.name, _CHECKS))
    def compare(
        context: dg.AssetCheckExecutionContext,
        warehouse: Warehouse,
        layout: Layout,
        store: OnlineStore,
        limits: GoldLimits,
    ) -> Iterable[dg.AssetCheckResult]:
        shards = _shards(context, layout)
        seeded = latest(context.instance, feature.name, shards)
        with retried(context.retry_number), store.client() as client, warehouse.client() as gold, warehouse.errors():
            table = {**warehouse.table, "until": warehouse.profile().until}
            comparison = Comparison(feature, gold, client, table, layout, shards)
            yield from comparison.check(context.run.run_id, limits.sample_size, seeded)

    return compare


def _shards(context: dg.AssetCheckExecutionContext, layout: Layout) -> list[str]:
    """The shards of the run; all of them when checks are run by themselves."""
    names = shard_names(layout.shard_count)
    if not (context.has_partition_key or context.has_partition_key_range):
        return names
    some = context.partition_key_range  # partition_keys raises where no asset is run
    return [name for name in names if some.start <= name <= some.end]


FEATURE_CHECKS = [_feature_checks(feature) for feature in FEATURES]
