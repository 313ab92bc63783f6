"""Rows that look right and are not: zeros that a join left, cards of several customers, rows that others replaced."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.contract import read_card
from feature_seed.errors import GoldError
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import COLUMNS, Row, transaction
from feature_seed_tests.support.outcome import ALL_MAY_BE_REJECTED, holds
from feature_seed_tests.support.run import checks, seed

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# Places and times of which some are zeros: the last of a card, the only one, and halves of one, which are real.
ROWS = [
    *(transaction(i, f"c{i % 3}", seconds=i) for i in range(9)),
    transaction(20, "c1", seconds=20, location_lat=0.0, location_long=-0.0),
    transaction(21, "only", seconds=21, location_lat=0.0, location_long=0.0),
    transaction(22, "equator", seconds=22, location_lat=0.0, location_long=9.5),
    transaction(23, "half", seconds=23, location_lat=0.0, location_long=None),
    transaction(24, "c2", timestamp=EPOCH),
    transaction(25, "never", timestamp=EPOCH),
    transaction(26, "early", timestamp=EPOCH.replace(microsecond=1000)),
]


def test_zeros_are_told(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """They are seeded as they are, with a warning that counts them and names the variable."""
    found = holds(make_parquet(ROWS), store, online, ROWS, ["zeros"])["gold_transactions.zeros"]
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert {name: value.value for name, value in found.metadata.items()} == {"zero_places": 2, "zero_times": 2}
    assert str(found.description).startswith("2 rows are at (0, 0) and 2 of 1970-01-01 00:00:00")
    assert "Set FEATURE_SEED_ZERO_IS_UNKNOWN=1" in str(found.description)
    only = read_card(online, "only")
    assert only and only.location == (0.0, 0.0)


def test_zeros_that_are_unknown(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """With the variable, a place at (0, 0) is as NULL is, and a row of 1970-01-01 00:00:00 is rejected."""
    nowhere = {"location_lat": None, "location_long": None}
    meant = [replace(row, **nowhere) if (row.location_lat, row.location_long) == (0, 0) else row for row in ROWS]  # type: ignore[arg-type]
    meant = [replace(row, timestamp=None) if row.timestamp == EPOCH else row for row in meant]
    warehouse = Warehouse(**{**make_parquet(ROWS).model_dump(), "zero_is_unknown": True})
    found = holds(warehouse, store, online, meant)
    assert found["gold_transactions.zeros"].metadata["zero_places"].value == 2
    assert found["gold_transactions.rejected_rows"].metadata["timestamp 1970-01-01 00:00:00"].value == 2
    half = read_card(online, "half")
    assert half and half.history[0].location_lat == 0.0
    assert read_card(online, "never") is None


@pytest.mark.parametrize("shared", [0, 7])
def test_cards_of_several_customers(make_parquet: MakeWarehouse, store: OnlineStore, shared: int) -> None:
    """Card numbers that repeat between customers: told with their number, one of them and its customers."""
    rows = [transaction(i, f"card {i % 20}", seconds=i) for i in range(60)]
    rows += [transaction(100 + i, f"card {i}", customer_id=f"another {i}") for i in range(shared)]
    rows += [transaction(200 + i, f"card {19 - i}", customer_id="rejected", amount=None) for i in range(3)]
    result = seed(make_parquet(rows), store, job="seed_all", limits=ALL_MAY_BE_REJECTED)
    found = checks(result)["gold_transactions.shared_cards"]
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert found.passed == (shared == 0)
    assert found.metadata["cards"].value == shared
    assert str(found.description).startswith(f"{shared} cards have several customers")
    if shared:
        examples = [f"for example 'card {i}' of 'another {i}', 'of card {i}': " for i in range(shared)]
        assert any(one in str(found.description) for one in examples)


# --- tables that keep versions of a row

ENGINES = (
    "ReplacingMergeTree(version, deleted)",
    "CollapsingMergeTree(sign)",
    "VersionedCollapsingMergeTree(sign, version)",
    "CoalescingMergeTree",
)

BEFORE = [transaction(i, f"c{i % 3}", seconds=i) for i in range(12)]
CORRECTED = [replace(row, amount=99.5) for row in BEFORE[:4]]
AFTER = [*CORRECTED, *BEFORE[4:]]


@pytest.fixture
def make_versions(make_table: MakeWarehouse, server: Warehouse) -> Iterator[Any]:
    """A table of an engine, with four rows that were corrected later and are not merged yet; or a view over it."""

    def make(engine: str, view: str = "") -> Warehouse:
        make_table(BEFORE, "rows_before")
        make_table(CORRECTED, "rows_after")
        columns = ", ".join(COLUMNS)
        with server.client() as client:
            client.command("CREATE DATABASE kept ENGINE = Atomic")
            client.command(
                f"CREATE TABLE kept.versions ENGINE = {engine} ORDER BY transaction_id SETTINGS allow_nullable_key = 1 "
                f"AS SELECT {columns}, 1::UInt32 AS version, 0::UInt8 AS deleted, 1::Int8 AS sign FROM rows_before"
            )
            client.command("SYSTEM STOP MERGES kept.versions")
            if "Collapsing" in engine:
                cancelled = f"SELECT {columns}, 1, 0, -1 FROM rows_before WHERE transaction_id < 't004'"
                client.command(f"INSERT INTO kept.versions {cancelled}")
            client.command(f"INSERT INTO kept.versions SELECT {columns}, 2, 0, 1 FROM rows_after")
            if view:
                client.command(f"CREATE VIEW kept.{view} AS SELECT * FROM kept.versions")
        return on(server, view or "versions")

    yield make
    with server.client() as client:
        client.command("DROP DATABASE kept")


def on(server: Warehouse, table: str, **changes: Any) -> Warehouse:
    place = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    return Warehouse(**place, database="kept", gold_table=table, **changes)


def insert(warehouse: Warehouse, row: Row, version: int) -> None:
    with warehouse.client() as client:
        values = [getattr(row, name) for name in COLUMNS]
        client.insert(
            "kept.versions", [[*values, version, 0, 1]], column_names=[*COLUMNS, "version", "deleted", "sign"]
        )


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_that_others_replace(make_versions: Any, engine: str) -> None:
    """Every engine that keeps versions of a row is read as if all were merged."""
    profile = make_versions(engine).profile()
    assert (profile.rows, profile.cards) == (12, 3)


@pytest.mark.parametrize("view", ["", "seen"])
def test_replaced_rows_through_the_whole_job(
    make_versions: Any, online: redis.Redis, store: OnlineStore, view: str
) -> None:
    """What the store has is the corrected rows, and the check on duplicates tells how the table is read."""
    warehouse = make_versions("ReplacingMergeTree(version, deleted)", view=view)
    found = holds(warehouse, store, online, AFTER)["gold_transactions.duplicate_transactions"]
    assert str(found.description).endswith("" if view else "; the table is a ReplacingMergeTree, read with FINAL")


def test_without_final(make_versions: Any, server: Warehouse, online: redis.Redis, store: OnlineStore) -> None:
    """On demand each version counts as a row, and the check on duplicates says why."""
    make_versions("ReplacingMergeTree(version, deleted)")
    found = holds(
        on(server, "versions", gold_final=False), store, online, [*BEFORE, *CORRECTED], ["duplicate_transactions"]
    )["gold_transactions.duplicate_transactions"]
    assert "4 duplicate rows" in str(found.description)
    assert "read without FINAL since FEATURE_SEED_GOLD_FINAL is 0" in str(found.description)


def test_versions_that_come_while_gold_is_read(make_versions: Any) -> None:
    """A merge changes nothing, a newer row may come; a row that replaces one up to the watermark breaks the run off."""
    warehouse = make_versions("ReplacingMergeTree(version, deleted)")
    profile = warehouse.profile()
    with warehouse.client() as client:
        client.command("SYSTEM START MERGES kept.versions")
        client.command("OPTIMIZE TABLE kept.versions FINAL")
        assert client.query("SELECT count() FROM kept.versions SETTINGS final = 0").result_rows == [(12,)]
        assert warehouse.version(client) == profile.version
        warehouse.require_unbroken(client)
        insert(warehouse, transaction(50, "c1", seconds=50), version=1)
        assert warehouse.version(client) != profile.version
        warehouse.require_unbroken(client)
        insert(warehouse, replace(BEFORE[7], amount=1.25), version=3)
        with pytest.raises(GoldError, match="got rows older than"):
            warehouse.require_unbroken(client)
