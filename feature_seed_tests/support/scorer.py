"""A scorer that writes keys itself: it reads, computes and writes back in separate commands, and records nothing."""

import redis

from feature_seed.contract import (
    CARD_HISTORY,
    CARD_LAST_TS,
    CARD_LOCATION,
    CARD_SEQ,
    CUSTOMER_STATS,
    Welford,
    read_customer,
)
from feature_seed.loading.layout import Layout
from feature_seed_tests.support.expected import listed
from feature_seed_tests.support.gold import Row


def pay(client: redis.Redis, row: Row, layout: Layout) -> None:
    """Apply one event. A load may come between any two of these commands."""
    element, tags, length = listed(row), layout.key_tags, layout.history_length
    state = read_customer(client, row.customer_id, tags=tags) or Welford()
    history = CARD_HISTORY.of(row.card_id, tags=tags)
    if layout.newest_first:
        client.lpush(history, element.encode(layout.element))
        client.ltrim(history, 0, length - 1)
    else:
        client.rpush(history, element.encode(layout.element))
        client.ltrim(history, -length, -1)
    if element.location_lat is not None and element.location_long is not None:
        place = {"lat": element.location_lat, "lon": element.location_long}
        client.hset(CARD_LOCATION.of(row.card_id, tags=tags), mapping={**place})
    client.set(CARD_LAST_TS.of(row.card_id, tags=tags), element.time.timestamp())
    client.incr(CARD_SEQ.of(row.card_id, tags=tags))
    client.hset(CUSTOMER_STATS.of(row.customer_id, tags=tags), mapping=state.update(row.amount).encode())
