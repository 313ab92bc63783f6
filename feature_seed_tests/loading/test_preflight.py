"""Before the first write: a store that is not fit to be seeded is refused, with what to do, and left as it was."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
import redis

from feature_seed.contract import Element
from feature_seed.errors import StoreError
from feature_seed.features.entity import CUSTOMERS
from feature_seed.features.feature import FEATURES
from feature_seed.loading import preflight
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.memory import estimate_memory
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import Row, transaction
from feature_seed_tests.support.patience import wait_for
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import assert_holds, dump
from feature_seed_tests.test_errors import failure

ROWS = [transaction(i, f"c{i % 2000}", seconds=i) for i in range(6000)]


@contextmanager
def server(*options: str) -> Iterator[tuple[redis.Redis, OnlineStore]]:
    """A server that holds something of others', and the resource for it."""
    with redis_server(*options) as port, redis.Redis(port=port) as client:
        if "--replicaof" not in options:
            client.set("unrelated", "x")
        yield client, OnlineStore(url=f"redis://127.0.0.1:{port}")


@pytest.fixture
def warehouse(make_parquet: MakeWarehouse) -> Warehouse:
    return make_parquet(ROWS)


def limit(client: redis.Redis, megabytes: float) -> None:
    """Leave this much memory beside what is in use."""
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] + megabytes * 1e6))


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (
            ["--replicaof", "127.0.0.1", "1", "--replica-read-only", "no"],
            "is a replica of 127.0.0.1:1: point REDIS_URL at the primary",
        ),
        (["--cluster-enabled", "yes"], "is a node of a Redis Cluster"),
        (["--maxmemory", "500mb", "--maxmemory-policy", "allkeys-lru"], r"allkeys-lru, its maxmemory is 524\.3 MB"),
        (["--min-replicas-to-write", "1"], "NOREPLICAS"),
    ],
)
def test_an_unfit_store_is_refused(warehouse: Warehouse, tmp_path: Path, options: list[str], advice: str) -> None:
    """Before: a server that cannot keep what it is given. After a run: the cause and the way out; nothing written."""
    with redis_server("--dir", str(tmp_path), *options) as port, redis.Redis(port=port) as client:
        before = dump(client)
        with pytest.raises(StoreError, match=advice):
            seed(warehouse, OnlineStore(url=f"redis://127.0.0.1:{port}"))
        assert dump(client) == before


def test_an_old_server_is_refused(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's server stands for an old one, seen from a time when it is: the version is compared as numbers."""
    with server() as (client, store):
        before = dump(client)
        monkeypatch.setattr(preflight, "OLDEST", (100, 9))
        assert "use 100.9 or newer" in failure(StoreError, warehouse, store)
        assert dump(client) == before
        monkeypatch.setattr(preflight, "OLDEST", (6, 100))
        seed(warehouse, store)


def test_a_server_that_cannot_persist_is_refused(warehouse: Warehouse, tmp_path: Path) -> None:
    """Before: its directory is gone, and a save has failed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    with server("--dir", str(gone), "--save", "3600 1") as (client, store):
        shutil.rmtree(gone)
        client.bgsave()
        wait_for(lambda: client.info()["rdb_last_bgsave_status"] == "err", "the save fails")
        before = dump(client)
        assert "look into its log" in failure(StoreError, warehouse, store)
        assert dump(client) == before


@pytest.mark.parametrize("options", [["--maxmemory-policy", "allkeys-lru"], ["--maxmemory-policy", "volatile-lru"]])
def test_a_policy_that_takes_no_feature_is_fine(warehouse: Warehouse, options: list[str]) -> None:
    """Without maxmemory nothing is evicted, and volatile-* evicts nothing that has no expiry."""
    with server(*options) as (client, store):
        if "volatile-lru" in options:
            limit(client, 100)
        seed(warehouse, store)
        client.delete("unrelated")
        assert_holds(client, expect(ROWS))


def test_too_little_memory_is_refused_with_the_figures(warehouse: Warehouse) -> None:
    """Before: room for half of the features. After: refused, with what is needed; with that much, seeded."""
    with server() as (client, store):
        limit(client, 1)
        before = dump(client)
        message = failure(StoreError, warehouse, store)
        assert dump(client) == before
        assert "2,000 entities of card_history" in message
        assert "FEATURE_SEED_MEMORY_CHECK=warn" in message
        wanted = float(message.split("raise maxmemory to ")[1].split(" MB")[0])
        client.config_set("maxmemory", int(wanted * 1.25e6))
        seed(warehouse, store)


def test_one_shard_needs_its_share(warehouse: Warehouse) -> None:
    with server() as (client, store):
        limit(client, 1)
        seed(warehouse, store, shard="01", shard_count=16)
        assert "too little memory" in failure(StoreError, warehouse, store)


def test_told_otherwise_it_seeds_all_the_same(warehouse: Warehouse, capfd: pytest.CaptureFixture[str]) -> None:
    """Before: a store that may evict, though it has room. It is seeded, with the warning that it was refused with."""
    with server("--maxmemory-policy", "allkeys-lru") as (client, store):
        limit(client, 100)
        message = failure(StoreError, warehouse, store)
        seed(warehouse, store, memory_check="warn", config={})
        client.delete("unrelated")
        assert_holds(client, expect(ROWS))
    assert message.split(", its maxmemory")[0] in capfd.readouterr().err


def test_a_rerun_over_a_full_store_is_not_refused(warehouse: Warehouse) -> None:
    """Before: everything is there, and next to nothing of maxmemory is left. A rerun needs nothing more."""
    with server() as (client, store):
        seed(warehouse, store)
        client.delete("unrelated")
        limit(client, 1)
        seed(warehouse, store)
        assert_holds(client, expect(ROWS))


def deep() -> list[Row]:
    return [transaction(i, f"card-{i % 2000}", seconds=i, merchant_category="Café Zoë " * 5) for i in range(24_000)]


def shallow() -> list[Row]:
    """UUIDs; one transaction for most cards, very many for a few."""
    cards = [str(UUID(int=max(i - 5000, 0) ** 20 % 2**127)) for i in range(10_000)]
    return [transaction(i, card, seconds=i) for i, card in enumerate(cards)]


@pytest.mark.parametrize(("rows", "element"), [(deep, "object"), (shallow, "array")])
def test_the_estimate_is_what_is_taken(
    make_parquet: MakeWarehouse, rows: Callable[[], list[Row]], element: Element
) -> None:
    """Before: an empty store. After seeding, its memory has grown by what was estimated, within 25 %."""
    warehouse, shards = make_parquet(rows()), tuple(shard_names(16))
    stream = FeatureStream(warehouse, Layout(element=element), CUSTOMERS, shards)
    with server() as (client, store):
        needed = estimate_memory(client, stream, FEATURES)
        before = client.info("memory")["used_memory"]
        seed(warehouse, store, element=element)
        grown = client.info("memory")["used_memory"] - before
        assert grown * 0.75 < needed.needed < grown * 1.25
        assert estimate_memory(client, stream, FEATURES).needed == 0
