"""Values that are hard: whatever is in gold, what becomes of it is defined, and what is in the store can be read.

Each table goes through the whole job, its checks included, and every key is compared with plain Python.
"""

import math
import re
from dataclasses import replace
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import dagster as dg
import pytest
import redis

from feature_seed.contract import read_card, read_customer, read_ready
from feature_seed.errors import StoreError
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import Row, create_table, transaction
from feature_seed_tests.support.outcome import holds, refused
from feature_seed_tests.support.run import checks, seed

TEXTS = [
    one if isinstance(one, bytes) else one.encode()
    for one in (
        " ",
        "two words",
        "{braces}",
        "}{",
        "line\r\nbreak",
        "*1\r\n$8\r\nFLUSHALL\r\n",
        "*?[a]{b,c}",
        'quo\'te "double" `back`',
        "back\\slash\\n",
        "nul\0inside",
        "nul at the end\0",
        "\x01\x1b\x7f",
        "\u2028\u2029\ufeff",
        "☕😀 漢字",
        "NULL",
        "x" * 65536,
        b"\xff\xfe",
        b"cut off \xe2\x82",
        b"\xed\xa0\x80 \xc0\x80 \xf4\x90\x80\x80",
        b"\xff\xef\xbf\xbd\xff",
        bytes(range(1, 256)),
    )
]


def on(server: Warehouse | ClickHouseServer, **changes: str) -> Warehouse:
    place = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    return Warehouse(**{**place, **changes})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def texts() -> list[Row]:
    """As ids and as categories, of a card and a customer each and of one card at once; and ids that are none."""
    rows = [
        transaction(i, seconds=i, transaction_id=one, card_id=b"c " + one, customer_id=one, merchant_category=one)
        for i, one in enumerate([*TEXTS, *reversed(TEXTS)])
    ]
    rows += [transaction(i, "ties", seconds=i % 3, transaction_id=one) for i, one in enumerate(TEXTS)]
    rows += [transaction(i, f"null {i}", merchant_category=one) for i, one in enumerate([None, ""])]
    none = [{"transaction_id": b""}, {"card_id": b""}, {"customer_id": b""}, {"card_id": None}, {"customer_id": None}]
    return rows + [replace(rows[0], **one) for one in none]


def nul_in_ids() -> list[Row]:
    """Of one second `a\\0b` comes after `a`, whatever bytes coordinates have: some are greater than b, some less."""
    ids = ["a", "a\0", "a\0\0", "a\0b", "a\0\x7f", "ab", "b"]
    return [
        transaction(i, f"nul {last} {lat}", transaction_id=one, location_lat=lat if i % 2 else 1.1)
        for lat in (0.1, 0.3, -7.7)
        for last in range(len(ids))
        for i, one in enumerate(ids[: last + 1])
    ]


def amounts() -> list[Row]:
    odd = [0.0, -0.0, -12.5, 5e-324, -1e-300, 1e100, -1e100, 0.1 + 0.2, 123456789012345.67]
    rows = [transaction(i, f"a{i}", amount=one) for i, one in enumerate(odd)]
    rows += [transaction(i, "greatest", amount=one * 1e100) for i, one in enumerate([1, -1, 1, 0.5])]
    bad = [math.nan, math.inf, -math.inf, None, 1e308, -1e308, 1.0000000000000002e100]
    rows += [transaction(i, "a1", seconds=i, amount=one) for i, one in enumerate(bad)]
    return rows + [transaction(i, "overflowing", amount=1e308) for i in range(4)]


def times() -> list[Row]:
    good = ["1900-01-01", "1969-12-31T23:59:58.500", "1969-12-31T23:59:59.999500", "1970-01-01"]
    good += ["1970-01-01T00:00:00.000999", "2024-02-29T23:59:59.999999"]
    bad = ["1899-12-31T23:59:59.999999", "0001-01-01", "9999-12-31T23:59:59", "2300-01-01"]
    rows = [transaction(i, card, timestamp=at(one)) for i, one in enumerate(good) for card in ("old", f"old {i}")]
    rows += [transaction(50 + i, "old", timestamp=at(one)) for i, one in enumerate(bad)]
    return [*rows, transaction(90, "old", timestamp=None)]


PLACES: list[tuple[Any, Any]] = [(90.0, 180.0), (-90.0, -180.0), (0.0, 0.0), (-0.0, 1e-300)]
UNKNOWN: list[tuple[Any, Any]] = [(None, None), (math.nan, 5.0), (5.0, None)]
OFF_GLOBE: list[tuple[Any, Any]] = [
    (91.0, 5.0),
    (5.0, 181.0),
    (-90.00000000000001, 5.0),
    (5.0, -1e308),
    (math.inf, -math.inf),
    (1000.0, None),
]


def places() -> list[Row]:
    """Each as the latest of a card that was somewhere before, and as its only one."""
    rows = [
        transaction(10 * i + j, f"place {i}", seconds=j, location_lat=lat, location_long=lon)
        for i, last in enumerate([*PLACES, *UNKNOWN, *OFF_GLOBE])
        for j, (lat, lon) in enumerate([(1.5, 2.5), last])
    ]
    rows += [transaction(i, f"off {i}", location_lat=lat, location_long=lon) for i, (lat, lon) in enumerate(OFF_GLOBE)]
    return [*rows, transaction(990, location_lat=91.0, amount=None)]


@pytest.mark.parametrize(
    ("make", "layout"), [("make_parquet", {}), ("make_table", {"key_tags": True, "on_conflict": "overwrite"})]
)
def test_values(
    request: pytest.FixtureRequest, online: redis.Redis, store: OnlineStore, make: str, layout: dict[str, Any]
) -> None:
    """All at once: what can be used is in the store, what cannot is counted by its reason.

    Ids are in keys byte by byte, in JSON with U+FFFD for what is no UTF-8. Amounts beyond 1e100 would add up to
    infinity, times outside 1900 to 2299 stand for none: rejected. Coordinates off the globe are unknown, and warned of.
    """
    rows = [*texts(), *nul_in_ids(), *amounts(), *times(), *places()]
    warehouse = request.getfixturevalue(make)(rows, timestamp="Nullable(DateTime64(6, 'UTC'))")
    found = holds(warehouse, store, online, rows, ["duplicate_transactions", "coordinates", "zeros"], **layout)
    rejected = {name: value.value for name, value in found["gold_transactions.rejected_rows"].metadata.items()}
    assert {**rejected, "share": 0} == {
        "rejected": 22,
        "share": 0,
        "no transaction id": 1,
        "no card": 2,
        "no customer": 2,
        "no timestamp": 1,
        "timestamp outside 1900 to 2299": 4,
        "amount missing": 2,
        "amount not finite": 3,
        "amount beyond 1e100": 7,
    }
    assert found["gold_transactions.coordinates"].severity == dg.AssetCheckSeverity.WARN
    assert found["gold_transactions.coordinates"].metadata["out_of_range"].value == 2 * len(OFF_GLOBE)
    says = str(found["gold_transactions.coordinates"].description)
    assert says.startswith("12 rows have a latitude beyond 90 degrees or a longitude beyond 180")
    assert len(str(found["gold_transactions.duplicate_transactions"].description)) < 1000
    entities = len(expect(rows).cards)
    assert found["card_history.parity"].metadata["sampled"].value == entities
    assert found["card_history.unknown_entities"].metadata["looked_at"].value == 3 * entities  # history, seq, seeded
    tags = layout.get("key_tags", False)
    binary = read_card(online, b"c \xff\xfe", tags=tags)
    assert binary and binary.history[0].transaction_id == "\ufffd"
    origin, off = read_card(online, "place 2", tags=tags), read_card(online, "off 0", tags=tags)
    assert origin and origin.location == (0.0, 0.0)
    assert off and off.location is None
    greatest = read_customer(online, "of greatest", tags=tags)
    assert greatest and math.isfinite(greatest.update(-1e100).m2)
    ready = read_ready(online)
    assert ready and ready.watermark == "2026-01-01T00:00:41.000000+00:00"


@pytest.mark.parametrize(
    ("types", "values"),
    [
        (
            {
                "transaction_id": "FixedString(6)",
                "card_id": "LowCardinality(Nullable(FixedString(2)))",
                "customer_id": "Nullable(FixedString(4))",
                "merchant_category": "Nullable(FixedString(2))",
                "amount": "Decimal(38, 6)",
                "timestamp": "DateTime64(9, 'Asia/Tokyo')",
                "location_lat": "Decimal(9, 6)",
                "location_long": "Int16",
            },
            [
                (b"sixsix", b"\xff\xfe", b"\0a", b"\xff", Decimal("-0.000001"), at("2026-01-01"), Decimal(90), 180),
                (b"\xff\0\1", b"\0b", b"abcd", b"", Decimal("12345678.5"), at("1970-01-01"), Decimal("90.1"), -181),
                (b"", b"a", b"a", b"a", Decimal(1), at("2026-01-01"), Decimal(0), 0),
                (b"b", None, b"b", b"b", Decimal(2), at("2026-01-01"), Decimal(0), 0),
                (b"c", b"c", None, b"c", Decimal(3), at("2026-01-01"), Decimal(0), 0),
            ],
        ),
        (
            {
                "transaction_id": "Nullable(UUID)",
                "card_id": "Nullable(UInt64)",
                "customer_id": "Nullable(UUID)",
                "merchant_category": r"""Nullable(Enum16('' = -1, 'it\'s' = 0, '"q"\\' = 300))""",
                "amount": "Nullable(Decimal(76, 2))",
                "timestamp": "Nullable(DateTime('America/New_York'))",
                "location_lat": "Nullable(Int8)",
                "location_long": "Nullable(Int32)",
            },
            [
                (UUID(int=0), 0, UUID(int=0), "", Decimal(2) ** 100, at("1970-01-01"), -90, 181),
                (UUID(int=2**128 - 1), 2**64 - 1, UUID(int=7), "it's", Decimal(-7), at("2026-01-01"), None, 0),
                (UUID(int=2), 2, UUID(int=8), '"q"\\', Decimal(0), at("2026-01-01"), 0, 0),
                (None, 3, UUID(int=8), None, Decimal(0), at("2026-01-01"), 0, 0),
                (UUID(int=4), None, UUID(int=8), None, Decimal(0), at("2026-01-01"), 0, 0),
                (UUID(int=5), 5, None, None, Decimal(0), at("2026-01-01"), 0, 0),
                (UUID(int=6), 6, UUID(int=8), None, None, at("2026-01-01"), 0, 0),
                (UUID(int=7), 7, UUID(int=8), None, Decimal(0), None, 0, 0),
            ],
        ),
        (
            {
                "transaction_id": "LowCardinality(Nullable(String))",
                "card_id": "Int8",
                "customer_id": "LowCardinality(String)",
                "merchant_category": "LowCardinality(Nullable(String))",
                "amount": "Float32",
                "timestamp": "DateTime64(0, 'UTC')",
                "location_lat": "Float32",
                "location_long": "UInt8",
            },
            [
                (b"\xff\xfe", -128, b"\xff\r\n", b"\xff\xfe", 0.5, at("1969-12-31T23:59:59"), 0.5, 180),
                (b"a", 0, b"*?", b"", -0.25, at("2026-01-01"), math.nan, 1),
                (b"b", 127, b"{}", None, 2.0**100, at("2026-01-01"), -90.5, 255),
                (b"", 1, b"a", None, 1.0, at("2026-01-01"), 0.0, 0),
                (None, 2, b"b", None, 1.0, at("2026-01-01"), 0.0, 0),
                (b"c", 3, b"", None, 1.0, at("2026-01-01"), 0.0, 0),
                (b"d", 4, b"d", None, math.inf, at("2026-01-01"), 0.0, 0),
            ],
        ),
    ],
)
def test_types(
    make_warehouse: MakeWarehouse, online: redis.Redis, store: OnlineStore, types: dict[str, str], values: list[Any]
) -> None:
    """Zeros are ids. FixedStrings are without the NULs that fill them up, and nothing but NULs is no id."""
    rows = [Row(*one) for one in values]
    warehouse = make_warehouse([replace(row, **padded(row, types)) for row in rows], **types)
    out_of_range = sum(abs(lat or 0) > 90 or abs(lon) > 180 for *_, lat, lon in values)
    found = holds(warehouse, store, online, rows, ["coordinates", "zeros"])
    assert found["gold_transactions.coordinates"].metadata["out_of_range"].value == out_of_range > 0


@pytest.mark.parametrize(
    ("make", "type_", "cents"),
    [
        ("make_parquet", "Int64", [0, -1250, 123456789, 2**53 + 1, 2**63 - 1, -(2**63)]),
        ("make_table", "Nullable(UInt8)", [0, 1, 255, None]),
    ],
)
def test_amounts_in_cents(
    request: pytest.FixtureRequest, online: redis.Redis, store: OnlineStore, make: str, type_: str, cents: list[Any]
) -> None:
    """Integers are read as the doubles next to them: of a card each, and all of one customer."""
    rows = [transaction(i, f"c{i}", customer_id="of all", amount=one) for i, one in enumerate(cents)]
    holds(request.getfixturevalue(make)(rows, amount=type_), store, online, rows)
    customer = read_customer(online, "of all")
    assert customer and customer.count == sum(one is not None for one in cents)


def padded(row: Row, types: dict[str, str]) -> dict[str, bytes]:
    """FixedStrings as the driver wants them."""
    lengths = {
        name: int(found[1]) for name, type_ in types.items() if (found := re.search(r"FixedString\((\d+)", type_))
    }
    return {name: getattr(row, name).ljust(length, b"\0") for name, length in lengths.items() if getattr(row, name)}


def test_an_error_names_any_key(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """What cannot be printed is escaped, and a long key cut: the message stays one readable line."""
    for card, says in ((b"\xff\r\n", r"card:\xff\r\n:loc"), (b"y" * 65536, "yy… of ")):
        key = b"card:" + card + b":loc"
        online.sadd(key, "another program's")
        with pytest.raises(StoreError) as raised:
            seed(make_parquet([transaction(1, card_id=card)]), store, on_conflict="overwrite")
        assert says in str(raised.value)
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 600
        assert online.smembers(key) == {b"another program's"}


def test_times_to_come(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """They block the run, and nothing is written."""
    rows = [transaction(i, timestamp=at(one)) for i, one in enumerate(["2026-01-01", "2299-12-31T23:59:59.999999"])]
    warehouse = make_parquet(rows, timestamp="DateTime64(6, 'UTC')")
    result = seed(warehouse, store, job="seed_all", raise_on_error=False)
    freshness = checks(result)["gold_transactions.freshness"]
    assert not freshness.passed
    assert "2299-12-31 23:59:59 UTC" in str(freshness.description)
    assert "in the future" in str(freshness.description)
    assert not online.dbsize()


def test_a_server_in_another_time_zone(
    online: redis.Redis, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column without a zone shows the server's; the store has UTC all the same."""
    monkeypatch.setenv("TZ", "America/New_York")
    with clickhouse_server(user="seeder", password=PASSWORD) as server:
        warehouse = on(server, gold_table="zoned")
        with warehouse.client() as client:
            create_table(client, "draft", [transaction(1)], timestamp="DateTime")
            client.command(
                "CREATE TABLE zoned ENGINE = MergeTree ORDER BY () AS "
                "SELECT * REPLACE (toDateTime('2025-07-01 12:00:00') AS timestamp) FROM draft"
            )
            shown = client.query("SELECT toString(timestamp), timezone() FROM zoned").result_rows
        assert shown == [("2025-07-01 12:00:00", "America/New_York")]
        holds(warehouse, store, online, [transaction(1, timestamp=at("2025-07-01T16:00:00"))])


@pytest.mark.parametrize(
    ("type_", "value"),
    [("String", "2026-01-01 00:00:00"), ("Nullable(Date32)", date(2026, 1, 1))],
)
def test_timestamps_of_another_type(
    make_warehouse: MakeWarehouse, online: redis.Redis, store: OnlineStore, type_: str, value: Any
) -> None:
    """A day is no time, a text could be one in many ways: the column, its type and the right one are named."""
    says = refused(make_warehouse([transaction(1, timestamp=value)], timestamp=type_), store, online)
    assert f"timestamp is {type_} and not DateTime or DateTime64. There is: " in says
