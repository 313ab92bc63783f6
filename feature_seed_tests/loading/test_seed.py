"""Seeding, end to end: every key of every entity against plain Python over the same rows."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis

from feature_seed.contract import CARD_HISTORY, CUSTOMER_STATS, read_customer
from feature_seed.loading.layout import shard_names
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.expected import Expected, expect, welford
from feature_seed_tests.support.gold import Row, transaction
from feature_seed_tests.support.outcome import holds
from feature_seed_tests.support.run import fill, metadata, seed
from feature_seed_tests.support.store import assert_holds, features


def awkward_rows() -> list[Row]:
    """Ties, gaps and texts that a careless encoder gets wrong, and rows that cannot be used."""
    texts = [
        '"quoted"',
        "back\\slash",
        "café ☕ 漢字",
        "tab\tand\nnewline",
        "{braces}",
        "*1\r\n$8\r\nFLUSHALL\r\n",
        "/",
        "\x01",
        "''",
    ]
    rows = [transaction(i, "ties", seconds=i // 8) for i in random.Random(7).sample(range(40), 40)]
    rows += [transaction(i, "one second", seconds=5) for i in random.Random(8).sample(range(30), 30)]
    rows += [
        transaction(i, text, transaction_id=f"{text}{i}", merchant_category=text) for i in range(3) for text in texts
    ]
    rows += [transaction(i, "uncategorised", seconds=i, merchant_category=None) for i in range(3)]
    rows += [transaction(1, "nowhere", location_lat=None, location_long=None)]
    rows += [
        transaction(1, "half a place", seconds=1, location_lat=3.0),
        transaction(2, "half a place", seconds=2, location_lat=None),
        transaction(3, "half a place", seconds=3, location_long=float("nan")),
    ]
    rows += [transaction(i, "same second, other place", seconds=1, location_lat=float(i)) for i in (3, 9, 5)]
    rows += [transaction(1, "origin", location_lat=0.0, location_long=0.0)]
    rows += [
        transaction(i, "amounts", seconds=i, amount=a)
        for i, a in enumerate([0.1, 1e-7, 1e21, -5.0, 0.0, 123456789.123456789])
    ]
    sums = {"equal": [0.1] * 7, "far": [1e9 + 0.1, 1e9 + 0.2, 1e9 + 0.4], "zero": [0.0]}
    rows += [transaction(i, name, amount=one) for name, amounts in sums.items() for i, one in enumerate(amounts)]
    rows += [transaction(1, "milliseconds", seconds=0.123), transaction(2, "milliseconds", seconds=0.122)]
    rows += [
        transaction(900, transaction_id=None),
        transaction(901, transaction_id=""),
        transaction(902, card_id=None),
        transaction(903, card_id=""),
        transaction(904, customer_id=None),
        transaction(905, timestamp=None),
        transaction(906, amount=None),
        transaction(907, amount=float("nan")),
        transaction(908, amount=float("inf")),
    ]
    return rows


@pytest.mark.parametrize("on_conflict", ["keep_newer", pytest.param("overwrite", marks=pytest.mark.slow)])
def test_seeds_every_key_of_the_sample(
    sample: Warehouse,
    sample_rows: Sequence[Row],
    sample_expected: Expected,
    online: redis.Redis,
    store: OnlineStore,
    on_conflict: str,
) -> None:
    """Before: an empty store. After seed_all over the sample: every key as computed from its rows, and no other.

    After seeding again: the same bytes under the same keys.
    """
    assert online.dbsize() == 0
    result = seed(sample, store, on_conflict=on_conflict)
    first = features(online)
    assert_holds(online, sample_expected)

    written = {asset: metadata(result, asset) for asset in ("card_history", "card_location", "customer_stats")}
    assert written["card_history"]["entities_written"] == len(sample_expected.cards) == 5000
    assert written["card_location"]["entities_written"] == 5000
    assert written["customer_stats"]["entities_written"] == len(sample_expected.customers) == 2500
    assert all(one["kept_newer"] == 0 and one["rejected_rows"] == 0 and one["shards"] == 2 for one in written.values())
    assert len({one["gold_version"] for one in written.values()}) == 1

    again = seed(sample, store, on_conflict=on_conflict)
    assert features(online) == first
    assert metadata(again, "card_history")["kept_newer"] == 0


def test_the_sample_has_what_makes_seeding_hard(sample_rows: Sequence[Row], sample_expected: Expected) -> None:
    """Ties within a card, rows and cards without coordinates, skew: else the test above proves little."""
    times = [(row.card_id, row.timestamp) for row in sample_rows]
    assert len(sample_rows) == 200_000
    assert len(times) - len(set(times)) > 100
    assert sum(row.location_lat is None for row in sample_rows) > 1000
    assert sum(card.location is None for card in sample_expected.cards.values()) > 5
    assert min(card.seq for card in sample_expected.cards.values()) < 10
    assert max(card.seq for card in sample_expected.cards.values()) > 1000


def test_all_shards_one_by_one_equal_one_run(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """Each shard writes its own entities, none twice and none left out; together they are the whole."""
    warehouse = make_parquet([transaction(i, f"c{i % 400}", seconds=i) for i in range(1000)])
    seen: dict[bytes, object] = {}
    for shard in shard_names(4):
        online.flushall()
        fill(warehouse, store, shard, shard_count=4)
        keys = features(online)
        assert keys, shard
        assert not keys.keys() & seen.keys(), shard
        seen |= keys
    online.flushall()
    fill(warehouse, store, shard_count=4)
    assert features(online) == seen


@pytest.mark.parametrize(
    ("make", "layout"),
    [
        ("make_parquet", {}),
        ("make_parquet", {"element": "array"}),
        ("make_table", {"newest_first": True, "history_length": 3, "element": "array", "on_conflict": "overwrite"}),
    ],
)
def test_awkward_rows(
    request: pytest.FixtureRequest, online: redis.Redis, store: OnlineStore, make: str, layout: dict[str, Any]
) -> None:
    """Ties, gaps, quotes, RESP look-alikes and unusable rows: all keys right, rejects counted, all checks content."""
    rows = awkward_rows()
    found = holds(
        request.getfixturevalue(make)(rows), store, online, rows, ["duplicate_transactions", "zeros"], **layout
    )
    assert found["gold_transactions.rejected_rows"].metadata["rejected"].value == 9


def test_deep_histories_are_cut_before_they_are_collected(
    make_warehouse: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """With many transactions per card another query is used: its result must not differ, ties at the cut included.

    Nor does the place, which one card has from a transaction before its ten newest, of several at that time, and
    another card from none.
    """
    draw = random.Random(1)
    rows = [transaction(i, f"deep {i % 3}", seconds=draw.randrange(30), amount=draw.random()) for i in range(900)]
    lost = [replace(row, card_id="lost", location_lat=None) for row in rows[:300]]
    last_seen = [transaction(900 + i, "lost", seconds=3 + i // 3, location_long=float(i)) for i in range(6)]
    never = [replace(row, card_id="never", location_long=None) for row in rows[:300]]
    expected = expect(rows := [*rows, *lost, *last_seen, *never])
    fill(make_warehouse(rows), store)
    assert (expected.cards["lost"].location, expected.cards["never"].location) == ((1.5, 5.0), None)
    assert_holds(online, expected)


def test_key_tags(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """With tags every key of a card has the id in literal braces, so that a cluster keeps them in one slot."""
    rows = [transaction(1, "a"), transaction(2, "b"), transaction(3, "{c}")]
    fill(make_parquet(rows), store, key_tags=True)
    assert_holds(online, expect(rows), tags=True)
    assert (
        online.exists("card:{a}:history", "card:{a}:loc", "card:{a}:last_ts", "card:{a}:seq", "cust:{of a}:stats") == 5
    )


def test_order_within_a_millisecond(make_table: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Microseconds decide the order although the store shows milliseconds."""
    rows = [transaction(2, seconds=0.000_100), transaction(1, seconds=0.000_300), transaction(3, seconds=0.000_200)]
    fill(make_table(rows, timestamp="DateTime64(6, 'UTC')"), store)
    history = online.lrange(CARD_HISTORY.of("c1"), 0, -1)
    assert [element[:24] for element in history] == [
        b'{"transaction_id":"t002"',
        b'{"transaction_id":"t003"',
        b'{"transaction_id":"t001"',
    ]


def test_live_updates_continue_the_seeded_state(
    sample: Warehouse, sample_rows: Sequence[Row], online: redis.Redis, store: OnlineStore
) -> None:
    """Seed, then 1,000 live amounts through the contract: as if all had been replayed from the first transaction."""
    fill(sample, store)
    customer_id = "cust-0042"
    replayed = [float(row.amount) for row in sample_rows if row.customer_id == customer_id]
    draw = random.Random(3)
    for _ in range(1000):
        amount = round(draw.lognormvariate(3, 1), 2)
        seeded = read_customer(online, customer_id)
        assert seeded
        online.hset(CUSTOMER_STATS.of(customer_id), mapping=seeded.update(amount).encode())
        replayed.append(amount)
    state, whole = read_customer(online, customer_id), welford(replayed)
    assert state and state.count == whole.count
    assert state.mean == pytest.approx(whole.mean, rel=1e-9)
    assert state.m2 == pytest.approx(whole.m2, rel=1e-9)


@pytest.mark.parametrize("name", ["gold", "transactions", "card_history", "order"])
def test_names_of_gold(make_table: MakeWarehouse, online: redis.Redis, store: OnlineStore, name: str) -> None:
    """A table may be called like one of our relations. Names that need quotes are in test_golds.py."""
    rows = [transaction(i, f"c{i}") for i in range(3)]
    fill(make_table(rows, gold_table=name), store)
    assert_holds(online, expect(rows))
