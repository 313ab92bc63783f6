"""A small gold in a database of its own, whose answers come in hundreds of blocks, and its readers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha512
from pathlib import Path

from feature_seed.features import entity
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.clickhouse_http import ClickHouseServer
from feature_seed_tests.support.gold import TYPES, Row, transaction
from feature_seed_tests.support.patience import wait_for

CARDS = 600
CUSTOMERS = 300
KEYS = 5 * CARDS + CUSTOMERS + 1  # with feature_seed:ready

# The rows of `gold_rows`, made by the server, in a database that has UUIDs as a real server's have.
ROWS = f"""
    SELECT
        lower(hex(SHA512(toString(number)))), concat('c', toString(number % {CARDS})),
        concat('p', toString(number % {CUSTOMERS})), 'food', number % 100 / 4,
        toDateTime64('2026-01-01', 3, 'UTC') + toIntervalSecond(number), 1.5, -2.25
    FROM numbers({2 * CARDS})"""
# By then, some 250 blocks are more than the 64 KB that clickhouse-connect gathers before it hands on the first.
LATE = 220

COLUMNS = ", ".join(f"{name} {type_}" for name, type_ in TYPES.items())
MAKE = f"CREATE OR REPLACE TABLE bank.gold ({COLUMNS}) ENGINE = MergeTree ORDER BY tuple()"

# Rows after all others: a transaction of another card, and one of a card that is there.
NEWER = "('new', 'new', 'new', 'food', 1, '2026-10-01', 1, 1), ('newer', 'c1', 'p1', 'food', 1, '2026-10-01', 1, 1)"

OLDER = "('late', 'c1', 'p1', 'food', 1, '2025-12-31', 1, 1)"

# A row that a profile would count as rejected.
UNUSABLE = "('late', '', 'p1', 'food', 1, '2025-12-31', 1, 1)"

BROKE_OFF = "broke off in the middle of its answer: look into its log, then run again"


def gold_rows() -> list[Row]:
    return [
        transaction(
            n,
            f"c{n % CARDS}",
            seconds=n,
            transaction_id=sha512(str(n).encode()).hexdigest(),  # which no compressor makes small
            customer_id=f"p{n % CUSTOMERS}",
            amount=n % 100 / 4,
        )
        for n in range(2 * CARDS)
    ]


def at(port: int, database: str = "bank", table: str = "gold", pass_bytes: int = 360_000_000) -> Warehouse:
    return Warehouse(
        host="127.0.0.1",
        port=port,
        user="seeder",
        password=PASSWORD,
        database=database,
        gold_table=table,
        pass_bytes=pass_bytes,
    )


def make_gold(port: int) -> None:
    with at(port, "default").client() as client:
        for statement in ("CREATE DATABASE IF NOT EXISTS bank ENGINE = Atomic", MAKE, f"INSERT INTO bank.gold {ROWS}"):
            client.command(statement)


def history(gold: Warehouse, *shards: str) -> FeatureStream:
    return FeatureStream(gold, Layout(), entity.CARDS, shards or tuple(shard_names(16)))


def delivered(read: FeatureStream) -> int:
    with read.prefetched(1) as blocks:
        return sum(len(block.keys) for block in blocks)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Require that there are the same threads and sockets afterwards as before."""
    before = threading.enumerate(), sockets()
    yield
    assert (threading.enumerate(), sockets()) == before


def sockets() -> list[str]:
    found = list(Path("/proc/self/fd").iterdir())
    return sorted(name for path in found if path.is_symlink() and (name := str(path.readlink())).startswith("socket"))


def wait_until_left(endpoint: ClickHouseServer) -> None:
    """Wait until the server has noticed that a reader has left in the middle of an answer."""
    wait_for(endpoint.left, "the server notices")
    assert endpoint.left() == 1
