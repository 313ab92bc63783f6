"""What the checks of the features look at: keys of the store, and a sample of gold or all of it."""

import dagster as dg
import pytest
import redis

from feature_seed.features.feature import LOCATION
from feature_seed.loading.comparison.comparison import Comparison
from feature_seed.loading.comparison.scan import Scan, sample_share
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.limits import GoldLimits
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.run import checks, failures, numbers, seed

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(400)]


@pytest.mark.parametrize(
    ("tags", "own", "stale"),
    [(False, "card:n:w:history", "card:{c7}:history"), (True, "card:{n:w}:history", "card:c7:history")],
)
def test_keys_of_entities_that_gold_does_not_know(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, tags: bool, own: str, stale: str
) -> None:
    """New entities, ids that are no text and keys of another layout are told; keys of other programs are not ours."""
    online.rpush(own, "x")
    online.rpush(stale, "x")
    online.rpush(b"card:{\xff\xfe}:history" if tags else b"card:\xff\xfe:history", "x")
    for foreign in ("card:history", "card:c7:historyx", "cards:c7:history", "card:", "cust:c7"):
        online.set(foreign, "x")
    result = seed(make_parquet(ROWS), store, job="seed_all", key_tags=tags)
    assert list(failures(result)) == ["card_history.unknown_entities"]
    assert checks(result)["card_history.unknown_entities"].severity == dg.AssetCheckSeverity.WARN
    found = numbers(result, "card_history.unknown_entities")
    assert (found["unknown"], found["looked_at"]) == (3, 123)
    assert set(found["examples"]) == {own, stale, "card:{\\xff\\xfe}:history" if tags else "card:\\xff\\xfe:history"}


def test_ids_that_are_no_text_are_counted_and_known(
    server: Warehouse, make_table: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """They are seeded as they are, and compared as others are."""
    warehouse = make_table(ROWS)
    with server.client() as client:
        client.command(
            "INSERT INTO gold_of_a_test "
            "SELECT 'b', unhex('fffe'), unhex('fffd'), 'food', 1, toDateTime64('2026-01-01', 3), 1, 2"
        )
    result = seed(warehouse, store, job="seed_all")
    assert online.exists(b"card:\xff\xfe:history", b"cust:\xff\xfd:stats") == 2
    assert failures(result) == {}
    assert numbers(result, "card_history.entity_count")["entities"] == 41
    assert numbers(result, "card_history.parity")["sampled"] == 41


def test_every_run_looks_at_other_keys(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Of 60,000 keys each search meets some thousands: another part every time."""
    online.mset({f"card:{i}:last_ts": 1 for i in range(60_000)})
    warehouse = make_parquet(ROWS)
    with warehouse.client() as gold:
        comparison = Comparison(warehouse, gold, Layout(), shard_names(16), [], features=[LOCATION], store=online)
        searches = [
            set(comparison.scanned_keys(LOCATION, 100_000)) for _ in range(8)
        ]  # all near one another: once in millions
    assert all(9_000 < len(met) < 12_000 for met in searches)
    assert len(set.union(*searches)) > 15_000


def test_every_run_takes_another_sample(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    rows = [transaction(i, f"c{i}") for i in range(2000)]
    limits = GoldLimits(sample_size=20)
    with dg.DagsterInstance.ephemeral() as instance:
        warehouse = make_parquet(rows)
        seed(warehouse, store, job="load", instance=instance)
        online.delete(*online.keys("card:*:history"))  # type: ignore[misc]
        samples = []
        for _ in range(2):
            result = seed(warehouse, store, job="checks_alone", instance=instance, limits=limits, raise_on_error=False)
            found = numbers(result, "card_history.parity")
            assert 5 <= found["sampled"] == found["different"] <= 45
            samples.append(set(found["examples"]))
    assert samples[0] != samples[1]


@pytest.mark.parametrize(
    ("size", "entities", "transactions", "compared", "slices"),
    [
        (1000, 1_000_000, 10_000_000, 1000, 1),
        (1000, 200, 3000, 200, 1),  # there are no more
        (100_000, 1_000_000, 100_000_000, 100_000, 10),
        (1000, 10_000, 100_000_000, 100, 1),  # 10,000 rows each: as many as a million rows are of
        (1000, 1000, 10_000_000_000, 10, 10),  # ten millions each: ten all the same, one at a time
        (3, 1000, 10_000_000_000, 3, 3),
        (None, 1_000_000, 10_000_000, 1_000_000, 10),
        (None, 3, 30_000_000, 3, 3),
        (None, 0, 0, 0, 1),
        (1000, 0, 0, 0, 1),
    ],
)
def test_how_many_are_compared(size: int | None, entities: int, transactions: int, compared: int, slices: int) -> None:
    """As many as are asked for; of entities with very many rows fewer, and some in any case. A million rows a slice."""
    share, found = sample_share(size, entities, transactions)
    assert share * entities == pytest.approx(compared)
    assert found == slices


def test_slices_are_of_every_entity_once(
    make_parquet: MakeWarehouse, online: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_seed.loading.comparison.scan._SLICE_ROWS", 100)
    rows = [transaction(i, f"c{i % 200}") for i in range(1000)]
    warehouse = make_parquet(rows)
    with warehouse.client() as gold:
        scan = Scan(warehouse, gold, Layout(), shard_names(16), [warehouse.profile().until])
        found = list(scan.scans("a run", None, {}))
    slices = [one["cards"].rows for one in found]
    assert len(slices) == 10
    assert max(sum(one["transactions"] for one in some) for some in slices) < 250  # 100 on average
    assert sorted(one["id"] for some in slices for one in some) == sorted({row.card_id.encode() for row in rows})
    customers = [one["id"] for some in found for one in some["customers"].rows]
    assert sorted(customers) == sorted({row.customer_id.encode() for row in rows})


def test_everything_is_compared(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: 60 entities as gold has them, of each of which a key is altered. All of them are found, and then one."""
    monkeypatch.setattr("feature_seed.loading.comparison.scan._SLICE_ROWS", 60)
    warehouse = make_parquet([transaction(i, f"c{i % 60}", seconds=i) for i in range(180)])
    everything = GoldLimits(sample_size=None)
    with dg.DagsterInstance.ephemeral() as instance:

        def check() -> dg.ExecuteInProcessResult:
            return seed(
                warehouse, store, job="checks_alone", instance=instance, limits=everything, raise_on_error=False
            )

        seed(warehouse, store, instance=instance)
        for i in range(60):
            online.lpop(f"card:c{i}:history")
            online.hset(f"card:c{i}:loc", "lat", 9)
            online.hset(f"cust:of c{i}:stats", "mean", 9)
        found = check()
        for feature in ("card_history", "card_location", "customer_stats"):
            parity = numbers(found, f"{feature}.parity")
            assert (parity["sampled"], parity["different"], len(parity["examples"])) == (60, 60, 10)
        online.flushall()
        seed(warehouse, store, instance=instance)
        online.decr("card:c23:last_ts")
        failed = failures(check())
    assert list(failed) == ["card_location.parity"]
    assert failed["card_location.parity"].startswith("1 of 60 entities differ from gold")
    assert "; card:c23:last_ts value: gold has" in failed["card_location.parity"]
