"""The straightforward seeder, which feature_seed replaces. It reads rows one by one, with a round trip per command."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from itertools import chain, groupby
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

# A command of Redis and its arguments.
Command = tuple[str | float, ...]


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


def commands(client: Client, gold: Path) -> Iterator[Command]:
    """Every command that seeds the snapshot: first those of the cards, one card after the other."""
    customers: defaultdict[str, Welford] = defaultdict(Welford)
    with client.query_rows_stream(_ROWS, {"gold": str(gold)}, query_tz="UTC") as rows:
        for card_id, transactions in groupby((Row(*row) for row in rows), attrgetter("card_id")):
            yield from _card(card_id, transactions, customers)
    for customer_id, stats in customers.items():
        yield ("HSET", CUSTOMER_STATS.of(customer_id), *chain(*stats.encode().items()))


def seed(client: Client, gold: Path, redis: Redis) -> None:
    """Seed everything in the snapshot."""
    for command in commands(client, gold):
        redis.execute_command(*command)


def _card(card_id: str, transactions: Iterable[Row], customers: dict[str, Welford]) -> Iterator[Command]:
    history: deque[Row] = deque(maxlen=HISTORY_LENGTH)
    location: tuple[float, float] | None = None
    seq = 0
    for row in transactions:
        history.append(row)
        seq += 1
        customers[row.customer_id] = customers[row.customer_id].update(row.amount)
        if row.location_lat is not None and row.location_long is not None:
            location = row.location_lat, row.location_long
    yield "DEL", CARD_HISTORY.of(card_id)
    yield ("RPUSH", CARD_HISTORY.of(card_id), *(row.transaction().encode() for row in history))
    if location:
        yield "HSET", CARD_LOCATION.of(card_id), "lat", location[0], "lon", location[1]
    yield "SET", CARD_LAST_TS.of(card_id), history[-1].time.timestamp()
    yield "SET", CARD_SEQ.of(card_id), seq
