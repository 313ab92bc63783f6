"""What runs do to the state that a live scorer has already advanced; every case of it is in test_merge.py."""

from datetime import timedelta

import pytest
import redis

from feature_seed.contract import READY, Transaction, Welford, apply_event, read_card, read_customer, read_ready
from feature_seed.errors import StoreError
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.expected import expect, listed
from feature_seed_tests.support.gold import START, transaction
from feature_seed_tests.support.run import fill, metadata, seed
from feature_seed_tests.support.store import assert_holds, features

GOLD = [transaction(i, card, seconds=i) for i in range(12) for card in ("hot", "cold")]
NEWEST = START.timestamp() + 11


@pytest.fixture
def warehouse(make_parquet: MakeWarehouse) -> Warehouse:
    return make_parquet(GOLD)


def live_transaction(client: redis.Redis, card_id: str) -> Transaction:
    """One event as a scorer applies it that writes the keys of a card and its customer itself."""
    event = Transaction("live", "fuel", 99.0, "2026-01-02T00:00:00.000+00:00", 9.0, 8.0)
    client.rpush(f"card:{card_id}:history", event.encode())
    client.ltrim(f"card:{card_id}:history", -10, -1)
    client.hset(f"card:{card_id}:loc", mapping={"lat": 9.0, "lon": 8.0})
    client.set(f"card:{card_id}:last_ts", event.time.timestamp())
    client.incr(f"card:{card_id}:seq")
    state = read_customer(client, f"of {card_id}") or Welford()
    client.hset(f"cust:of {card_id}:stats", mapping=state.update(event.amount).encode())
    return event


def test_keep_newer_never_takes_back_a_live_event(
    warehouse: Warehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """Before: seeded, then one live event on the hot card. After a rerun: not a byte changed, and it is counted."""
    seed(warehouse, store)
    event = live_transaction(online, "hot")
    live = features(online)
    result = seed(warehouse, store)
    assert features(online) == live
    hot = read_card(online, "hot")
    assert hot and hot.history[-1] == event and hot.location == (9.0, 8.0) and hot.seq == 13
    for asset in ("card_history", "card_location", "customer_stats"):
        loaded = metadata(result, asset)
        assert (loaded["kept_newer"], loaded["entities_written"], loaded["unrecorded"]) == (1, 1, 1), asset
        assert loaded["unrecorded_examples"] == ["card:hot:history" if "card" in asset else "cust:of hot:stats"]


def test_overwrite_puts_gold_back(warehouse: Warehouse, online: redis.Redis, store: OnlineStore) -> None:
    """The same, with overwrite: the store is gold's again, the live event is gone, and nothing counts as kept."""
    fill(warehouse, store)
    live_transaction(online, "hot")
    result = seed(warehouse, store, on_conflict="overwrite")
    assert_holds(online, expect(GOLD))
    assert metadata(result, "customer_stats")["kept_newer"] == 0
    assert metadata(result, "customer_stats")["entities_written"] == 2


def test_recorded_events_are_counted(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: two events, one of which the next gold has. After: that gold and the other, which metadata tells."""
    seed(make_parquet(GOLD), store)
    events = [transaction(number, "hot", seconds=number) for number in (50, 51)]
    for event in events:
        apply_event(online, event.customer_id, event.card_id, listed(event))
    result = seed(make_parquet([*GOLD, events[0]]), store)
    assert_holds(online, expect([*GOLD, *events]))
    for asset in ("card_history", "customer_stats"):
        loaded = metadata(result, asset)
        assert (loaded["kept_newer"], loaded["events_forgotten"], loaded["unrecorded"]) == (1, 1, 0), asset


def test_what_something_else_has_filled_becomes_gold(
    warehouse: Warehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """Before: another seeder has filled the store, and a scorer that records nothing has used it. After the first load
    every customer is gold's, a card is gold's and its events after the watermark, and the run says how many there were.
    """
    fill(warehouse, store)
    online.delete(*online.keys("*:seed"))
    live_transaction(online, "hot")
    result = seed(warehouse, store)
    hot, customer = read_card(online, "hot"), read_customer(online, "of hot")
    assert hot and customer and (hot.seq, customer.count) == (13, 12)
    for asset in ("card_history", "customer_stats"):
        assert metadata(result, asset)["taken_over"] == 2, asset
    again = seed(warehouse, store)
    assert metadata(again, "customer_stats")["taken_over"] == 0


def test_a_store_of_the_version_before(warehouse: Warehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: it left a count of gold in place of seeds, and a scorer went on. After: as if it had left seeds."""
    seed(warehouse, store, verify=True)
    ready = read_ready(online)
    assert ready
    online.hset(READY.pattern, "watermark", "2026-01-01T00:00:11.000+00:00")
    online.delete(*online.keys("*:seed"))
    for card in ("hot", "cold"):
        online.set(f"card:{card}:seeded", 12)
        online.hset(f"cust:of {card}:stats", "seeded", 12)
    live_transaction(online, "hot")
    result = seed(warehouse, store)
    hot, customer = read_card(online, "hot"), read_customer(online, "of hot")
    assert hot and customer and (hot.seq, customer.count) == (13, 13)
    assert not online.keys("card:*:seeded") and not online.hexists("cust:of hot:stats", "seeded")
    assert metadata(result, "customer_stats")["taken_over"] == 2
    seed_of = online.hgetall("cust:of hot:seed")
    assert seed_of.keys() == {b"watermark", b"count", b"digest"}
    assert (seed_of[b"watermark"], seed_of[b"count"]) == (b"1767225611.000999", b"12")


def test_a_load_that_failed_is_still_the_first(warehouse: Warehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: a first load fails at the customers. After the next one: live events and gold's, each counted once."""
    event = transaction(50, "hot", seconds=50)
    apply_event(online, event.customer_id, event.card_id, listed(event))
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
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """Before: an older gold is in the store. After: the newer one, also where a card lost its coordinates."""
    fill(make_parquet(GOLD[:10]), store)
    later = [transaction(i, card, seconds=i, location_lat=None) for i in range(12) for card in ("hot", "cold")]
    result = seed(make_parquet(later), store)
    assert_holds(online, expect(later))
    assert metadata(result, "card_location")["kept_newer"] == 0


def test_a_watermark_that_goes_back(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before: a ready store. A gold without its latest rows sets entities and watermark back, and the run says so."""
    seed(make_parquet(GOLD), store, verify=True)
    older = [row for row in GOLD if row.timestamp and row.timestamp <= START + timedelta(seconds=5)]
    warehouse = make_parquet(older)
    seed(warehouse, store, config={})
    assert_holds(online, expect(older))
    ready = read_ready(online)
    assert ready and ready.watermark == "2026-01-01T00:00:05.000999+00:00"
    assert (
        "The watermark goes back from 2026-01-01T00:00:11.000999+00:00 to 2026-01-01T00:00:05.000999"
        in capfd.readouterr().err
    )
