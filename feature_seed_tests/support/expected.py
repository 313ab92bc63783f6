"""What the store must hold, worked out from gold's rows in plain Python. Only types come from the code under test."""

import json
import math
import re
import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fractions import Fraction
from typing import Any

from feature_seed.contract import Card, Transaction, Welford
from feature_seed_tests.support.gold import Row


@dataclass
class Expected:
    """The state of every entity by its id, and how many rows cannot be used. Ids are str, or bytes if no text."""

    cards: dict[Any, Card] = field(default_factory=dict)
    customers: dict[Any, Welford] = field(default_factory=dict)
    rejected: int = 0


def expect(rows: Iterable[Row], *, history_length: int = 10, newest_first: bool = False) -> Expected:
    expected = Expected()
    by_card: dict[str | bytes, list[Row]] = defaultdict(list)
    amounts: dict[str | bytes, list[float]] = defaultdict(list)
    for row in rows:
        if usable(row):
            by_card[_id(row.card_id)].append(row)
            amounts[_id(row.customer_id)].append(float(row.amount))
        else:
            expected.rejected += 1
    for card_id, transactions in by_card.items():
        expected.cards[card_id] = _card(transactions, history_length, newest_first)
    for customer_id, values in amounts.items():
        expected.customers[customer_id] = welford(values)
    return expected


def usable(row: Row) -> bool:
    ids = (row.transaction_id, row.card_id, row.customer_id)
    return (
        all(one is not None and _bytes(one) for one in ids)
        and row.timestamp is not None
        and 1900 <= _utc(row).year <= 2299
        and row.amount is not None
        and abs(row.amount) <= 1e100
    )


def welford(amounts: list[float]) -> Welford:
    """Count, mean and sum of squared deviations in exact arithmetic, rounded once."""
    ratios = [amount.as_integer_ratio() for amount in amounts]
    scale = max(denominator for _, denominator in ratios)  # powers of two, so each divides it
    exact = [numerator * (scale // denominator) for numerator, denominator in ratios]
    count, total = len(exact), sum(exact)
    m2 = Fraction(count * sum(one * one for one in exact) - total * total, count * scale * scale)
    return Welford(count, float(Fraction(total, count * scale)), float(m2))


def _card(rows: list[Row], history_length: int, newest_first: bool) -> Card:
    oldest, *_ = sorted(map(_order, rows))[-history_length:]
    newest = [row for row in rows if _order(row) >= oldest]
    ordered = sorted(newest, key=lambda row: (*_order(row), float(row.amount), *_rest(listed(row))))
    history = [listed(row) for row in ordered[-history_length:]]
    return Card(
        history=tuple(reversed(history) if newest_first else history),
        location=_location(rows),
        last_ts=_cut(_utc(ordered[-1])).timestamp(),
        seq=len(rows),
    )


def _order(row: Row) -> tuple[Any, ...]:
    return _utc(row), _bytes(row.transaction_id)


def _rest(transaction: Transaction) -> tuple[Any, ...]:
    """The order of two rows of one time, id and amount: by category, then by the bytes of the coordinates."""
    place = [math.nan if one is None else one for one in (transaction.location_lat, transaction.location_long)]
    return json.dumps(transaction.merchant_category, ensure_ascii=False).encode(), struct.pack("<dd", *place)


def _location(rows: list[Row]) -> tuple[float, float] | None:
    """The place of a card. Of two rows of one time and id, it is always the same row's: nothing more can be said."""
    located = [(row, lat, lon) for row in rows if None not in (lat := _latitude(row), lon := _longitude(row))]
    if not located:
        return None
    _, lat, lon = max(located, key=lambda one: (*_order(one[0]), struct.pack("<dd", one[1], one[2])))
    return lat, lon  # type: ignore[return-value]


def listed(row: Row) -> Transaction:
    """The row as an element of its card's history."""
    return Transaction(
        transaction_id=_text(_bytes(row.transaction_id)),
        merchant_category=None if row.merchant_category is None else _text(_bytes(row.merchant_category)),
        amount=float(row.amount),
        timestamp=_utc(row).isoformat(timespec="milliseconds"),
        location_lat=_latitude(row),
        location_long=_longitude(row),
    )


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _id(value: Any) -> str | bytes:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError:
        return _bytes(value)


def _text(value: bytes) -> str:
    """The bytes as JSON's text: one U+FFFD stands for each run of bytes that are no text."""
    return re.sub("[\udc80-\udcff]+", "\ufffd", value.decode(errors="surrogateescape"))


def _utc(row: Row) -> datetime:
    assert row.timestamp is not None
    return row.timestamp if row.timestamp.tzinfo else row.timestamp.replace(tzinfo=timezone.utc)


def _cut(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def _latitude(row: Row) -> float | None:
    return _degrees(row.location_lat, 90)


def _longitude(row: Row) -> float | None:
    return _degrees(row.location_long, 180)


def _degrees(value: Any, limit: int) -> float | None:
    """None if it is unknown, or no place on the globe."""
    return float(value) if value is not None and -limit <= value <= limit else None
