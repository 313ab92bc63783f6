"""What gold has no more: listed, and removed where no live event is in it; all else stays as it is, byte for byte."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from threading import Event, Semaphore, Thread
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.contract import CARD_SEED, CUSTOMER_SEED, apply_event, read_card, read_customer
from feature_seed.errors import GoldError, ReadinessError, StoreError
from feature_seed.loading.departed import Departed
from feature_seed.loading.layout import Layout
from feature_seed.store.block import Block
from feature_seed.store.bulk import BulkConnection
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.limits import GoldLimits
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.documents import table
from feature_seed_tests.support.expected import listed
from feature_seed_tests.support.gold import Row, transaction
from feature_seed_tests.support.patience import HANG_SECONDS, patient
from feature_seed_tests.support.run import checks, materialised, metadata, seed
from feature_seed_tests.support.scorer import pay
from feature_seed_tests.support.store import dump, features

GOLD = [transaction(100 * card + n, f"c{card:02}", seconds=10 * n + card) for card in range(40) for n in range(3)]

SOON = datetime.now(timezone.utc) + timedelta(minutes=20)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def without(*cards: str) -> list[Row]:
    return [row for row in GOLD if row.card_id not in cards]


def keys_of(*cards: str) -> set[bytes]:
    """Of these cards, and of their customers."""
    kinds = [*(f"card:{{}}:{kind}" for kind in ("history", "loc", "last_ts", "seq", "seed")), "cust:of {}:stats"]
    return {kind.format(card).encode() for kind in [*kinds, "cust:of {}:seed"] for card in cards}


def event(card: str, number: int = 0, **values: Any) -> Row:
    return transaction(9000 + number, card, **{"timestamp": SOON, **values})


def counted(found: dict[str, Any], *names: str) -> list[int]:
    return [found[f"{entity}_{name}"] for entity in ("cards", "customers") for name in names]


def test_what_has_departed(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, instance: dg.DagsterInstance
) -> None:
    """Before: gold has lost seven cards and their customers. c00 has a recorded event, c01 one of a scorer that writes
    keys itself, c02 one that gold has passed, c03 none. Of c04 gold has a row after the watermark, of c05 one that is
    rejected. The list of c06 has an event that its count lacks so far. A scorer knows a card of its own. Listed, no
    byte changes. Then go c02, c03 and the customer of c06, and nothing else.
    """
    seed(make_parquet(GOLD), store, verify=True, instance=instance)
    passed = event("c02", timestamp=SOON - timedelta(days=1))
    for one in (event("c00"), passed, event("stranger")):
        apply_event(online, one.customer_id, one.card_id, listed(one))
    pay(online, event("c01"), Layout())
    online.rpush("card:c06:history", listed(event("c06")).encode())
    unusable = [event("c04"), replace(event("c05"), amount=None)]
    gold = make_parquet([*without(*(f"c0{n}" for n in range(7))), *unusable])
    options: dict[str, Any] = {"instance": instance, "limits": GoldLimits(max_rejected=1, max_loss=0.4)}
    seed(gold, store, job="load_and_verify", **options)
    before = dump(online, but=(b"feature_seed:lock",))
    found = metadata(seed(gold, store, job="departed", **options), "departed")
    assert dump(online, but=(b"feature_seed:lock",)) == before
    assert counted(found, "departed", "live", "removed") == [5, 3, 0, 5, 2, 0]
    assert found["cards_examples"] == [f"card:c0{n}:seed" for n in (0, 1, 2, 3, 6)]
    found = metadata(seed(gold, store, job="departed", prune=True, **options), "departed")
    assert counted(found, "departed", "live", "removed") == [5, 3, 2, 5, 2, 3]
    listed_names = [names for names, _ in table("| metadata of `departed` | meaning |")]
    assert set(found) == set(re.findall(r"`(.*?)`", " ".join(listed_names)))
    gone = {*keys_of("c02", "c03"), b"cust:of c06:stats", b"cust:of c06:seed"}
    left = {name: value for name, value in before.items() if name not in gone}
    assert dump(online, but=(b"feature_seed:lock",)) == left
    assert checks(seed(gold, store, job="check_store", **options))["warm_start.store_kept"].passed
    found = metadata(seed(gold, store, job="departed", prune=True, **options), "departed")
    assert counted(found, "departed", "live", "removed") == [3, 3, 0, 2, 2, 0]


def test_too_many(
    make_table: MakeWarehouse, online: redis.Redis, store: OnlineStore, instance: dg.DagsterInstance
) -> None:
    """Before: gold has lost a quarter of the cards, and a load has accepted that. By itself, seed_all leaves them
    alone. They are not removed, until that is accepted too.
    """
    lost = [f"c{n:02}" for n in range(10)]
    seed(make_table(GOLD), store, verify=True, instance=instance)
    gold = make_table(without(*lost))
    assert not materialised(seed(gold, store, job="seed_all", prune=True, instance=instance), "departed")
    before = features(online)
    with pytest.raises(
        GoldError, match=r"25.00% of the cards would be removed, and 10.00% may be.*: 10 are in .*MAX_LOSS=1"
    ):
        seed(gold, store, job="departed", prune=True, limits=GoldLimits(max_loss=0.1), instance=instance)
    assert features(online) == before
    seed(gold, store, job="load_and_prune", prune=True, instance=instance, limits=GoldLimits(max_loss=0.25))
    assert features(online) == {name: value for name, value in before.items() if name not in keys_of(*lost)}


def test_only_a_whole_store_is_looked_at(
    make_parquet: MakeWarehouse,
    online: redis.Redis,
    store: OnlineStore,
    redis_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before: a store that holds another gold, then one that a load may have left half done, then one without SCAN, and
    one to which another run writes before the removal. Nothing is removed.
    """
    seed(make_parquet(GOLD), store, verify=True)
    gold = make_parquet(without("c00"))
    for begun in (False, True):
        if begun:
            seed(gold, store)
        before = features(online)
        with pytest.raises(ReadinessError, match=r"does not hold gold \w+ whole: run seed_all"):
            seed(gold, store, job="departed", prune=True)
        assert features(online) == before
    seed(gold, store, verify=True)
    online.execute_command("ACL", "SETUSER", "blind", "on", f">{PASSWORD}", "~*", "+@all", "-scan")
    blind = OnlineStore(url=f"redis://blind@127.0.0.1:{redis_port}", password=PASSWORD)
    with pytest.raises(StoreError, match=r"runs no SCAN, so .* cannot be found.*ACL SETUSER blind \+scan"):
        seed(gold, blind, job="departed", prune=True)
    find, before = Departed.find, features(online)

    def find_late(self: Departed, store: OnlineStore) -> None:
        find(self, store)
        online.hset("feature_seed:ready", "loading", "another")

    monkeypatch.setattr(Departed, "find", find_late)
    with pytest.raises(StoreError, match=r"Another run has written to Redis at .* meanwhile: run again"):
        seed(gold, store, job="departed", prune=True)
    assert features(online) == before


class Scorer(Thread):
    """Applies an event to each of some cards, in a thread of its own, as many as it is let."""

    def __init__(self, port: int, events: Sequence[Row], at_once: int) -> None:
        super().__init__()
        self.port, self.events, self.at_once = port, events, at_once
        self.permits, self.begun, self.errors = Semaphore(at_once), Event(), []

    def run(self) -> None:
        with patient(port=self.port, password=PASSWORD) as client:
            for n, one in enumerate(self.events, 1):
                if not self.permits.acquire(timeout=HANG_SECONDS):
                    return
                apply_event(client, one.customer_id, one.card_id, listed(one))
                if n == self.at_once:
                    self.begun.set()


def test_beside_a_live_scorer(
    make_parquet: MakeWarehouse,
    online: redis.Redis,
    store: OnlineStore,
    redis_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before: 100 cards have departed. While they are removed, a scorer applies an event to each, to two before that.
    After: each event is recorded and counts once, in an entity that stood or in a new one; there are both.
    """
    cards = [f"x{n:02}" for n in range(100)]
    seed(make_parquet([*GOLD, *(transaction(5000 + n, card) for n, card in enumerate(cards))]), store, verify=True)
    gold, write = make_parquet(GOLD), BulkConnection.write
    seed(gold, store, verify=True)
    scorer = Scorer(redis_port, [event(card, n) for n, card in enumerate(cards)], 2)

    def write_between_events(self: BulkConnection, block: Block) -> None:
        assert scorer.begun.wait(HANG_SECONDS)
        write(self, block)
        scorer.permits.release(2)

    monkeypatch.setattr(BulkConnection, "write", write_between_events)
    scorer.start()
    seed(gold, store, job="departed", prune=True, max_rate=400)
    scorer.permits.release(len(cards))
    scorer.join(HANG_SECONDS)
    stood = 0
    for one in scorer.events:
        card, customer = read_card(online, one.card_id), read_customer(online, one.customer_id)
        assert listed(one) in card.history
        counts = {CARD_SEED.of(one.card_id): card.seq, CUSTOMER_SEED.of(one.customer_id): customer.count}
        for seed_key, count in counts.items():
            fields = online.hgetall(seed_key)
            assert f"e:{one.transaction_id}".encode() in fields
            assert count == int(fields.get(b"count", 0)) + 1
        stood += online.hexists(CARD_SEED.of(one.card_id), "count")
    assert 0 < stood < len(cards)
