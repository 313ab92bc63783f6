"""Looking at a store from outside: every key's bytes, and its comparison with what is expected."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import redis

from feature_seed.contract import (
    CARD_HISTORY,
    CARD_LAST_TS,
    CARD_LOCATION,
    CARD_SEQ,
    CUSTOMER_STATS,
    READY,
    Card,
    Ready,
    Transaction,
    Welford,
    read_ready,
)
from feature_seed.store.lock import KEY, LEASE_SECONDS
from feature_seed_tests.support.expected import Expected
from feature_seed_tests.support.patience import eventually


def dump(client: redis.Redis, *, but: tuple[bytes, ...] = ()) -> dict[bytes, object]:
    """Every key with its type and bytes, except keys with such a beginning."""
    keys = sorted(key for key in client.scan_iter(count=10_000) if not key.startswith(but))
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.type(key)
        types = pipeline.execute()
        for key, type_ in zip(keys, types, strict=True):
            {b"list": lambda k: pipeline.lrange(k, 0, -1), b"hash": pipeline.hgetall, b"string": pipeline.get}[type_](
                key
            )
        return dict(zip(keys, zip(types, pipeline.execute(), strict=True), strict=True))


def features(client: redis.Redis) -> dict[bytes, object]:
    """The same for all entities, without the keys that name each run."""
    return dump(client, but=(b"feature_seed:",))  # not even looked at: the lock may run out between two commands


def ends(client: redis.Redis) -> dict[str, int | None]:
    """When each key of an entity expires, in Unix milliseconds, give or take one; None where it does not."""
    keys = list(features(client))
    with client.pipeline(transaction=True) as pipeline:
        pipeline.time()
        for key in keys:
            pipeline.pttl(key)
        (seconds, micros), *left = pipeline.execute()
    now = seconds * 1000 + micros // 1000
    return {key.decode(): None if one == -1 else now + one for key, one in zip(keys, left, strict=True)}


def lock_text(client: redis.Redis) -> str:
    """What the lock says; '' when it is free."""
    found = client.get(KEY)
    return found.decode() if isinstance(found, bytes) else ""


def run_out(client: redis.Redis) -> None:
    """Have the lease of the lock end now. It would end by itself later."""
    assert 0 < client.pttl(KEY) <= LEASE_SECONDS * 1000
    client.pexpire(KEY, 1)
    eventually(lambda: not client.exists(KEY))


def said(client: redis.Redis) -> Ready | None:
    """What the store says of itself, except the load that is under way or was broken off."""
    ready = read_ready(client)
    return ready and replace(ready, loading="")


def assert_holds(client: redis.Redis, expected: Expected, *, tags: bool = False) -> None:
    """Every key of every entity is right, and there is no other key."""
    assert_entities(client, expected, tags=tags)
    assert set(client.scan_iter(count=10_000)) - {READY.pattern.encode()} == _keys(expected, tags)


def assert_entities(client: redis.Redis, expected: Expected, *, tags: bool = False) -> None:
    """Every key of every entity is right."""
    for (card_id, card), found in zip(expected.cards.items(), _cards(client, expected.cards, tags), strict=True):
        assert found == card, card_id
    seeded = _customers(client, expected.customers, tags)
    for (customer_id, welford), found in zip(expected.customers.items(), seeded, strict=True):
        assert found is not None, customer_id
        assert found.count == welford.count, customer_id
        assert math.isclose(found.mean, welford.mean, rel_tol=1e-13), customer_id
        assert math.isclose(found.m2, welford.m2, rel_tol=1e-11, abs_tol=1e-20), customer_id


def _cards(client: redis.Redis, ids: Iterable[Any], tags: bool) -> Iterator[Card | None]:
    """What `read_card` gives for each card, in one round trip for all: thousands of round trips take seconds."""
    with client.pipeline(transaction=False) as pipeline:
        for card_id in ids:
            pipeline.lrange(CARD_HISTORY.of(card_id, tags=tags), 0, -1)
            pipeline.hgetall(CARD_LOCATION.of(card_id, tags=tags))
            pipeline.get(CARD_LAST_TS.of(card_id, tags=tags))
            pipeline.get(CARD_SEQ.of(card_id, tags=tags))
        replies = iter(pipeline.execute())
    for history, place, last_ts, seq in zip(replies, replies, replies, replies, strict=True):
        listed = tuple(map(Transaction.decode, history))
        location = (float(place[b"lat"]), float(place[b"lon"])) if place else None
        yield Card(listed, location, float(last_ts), int(seq or 0)) if last_ts is not None else None


def _customers(client: redis.Redis, ids: Iterable[Any], tags: bool) -> Iterator[Welford | None]:
    with client.pipeline(transaction=False) as pipeline:
        for customer_id in ids:
            pipeline.hgetall(CUSTOMER_STATS.of(customer_id, tags=tags))
        yield from (Welford.decode(reply) if reply else None for reply in pipeline.execute())


def _keys(expected: Expected, tags: bool) -> set[bytes]:
    before, after = (b"{", b"}") if tags else (b"", b"")

    def names(pattern: str, entity_ids: Iterable[str | bytes]) -> set[bytes]:
        start, end = pattern.encode().split(b"*")
        ids = (one if isinstance(one, bytes) else one.encode() for one in entity_ids)
        return {start + before + one + after + end for one in ids}

    located = [card_id for card_id, card in expected.cards.items() if card.location is not None]
    cards = (names(f"card:*:{kind}", expected.cards) for kind in ("history", "last_ts", "seq", "seed"))
    customers = (names(f"cust:*:{kind}", expected.customers) for kind in ("stats", "seed"))
    return set().union(*cards, names("card:*:loc", located), *customers)
