"""Standard features that expire: ends of keys, what has expired, and settings that change, with every check green."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.contract import apply_event, read_ready
from feature_seed.errors import GoldError
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.limits import GoldLimits
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.features.test_conflict import listed
from feature_seed_tests.support.gold import Row, transaction
from feature_seed_tests.support.run import failures, metadata, seed
from feature_seed_tests.support.store import ends, features

DAY = timedelta(days=1)
NOW = datetime.now(timezone.utc).replace(microsecond=0)

# Gold ends an hour ago. Of each card the age of its newest row then.
NEWEST = NOW - timedelta(hours=1)
AGES = {
    "c0": 0 * DAY,
    "c1": 1 * DAY,
    "c2": 2 * DAY,
    "c3": 4 * DAY,
    "ended": 5 * DAY - timedelta(minutes=30),
    "old": 6 * DAY,
}
GOLD = [
    transaction(10 * number + row, card, timestamp=NEWEST - age - row * timedelta(minutes=1))
    for number, (card, age) in enumerate(AGES.items())
    for row in range(3)
]

# A card expires after five days, a customer after three.
EXPIRE = {"cards": 5 * 86_400, "customers": 3 * 86_400}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def newest(rows: list[Row]) -> dict[str, datetime]:
    """Of each card and customer, by the beginning of its keys."""
    found: dict[str, datetime] = {}
    for row in rows:
        for entity in (f"card:{row.card_id}:", f"cust:{row.customer_id}:"):
            assert row.timestamp
            found[entity] = max(row.timestamp, found.get(entity, row.timestamp))
    return found


def assert_ends(online: redis.Redis, rows: list[Row], clock: datetime = NOW) -> None:
    """What has not expired is there, and its keys end together; nothing else is."""
    found, expected = ends(online), {}
    for entity, time in newest(rows).items():
        end = time + timedelta(seconds=EXPIRE["cards" if entity.startswith("card:") else "customers"])
        names = ("history", "loc", "last_ts", "seq", "seed") if entity.startswith("card:") else ("stats", "seed")
        expected |= {f"{entity}{name}": round(end.timestamp() * 1000) for name in names if end > clock}
    assert found.keys() == expected.keys()
    assert all(end and abs(end - expected[key]) <= 2 for key, end in found.items()), (found, expected)


@pytest.mark.parametrize(
    ("engine", "on_conflict"),
    [("make_parquet", "keep_newer"), pytest.param("make_table", "overwrite", marks=pytest.mark.slow)],
)
def test_what_has_expired_is_not_expected(
    request: pytest.FixtureRequest,
    engine: str,
    online: redis.Redis,
    store: OnlineStore,
    instance: dg.DagsterInstance,
    on_conflict: str,
) -> None:
    """Before: cards and customers whose newest rows are up to six days old, one of which has ended since gold was
    written. Night after night, and as the setting comes and goes: keys end as they should, nothing is lost by gold, and
    every check passes.
    """

    make: MakeWarehouse = request.getfixturevalue(engine)

    def night(rows: list[Row], **expire: Any) -> tuple[int, int]:
        result = seed(
            make(rows),
            store,
            verify=True,
            instance=instance,
            limits=GoldLimits(max_loss=0, sample_size=None),
            on_conflict=on_conflict,
            **expire,
        )
        assert failures(result) == {}
        ready = read_ready(online)
        assert metadata(result, "card_history")["entities"] == ready.cards
        return ready.cards, ready.customers

    # Those that have ended by the clock alone count as loaded.
    assert night(GOLD, expire=EXPIRE) == (5, 3)
    assert_ends(online, GOLD)
    before = features(online)
    assert night(GOLD, expire=EXPIRE) == (5, 3)
    assert features(online) == before
    assert_ends(online, GOLD)
    grown = [
        *GOLD,
        transaction(90, "c0", timestamp=NOW - timedelta(minutes=1)),
        transaction(91, "old", timestamp=NEWEST),
    ]
    assert night(grown, expire=EXPIRE) == (5, 4)  # one has come back, one card has ended by the watermark
    assert_ends(online, grown)
    with pytest.raises(GoldError, match="1 gone"):
        night([row for row in grown if row.card_id != "c2"], expire=EXPIRE)
    assert night(grown) == (6, 6)
    assert set(ends(online).values()) == {None}
    assert night(grown, expire=EXPIRE) == (5, 4)
    if on_conflict == "keep_newer":
        assert_ends(online, grown)
    result = seed(make(grown), store, job="check_store", instance=instance, expire=EXPIRE)
    assert failures(result) == {}


def test_live_events_renew_the_end(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: loaded, and events of one card that would have expired, of one that had, and of a new one. After the next
    load: the ends are counted from the events, and every check passes.
    """
    seed(make_parquet(GOLD), store, expire=EXPIRE, verify=True)
    events = [
        transaction(200, "c3", timestamp=NOW),
        transaction(201, "c3", timestamp=NOW - timedelta(minutes=2)),  # late
        transaction(202, "old", timestamp=NOW),
        transaction(203, "new", timestamp=NOW),
    ]
    for event in events:
        apply_event(online, event.customer_id, event.card_id, listed(event))
    found = ends(online)
    assert found["card:old:seq"] is None is found["card:new:seq"]
    assert online.get("card:old:seq") == b"1"
    result = seed(make_parquet(GOLD), store, expire=EXPIRE, verify=True)
    assert all("unknown" in check for check in failures(result))
    gold = [*GOLD, *events]
    assert failures(seed(make_parquet(gold), store, expire=EXPIRE, verify=True)) == {}
    assert_ends(online, gold)
    assert online.get("card:old:seq") == b"4"


def test_a_wrong_end_is_told(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: one key of a loaded store has lost its end. After: parity names it."""
    gold = make_parquet(GOLD)
    seed(gold, store, expire=EXPIRE)
    online.persist("card:c1:loc")
    online.pexpire("cust:of c1:stats", 1_000_000)
    result = seed(gold, store, job="checks_alone", expire=EXPIRE, raise_on_error=False)
    failed = failures(result)
    assert failed.keys() == {"card_location.parity", "customer_stats.parity"}
    assert "card:c1:loc expires at no time and not at" in failed["card_location.parity"]
