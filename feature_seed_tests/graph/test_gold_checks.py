"""The checks of gold: bad gold stops a run before it writes, and the run says why."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.contract import read_card, read_ready
from feature_seed.errors import GoldError
from feature_seed.graph.failure import cause
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.limits import GoldLimits
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import Row, transaction
from feature_seed_tests.support.run import checks, failures, metadata, numbers, seed
from feature_seed_tests.support.store import dump

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(400)]
SOON = datetime.now(timezone.utc) + timedelta(hours=3)


BAD_GOLD = [
    ([], GoldLimits(), "not_empty", "0"),
    ([*ROWS, transaction(900, amount=None)], GoldLimits(), "rejected_rows", "1 of 401"),
    ([*ROWS, transaction(900, card_id="")], GoldLimits(max_rejected=0.001), "rejected_rows", "1 of 401"),
    (ROWS, GoldLimits(max_age_hours=1), "freshness", "2026-01-01 00:06:39 UTC"),
    ([*ROWS, transaction(901, timestamp=SOON)], GoldLimits(), "freshness", "in the future"),
]


@pytest.mark.parametrize(("rows", "limits", "check", "says"), BAD_GOLD)
def test_bad_gold_blocks_the_run(
    make_parquet: MakeWarehouse,
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
    result = seed(make_parquet(rows), store, job="seed_all", limits=limits, raise_on_error=False)
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


def blocked(result: dg.ExecuteInProcessResult) -> str:
    """What the step says whose checks blocked the run, first and last."""
    (event,) = (one for one in result.all_events if one.event_type == dg.DagsterEventType.STEP_FAILURE)
    assert event.step_failure_data.error
    return cause(event.step_failure_data.error)


def test_every_reason_for_rejection_is_named(make_parquet: MakeWarehouse, store: OnlineStore) -> None:
    odd: list[tuple[str, dict[str, Any]]] = [
        ("no transaction id", {"transaction_id": ""}),
        ("no card", {"card_id": None}),
        ("no customer", {"customer_id": None}),
        ("no timestamp", {"timestamp": None}),
        ("amount missing", {"amount": None}),
        ("amount not finite", {"amount": float("nan")}),
    ]
    rows = [*ROWS, *(transaction(900 + i, **change) for i, (_, change) in enumerate(odd)), transaction(999, card_id="")]
    result = seed(make_parquet(rows), store, job="seed_all", raise_on_error=False)
    described = failures(result)["gold_transactions.rejected_rows"]
    assert described.startswith("7 of 407 rows (1.72%) are rejected, and 0.00% may be; ")
    assert '"transaction_id":"t902","card_id":"c1","customer_id":null' in described
    assert '"amount":"nan"' in described
    counts = numbers(result, "gold_transactions.rejected_rows")
    assert {reason: counts[reason] for reason, _ in odd} == {**dict.fromkeys([one for one, _ in odd], 1), "no card": 2}


def test_the_age_of_gold(make_parquet: MakeWarehouse, store: OnlineStore) -> None:
    """Two hours: more than one limit, less than another, and without one any age will do."""
    warehouse = make_parquet([transaction(1, timestamp=datetime.now(timezone.utc) - timedelta(hours=2))])
    for hours, passes in ((1.5, False), (2.5, True), (None, True)):
        limits = GoldLimits(max_age_hours=hours)
        result = seed(warehouse, store, job="gold_transactions_freshness", limits=limits, raise_on_error=False)
        assert set(failures(result)) == (set() if passes else {"gold_transactions.freshness"})
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
        result = seed(warehouse, store, job="gold_transactions_duplicate_transactions")
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
