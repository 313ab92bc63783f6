"""The checks of the features: a store that is not gold's is never called ready."""

import re
from collections.abc import Callable

import dagster as dg
import pytest
import redis

from feature_seed.contract import Transaction, apply_event, read_ready
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import QUIET, checks, definitions, failures, numbers, seed

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(400)]

CHECKS_OF_FEATURES = [
    f"{asset}.{check}"
    for asset in ("card_history", "card_location", "customer_stats")
    for check in ("entity_count", "parity", "unknown_entities")
]


def test_a_healthy_run_passes_every_check(
    make_warehouse: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    rows = [*ROWS, *(transaction(900 + i, "cancel", amount=one) for i, one in enumerate([5.1, -5.1, 1e-9]))]
    result = seed(make_warehouse(rows), store, job="seed_all")
    evaluated = checks(result)
    assert all(one.passed for one in evaluated.values()), evaluated
    assert set(CHECKS_OF_FEATURES) < set(evaluated)
    ready = read_ready(online)
    assert ready and ready.state == "ready"


def paid(number: int, card: str, lat: float = 9.0) -> Transaction:
    """A live event after all of ROWS."""
    return Transaction(f"live {number}", "fuel", 7.5, f"2026-01-02T00:00:{number:02}.000+00:00", lat, 9.0)


def pay_unrecorded(online: redis.Redis, card: str) -> None:
    """What a scorer does that writes keys itself."""
    online.rpush(f"card:{card}:history", paid(1, card).encode())
    online.ltrim(f"card:{card}:history", -10, -1)
    online.hset(f"card:{card}:loc", mapping={"lat": 9, "lon": 9})
    online.set(f"card:{card}:last_ts", "1767312001")
    online.incr(f"card:{card}:seq")
    online.hincrby(f"cust:of {card}:stats", "count", 1)


def test_events_after_the_watermark_are_no_damage(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """Before: seeded, then recorded events of one card, and an event of another that nobody recorded. All checks pass,
    and tell of both.
    """
    warehouse = make_parquet(ROWS)
    with dg.DagsterInstance.ephemeral() as instance:
        seed(warehouse, store, job="load", instance=instance)
        pay_unrecorded(online, "c7")
        for number in (3, 2, 12, 11):
            apply_event(online, "of c8", "c8", paid(number, "c8"))
        found = checks(seed(warehouse, store, job="checks_alone", instance=instance))
    assert all(one.passed for one in found.values()), found
    for feature in ("card_history", "card_location", "customer_stats"):
        said = found[f"{feature}.parity"].metadata
        assert (said["live"].value, said["unrecorded"].value) == (1, 1), feature


def test_recorded_events_are_compared(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: seeded, and a recorded event of each of four cards, of each of which something is then altered."""
    warehouse = make_parquet(ROWS)
    with dg.DagsterInstance.ephemeral() as instance:
        seed(warehouse, store, job="load", instance=instance)
        for number in range(1, 5):
            apply_event(online, f"of c{number}", f"c{number}", paid(number, f"c{number}"))
        online.lset("card:c1:history", -1, paid(1, "c1", lat=8.0).encode())
        online.hset("card:c2:loc", "lat", "1.5")
        online.incr("card:c3:seq")
        online.hset("cust:of c4:stats", "mean", "10.5")
        result = seed(warehouse, store, job="checks_alone", instance=instance, raise_on_error=False)
    failed = failures(result)
    assert list(failed) == ["card_history.parity", "card_location.parity", "customer_stats.parity"]
    assert sorted(numbers(result, "card_history.parity")["examples"]) == [
        "card:c1:history [9].location_lat: gold has 9.0, the store 8.0",
        "card:c3:seq value: gold has 11, the store 12",
    ]
    assert numbers(result, "card_location.parity")["examples"] == ["card:c2:loc lat: gold has 9.0, the store 1.5"]
    assert "; cust:of c4:stats mean: gold has 10.227" in failed["customer_stats.parity"]


def test_a_shard_is_checked_by_itself(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    result = seed(make_parquet(ROWS), store, job="seed_shard", shard="01")
    assert all(one.passed for one in checks(result).values())


LIST, SEQ, MARK = "card:{}:history", "card:{}:seq", "card:{}:seed"
LOC, NOWHERE, TIME = "card:{}:loc", "card:{} nowhere:loc", "card:{}:last_ts"
STATS = "cust:of {}:stats"

# What is done to the key of a card of its own, or to one that gold does not know, and what is said of it.
DAMAGE: list[tuple[str, Callable[[redis.Redis, str], object], str]] = [
    (LIST, lambda r, k: r.delete(k), "[0].transaction_id: gold has 't001', the store nothing"),
    (LIST, lambda r, k: r.lpop(k), "[0].transaction_id: gold has 't001', the store 't041'"),
    (LIST, lambda r, k: r.rpush(k, r.lindex(k, 0) or ""), "[10].transaction_id: gold has nothing"),
    (LIST, lambda r, k: alter(r, k, 3, ":121.5", ":121.50000000000001"), "[3].amount: gold has 121.5,"),
    (LIST, lambda r, k: alter(r, k, 0, '"food"', "null"), "[0].merchant_category: gold has 'food',"),
    (LIST, lambda r, k: alter(r, k, 9, "+00:00", "Z"), "[9].timestamp: gold has '2026-01-01T00:06:01.0"),
    (LIST, lambda r, k: alter(r, k, 9, ":1.5", ":0"), "[9].location_lat: gold has 1.5, the store 0"),
    (LIST, lambda r, k: r.lset(k, 9, "no json"), "cannot be read: JSONDecodeError"),
    (LIST, lambda r, k: r.lset(k, 9, '["t",null,1,1767225600123,null,null]'), "cannot be read: OverflowError"),
    (LIST, lambda r, k: r.set(k, "x"), "cannot be read: ResponseError WRONGTYPE"),
    (LOC, lambda r, k: r.delete(k), "lat: gold has 1.5, the store nothing"),
    (LOC, lambda r, k: r.hset(k, "lon", "-2.2500001"), "lon: gold has -2.25"),
    (LOC, lambda r, k: r.hdel(k, "lon"), "cannot be read: KeyError"),
    (NOWHERE, lambda r, k: r.hset(k, "lat", 0), "cannot be read: KeyError"),
    (TIME, lambda r, k: r.decr(k), "value: gold has 1767225961.0, the"),
    (TIME, lambda r, k: r.delete(k), "value: gold has 1767225961.0"),
    (SEQ, lambda r, k: r.decr(k), "value: gold has 10, the store 9"),
    (SEQ, lambda r, k: r.set(k, "many"), "cannot be read: ValueError"),
    (MARK, lambda r, k: r.delete(k), "watermark: gold has 1767225999000999, the store nothing"),
    (MARK, lambda r, k: r.hincrby(k, "count", 1), "count: gold has 10, the store 11"),
    (STATS, lambda r, k: r.delete(k), "count: gold has 10, the store nothing"),
    (STATS, lambda r, k: r.hincrby(k, "count", -1), "count: gold has 10, the store 9"),
    (STATS, lambda r, k: r.hincrbyfloat(k, "mean", 1e-5), "mean: gold has 181.5, the store"),
    (STATS, lambda r, k: r.hincrbyfloat(k, "M2", 0.01), "M2: gold has 132000.0, the store"),
    (STATS, lambda r, k: r.hdel(k, "M2"), "cannot be read: KeyError 'M2'"),
    ("card:new:history", lambda r, k: r.rpush(k, "x"), ""),
    ("card:new:seq", lambda r, k: r.set(k, 1), ""),
    ("card:new:last_ts", lambda r, k: r.set(k, 1), ""),
    ("cust:new:stats", lambda r, k: r.hset(k, "count", 1), ""),
]

ASSETS = {
    "card_history": ("history", "seq", "seed"),
    "card_location": ("loc", "last_ts"),
    "customer_stats": ("stats",),
}


def alter(online: redis.Redis, key: str, position: int, old: str, new: str) -> None:
    element = online.lindex(key, position)
    assert isinstance(element, bytes)
    assert old in element.decode()
    online.lset(key, position, element.decode().replace(old, new))


def test_damage_is_found(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seeded store passes. With a key of each card deleted, altered or invented, the check that looks at such keys
    fails, and names each of them with its values. No check names any other.
    """
    monkeypatch.setattr("feature_seed.graph.feature_checks._EXAMPLES", 100)
    keys = [pattern.format(f"c{number}") for number, (pattern, *_) in enumerate(DAMAGE)]
    cards = [key.split(":")[1].removeprefix("of ") for key in keys if ":new:" not in key]
    rows = [
        transaction(i, card, seconds=i, amount=i + 0.5, location_lat=None if "nowhere" in card else 1.5)
        for card in cards
        for i in range(1, 400, 40)
    ]
    warehouse = make_parquet([*rows, transaction(399, "newest", seconds=399)])
    expected: dict[str, set[str]] = {}
    with dg.DagsterInstance.ephemeral() as instance:
        assert seed(warehouse, store, job="load_and_verify", instance=instance).success
        for key, (_, damage, says) in zip(keys, DAMAGE, strict=True):
            before = online.dump(key)
            damage(online, key)
            assert online.dump(key) != before
            asset = next(name for name, kinds in ASSETS.items() if key.endswith(kinds))
            check = f"{asset}.{'unknown_entities' if ':new:' in key else 'parity'}"
            expected.setdefault(check, set()).add(f"{key} {says}".rstrip())
        result = seed(warehouse, store, job="checks_alone", instance=instance, raise_on_error=False)
    failed = failures(result)
    failed.pop("gold_transactions.duplicate_transactions")  # cards have the same ids
    for asset in ("card_history", "card_location"):  # of the cards whose seeds are damaged
        assert re.search("for example card:c.*:seed; .* of them as gold has them", failed.pop(f"{asset}.entity_count"))
    assert set(failed) == set(expected)
    for check, beginnings in expected.items():
        assert re.match(rf"{len(beginnings)} of \d+ (entities differ|keys looked at)", failed[check])
        examples = numbers(result, check)["examples"]
        assert {beginning for beginning in beginnings for one in examples if one.startswith(beginning)} == beginnings
        assert len(examples) == len(beginnings)


def test_unrecorded_events_excuse_what_goes_with_them_only(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """An element after gold's excuses a larger count; a larger count alone excuses neither itself nor another time."""
    warehouse = make_parquet(ROWS)

    def check(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
        return seed(warehouse, store, job="checks_alone", instance=instance, raise_on_error=False)

    with dg.DagsterInstance.ephemeral() as instance:
        seed(warehouse, store, job="load", instance=instance)
        pay_unrecorded(online, "c7")
        online.lpop("card:c7:history")
        online.incr("card:c8:seq")
        online.set("card:c9:last_ts", "1999999999.5")
        failed = failures(check(instance))
    assert list(failed) == ["card_history.parity", "card_location.parity"]
    assert failed["card_history.parity"].startswith("2 of 40 entities differ from gold")
    assert "; card:c9:last_ts value: gold has" in failed["card_location.parity"]


def test_checks_without_a_range(make_parquet: MakeWarehouse, store: OnlineStore) -> None:
    """One shard seeded, then gold grows: checked by itself it has too few entities; in all others are none yet."""
    with dg.DagsterInstance.ephemeral() as instance:
        seed(make_parquet(ROWS), store, job="seed_shard", shard="01", instance=instance)
        grown = make_parquet([transaction(i, f"c{i}") for i in range(400)])
        job = definitions(grown, store).resolve_job_def("checks_without_a_range")

        def count(tags: dict[str, str]) -> str:
            result = job.execute_in_process(run_config=QUIET, instance=instance, tags=tags, raise_on_error=False)
            return failures(result)["card_location.entity_count"]

        few = r"shard 01: gold has \d+, the store has \d+ of them as gold has them"
        example = r"for example card:c\d+:seed"
        alone = count({"dagster/partition": "01"})
        assert re.fullmatch(rf"\d+ entities in 1 shards, 1 of which differ from gold; {example}; {few}", alone)
        assert re.search(rf"2 shards, 2 of .*{example}; shard 00: gold has \d+, the store has 0 of them", count({}))


def test_a_store_that_forgets_is_never_ready(make_parquet: MakeWarehouse) -> None:
    """Seeded all the same, Redis acknowledges every write and evicts: features that parity misses, or the lock of the
    run. No scorer is told to start.
    """
    rows = [transaction(i, f"card {i}") for i in range(20_000)]
    with redis_server("--maxmemory", "4mb", "--maxmemory-policy", "allkeys-random") as port:
        store = OnlineStore(url=f"redis://127.0.0.1:{port}")
        result = seed(make_parquet(rows), store, job="seed_all", raise_on_error=False, memory_check="warn")
        lost = any("lost the lock" in str(event.step_failure_data.error) for event in result.get_step_failure_events())
        assert not result.success
        assert lost or "card_history.parity" in failures(result)
        assert not result.asset_materializations_for_node("warm_start")
