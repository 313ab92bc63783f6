"""Loads that send what has changed: the bytes of a load of everything, whatever came before."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.contract import apply_event, read_ready
from feature_seed.errors import CheckFailedError, GoldError, StoreError
from feature_seed.features import entity
from feature_seed.loading import changes, stream
from feature_seed.loading.comparison.digests import Digests, compare
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.block import Block
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.limits import GoldLimits
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.features.test_conflict import listed
from feature_seed_tests.support.gold import Row, transaction
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import checks, fill, metadata, seed
from feature_seed_tests.support.store import features

CARDS = 40
GOLD = [transaction(100 * card + n, f"c{card:02}", seconds=10 * n + card) for card in range(CARDS) for n in range(3)]


@pytest.fixture(scope="module")
def second_port() -> Iterator[int]:
    with redis_server(password=PASSWORD) as port:
        yield port


@pytest.fixture
def full(second_port: int) -> OnlineStore:
    """A store that is always sent everything."""
    with redis.Redis(port=second_port, password=PASSWORD) as client:
        client.flushall()
    return OnlineStore(url=f"redis://127.0.0.1:{second_port}", password=PASSWORD)


def changed(**values: Any) -> list[Row]:
    """Gold, in which each of these columns has another value in a row of a card of its own."""
    changes = {GOLD[3 * card + card % 3]: {name: value} for card, (name, value) in enumerate(values.items())}
    return [replace(one, **changes.get(one, {})) for one in GOLD]


def without_watermarks(store: OnlineStore) -> dict[bytes, Any]:
    with store.client() as client:
        found: dict[bytes, Any] = features(client)
    for key in (one for one in found if one.endswith(b":seed")):
        found[key][1].pop(b"watermark")
    return found


# Of each night: gold, the layout, and whether every entity has to be sent, whatever its rows.
NIGHTS: list[tuple[list[Row], dict[str, Any], bool]] = [
    (GOLD, {}, False),
    (GOLD, {"element": "array"}, True),
    (GOLD, {}, True),
    (
        changed(
            amount=11.5,
            location_lat=None,
            merchant_category=None,
            transaction_id="another",
            timestamp=GOLD[14].timestamp,
        ),
        {},
        False,
    ),
    ([*GOLD, transaction(9000, "c07", seconds=1)], {}, False),
    ([*GOLD[3:], transaction(9001, "new", seconds=2)], {}, False),
    ([one for one in GOLD if one.card_id != GOLD[-1].card_id], {}, True),  # the watermark goes back
    ([replace(one, amount=3.0) for one in GOLD], {}, True),
    (GOLD, {"newest_first": True, "on_conflict": "overwrite"}, True),
    (GOLD, {"newest_first": True, "history_length": 2}, True),
]


def test_only_what_has_changed(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, full: OnlineStore
) -> None:
    """Before: two stores with one gold. Night after night one is sent the next gold whole, the other what has changed.
    After each: the same bytes but for the watermark of what was left out, those of the same gold and layout before, and
    no more was sent than had to be.
    """
    seed(make_parquet(GOLD), store, shard_count=2)
    fill(make_parquet(GOLD), full, shard_count=2)
    before: dict[str, set[Row]] = by_card(GOLD)
    gold, layout, seen = make_parquet(GOLD), {}, {}
    for rows, layout, everything in NIGHTS:
        gold, now = make_parquet(rows), by_card(rows)
        fill(gold, full, shard_count=2, **layout)
        loaded = metadata(seed(gold, store, shard_count=2, **layout), "card_history")
        contents = without_watermarks(store)
        assert contents == without_watermarks(full) == seen.setdefault(repr((rows, layout)), contents)
        assert loaded["sent"] == sum(everything or before.get(card) != now[card] for card in now)
        assert loaded["entities"] == len(now)
        before = now
    result = seed(gold, store, verify=True, shard_count=2, **layout)
    assert [metadata(result, one)["sent"] for one in ("card_history", "customer_stats")] == [0, 0]
    assert all(one.passed for name, one in checks(result).items() if "unknown" not in name)


def by_card(rows: list[Row]) -> dict[str, set[Row]]:
    return {card: {one for one in rows if one.card_id == card} for card in {one.card_id for one in rows}}


def test_some_of_many(
    make_warehouse: MakeWarehouse,
    online: redis.Redis,
    store: OnlineStore,
    full: OnlineStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before: three of forty cards have changed. Two queries read them by their hashes, in either engine; where so many
    are too many, their shards are read whole. After: the same bytes, and in a store that was flushed as well.
    """
    seed(make_warehouse(GOLD), store, shard_count=2)
    gold = make_warehouse([replace(one, amount=7.0) if one.card_id in ("c03", "c30", "c33") else one for one in GOLD])
    fill(gold, full, shard_count=2)
    monkeypatch.setattr(stream, "CHOSEN", 2)
    assert metadata(seed(gold, store, shard_count=2), "card_history")["sent"] == 3
    assert without_watermarks(store) == without_watermarks(full)
    monkeypatch.setattr(changes, "_MANY", 0)
    for key in ("card:c03:seed", "card:c30:seed", "card:c33:seed"):
        online.hset(key, "digest", "1")
    assert metadata(seed(gold, store, shard_count=2), "card_history")["sent"] > 3
    online.flushall()
    assert metadata(seed(gold, store, shard_count=2), "card_history")["sent"] == CARDS
    assert without_watermarks(store) == without_watermarks(full)


def test_a_load_that_broke_off_goes_on(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: a first load that ended after one of its shards. After the next one: all is there, and that shard was not
    sent again.
    """
    gold = make_parquet(GOLD)
    blocks = FeatureStream._blocks  # pyright: ignore[reportPrivateUsage]

    def breaks_off(self: FeatureStream, begun: Any) -> Iterator[Any]:
        yield from blocks(self, begun)
        raise GoldError("broken off")

    with monkeypatch.context() as broken, pytest.raises(GoldError):
        broken.setattr(FeatureStream, "_passes", lambda _, __, shards: [[one] for one in shards])
        broken.setattr(FeatureStream, "_blocks", breaks_off)
        seed(gold, store, shard_count=2)
    there = len(online.keys("card:*:seed"))
    assert 0 < there < CARDS
    assert metadata(seed(gold, store, shard_count=2, verify=True), "card_history")["sent"] == CARDS - there


def test_live_events_are_looked_at(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: an event of a card, and a count that nobody recorded. After: only these were sent, and are counted."""
    gold = make_parquet(GOLD)
    seed(gold, store, shard_count=2)
    event = transaction(5, "c05", seconds=5000)
    apply_event(online, event.customer_id, event.card_id, listed(event))
    online.incr("card:c06:seq")
    result = seed(gold, store, shard_count=2)
    loaded = metadata(result, "card_history")
    assert (loaded["sent"], loaded["kept_newer"], loaded["entities"]) == (2, 1, CARDS)


NEW, KNOWN, CHANGED = {"new": 1}, {"known": 1, "rows": 3}, {"known": 1, "changed": 1, "rows": 3}
ENDED, LASTS = b"7:60:100", b"7:60:500"
REFUSED = redis.ResponseError("WRONGTYPE")


@pytest.mark.parametrize(
    ("live", "seed", "digest", "counts", "sent"),
    [
        (b"3", "watermark 9 count 3 digest 7", b"7", KNOWN, False),
        (b"3", "digest 7 count 3 watermark 10", b"7", KNOWN, False),  # as a hash table may have them
        (b"3", "watermark 11 count 3 digest 7", b"7", KNOWN, True),
        (b"3", "watermark what count 3 digest 7", b"7", KNOWN, True),
        (b"3", "watermark nan count 3 digest 7", b"7", KNOWN, True),
        (b"4", "watermark 9 count 3 digest 7", b"7", KNOWN, True),
        (None, "watermark 9 count 3 digest 7", b"7", KNOWN, True),
        (REFUSED, "watermark 9 count 3 digest 7", b"7", KNOWN, True),
        (b"3", "watermark 9 count 3 digest 7 e:x 12,1,-,-", b"7", KNOWN, True),
        (b"3", "watermark 9 count 3 digest 7 forgot 8", b"7", KNOWN, True),
        (b"3", "watermark 9 count 3 digest 8", b"7", CHANGED, True),
        (b"3", "watermark 9 count 3", b"7", CHANGED, True),
        (b"5", "watermark 9 count 5 digest 7", b"7", {**CHANGED, "rows": 5, "shrunk": 1, "lost": 2}, True),
        (b"3", "", b"7", {**CHANGED, "rows": 0}, True),
        (b"3", REFUSED, b"7", {**CHANGED, "rows": 0}, True),
        (None, "", b"7", NEW, True),
        (None, "", LASTS, NEW, True),
        (None, REFUSED, ENDED, NEW, True),
        (None, "", ENDED, KNOWN, False),
        (b"3", "", ENDED, KNOWN, True),  # it ended between the two commands
        (b"1", "e:x 400,1,-,-", ENDED, KNOWN, True),
        (b"3", f"watermark 9 count 3 digest {LASTS.decode()}", LASTS, KNOWN, False),
    ],
)
def test_what_may_be_left_out(
    live: object, seed: str | Exception, digest: bytes, counts: dict[str, int], sent: bool
) -> None:
    """Before: the count and the seed of an entity of three rows in gold. It is sent unless all is as gold and its seed
    say. The load is up to 10, and it is 200 by the store's clock.
    """
    found = changes.Changes(10, lambda: 200)
    seeded = seed.encode().split() if isinstance(seed, str) else seed
    columns = [digest] * 2, [b"3"] * 2, [5, 5]
    for _ in range(2):  # the second time, a watermark is known
        found.look(Block([1, 1], [b"a", b"b"], b"", [0, 0], 2, False, columns=columns), [live, seeded] * 2)
    assert {name: n for name, n in found.counts.items() if n} == {name: 4 * n for name, n in counts.items() if n}
    assert list(found.hashes.get(1, ())) == [5] * 4 * sent
    assert (found.entities[1], found.different[1]) == (4, 4 * (counts.get("new", 0) + counts.get("changed", 0)))


def test_little_is_asked_at_a_time(make_parquet: MakeWarehouse) -> None:
    """A seed may record 500 events, 45 KB. The commands that read all seeds of gold are in blocks of some hundred."""
    gold, layout = make_parquet([transaction(i, f"c{i}") for i in range(2_000)]), Layout()
    shards = tuple(shard_names(layout.shard_count))
    blocks = list(Digests(gold, layout, entity.CARDS, shards, until=gold.profile().until))
    assert sum(len(block.keys) for block in blocks) == 2_000
    assert all(len(block.payload) <= 50_000 for block in blocks)


def test_a_key_of_another_type_is_sent(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: a seed and a count of a loaded store are another program's sets. After: both cards would be sent, and no
    other; the load fails, and names one of them.
    """
    gold, layout = make_parquet(GOLD), Layout()
    seed(gold, store)
    for key in ("card:c05:seed", "card:c06:seq"):
        online.delete(key)
        online.sadd(key, "another program's")
    found = compare(FeatureStream(gold, layout, entity.CARDS, tuple(shard_names(layout.shard_count))), store)
    assert sum(map(len, found.hashes.values())) == 2
    assert found.counts == {"known": CARDS, "rows": len(GOLD) - 3, "new": 0, "changed": 1}
    assert found.examples == ["card:c05:seed"]
    with pytest.raises(StoreError, match=r"card:c0[56].*WRONGTYPE"):
        seed(gold, store)


def test_a_gold_that_lost_much_is_blocked(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: a store of a whole gold, and an ETL that wrote a twentieth of the next. After: the check blocks the
    run, and a load without checks refuses; no key is touched. Accepted, it is loaded.
    """
    limits = GoldLimits(max_loss=0.1)
    with dg.DagsterInstance.ephemeral() as instance:
        seed(make_parquet(GOLD), store, job="seed_all", instance=instance, limits=limits)
        before, ready = features(online), read_ready(online)
        assert ready and ready.rows == len(GOLD)
        few = make_parquet(GOLD[::20])
        with pytest.raises(
            CheckFailedError, match=r"34 gone, 6 with fewer rows.* has 1 rows in gold and had 3.*MAX_LOSS"
        ):
            seed(few, store, job="seed_all", instance=instance, limits=limits)
        with pytest.raises(GoldError, match=r"lost 100.00%.*34 gone.*Nothing was written"):
            seed(few, store, instance=instance, limits=limits)
        assert (features(online), read_ready(online)) == (before, ready)
        seed(few, store, job="seed_all", instance=instance, limits=GoldLimits(max_loss=1))
        assert online.get("card:c00:seq") == b"1"


def test_what_the_store_has_lost_is_no_loss(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """Before: half of the cards were evicted. After: they are loaded again, and nothing is blocked."""
    limits = GoldLimits(max_loss=0.1)
    with dg.DagsterInstance.ephemeral() as instance:
        seed(make_parquet(GOLD), store, job="seed_all", instance=instance, limits=limits)
        before = features(online)
        online.delete(*(key for key in before if key.startswith(b"card:c0")))
        result = seed(make_parquet(GOLD), store, job="seed_all", instance=instance, limits=limits)
    assert features(online) == before
    assert metadata(result, "card_history")["sent"] >= 10


def test_every_entity_is_verified(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: one card of a loaded store is of another gold than its seed says. After: it is named, whichever it is."""
    with dg.DagsterInstance.ephemeral() as instance:
        gold = make_parquet(GOLD)
        seed(gold, store, instance=instance)
        online.hset("card:c22:seed", "digest", "1")
        result = seed(gold, store, job="checks_alone", instance=instance, raise_on_error=False)
    found = {name: one for name, one in checks(result).items() if name.endswith("entity_count")}
    assert {name for name, one in found.items() if not one.passed} == {
        "card_history.entity_count",
        "card_location.entity_count",
    }
    assert "for example card:c22:seed" in str(found["card_history.entity_count"].description)
