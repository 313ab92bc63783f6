"""Gold whose columns are called otherwise: seeded as a configuration maps it, on the server and from Parquet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import read_card, read_customer
from feature_seed.graph.configuration import read
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.support.expected import Expected, expect
from feature_seed_tests.support.gold import Row
from feature_seed_tests.support.run import seed

# The file of a team whose table is of the Sparkov kind.
CONFIGURATION = """\
gold:
  table: payments
  where: status = 'settled' AND amt > 0
  columns:
    transaction_id: trans_num
    card_id: cc_num
    customer_id: cc_num
    amount: amt
    timestamp: fromUnixTimestamp(unix_time)
    location_lat: merch_lat
    location_long: merch_long
    merchant_category: category
standard:
  card_history: {order: newest_first}
"""

COLUMNS = {
    "cc_num": "Int64",
    "amt": "Float64",
    "unix_time": "Int64",
    "merch_lat": "Nullable(Float64)",
    "merch_long": "Nullable(Float64)",
    "category": "LowCardinality(String)",
    "trans_num": "String",
    "status": "String",
    # What a contract's name may mean elsewhere: an expression sees this one.
    "amount": "UInt32",
    "unused": "Array(UInt8)",
}

START = 1_767_225_600


@dataclass(frozen=True)
class Payment:
    cc_num: int
    amt: float
    unix_time: int
    merch_lat: float | None
    merch_long: float | None
    category: str
    trans_num: str
    status: str
    amount: int
    unused: Sequence[int] = ()


PAYMENTS = [
    Payment(
        4_000_000_000_000_000 + i % 7,
        round(1 + i * 0.37, 2),
        START + i * 60,
        None if i % 5 == 0 else 40 + i / 100,
        None if i % 5 == 0 else -3 - i / 100,
        ("food", "fuel", 'caf "é"')[i % 3],
        f"trans-{i:03}",
        "declined" if i % 11 == 0 else "settled",
        100 * i,
    )
    for i in range(120)
]


def rows(cents: bool = False) -> list[Row]:
    """The settled payments as gold's rows."""
    return [
        Row(
            one.trans_num,
            one.cc_num,
            one.cc_num,
            one.category,
            one.amount / 100 if cents else one.amt,
            datetime.fromtimestamp(one.unix_time, timezone.utc),
            one.merch_lat,
            one.merch_long,
        )
        for one in PAYMENTS
        if one.status == "settled"
    ]


Make = Callable[..., Warehouse]


@pytest.fixture(params=["embedded", "server"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """The payments as a snapshot of two files, or as a table; read as the configuration says."""
    made: list[Client] = []
    server: Warehouse | None = request.getfixturevalue("server") if request.param == "server" else None
    statement = ", ".join(f"{name} {type_}" for name, type_ in COLUMNS.items())
    values = [[getattr(one, name) for one in PAYMENTS] for name in COLUMNS]

    def table(client: Client) -> None:
        client.command(f"CREATE OR REPLACE TABLE payments ({statement}) ENGINE = MergeTree ORDER BY tuple()")
        client.insert("payments", values, column_names=list(COLUMNS), column_oriented=True)

    def warehouse(text: str) -> Warehouse:
        path = tmp_path / "seed.yaml"
        path.write_text(text)
        configuration = read(path)
        gold, mapping = configuration.gold, configuration.mapping
        if server:
            access = {name: getattr(server, name) for name in ("host", "port", "user", "password")}
            return Warehouse(**access, mapping=mapping, gold_table=gold.table or "payments")
        return Warehouse(gold_parquet=f"{tmp_path}/*.parquet", mapping=mapping)

    if server:
        with server.client() as client:
            table(client)
    else:
        chdb: Client = request.getfixturevalue("chdb")
        table(chdb)
        for rest in (0, 1):
            into = f"INSERT INTO FUNCTION file('{tmp_path}/{rest}.parquet', 'Parquet')"
            chdb.command(f"{into} SELECT * FROM payments WHERE unix_time / 60 % 2 = {rest}")
        chdb.command("DROP TABLE payments")
    yield warehouse
    if server:
        with server.client() as client:
            client.command("DROP TABLE payments")


def require_store(online: redis.Redis, expected: Expected) -> None:
    """Every key, and no other."""
    for card_id, card in expected.cards.items():
        assert read_card(online, card_id) == card
    for customer_id, stats in expected.customers.items():
        found = read_customer(online, customer_id)
        assert (found.count, found.mean, found.m2) == (stats.count, pytest.approx(stats.mean), pytest.approx(stats.m2))
    assert (
        online.dbsize()
        == sum(4 + bool(card.location) for card in expected.cards.values()) + 2 * len(expected.customers) + 1
    )


def test_a_table_of_the_sparkov_kind(make: Make, online: redis.Redis, store: OnlineStore) -> None:
    """From `cc_num, amt, unix_time, …` to a green run with a file of fifteen lines; the second run changes no byte."""
    assert len(CONFIGURATION.splitlines()) <= 15
    warehouse = make(CONFIGURATION)
    assert seed(warehouse, store, job="seed_all", newest_first=True).success
    require_store(online, expect(rows(), newest_first=True))
    before = {key: online.dump(key) for key in online.scan_iter("c*")}
    assert seed(warehouse, store, job="seed_all", newest_first=True).success
    assert {key: online.dump(key) for key in online.scan_iter("c*")} == before
