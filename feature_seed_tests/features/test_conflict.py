"""What runs do to the state that a live scorer has already advanced; every case of it is in test_merge.py."""

import pytest
import redis

from feature_seed.contract import Card, Transaction, Welford, read_card, read_customer
from feature_seed.errors import StoreError
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import START, transaction
from feature_seed_tests.support.run import metadata, seed
from feature_seed_tests.support.store import assert_holds, features

GOLD = [transaction(i, card, seconds=i) for i in range(12) for card in ("hot", "cold")]
NEWEST = START.timestamp() + 11


@pytest.fixture
def warehouse(make_warehouse: MakeWarehouse) -> Warehouse:
    return make_warehouse(GOLD)


def live_transaction(client: redis.Redis, card_id: str, last_ts: float) -> Transaction:
    """One event as the scorer applies it to a card and its customer."""
    event = Transaction("live", "fuel", 99.0, "2026-01-02T00:00:00.000+00:00", 9.0, 8.0)
    client.rpush(f"card:{card_id}:history", event.encode())
    client.ltrim(f"card:{card_id}:history", -10, -1)
    client.hset(f"card:{card_id}:loc", mapping={"lat": 9.0, "lon": 8.0})
    client.set(f"card:{card_id}:last_ts", last_ts)
    client.incr(f"card:{card_id}:seq")
    state = read_customer(client, f"of {card_id}") or Welford()
    client.hset(f"cust:of {card_id}:stats", mapping=state.update(event.amount).encode())
    return event


def test_keep_newer_never_takes_back_a_live_event(
    warehouse: Warehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """Before: seeded, then one live event on the hot card. After a rerun: not a byte changed, and it is counted."""
    seed(warehouse, store)
    event = live_transaction(online, "hot", NEWEST + 0.5)
    live = features(online)
    result = seed(warehouse, store)
    assert features(online) == live
    hot = read_card(online, "hot")
    assert hot and hot.history[-1] == event and hot.location == (9.0, 8.0) and hot.seq == 13
    for asset in ("card_history", "card_location", "customer_stats"):
        assert (metadata(result, asset)["kept_newer"], metadata(result, asset)["entities_written"]) == (1, 1), asset


def test_overwrite_puts_gold_back(warehouse: Warehouse, online: redis.Redis, store: OnlineStore) -> None:
    """The same, with overwrite: the store is gold's again, the live event is gone, and nothing counts as kept."""
    seed(warehouse, store)
    live_transaction(online, "hot", NEWEST + 0.5)
    result = seed(warehouse, store, on_conflict="overwrite")
    assert_holds(online, expect(GOLD))
    assert metadata(result, "customer_stats")["kept_newer"] == 0
    assert metadata(result, "customer_stats")["entities_written"] == 2


def test_keep_newer_merges_what_was_never_seeded(warehouse: Warehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: events of cards not seeded yet. After: counts add up, the newer time stands. Again: no change."""
    online.set("card:hot:last_ts", NEWEST + 100)
    online.hset("card:hot:loc", mapping={"lat": 5, "lon": 6})
    online.set("card:hot:seq", 3)
    online.set("card:cold:last_ts", NEWEST - 100)
    online.set("card:cold:seq", 50)
    result = seed(warehouse, store)
    hot, cold = read_card(online, "hot"), read_card(online, "cold")
    assert isinstance(hot, Card) and isinstance(cold, Card)
    assert (hot.last_ts, hot.location, hot.seq) == (NEWEST + 100, (5.0, 6.0), 15)
    assert (cold.last_ts, cold.location, cold.seq) == (NEWEST, (1.5, -2.25), 62)
    assert metadata(result, "card_history")["kept_newer"] == 2
    merged = features(online)
    seed(warehouse, store)
    assert features(online) == merged


def test_only_the_first_load_adds_counts(warehouse: Warehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Once the store was ready, gold has had the time to take in the events of a card that is new: the count stands."""
    seed(warehouse, store, verify=True)
    online.delete("card:hot:seeded", "cust:of hot:stats")
    online.set("card:hot:seq", 50)
    online.hset("cust:of hot:stats", mapping=Welford(50, 1.0, 0.0).encode())
    seed(warehouse, store)
    hot, customer = read_card(online, "hot"), read_customer(online, "of hot")
    assert hot and customer and (hot.seq, customer.count) == (50, 50)


def test_a_load_that_failed_is_still_the_first(warehouse: Warehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: a first load fails at the customers. After the next one: live events and gold's, each counted once."""
    live_transaction(online, "hot", NEWEST + 0.5)
    online.set("cust:of cold:stats", "something else's")
    with pytest.raises(StoreError):
        seed(warehouse, store)
    online.delete("cust:of cold:stats")
    seed(warehouse, store)
    hot, customer = read_card(online, "hot"), read_customer(online, "of hot")
    assert hot and customer and (hot.seq, customer.count) == (13, 13)


@pytest.mark.parametrize("key", ["history", "seq", "loc", "last_ts"])
def test_key_of_another_type_leaves_its_card_as_it_was(
    warehouse: Warehouse, online: redis.Redis, store: OnlineStore, key: str
) -> None:
    """Before: one of a card's keys is another program's stream. After: an error that names it, and no other key."""
    online.xadd(f"card:hot:{key}", {"of": "another"})
    with pytest.raises(StoreError, match=r"card:hot:.*WRONGTYPE"):
        seed(warehouse, store)
    assert online.keys("card:hot:*") == [f"card:hot:{key}".encode()]


def test_keep_newer_writes_what_is_missing(warehouse: Warehouse, online: redis.Redis, store: OnlineStore) -> None:
    """A newer time alone does not keep a card without history from getting one."""
    online.set("card:hot:last_ts", NEWEST + 100)
    result = seed(warehouse, store)
    hot = read_card(online, "hot")
    assert hot and hot.history == expect(GOLD).cards["hot"].history
    assert metadata(result, "card_history")["kept_newer"] == 0


def test_keep_newer_follows_gold_when_gold_is_ahead(
    make_warehouse: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """Before: an older gold is in the store. After: the newer one, also where a card lost its coordinates."""
    seed(make_warehouse(GOLD[:10]), store)
    later = [transaction(i, card, seconds=i, location_lat=None) for i in range(12) for card in ("hot", "cold")]
    result = seed(make_warehouse(later), store)
    assert_holds(online, expect(later))
    assert metadata(result, "card_location")["kept_newer"] == 0
