"""The ready key: it says ready for what is there and verified, and for nothing else."""

import subprocess
import sys
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.contract import Ready, read_ready
from feature_seed.errors import ReadinessError, StoreError
from feature_seed.online_store import OnlineStore
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.gold import START, transaction
from feature_seed_tests.run import seed

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(200)]


def test_ready_after_a_whole_run(make_warehouse: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: no key. After: ready, with gold's version, newest time and exact counts."""
    assert read_ready(online) is None
    warehouse = make_warehouse([*ROWS, transaction(999, amount=None, seconds=5000)])
    result = seed(warehouse, store)
    ready = read_ready(online)
    assert ready
    assert (ready.state, ready.cards, ready.customers, ready.run_id) == ("ready", 40, 40, result.run_id)
    assert ready.watermark == datetime.fromtimestamp(START.timestamp() + 199, timezone.utc).isoformat(
        timespec="milliseconds"
    )
    assert ready.gold_version == warehouse.profile().version
    assert abs((datetime.now(timezone.utc) - datetime.fromisoformat(ready.finished_at)).total_seconds()) < 60


def test_seeding_while_only_some_shards_are_there(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    seed(make_parquet(ROWS), store, shard="05")
    assert read_ready(online) == Ready("seeding")


def test_a_failed_run_never_says_ready(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Customers cannot be written: the cards are there, the store is not ready."""
    online.set("cust:of c1:stats", "something else's")
    with pytest.raises(StoreError):
        seed(make_parquet(ROWS), store)
    assert online.exists("card:c1:history")
    assert read_ready(online) == Ready("seeding")


def test_a_failed_rerun_leaves_what_is_true(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """A store that is ready for one gold stays so when seeding the next one fails."""
    seed(make_parquet(ROWS), store)
    before = read_ready(online)
    online.delete("cust:of c1:stats")
    online.set("cust:of c1:stats", "something else's")
    with pytest.raises(StoreError):
        seed(make_parquet([*ROWS, transaction(998, seconds=900)]), store)
    assert before and before.state == "ready"
    assert read_ready(online) == before


def test_warm_start_alone_refuses_what_was_not_seeded(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """One shard after the other is fine; with one missing, or from another gold, warm_start names it and fails."""
    with dg.DagsterInstance.ephemeral() as instance:
        warehouse = make_parquet(ROWS)
        for shard in ("00", "01"):
            seed(warehouse, store, shard=shard, instance=instance, shard_count=3)
        with pytest.raises(ReadinessError, match="card_history has not been seeded in shards 02"):
            seed(warehouse, store, job="warm_start", instance=instance, shard_count=3)
        assert read_ready(online) == Ready("seeding")

        seed(warehouse, store, shard="02", instance=instance, shard_count=3)
        seed(warehouse, store, job="warm_start", instance=instance, shard_count=3)
        ready = read_ready(online)
        assert ready and (ready.state, ready.cards, ready.customers) == ("ready", 40, 40)

        seed(make_parquet(ROWS[:100]), store, shard="01", instance=instance, shard_count=3)
        with pytest.raises(ReadinessError, match="different versions of gold"):
            seed(warehouse, store, job="warm_start", instance=instance, shard_count=3)


def test_an_emptied_store_is_not_ready(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: a store that was seeded, and then lost everything. warm_start by itself does not take Dagster's word."""
    with dg.DagsterInstance.ephemeral() as instance:
        seed(make_parquet(ROWS), store, instance=instance)
        online.flushall()
        with pytest.raises(ReadinessError, match="emptied"):
            seed(make_parquet(ROWS), store, job="warm_start", instance=instance)
        assert online.dbsize() == 0


def test_a_report_by_hand_is_no_load(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """A materialisation that somebody reported of a shard says nothing about the store; the load before it counts."""
    with dg.DagsterInstance.ephemeral() as instance:
        seed(make_parquet(ROWS), store, instance=instance, shard_count=1)
        instance.report_runless_asset_event(dg.AssetMaterialization("card_history", partition="00"))
        seed(make_parquet(ROWS), store, job="warm_start", instance=instance, shard_count=1)
        ready = read_ready(online)
        assert ready and ready.cards == 40


@pytest.mark.parametrize(("fields", "code"), [({}, 1), ({"state": "seeding"}, 1), ({"state": "ready"}, 0)])
def test_wait(
    redis_port: int, online: redis.Redis, monkeypatch: pytest.MonkeyPatch, fields: dict[Any, Any], code: int
) -> None:
    if fields:
        online.hset("feature_seed:ready", mapping=fields)
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{redis_port}")
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    monkeypatch.setenv("FEATURE_SEED_GOLD_PARQUET", "unused")
    waited = subprocess.run(
        [sys.executable, "-m", "feature_seed", "wait", "--timeout", "0.1"], capture_output=True, text=True
    )
    assert waited.returncode == code
    assert PASSWORD not in waited.stderr
    assert ("seeding" in waited.stderr) == (fields == {"state": "seeding"})
