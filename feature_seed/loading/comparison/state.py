"""What the store should hold of an entity, by what gold and the entity's seed say, and where the two differ.

The rule is that of the load: gold up to its watermark, and the recorded events after it. An unrecorded event shows in
an element of the list, or in the count alone.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import redis

from feature_seed.contract import (
    CARD_HISTORY,
    CARD_LAST_TS,
    CARD_LOCATION,
    CARD_SEED,
    CARD_SEQ,
    CUSTOMER_SEED,
    CUSTOMER_STATS,
    Key,
    Transaction,
    Welford,
)
from feature_seed.errors import printable
from feature_seed.loading.layout import Layout

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# What one side knows of an entity: the values of each key by name. The name "" stands for a key that cannot be read.
State = Mapping[Key, Mapping[str, Any]]

# Keys that are read beside a feature's own, to know what the feature should be.
BESIDE = {CARD_LOCATION: (CARD_SEQ, CARD_SEED)}


@dataclass(frozen=True, eq=False)
class Approximate:
    """A sum of floats. It equals another sum that rounding moved by a billionth, or by `slack`."""

    value: float
    slack: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and math.isclose(self.value, other, rel_tol=1e-9, abs_tol=self.slack)

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True)
class Record:
    """A live event as a seed has it. `time` is in Unix seconds."""

    id: str
    time: float
    amount: float
    place: tuple[float, float] | None

    @property
    def order(self) -> tuple[float, bytes]:
        return self.time, self.id.encode(errors="surrogateescape")


@dataclass(frozen=True)
class Expected:
    """What the store should hold of a feature's keys, and whether live events are in it, recorded or not."""

    state: State
    live: bool
    unrecorded: bool


def expected(row: Mapping[str, Any], store: State, layout: Layout, watermarks: Set[int]) -> Expected:
    """What gold and the store's records make of an entity. `watermarks` are those of the loads."""
    if CUSTOMER_STATS in store:
        return _expected_stats(row["amounts"], store, watermarks)
    if CARD_HISTORY in store:
        return _expected_history(row, store, layout, watermarks)
    return _expected_location(row, store)


def _expected_history(row: Mapping[str, Any], store: State, layout: Layout, watermarks: Set[int]) -> Expected:
    records = _records(store[CARD_SEED])
    elements = store[CARD_HISTORY].get("elements", [])
    elements = elements[::-1] if layout.newest_first else elements
    gold = [_transaction(*one) for one in row["latest"]]
    known = {one.transaction_id for one in gold} | records.keys()
    unrecorded = [one for one in elements if one.transaction_id not in known]
    listed = {one.transaction_id: one for one in elements}
    live = [_agreed(listed[id_], one) for id_, one in records.items() if id_ in listed]
    history = _interleaved([*gold, *live], elements, unrecorded, layout.history_length)
    history = history[::-1] if layout.newest_first else history
    count, seq = row["transactions"] + len(records), store[CARD_SEQ].get("value", 0)
    # Some of the events may have been dropped from the records.
    explained = seq - count >= len(unrecorded) and (seq == count or bool(unrecorded) or "forgot" in store[CARD_SEED])
    state = {
        CARD_HISTORY: {"elements": history},
        CARD_SEQ: {"value": seq if explained else count + len(unrecorded)},
        CARD_SEED: _seed(store[CARD_SEED], row["transactions"], watermarks),
    }
    return Expected(state, bool(records), seq > count)


def _interleaved(
    merged: Sequence[Transaction], elements: Sequence[Transaction], unrecorded: Sequence[Transaction], length: int
) -> list[Transaction]:
    """Gold and the recorded events, cut to the room that unrecorded events leave, with these in their places."""
    newest = list(merged[max(len(merged) - max(length - len(unrecorded), 0), 0) :])
    if len(newest) + len(unrecorded) != len(elements):
        return [*newest, *unrecorded]
    others = iter(newest)
    return [one if one in unrecorded else next(others) for one in elements]


def _agreed(element: Transaction, record: Record) -> Transaction:
    """A live event as its record has it. The record knows no category."""
    lat, lon = record.place or (element.location_lat, element.location_long)
    timestamp = _iso(math.floor(record.time * 1000 + 0.5) * 1000)
    with suppress(ValueError):  # of a time that cannot be read
        if math.isclose(element.time.timestamp(), record.time, abs_tol=1e-3):
            timestamp = element.timestamp
    return replace(element, amount=record.amount, timestamp=timestamp, location_lat=lat, location_long=lon)


def _expected_location(row: Mapping[str, Any], store: State) -> Expected:
    records = _records(store[CARD_SEED])
    seq = store[CARD_SEQ].get("value", 0)
    place = next((dict(zip(CARD_LOCATION.fields, one, strict=True)) for one in row["place"]), {})
    newest = row["newest"] // 1000 / 1000
    for one in records.values():
        newest = one.time
        place = dict(zip(CARD_LOCATION.fields, one.place, strict=True)) if one.place else place
    state: State = {CARD_LOCATION: place, CARD_LAST_TS: {"value": newest}}
    unrecorded = seq > row["transactions"] + len(records)
    if unrecorded:  # they have moved both, and only their scorer knows where to
        state = {key: store[key] for key in state}
    return Expected(state, bool(records), unrecorded)


def _expected_stats(amounts: Sequence[float], store: State, watermarks: Set[int]) -> Expected:
    records = _records(store[CUSTOMER_SEED])
    stats = _stats([*amounts, *(one.amount for one in records.values())])
    unrecorded = store[CUSTOMER_STATS].get("count", 0) > stats["count"]
    state = {
        CUSTOMER_STATS: store[CUSTOMER_STATS] if unrecorded else stats,
        CUSTOMER_SEED: _seed(store[CUSTOMER_SEED], len(amounts), watermarks),
    }
    return Expected(state, bool(records), unrecorded)


def _records(seed: Mapping[str, Any]) -> dict[str, Record]:
    """The live events after the seed's watermark, in order."""
    after = [one for one in seed.get("records", ()) if one.time * 1e6 > seed.get("watermark", -math.inf)]
    return {one.id: one for one in sorted(after, key=lambda one: one.order)}


def _seed(seed: Mapping[str, Any], count: int, watermarks: Set[int]) -> Mapping[str, Any]:
    found = seed.get("watermark", math.inf)
    # An entity that loads have left out keeps an earlier one: what it holds is judged by its digest.
    return {**seed, "watermark": found if found <= max(watermarks) else min(watermarks), "count": count}


def _transaction(
    micros: int, number: bytes, paid: float, category: bytes | None, lat: float | None, lon: float | None
) -> Transaction:
    return Transaction(_text(number), None if category is None else _text(category), paid, _iso(micros), lat, lon)


def _iso(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="milliseconds")


def _text(value: bytes) -> str:
    """The text as JSON holds it: one U+FFFD stands for each run of bytes that are not UTF-8."""
    return re.sub("[\udc80-\udcff]+", "\ufffd", value.decode(errors="surrogateescape"))


def _elements(transactions: Iterable[Transaction]) -> dict[str, Any]:
    return {f"[{i}].{name}": value for i, one in enumerate(transactions) for name, value in vars(one).items()}


def _stats(amounts: Sequence[float]) -> dict[str, Any]:
    mean = math.fsum(amounts) / len(amounts)
    m2 = math.fsum((amount - mean) * (amount - mean) for amount in amounts)
    # If amounts cancel, their mean is nothing but rounding; if they are equal, their M2 is.
    slack = 1e-12 * max(map(abs, amounts))
    return {
        "count": len(amounts),
        "mean": Approximate(mean, slack),
        "M2": Approximate(m2, len(amounts) * slack * slack),
    }


def stored(key: Key, reply: Any) -> Mapping[str, Any]:
    """A reply of Redis as a scorer would read it."""
    try:
        return _decoded(key, reply) if reply else {}
    except (ValueError, KeyError, TypeError, OverflowError) as e:
        return {"": e}


def _decoded(key: Key, reply: Any) -> Mapping[str, Any]:
    if isinstance(reply, redis.ResponseError):
        return {"": reply}
    if key == CARD_HISTORY:
        return {"elements": [Transaction.decode(element) for element in reply]}
    if key == CARD_LOCATION:
        return {field: float(reply[field.encode()]) for field in key.fields}
    if key == CUSTOMER_STATS:
        state = Welford.decode(reply)
        return {"count": state.count, "mean": state.mean, "M2": state.m2}
    if key in (CARD_SEED, CUSTOMER_SEED):
        return _decoded_seed(reply)
    return {"value": int(reply) if key == CARD_SEQ else float(reply)}


def _decoded_seed(reply: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    records = [_record(name, value) for name, value in reply.items() if name.startswith(b"e:")]
    watermark = {"watermark": round(float(reply[b"watermark"]) * 1e6)} if b"watermark" in reply else {}
    count = {"count": int(reply[b"count"])} if b"count" in reply else {}
    forgot = {"forgot": float(reply[b"forgot"])} if b"forgot" in reply else {}
    return {**watermark, **count, **forgot, "records": records}


def _record(name: bytes, value: bytes) -> Record:
    time, amount, lat, lon = value.split(b",")
    place = None if lat == b"-" else (float(lat), float(lon))
    return Record(_text(name[2:]), float(time), float(amount), place)


def expires(row: Mapping[str, Any], store: State, expire: int) -> float:
    """When an entity expires, in Unix milliseconds: `expire` seconds after gold's newest row or the newest event."""
    seed = next(store[key] for key in (CARD_SEED, CUSTOMER_SEED) if key in store)
    return max(row["newest"] // 1000, *(one.time * 1000 for one in _records(seed).values()), 0) + expire * 1000


def wrong_end(end: float | None, left: int, before: int, after: int) -> str:
    """What is wrong with the end of a key, '' if nothing is. The key had `left` milliseconds between the two times."""
    if end is None or left == -2 or before + left - 1 <= end <= after + left + 1:  # a key without a value is not there
        return ""
    return f"expires at {after + left if left > 0 else 'no time'} and not at {end:.0f}, in Unix milliseconds"


def difference(expected: Mapping[str, Any], store: Mapping[str, Any]) -> str:
    """The first value of a key that is not the same on both sides, '' if all are."""
    if "" in store:
        return f"cannot be read: {type(store['']).__name__} {store['']}"
    ours, theirs = ({**side, **_elements(side.get("elements", ()))} for side in (expected, store))
    for field in [*ours, *theirs]:
        if field != "elements" and (field not in theirs or field not in ours or ours[field] != theirs[field]):
            one, other = (
                printable(repr(side[field]).encode()) if field in side else "nothing" for side in (ours, theirs)
            )
            return f"{field}: gold has {one}, the store {other}"
    return ""
