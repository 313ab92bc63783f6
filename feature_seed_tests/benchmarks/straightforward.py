"""The straightforward seeder, which feature_seed replaces: rows read one by one, a round trip for each command."""

from collections import defaultdict, deque
from collections.abc import Iterable
from datetime import datetime, timezone
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from clickhouse_connect.driver.client import Client
from redis import Redis

from feature_seed.contract import (
    CARD_HISTORY,
    CARD_LAST_TS,
    CARD_LOCATION,
    CARD_SEQ,
    CUSTOMER_STATS,
    HISTORY_LENGTH,
    Transaction,
    Welford,
)


class Row(NamedTuple):
    transaction_id: str
    card_id: str
    customer_id: str
    merchant_category: str
    amount: float
    timestamp: datetime
    location_lat: float | None
    location_long: float | None

    @property
    def time(self) -> datetime:
        return self.timestamp.replace(tzinfo=timezone.utc)  # the driver leaves it out

    def transaction(self) -> Transaction:
        time = self.time.isoformat(timespec="milliseconds")
        return Transaction(
            self.transaction_id, self.merchant_category, self.amount, time, self.location_lat, self.location_long
        )


_ROWS = f"""
    SELECT {", ".join(Row._fields)} FROM file({{gold:String}}, 'Parquet') ORDER BY card_id, timestamp, transaction_id
"""


def seed(client: Client, gold: Path, redis: Redis) -> int:
    """Seed everything in the snapshot, and say how many cards that was."""
    cards = 0
    customers: defaultdict[str, Welford] = defaultdict(Welford)
    with client.query_rows_stream(_ROWS, {"gold": str(gold)}, query_tz="UTC") as rows:
        for card_id, transactions in groupby((Row(*row) for row in rows), attrgetter("card_id")):
            _seed_card(redis, card_id, transactions, customers)
            cards += 1
    for customer_id, stats in customers.items():
        redis.hset(CUSTOMER_STATS.of(customer_id), mapping={**stats.encode()})
    return cards


def _seed_card(redis: Redis, card_id: str, transactions: Iterable[Row], customers: dict[str, Welford]) -> None:
    history: deque[Row] = deque(maxlen=HISTORY_LENGTH)
    location: dict[str, float] = {}
    seq = 0
    for row in transactions:
        history.append(row)
        seq += 1
        customers[row.customer_id] = customers[row.customer_id].update(row.amount)
        if row.location_lat is not None and row.location_long is not None:
            location = {"lat": row.location_lat, "lon": row.location_long}
    redis.delete(CARD_HISTORY.of(card_id))
    redis.rpush(CARD_HISTORY.of(card_id), *(row.transaction().encode() for row in history))
    if location:
        redis.hset(CARD_LOCATION.of(card_id), mapping={**location})
    redis.set(CARD_LAST_TS.of(card_id), history[-1].time.timestamp())
    redis.set(CARD_SEQ.of(card_id), seq)
