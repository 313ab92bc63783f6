"""A gold snapshot of one's own, every key of it: FEATURE_SEED_TEST_SNAPSHOT names the Parquet file."""

import os
from pathlib import Path

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import read_parquet
from feature_seed_tests.support.run import metadata, seed
from feature_seed_tests.support.store import assert_holds

SNAPSHOT = os.environ.get("FEATURE_SEED_TEST_SNAPSHOT")


@pytest.mark.skipif(not SNAPSHOT, reason="FEATURE_SEED_TEST_SNAPSHOT names no Parquet file")
def test_every_key_of_a_snapshot(chdb: Client, online: redis.Redis, store: OnlineStore) -> None:
    result = seed(Warehouse(gold_parquet=SNAPSHOT), store)
    loads = [metadata(result, asset) for asset in ("card_history", "card_location", "customer_stats")]
    print([(load["entities_written"], load["seconds"]) for load in loads], sum(load["seconds"] for load in loads), "s")
    assert_holds(online, expect(read_parquet(chdb, Path(str(SNAPSHOT)))))
