"""The ready key: it says ready for what is there and verified, and for nothing else."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.__main__ import main
from feature_seed.contract import Ready, read_ready
from feature_seed.errors import ReadinessError, StoreError
from feature_seed.store.bulk import BulkConnection
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.limits import GoldLimits
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.documents import only
from feature_seed_tests.support.gold import START, transaction
from feature_seed_tests.support.patience import HANG_SECONDS, eventually
from feature_seed_tests.support.redis_server import calls, redis_server
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import said

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(200)]


def test_ready_after_a_whole_run(make_warehouse: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: no key. After: ready, with gold's version, newest time and exact counts."""
    assert read_ready(online) is None
    warehouse = make_warehouse([*ROWS, transaction(999, amount=None, seconds=5000)])
    began = datetime.now(timezone.utc)
    result = seed(warehouse, store, verify=True, limits=GoldLimits(max_rejected=1))
    ready = read_ready(online)
    assert ready
    assert (ready.state, ready.cards, ready.customers, ready.run_id) == ("ready", 40, 40, result.run_id)
    assert ready.watermark == "2026-01-01T00:03:19.000999+00:00", "the last microsecond of gold's newest tick"
    assert ready.loading == ""
    assert ready.gold_version == warehouse.profile().version
    in_between = datetime.fromisoformat(ready.finished_at)
    assert began - timedelta(milliseconds=1) <= in_between <= datetime.now(timezone.utc)


def test_seeding_while_only_some_shards_are_there(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    seed(make_parquet(ROWS), store, shard="01")
    assert said(online) == Ready("seeding")


def test_a_failed_run_never_says_ready(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Customers cannot be written: the cards are there, the store is not ready."""
    online.set("cust:of c1:stats", "something else's")
    with pytest.raises(StoreError):
        seed(make_parquet(ROWS), store)
    assert online.exists("card:c1:history")
    assert said(online) == Ready("seeding")


def test_a_failed_rerun_leaves_what_is_true(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """A store that is ready for one gold stays so when seeding the next one fails, which `loading` names."""
    seed(make_parquet(ROWS), store, verify=True)
    before = read_ready(online)
    online.delete("cust:of c1:stats")
    online.set("cust:of c1:stats", "something else's")
    warehouse = make_parquet([*ROWS, transaction(998, seconds=900)])
    with pytest.raises(StoreError):
        seed(warehouse, store)
    assert before and before.state == "ready"
    loading = f"{warehouse.profile().version} 2026-01-01T00:15:00.000999+00:00"
    assert read_ready(online) == replace(before, loading=loading)


class Shop:
    """A store that is seeded in several runs, of one Dagster instance."""

    def __init__(self, warehouse: Warehouse, store: OnlineStore, instance: dg.DagsterInstance) -> None:
        self.warehouse, self.store, self.instance = warehouse, store, instance

    def run(self, job: str, shard: str | None = None) -> dg.ExecuteInProcessResult:
        return seed(
            self.warehouse,
            self.store,
            job=job,
            shard=shard,
            instance=self.instance,
            shard_count=2,
            raise_on_error=job == "warm_start",
        )

    def refused(self, why: str) -> None:
        with pytest.raises(ReadinessError, match=why):
            self.run("warm_start")


@pytest.fixture
def shop(make_parquet: MakeWarehouse, store: OnlineStore) -> Iterator[Shop]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Shop(make_parquet(ROWS), store, instance)


def test_warm_start_alone_refuses_what_was_not_seeded(
    shop: Shop, make_parquet: MakeWarehouse, online: redis.Redis
) -> None:
    """One shard after the other is fine; with one missing, or from another gold, warm_start names it and fails."""
    shop.run("seed_shard", "00")
    shop.refused("card_history has not been seeded in shards 01")
    assert said(online) == Ready("seeding")

    shop.run("seed_shard", "01")
    shop.run("warm_start")
    ready = read_ready(online)
    assert ready and (ready.state, ready.cards, ready.customers) == ("ready", 40, 40)

    shop.warehouse = make_parquet(ROWS[:100])
    shop.run("load_shard", "01")
    shop.refused("different versions of gold")


def test_warm_start_alone_refuses_what_was_not_verified(shop: Shop, online: redis.Redis) -> None:
    """Before: every shard in the store, and no check was run. A failed check is named with what it found; after one
    that passed, warm_start says ready."""
    for shard in ("00", "01"):
        shop.run("load_shard", shard)
    shop.refused("card_history was seeded in shard 00 by run .*, and its check entity_count has not been run since")

    online.rpush("card:c1:history", "invented")
    assert not shop.run("checks_alone").success
    shop.refused(r"card_history .* its check parity failed: 1 of 40 entities differ from gold.*card:c1:history")
    assert said(online) == Ready("seeding")

    online.rpop("card:c1:history")
    assert shop.run("checks_alone").success
    shop.run("warm_start")
    ready = read_ready(online)
    assert ready and ready.state == "ready"


def test_what_comes_after_a_run(shop: Shop, online: redis.Redis) -> None:
    """Before: a store that is ready. A materialisation that somebody reported of a shard says nothing about the store:
    the load before it counts. The checks of that load say nothing of a second load of a shard. Of a store that has lost
    everything, warm_start by itself does not take Dagster's word.
    """
    assert shop.run("seed_all").success
    shop.instance.report_runless_asset_event(dg.AssetMaterialization("card_history", partition="00"))
    shop.run("warm_start")
    ready = read_ready(online)
    assert ready and ready.cards == 40
    shop.run("load_shard", "01")
    shop.refused("seeded in shard 01 by run .* has not been run since")
    assert shop.run("seed_shard", "01").success
    shop.run("warm_start")
    online.flushall()
    shop.refused("emptied")
    assert online.dbsize() == 0


def test_a_failed_check_in_one_of_several_runs(
    shop: Shop, online: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: two runs of a shard each. Somebody else takes counts back in the first, and its check fails. After: what
    the second run found right says nothing of the first's."""
    drain = BulkConnection.drain

    def drained(self: BulkConnection) -> None:
        drain(self)
        online.mset({f"card:c{i}:seq": 1 for i in range(40)})

    with monkeypatch.context() as patch:
        patch.setattr(BulkConnection, "drain", drained)
        assert not shop.run("seed_shard", "00").success
    assert shop.run("seed_shard", "01").success
    shop.refused("card_history was seeded in shard 00 .* its check parity failed: .* gold has 5, the store 1")


def test_a_store_emptied_between_two_shards_is_not_ready(shop: Shop, online: redis.Redis) -> None:
    """Before: a shard seeded, then all of it gone. After the other is seeded, the first is still missing."""
    shop.run("seed_shard", "00")
    online.flushall()
    shop.run("seed_shard", "01")
    shop.refused("emptied since it was seeded")
    assert said(online) == Ready("seeding")


def test_a_store_restarted_between_two_shards_is_not_ready(shop: Shop, tmp_path: Path) -> None:
    """Before: a shard seeded, then Redis dies and comes back with an older state of its own, its mark included."""
    files = ("--dir", str(tmp_path), "--dbfilename", "redis.rdb")
    with redis_server(*files) as port, redis.Redis(port=port) as online:
        shop.store = OnlineStore(url=f"redis://127.0.0.1:{port}")
        shop.run("load_shard", "00")
        online.save()
        shop.run("seed_shard", "00")
    with redis_server(*files, port=port), redis.Redis(port=port) as online:
        shop.run("seed_shard", "01")
        shop.refused("was restarted since it was seeded")
        assert said(online) == Ready("seeding")


def test_the_watermark_is_of_the_gold_that_was_loaded(
    shop: Shop, make_parquet: MakeWarehouse, online: redis.Redis
) -> None:
    """Before: every shard seeded and verified. Gold goes on; what is said of the store does not."""
    for shard in ("00", "01"):
        shop.run("seed_shard", shard)
    seeded = shop.warehouse.profile().version
    shop.warehouse = make_parquet([*ROWS, transaction(999, seconds=5000)])
    shop.run("warm_start")
    ready = read_ready(online)
    assert ready and (ready.gold_version, ready.cards) == (seeded, 40)
    assert datetime.fromisoformat(ready.watermark).timestamp() == START.timestamp() + 199.000999


@pytest.mark.parametrize(("fields", "code"), [({}, 1), ({"state": "seeding"}, 1), ({"state": "ready"}, 0)])
def test_wait(
    redis_port: int,
    online: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fields: dict[Any, Any],
    code: int,
) -> None:
    """As a scorer's host calls it, which knows of the store alone."""
    if fields:
        online.hset("feature_seed:ready", mapping=fields)
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{redis_port}")
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    assert main(["wait", "--timeout", "0.1"]) == code
    said = capsys.readouterr().err
    assert PASSWORD not in said
    assert ("seeding" in said) == (fields == {"state": "seeding"})


@pytest.mark.skipif(not shutil.which("redis-cli"), reason="redis-cli is not on the PATH")
def test_wait_without_python(redis_port: int, online: redis.Redis) -> None:
    """The documents' line for the shell, for another host and user: it ends once the store is ready, not before."""
    line = only(r"^until .*$")[0]
    for there, here in (("redis.internal", "127.0.0.1"), ("6379", str(redis_port)), ("scorer", "default")):
        assert there in line
        line = line.replace(there, here)
    online.hset("feature_seed:ready", "state", "seeding")
    asked = calls(online, "hget")
    waiting = subprocess.Popen(line, shell=True, env={**os.environ, "REDIS_PASSWORD": PASSWORD}, start_new_session=True)
    try:
        eventually(lambda: calls(online, "hget") >= asked + 2)
        assert waiting.poll() is None
        online.hset("feature_seed:ready", "state", "ready")
        assert waiting.wait(HANG_SECONDS) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(waiting.pid, signal.SIGKILL)
        waiting.wait()
