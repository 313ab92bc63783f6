"""The checks: bad gold stops a run before it writes, and a store that is not gold's is never called ready."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.checks import GoldLimits
from feature_seed.contract import read_ready
from feature_seed.online_store import OnlineStore
from feature_seed.warehouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.gold import Row, transaction
from feature_seed_tests.run import checks, seed
from feature_seed_tests.store import dump

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(400)]
SOON = datetime.now(timezone.utc) + timedelta(hours=3)

FEATURE_CHECKS = [
    f"{asset}.{check}"
    for asset in ("card_history", "card_location", "customer_stats")
    for check in ("entity_count", "parity", "unknown_entities")
]


def test_a_healthy_run_passes_every_check(
    make_warehouse: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    result = seed(make_warehouse(ROWS), store, job="seed_all")
    evaluated = checks(result)
    assert all(one.passed for one in evaluated.values()), evaluated
    assert set(FEATURE_CHECKS) < set(evaluated)
    ready = read_ready(online)
    assert ready and ready.state == "ready"


@pytest.mark.parametrize(
    ("rows", "limits", "check", "says"),
    [
        ([], GoldLimits(), "not_empty", "0"),
        ([*ROWS, transaction(900, amount=None)], GoldLimits(), "rejected_rows", "1 of 401"),
        ([*ROWS, transaction(900, card_id="")], GoldLimits(max_rejected=0.001), "rejected_rows", "c"),
        (ROWS, GoldLimits(max_age_hours=1), "freshness", "1 are allowed"),
        ([*ROWS, transaction(901, timestamp=SOON)], GoldLimits(), "freshness", "in the future"),
    ],
)
def test_bad_gold_blocks_the_run(
    make_warehouse: MakeWarehouse,
    online: redis.Redis,
    store: OnlineStore,
    rows: Sequence[Row],
    limits: GoldLimits,
    check: str,
    says: str,
) -> None:
    """Before: a store with something in it. After: the run failed with that check, and not a byte has changed."""
    online.set("card:c1:seq", 4)
    before = dump(online)
    result = seed(make_warehouse(rows), store, job="seed_all", limits=limits, raise_on_error=False)
    failed = {name: one for name, one in checks(result).items() if not one.passed}
    assert not result.success
    assert f"gold_transactions.{check}" in failed
    assert says in str(failed[f"gold_transactions.{check}"].description)
    assert dump(online) == before


def test_bad_columns_block_the_run(chdb: Client, tmp_path: Path, online: redis.Redis, store: OnlineStore) -> None:
    path = tmp_path / "gold.parquet"
    select = "SELECT 't' AS transaction_id, 'c' AS card_id, 'x' AS amount"
    chdb.command(f"INSERT INTO FUNCTION file({{path:String}}, 'Parquet') {select}", {"path": str(path)})
    result = seed(Warehouse(gold_parquet=str(path)), store, job="seed_all", raise_on_error=False)
    schema = checks(result)["gold_transactions.schema"]
    assert not result.success
    assert not schema.passed
    assert "customer_id is missing" in str(schema.description)
    assert "amount is String" in str(schema.description)
    assert dump(online) == {}


def test_limits_let_through_what_they_allow(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    rows = [*ROWS, transaction(900, amount=None), ROWS[7]]
    limits = GoldLimits(max_rejected=0.01, max_age_hours=1e6)
    result = seed(make_parquet(rows), store, job="seed_all", limits=limits)
    duplicates = checks(result)["gold_transactions.duplicate_transactions"]
    assert not duplicates.passed
    assert duplicates.severity == dg.AssetCheckSeverity.WARN
    assert "'t007'" in str(duplicates.description)
    ready = read_ready(online)
    assert ready and ready.state == "ready"


@pytest.mark.parametrize(
    ("damage", "check", "says"),
    [
        (lambda r: r.delete("card:c7:history"), "card_history.parity", "card:c7:history"),
        (lambda r: r.lpop("card:c7:history"), "card_history.parity", "card:c7:history"),
        (lambda r: r.lset("card:c7:history", 3, b"no json"), "card_history.parity", "card:c7:history"),
        (lambda r: r.hset("card:c7:loc", "lat", "1.4999"), "card_location.parity", "card:c7:loc"),
        (lambda r: r.delete("card:c7:loc"), "card_location.parity", "card:c7:loc"),
        (lambda r: r.decr("card:c7:seq"), "card_location.parity", "card:c7:seq"),
        (lambda r: r.delete("card:c7:last_ts"), "card_location.parity", "card:c7:last_ts"),
        (lambda r: r.hset("cust:of c7:stats", "M2", "0.5"), "customer_stats.parity", "cust:of c7:stats"),
        (lambda r: r.delete("cust:of c7:stats"), "customer_stats.parity", "cust:of c7:stats"),
        (lambda r: r.rpush("card:new:history", "x"), "card_history.unknown_entities", "card:new:history"),
        (lambda r: r.set("card:new:seq", 1), "card_location.unknown_entities", "card:new:seq"),
        (lambda r: r.hset("cust:new:stats", "count", 1), "customer_stats.unknown_entities", "cust:new:stats"),
    ],
)
def test_damage_is_found(
    make_parquet: MakeWarehouse,
    online: redis.Redis,
    store: OnlineStore,
    damage: Callable[[redis.Redis], object],
    check: str,
    says: str,
) -> None:
    """Before: a seeded store that passes. After one key is deleted, altered or invented: exactly that is reported."""
    warehouse = make_parquet(ROWS)
    with dg.DagsterInstance.ephemeral() as instance:
        seed(warehouse, store, job="seed_all", instance=instance)
        damage(online)
        found = checks(seed(warehouse, store, job="checks_alone", instance=instance, raise_on_error=False))
    failed = {name: one for name, one in found.items() if not one.passed}
    assert list(failed) == [check]
    assert says in str(failed[check].description)


def test_what_a_scorer_moved_on_is_no_damage(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    warehouse = make_parquet(ROWS)
    with dg.DagsterInstance.ephemeral() as instance:
        seed(warehouse, store, job="seed_all", instance=instance)
        online.rpush("card:c7:history", online.lindex("card:c7:history", -1) or b"")
        online.ltrim("card:c7:history", -10, -1)
        online.set("card:c7:last_ts", "1999999999.5")
        online.incr("card:c7:seq")
        online.hincrby("cust:of c7:stats", "count", 1)
        found = checks(seed(warehouse, store, job="checks_alone", instance=instance))
    assert all(one.passed for one in found.values()), found
    assert found["card_history.parity"].metadata["ahead"].value == 1


def test_a_shard_is_checked_by_itself(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    result = seed(make_parquet(ROWS), store, job="seed_shard", shard="05")
    assert all(one.passed for one in checks(result).values())
