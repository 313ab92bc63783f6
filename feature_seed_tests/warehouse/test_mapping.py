"""Gold whose columns are called otherwise: seeded as a configuration maps it, on the server and from Parquet."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import read_card, read_customer
from feature_seed.errors import ConfigurationError, GoldError
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
    assert seed(warehouse, store, newest_first=True).success
    assert {key: online.dump(key) for key in online.scan_iter("c*")} == before


def test_an_expression_sees_gold_s_own_columns(make: Make, online: redis.Redis, store: OnlineStore) -> None:
    """`amount` in `where` and in its own entry is gold's column of cents. Places and categories are NULL."""
    warehouse = make(
        CONFIGURATION.replace("amt > 0", "amount % 100 = 0")
        .replace("amount: amt", "amount: amount / 100 -- cents")
        .replace("merch_lat", "NULL")
        .replace("merch_long", "null")
        .replace(" category", " ~")
    )
    assert seed(warehouse, store).success
    bare = [replace(row, merchant_category=None, location_lat=None, location_long=None) for row in rows(cents=True)]
    expected = expect(bare)
    assert {card: read_card(online, card) for card in expected.cards} == expected.cards
    assert online.dbsize() == 4 * len(expected.cards) + 2 * len(expected.customers) + 1


SALT = "a salt's \\ secret"

HASHED = CONFIGURATION.replace(
    "card_id: cc_num", "card_id: {of: cc_num, hash: sha256, salt: {env: CARD_SALT}}"
).replace("customer_id: cc_num", "customer_id: {of: toString(cc_num % 4), hash: sha256, salt: {env: CARD_SALT}}")


def hashed(value: object) -> str:
    return hashlib.sha256(f"{SALT}{value}".encode()).hexdigest()


def test_hashed_ids(
    make: Make,
    online: redis.Redis,
    store: OnlineStore,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Keys are of SHA-256. Neither the salt nor a card number is in a key, an event, an example or what is printed."""
    monkeypatch.setenv("CARD_SALT", SALT)
    warehouse = make(HASHED)
    ours = [replace(row, card_id=hashed(row.card_id), customer_id=hashed(row.card_id % 4)) for row in rows()]
    with dg.DagsterInstance.ephemeral() as instance:
        done = seed(warehouse, store, job="seed_all", instance=instance, newest_first=True)
        told = "".join(map(str, instance.all_logs(done.run_id)))
    require_store(online, expect(ours, newest_first=True))
    values = b"".join(online.dump(key) or b"" for key in online.scan_iter("c*"))
    printed = capfd.readouterr()
    for text in (told, printed.out, printed.err, repr(warehouse), values.decode("latin-1")):
        assert not re.search(r"400000000000000|secret", text)
    monkeypatch.setenv("CARD_SALT", "another")
    with warehouse.client() as client:
        assert warehouse.version(client) != done.asset_value("warm_start").gold_version


def test_an_error_over_hashed_ids_says_no_value(
    make: Make, store: OnlineStore, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """ClickHouse quotes what it cannot parse, a card number, and of a query its texts: the run's error has neither."""
    monkeypatch.setenv("CARD_SALT", SALT)
    warehouse = make(HASHED.replace("amount: amt", "amount: toFloat64(concat('no ', toString(cc_num)))"))
    with dg.DagsterInstance.ephemeral() as instance:
        failed = seed(warehouse, store, job="seed_all", instance=instance, raise_on_error=False)
        told = "".join(map(str, instance.all_logs(failed.run_id))) + "".join(capfd.readouterr())
    assert re.search("CANNOT_PARSE_[A-Z]+. What ClickHouse says is left out, since ids of gold are hashed", told)
    assert not re.search(r"400000000000000|secret", told)


def test_a_salt_that_is_not_set(make: Make) -> None:
    with pytest.raises(ConfigurationError, match=r"CARD_SALT is not set: gold\.columns\.card_id takes the salt"):
        make(HASHED).profile()


def test_the_mapping_is_part_of_gold_s_version(make: Make) -> None:
    """Another mapping or condition of the same rows is another version; the same one is the same."""

    def version(text: str) -> str:
        warehouse = make(text)
        with warehouse.client() as client:
            return warehouse.version(client)

    texts = [
        CONFIGURATION,
        CONFIGURATION.replace("amt > 0", "amt > 1"),
        CONFIGURATION.replace("amount: amt", "amount: -amt"),
    ]
    versions = [version(text) for text in (*texts, *texts)]
    assert versions[:3] == versions[3:] and len(set(versions)) == 3


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("fromUnixTimestamp(unix_time)", "unix_time", "timestamp: fromUnixTimestamp(unix_time)"),
        ("fromUnixTimestamp(unix_time)", "toDate(fromUnixTimestamp(unix_time))", "timestamp: toDateTime64(toDate("),
        ("fromUnixTimestamp(unix_time)", "trans_num", "timestamp: parseDateTime64BestEffort(trans_num, 6, 'UTC')"),
        ("amount: amt", "amount: category", "amount: toFloat64OrNull(category)"),
        ("card_id: cc_num", "card_id: amt", "card_id: toString(toInt64(amt))"),
        ("    location_lat: merch_lat\n", "", "location_lat: NULL"),
        (
            "fromUnixTimestamp(unix_time)",
            "fromUnixTim(unix_time)",
            "gold.columns.timestamp: fromUnixTim(unix_time): Function with",
        ),
        ("amount: amt", "amount: amnt", "gold.columns.amount: amnt: Unknown"),
        ("amount: amt", "amount: sum(amt)", "gold.columns.amount: sum(amt): Aggregate function"),
        ("amt > 0", "amnt > 0", "gold.where: status = 'settled' AND amnt > 0: Unknown"),
        ("where: status = 'settled' AND amt > 0", "where: category", "gold.where: category: Invalid type for filter"),
    ],
)
def test_an_expression_that_cannot_be_used(make: Make, old: str, new: str, says: str) -> None:
    """The entry is named, with what ClickHouse says of it; of a wrong type, the line to write."""
    with pytest.raises(GoldError) as raised:
        make(CONFIGURATION.replace(old, new)).profile()
    assert says in str(raised.value)
