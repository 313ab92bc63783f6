"""What one side knows of an entity, gold or the store, and where the two differ."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import redis

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
from feature_seed.errors import printable
from feature_seed.loading.stream import Layout

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# What one side knows of an entity: the values of each key by their names; "" names a key that cannot be read.
State = Mapping[Key, Mapping[str, Any]]

# The values that events move on: where one of the store's is past gold's, a scorer has been at work on the key.
PROGRESS = {
    CARD_HISTORY: {CARD_SEQ: "value"},
    CARD_LOCATION: {CARD_LAST_TS: "value", CARD_SEQ: "value"},  # of the same time, only the count tells
    CARD_LAST_TS: {CARD_LAST_TS: "value"},
    CARD_SEQ: {CARD_SEQ: "value"},
    CARD_SEEDED: {},
    CUSTOMER_STATS: {CUSTOMER_STATS: "count"},
}


@dataclass(frozen=True, eq=False)
class Approximate:
    """A sum of floats; the same as another that rounding moved by a billionth, or by `slack`."""

    value: float
    slack: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and math.isclose(self.value, other, rel_tol=1e-9, abs_tol=self.slack)

    def __repr__(self) -> str:
        return repr(self.value)


def gold_state(row: Mapping[str, Any], layout: Layout) -> State:
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
    return {
        "count": len(amounts),
        "mean": Approximate(mean, slack),
        "M2": Approximate(m2, len(amounts) * slack * slack),
    }


def stored(key: Key, reply: Any) -> Mapping[str, Any]:
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


def is_ahead(gold: State, store: State, key: Key) -> bool:
    if key == CARD_HISTORY and not store[key]:
        return False  # the guard writes a list that is missing, whatever the count
    leaders = PROGRESS[key].items()
    return any(store[leader].get(field, -math.inf) > gold[leader][field] for leader, field in leaders)


def difference(gold: Mapping[str, Any], store: Mapping[str, Any]) -> str:
    """The first value of a key that is not the same on both sides, '' if all are."""
    if "" in store:
        return f"cannot be read: {type(store['']).__name__} {store['']}"
    for field in [*gold, *store]:
        if field not in store or field not in gold or gold[field] != store[field]:
            ours, theirs = (
                printable(repr(side[field]).encode()) if field in side else "nothing" for side in (gold, store)
            )
            return f"{field}: gold has {ours}, the store {theirs}"
    return ""
