"""The checks: bad gold stops a run before it writes, and a store that is not gold's is never called ready."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import Transaction, apply_event, read_card, read_ready
from feature_seed.errors import GoldError, WarehouseError
from feature_seed.features.feature import HISTORY, LOCATION
from feature_seed.graph.assets import cards, customers, gold_transactions
from feature_seed.graph.failure import cause
from feature_seed.graph.feature_checks import FEATURE_CHECKS, Comparison, sample_share
from feature_seed.graph.gold_checks import gold_checks
from feature_seed.graph.io_manager import RedisIOManager
from feature_seed.loading.stream import Layout, shard_names
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.limits import GoldLimits
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import Row, transaction
from feature_seed_tests.support.redis_server import free_port, redis_server
from feature_seed_tests.support.run import QUIET, checks, metadata, seed
from feature_seed_tests.support.store import dump

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(400)]
SOON = datetime.now(timezone.utc) + timedelta(hours=3)

CHECKS_OF_FEATURES = [
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
    assert set(CHECKS_OF_FEATURES) < set(evaluated)
    ready = read_ready(online)
    assert ready and ready.state == "ready"


BAD_GOLD = [
    ([], GoldLimits(), "not_empty", "0"),
    ([*ROWS, transaction(900, amount=None)], GoldLimits(), "rejected_rows", "1 of 401"),
    ([*ROWS, transaction(900, card_id="")], GoldLimits(max_rejected=0.001), "rejected_rows", "1 of 401"),
    (ROWS, GoldLimits(max_age_hours=1), "freshness", "2026-01-01 00:06:39 UTC"),
    ([*ROWS, transaction(901, timestamp=SOON)], GoldLimits(), "freshness", "in the future"),
]


@pytest.mark.parametrize(("rows", "limits", "check", "says"), BAD_GOLD)
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


@pytest.mark.parametrize(("rows", "limits", "says"), [(rows, limits, says) for rows, limits, _, says in BAD_GOLD[1:]])
def test_bad_gold_stops_assets_by_themselves(
    make_parquet: MakeWarehouse,
    online: redis.Redis,
    store: OnlineStore,
    rows: Sequence[Row],
    limits: GoldLimits,
    says: str,
) -> None:
    """Materialised from their pages, without gold's checks, features refuse the same gold and change no byte."""
    online.set("card:c1:seq", 4)
    before = dump(online)
    with pytest.raises(GoldError, match=says):
        seed(make_parquet(rows), store, job="load", limits=limits)
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
        seed(warehouse, store, job="seed_all", instance=instance)
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
        seed(warehouse, store, job="seed_all", instance=instance)
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
    result = seed(make_parquet(ROWS), store, job="seed_shard", shard="05")
    assert all(one.passed for one in checks(result).values())


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """The description of every check that did not pass."""
    return {name: str(one.description) for name, one in checks(result).items() if not one.passed}


def blocked(result: dg.ExecuteInProcessResult) -> str:
    """What the step says whose checks blocked the run, first and last."""
    (event,) = (one for one in result.all_events if one.event_type == dg.DagsterEventType.STEP_FAILURE)
    assert event.step_failure_data.error
    return cause(event.step_failure_data.error)


def numbers(result: dg.ExecuteInProcessResult, check: str) -> dict[str, Any]:
    return {name: value.value for name, value in checks(result)[check].metadata.items()}


def test_every_reason_for_rejection_is_named(make_warehouse: MakeWarehouse, store: OnlineStore) -> None:
    odd: list[tuple[str, dict[str, Any]]] = [
        ("no transaction id", {"transaction_id": ""}),
        ("no card", {"card_id": None}),
        ("no customer", {"customer_id": None}),
        ("no timestamp", {"timestamp": None}),
        ("amount missing", {"amount": None}),
        ("amount not finite", {"amount": float("nan")}),
    ]
    rows = [*ROWS, *(transaction(900 + i, **change) for i, (_, change) in enumerate(odd)), transaction(999, card_id="")]
    result = seed(make_warehouse(rows), store, job="seed_all", raise_on_error=False)
    described = failures(result)["gold_transactions.rejected_rows"]
    assert described.startswith("7 of 407 rows (1.72%) are rejected, and 0.00% may be; ")
    assert '"transaction_id":"t902","card_id":"c1","customer_id":null' in described
    assert '"amount":"nan"' in described
    counts = numbers(result, "gold_transactions.rejected_rows")
    assert {reason: counts[reason] for reason, _ in odd} == {**dict.fromkeys([one for one, _ in odd], 1), "no card": 2}


@pytest.mark.parametrize(("hours", "ready"), [(1.5, False), (2.5, True), (None, True)])
def test_the_age_of_gold(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, hours: float | None, ready: bool
) -> None:
    warehouse = make_parquet([transaction(1, timestamp=datetime.now(timezone.utc) - timedelta(hours=2))])
    result = seed(warehouse, store, job="seed_all", limits=GoldLimits(max_age_hours=hours), raise_on_error=False)
    assert (result.success, bool(online.dbsize())) == (ready, ready)
    assert set(failures(result)) == (set() if ready else {"gold_transactions.freshness"})
    assert numbers(result, "gold_transactions.freshness")["age_hours"] == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(("minutes", "ready"), [(59, True), (61, False)])
def test_clocks_that_differ(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, minutes: int, ready: bool
) -> None:
    """With a newest transaction up to an hour ahead gold is seeded without it, since the watermark is the time at which
    the run began. With a later one it is not, by the job or by a feature's page.
    """
    ahead = transaction(1, timestamp=datetime.now(timezone.utc) + timedelta(minutes=minutes))
    warehouse = make_parquet([ahead, transaction(2)])
    result = seed(warehouse, store, job="seed_all", raise_on_error=False)
    assert (result.success, bool(online.dbsize())) == (ready, ready)
    assert set(failures(result)) == (set() if ready else {"gold_transactions.freshness"})
    if ready:
        card = read_card(online, "c1")
        assert card and [one.transaction_id for one in card.history] == ["t002"]
        assert metadata(result, "card_history")["unread_rows"] == 1
    else:
        with pytest.raises(GoldError, match="in the future"):
            seed(warehouse, store, job="load")
        assert not online.dbsize()


def test_no_gold_table(server: Warehouse, tmp_path: Path, online: redis.Redis, store: OnlineStore) -> None:
    """What cannot be evaluated for want of gold is no failure: only `schema` is, and the run says why."""
    place = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    missing = Warehouse(**place, gold_table="gone")
    result = seed(missing, store, job="seed_all", raise_on_error=False)
    assert list(checks(result)) == ["gold_transactions.schema"]
    assert "no gold table 'gone'" in failures(result)["gold_transactions.schema"]
    assert "The check schema of gold_transactions failed: There is no gold table 'gone'" in blocked(result)
    missing = Warehouse(gold_parquet=str(tmp_path / "gone.parquet"))
    failed = failures(seed(missing, store, job="seed_all", raise_on_error=False))
    assert "gone.parquet" in failed["gold_transactions.schema"]
    assert dump(online) == {}


def test_the_first_cause_comes_first(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: all rows of gold are rejected, so three checks could fail. How old gold is cannot be known: that is said
    nowhere. The run says what to do about the first of the other two, and that nothing was written.
    """
    gold = make_parquet([transaction(1, amount=None), transaction(2, card_id="")])
    result = seed(gold, store, job="seed_all", raise_on_error=False, limits=GoldLimits(max_age_hours=1))
    assert list(failures(result)) == ["gold_transactions.not_empty", "gold_transactions.rejected_rows"]
    said = blocked(result)
    assert said.startswith(
        "The check not_empty of gold_transactions failed: 0 of 2 rows can be used. The check rejected_"
    )
    assert said.endswith("Find out what the ETL wrote. Nothing was written, and what the store holds stays as it was")
    assert "freshness" not in said and not online.dbsize()


def test_a_warehouse_out_of_reach_is_an_error_of_the_run(online: redis.Redis, store: OnlineStore) -> None:
    with pytest.raises(WarehouseError, match="cannot be reached"):
        seed(Warehouse(host="127.0.0.1", port=free_port()), store, job="seed_all")
    assert dump(online) == {}


def test_duplicates_that_disagree_do_not_block(make_parquet: MakeWarehouse, store: OnlineStore) -> None:
    """Of two transactions of one id and time the greater amount is the later; where the card was, parity cannot say."""
    twice = [transaction(7, "twice", seconds=9, amount=amount, location_lat=amount) for amount in (1.0, 2.0)]
    rows = [replace(row, transaction_id=f"{row.card_id} {row.transaction_id}") for row in [*ROWS, *ROWS[:5], *twice]]
    result = seed(make_parquet(rows), store, job="seed_all")
    assert list(failures(result)) == ["gold_transactions.duplicate_transactions"]
    assert "6 duplicate rows" in failures(result)["gold_transactions.duplicate_transactions"]
    assert numbers(result, "card_history.parity")["sampled"] == 41
    assert numbers(result, "card_location.parity")["sampled"] == 40
    assert numbers(result, "customer_stats.parity")["sampled"] == 41


def test_duplicates_in_more_rows_than_memory_is_given_for(
    make_parquet: MakeWarehouse, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in four ids is looked at, whatever the order of rows; of 200 that are there twice some are among them."""
    monkeypatch.setattr("feature_seed.graph.gold_checks._SEARCHED_ROWS", 151)
    warehouse = make_parquet([*ROWS, *ROWS[:200]])
    looked_at = set()
    for _ in range(12):  # two runs look at the same slice once in four times, as many once in four millions
        result = seed(warehouse, store, job="seed_all")
        found = numbers(result, "gold_transactions.duplicate_transactions")
        assert 20 < found["duplicates"] < 80
        assert found["looked_at"] < 300
        assert re.match(
            rf"{found['duplicates']} duplicate rows among the {found['looked_at']} rows that this run looked at, "
            r"one in 4 ids, for example 't\d\d\d', 2 times$",
            failures(result)["gold_transactions.duplicate_transactions"],
        )
        looked_at.add(str(found))
        if len(looked_at) == 2:
            break
    assert len(looked_at) == 2


def hard_rows() -> list[Row]:
    """What encoders, orders and sums get wrong."""
    texts = ['"quoted"', "back\\slash", "café ☕ 漢字", "tab\tand\nnewline", "{braces}", "a:b:loc", "''", "{}"]
    rows = [transaction(i, "ties", seconds=i // 8) for i in random.Random(7).sample(range(40), 40)]
    rows += [transaction(i, "same second", seconds=1, location_lat=float(i)) for i in (3, 9, 5)]
    rows += [transaction(i, text, merchant_category=text) for i in range(2) for text in texts]
    rows += [transaction(1, "nowhere", location_lat=None, merchant_category=None)]
    rows += [transaction(1, "half", seconds=1), transaction(2, "half", seconds=2, location_long=float("nan"))]
    rows += [transaction(1, "milliseconds", seconds=0.123), transaction(2, "milliseconds", seconds=0.122)]
    sums = {"cancel": [5.1, -5.1, 1e-9], "equal": [0.1] * 7, "far": [1e9 + 0.1, 1e9 + 0.2, 1e9 + 0.4], "zero": [0.0]}
    rows += [transaction(i, name, amount=one) for name, amounts in sums.items() for i, one in enumerate(amounts)]
    return [replace(row, transaction_id=f"{row.card_id} {row.transaction_id}") for row in rows]


@pytest.mark.parametrize(
    "layout",
    [{}, {"key_tags": True, "newest_first": True, "history_length": 3}, {"on_conflict": "overwrite"}],
)
def test_hard_rows_pass_in_every_layout(
    make_warehouse: MakeWarehouse, store: OnlineStore, layout: dict[str, Any]
) -> None:
    rows = hard_rows()
    result = seed(make_warehouse(rows), store, job="seed_all", **layout)
    assert failures(result) == {}
    entities = len({row.card_id for row in rows})
    assert numbers(result, "card_history.parity")["sampled"] == entities
    assert numbers(result, "card_location.entity_count")["entities"] == entities
    assert numbers(result, "customer_stats.unknown_entities")["looked_at"] == 2 * entities


@pytest.mark.parametrize(
    ("type_", "ids"),
    [
        ("UInt64", [1, 2**64 - 1]),
        ("UUID", [UUID(int=1), UUID(int=2**128 - 1)]),
        ("LowCardinality(Nullable(String))", ["a", "b"]),
        ("FixedString(3)", ["abc", "z"]),
    ],
)
def test_types_of_columns(make_table: MakeWarehouse, store: OnlineStore, type_: str, ids: list[object]) -> None:
    rows = [transaction(i, card_id=one, customer_id=one, transaction_id=one) for i, one in enumerate(ids)]
    types = {"amount": "Decimal(18, 4)", "timestamp": "DateTime('America/New_York')"}
    warehouse = make_table(rows, transaction_id=type_, card_id=type_, customer_id=type_, **types)
    result = seed(warehouse, store, job="seed_all")
    assert failures(result) == {}
    assert numbers(result, "card_location.parity")["sampled"] == 2


C1 = "card:c1:history"
LOC = "card:c1:loc"
TIME = "card:c1:last_ts"
SEQ = "card:c1:seq"
MARK = "card:c1:seed"
STATS = "cust:of c1:stats"

DAMAGE: list[tuple[str, str, Callable[[redis.Redis], object], str]] = [
    ("card_history.parity", C1, lambda r: r.delete(C1), "[0].transaction_id: gold has 't001', the store nothing"),
    ("card_history.parity", C1, lambda r: r.lpop(C1), "[0].transaction_id: gold has 't001', the store 't041'"),
    ("card_history.parity", C1, lambda r: r.rpush(C1, r.lindex(C1, 0) or ""), "[10].transaction_id: gold has nothing"),
    ("card_history.parity", C1, lambda r: alter(r, 3, ":121.5", ":121.50000000000001"), "[3].amount: gold has 121.5,"),
    ("card_history.parity", C1, lambda r: alter(r, 0, '"food"', "null"), "[0].merchant_category: gold has 'food',"),
    ("card_history.parity", C1, lambda r: alter(r, 9, "+00:00", "Z"), "[9].timestamp: gold has '2026-01-01T00:06:01.0"),
    ("card_history.parity", C1, lambda r: alter(r, 9, ":1.5", ":0"), "[9].location_lat: gold has 1.5, the store 0"),
    ("card_history.parity", C1, lambda r: r.lset(C1, 9, "no json"), "cannot be read: JSONDecodeError"),
    ("card_history.parity", C1, lambda r: r.set(C1, "x"), "cannot be read: ResponseError WRONGTYPE"),
    ("card_location.parity", LOC, lambda r: r.delete(LOC), "lat: gold has 1.5, the store nothing"),
    (
        "card_location.parity",
        LOC,
        lambda r: r.hset(LOC, "lon", "-2.2500001"),
        "lon: gold has -2.25",
    ),
    ("card_location.parity", LOC, lambda r: r.hdel(LOC, "lon"), "cannot be read: KeyError"),
    (
        "card_location.parity",
        "card:far:loc",
        lambda r: r.hset("card:far:loc", "lat", 0),
        "cannot be read: KeyError",
    ),
    (
        "card_location.parity",
        TIME,
        lambda r: r.decr(TIME),
        "value: gold has 1767225961.0, the",
    ),
    ("card_location.parity", TIME, lambda r: r.delete(TIME), "value: gold has 1767225961.0"),
    ("card_history.parity", SEQ, lambda r: r.decr(SEQ), "value: gold has 10, the store 9"),
    ("card_history.parity", SEQ, lambda r: r.set(SEQ, "many"), "cannot be read: ValueError"),
    ("card_history.parity", MARK, lambda r: r.delete(MARK), "watermark: gold has 1767225999000999, the store nothing"),
    ("card_history.parity", MARK, lambda r: r.hincrby(MARK, "count", 1), "count: gold has 10, the store 11"),
    ("customer_stats.parity", STATS, lambda r: r.delete(STATS), "count: gold has 10, the store nothing"),
    ("customer_stats.parity", STATS, lambda r: r.hincrby(STATS, "count", -1), "count: gold has 10, the store 9"),
    ("customer_stats.parity", STATS, lambda r: r.hincrbyfloat(STATS, "mean", 1e-5), "mean: gold has 181.5, the store"),
    ("customer_stats.parity", STATS, lambda r: r.hincrbyfloat(STATS, "M2", 0.01), "M2: gold has 132000.0, the store"),
    ("customer_stats.parity", STATS, lambda r: r.hdel(STATS, "M2"), "cannot be read: KeyError 'M2'"),
    ("card_history.unknown_entities", "card:new:history", lambda r: r.rpush("card:new:history", "x"), ""),
    ("card_history.unknown_entities", "card:new:seq", lambda r: r.set("card:new:seq", 1), ""),
    ("card_location.unknown_entities", "card:new:last_ts", lambda r: r.set("card:new:last_ts", 1), ""),
    ("customer_stats.unknown_entities", "cust:new:stats", lambda r: r.hset("cust:new:stats", "count", 1), ""),
]


def alter(online: redis.Redis, position: int, old: str, new: str) -> None:
    element = online.lindex(C1, position)
    assert isinstance(element, bytes)
    assert old in element.decode()
    online.lset(C1, position, element.decode().replace(old, new))


def test_damage_is_found(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """A seeded store passes. With a key deleted, altered or invented one check fails, and names key and values. Of a
    seed, the count of entities fails as well.
    """
    rows = [transaction(i, f"c{i % 40}", seconds=i, amount=i + 0.5) for i in range(400)]
    warehouse = make_parquet([*rows, transaction(999, "far", location_lat=None)])
    with dg.DagsterInstance.ephemeral() as instance:
        seed(warehouse, store, job="seed_all", instance=instance)
        for check, key, damage, says in DAMAGE:
            before = online.dump(key)
            damage(online)
            assert online.dump(key) != before
            failed = failures(seed(warehouse, store, job="checks_alone", instance=instance, raise_on_error=False))
            of_its_seed = ["card_history.entity_count", "card_location.entity_count"] if key == MARK else []
            assert {*failed} == {check, *of_its_seed}, says
            assert re.match(r"1 of \d+ (entities differ|keys looked at)", failed[check])
            assert f"; {key} {says}".rstrip() in failed[check]
            online.delete(key)
            if before:
                online.restore(key, 0, before)  # type: ignore[arg-type]
        assert failures(seed(warehouse, store, job="checks_alone", instance=instance)) == {}


def test_unrecorded_events_excuse_what_goes_with_them_only(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """An element after gold's excuses a larger count; a larger count alone excuses neither itself nor another time."""
    warehouse = make_parquet(ROWS)

    def check(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
        return seed(warehouse, store, job="checks_alone", instance=instance, raise_on_error=False)

    with dg.DagsterInstance.ephemeral() as instance:
        seed(warehouse, store, job="seed_all", instance=instance)
        pay_unrecorded(online, "c7")
        online.lpop("card:c7:history")
        online.incr("card:c8:seq")
        online.set("card:c9:last_ts", "1999999999.5")
        failed = failures(check(instance))
    assert list(failed) == ["card_history.parity", "card_location.parity"]
    assert failed["card_history.parity"].startswith("2 of 40 entities differ from gold")
    assert "; card:c9:last_ts value: gold has" in failed["card_location.parity"]


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
        comparison = Comparison(LOCATION, gold, online, warehouse.table, Layout(), shard_names(16), frozenset())
        searches = [set(comparison.scanned_keys(100_000)) for _ in range(8)]  # all near one another: once in millions
    assert all(9_000 < len(met) < 12_000 for met in searches)
    assert len(set.union(*searches)) > 15_000


def test_checks_without_a_range(make_parquet: MakeWarehouse, store: OnlineStore) -> None:
    """One shard seeded, then gold grows: checked by itself it has too few entities; in all others are none yet."""
    selection = dg.AssetSelection.checks(gold_checks, *FEATURE_CHECKS)
    with dg.DagsterInstance.ephemeral() as instance:
        seed(make_parquet(ROWS), store, job="seed_shard", shard="05", instance=instance)
        grown = make_parquet([transaction(i, f"c{i}") for i in range(400)])
        definitions = dg.Definitions(
            assets=[gold_transactions, cards, customers],
            asset_checks=[gold_checks, *FEATURE_CHECKS],
            jobs=[dg.define_asset_job("checks", selection, executor_def=dg.in_process_executor)],
            resources={
                "warehouse": grown,
                "layout": Layout(),
                "store": store,
                "limits": GoldLimits(),
                "redis_io_manager": RedisIOManager(store=store),
            },
        )
        job = definitions.resolve_job_def("checks")

        def count(tags: dict[str, str]) -> str:
            result = job.execute_in_process(run_config=QUIET, instance=instance, tags=tags, raise_on_error=False)
            return failures(result)["card_location.entity_count"]

        few = r"for example card:c\d+:seed; (.*; )?shard 05: gold has \d\d, the store has \d of them as gold has them"
        alone = count({"dagster/partition": "05"})
        assert re.fullmatch(rf"\d entities in 1 shards, 1 of which differ from gold; {few}", alone)
        assert re.search(rf"16 shards, 16 of .*{few}", count({}))


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
    make_warehouse: MakeWarehouse, online: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_seed.loading.comparison.comparison._SLICE_ROWS", 100)
    rows = [transaction(i, f"c{i % 200}") for i in range(1000)]
    warehouse = make_warehouse(rows)
    share, count = sample_share(None, 200, len(rows))
    with warehouse.client() as gold:
        until = warehouse.profile().until
        table = {**warehouse.table, "untils": [until]}
        comparison = Comparison(HISTORY, gold, online, table, Layout(), shard_names(16), frozenset([until]))
        slices = list(comparison.sample("a run", share, count))
        half = list(comparison.sample("a run", share / 2, 1))
    held = [sum(one["transactions"] for one in found) for found in slices]
    assert count == 10
    assert max(held) < 250  # 100 on average
    ids = [one["id"] for found in slices for one in found]
    assert sorted(ids) == sorted({row.card_id.encode() for row in rows})
    assert {one["id"] for found in half for one in found} == {one["id"] for found in slices[:5] for one in found}


def test_everything_is_compared(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: 60 entities as gold has them, of each of which a key is altered. All of them are found, and then one."""
    monkeypatch.setattr("feature_seed.loading.comparison.comparison._SLICE_ROWS", 60)
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
