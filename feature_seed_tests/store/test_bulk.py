"""The bulk connection: how far it sends ahead of the replies, and whom it blames for an error."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis

from feature_seed.errors import StoreError
from feature_seed.store.block import SLICE_ENTITIES, Block
from feature_seed.store.bulk import BulkConnection
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.support.blocks import block_of


def pushes(number: int, entities: int, commands: int = 1) -> Block:
    """A block that pushes to the lists of so many entities."""
    return block_of(*(f"RPUSH list:{number}:{n} x" for n in range(entities)), times=commands)


@pytest.mark.parametrize(
    ("entities", "commands", "collect", "ahead"),
    [
        (SLICE_ENTITIES, 1, None, 1),
        (SLICE_ENTITIES + 1, 1, None, 16),
        (2_000, 5, None, 4),
        (SLICE_ENTITIES + 1, 1, lambda block, replies: None, 2),
    ],
)
def test_blocks_are_sent_ahead_of_replies(
    online: redis.Redis,
    store: OnlineStore,
    monkeypatch: pytest.MonkeyPatch,
    entities: int,
    commands: int,
    collect: Callable[[Block, Sequence[Any]], None] | None,
    ahead: int,
) -> None:
    """Before: an empty store. While 20 blocks are written, no more than so many wait for replies: one slice of a
    throttled load, 16 blocks, fewer if they have many replies, two if the replies are wanted and may be large. After:
    every command is done.
    """
    acknowledge, done = BulkConnection._acknowledge, list[Block]()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(
        BulkConnection, "_acknowledge", lambda self, block: (done.append(block), acknowledge(self, block))[1]
    )
    waiting = []
    with store.bulk() as connection:
        for number in range(20):
            connection.write(replace(pushes(number, entities, commands), collect=collect))
            waiting.append(number + 1 - len(done))
        connection.drain()
    assert max(waiting) == ahead
    assert online.dbsize() == connection.entities == 20 * entities
    assert online.llen("list:19:0") == commands


def test_an_error_names_its_own_key(online: redis.Redis, store: OnlineStore) -> None:
    """Before: a key of another type. It is in the third of twenty blocks, and the error names it, not what follows."""
    online.set("list:2:7", "of another program")
    with pytest.raises(StoreError, match="Redis refused list:2:7: WRONGTYPE"), store.bulk() as connection:
        for number in range(20):
            connection.write(pushes(number, 100))
        connection.drain()
