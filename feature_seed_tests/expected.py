"""What the store must hold, worked out from gold's rows in plain Python; of the code under test only its types."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fractions import Fraction

from feature_seed.contract import Card, Transaction, Welford
from feature_seed_tests.gold import Row


@dataclass
class Expected:
    """State of every entity, and the number of rows that cannot be used."""

    cards: dict[str, Card] = field(default_factory=dict)
    customers: dict[str, Welford] = field(default_factory=dict)
    rejected: int = 0


def expect(rows: Iterable[Row], *, history_length: int = 10, newest_first: bool = False) -> Expected:
    expected = Expected()
    by_card: dict[str, list[Row]] = defaultdict(list)
    amounts: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if usable(row):
            by_card[str(row.card_id)].append(row)
            amounts[str(row.customer_id)].append(float(row.amount))
        else:
            expected.rejected += 1
    for card_id, transactions in by_card.items():
        expected.cards[card_id] = _card(transactions, history_length, newest_first)
    for customer_id, values in amounts.items():
        expected.customers[customer_id] = welford(values)
    return expected


def replay(
    gold: Iterable[Row], live: Iterable[Row], *, history_length: int = 10, newest_first: bool = False
) -> Expected:
    """What gold and then every live event that gold does not hold, in order of arrival, make of the store."""
    by_card: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(gold, key=_order):
        by_card[row.card_id].append(row)
    seeded = {row.transaction_id for rows in by_card.values() for row in rows}
    for row in live:
        if row.transaction_id not in seeded:
            by_card[row.card_id].append(row)
    amounts: dict[str, list[float]] = defaultdict(list)
    for rows in by_card.values():
        for row in rows:
            amounts[row.customer_id].append(row.amount)
    return Expected(
        {card_id: _replayed(rows, history_length, newest_first) for card_id, rows in by_card.items()},
        {customer_id: welford(values) for customer_id, values in amounts.items()},
    )


def _replayed(rows: list[Row], history_length: int, newest_first: bool) -> Card:
    history = [listed(row) for row in rows[-history_length:]]
    newest, location = -math.inf, None
    for row in rows:
        time = _utc(row).timestamp()
        if _known(row.location_lat) and not (time < newest and location):
            location = (row.location_lat, row.location_long)
        newest = max(newest, time)
    return Card(tuple(history[::-1] if newest_first else history), location, newest, len(rows))  # type: ignore[arg-type]


def usable(row: Row) -> bool:
    ids = (row.transaction_id, row.card_id, row.customer_id)
    return (
        all(one is not None and str(one) != "" for one in ids)
        and row.timestamp is not None
        and row.amount is not None
        and math.isfinite(row.amount)
    )


def welford(amounts: list[float]) -> Welford:
    """Count, mean and sum of squared deviations in exact arithmetic, rounded once."""
    exact = [Fraction(amount) for amount in amounts]
    mean = sum(exact) / len(exact)
    return Welford(len(exact), float(mean), float(sum((amount - mean) ** 2 for amount in exact)))


def _card(rows: list[Row], history_length: int, newest_first: bool) -> Card:
    ordered = sorted(rows, key=_order)
    located = [row for row in ordered if _known(row.location_lat) and _known(row.location_long)]
    history = [listed(row) for row in ordered[-history_length:]]
    return Card(
        history=tuple(reversed(history) if newest_first else history),
        location=(located[-1].location_lat, located[-1].location_long) if located else None,  # type: ignore[arg-type]
        last_ts=_utc(ordered[-1]).timestamp(),
        seq=len(ordered),
    )


def _order(row: Row) -> tuple[datetime, bytes]:
    return _utc(row), str(row.transaction_id).encode()


def listed(row: Row) -> Transaction:
    """The row as an element of its card's history."""
    return Transaction(
        transaction_id=str(row.transaction_id),
        merchant_category=row.merchant_category,
        amount=float(row.amount),
        timestamp=_utc(row).isoformat(timespec="milliseconds"),
        location_lat=row.location_lat if _known(row.location_lat) else None,
        location_long=row.location_long if _known(row.location_long) else None,
    )


def _utc(row: Row) -> datetime:
    assert row.timestamp is not None
    return row.timestamp if row.timestamp.tzinfo else row.timestamp.replace(tzinfo=timezone.utc)


def _known(coordinate: float | None) -> bool:
    return coordinate is not None and math.isfinite(coordinate)
