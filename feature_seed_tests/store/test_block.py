"""Blocks of ready commands: how an answer is cut into them."""

from itertools import pairwise

import pytest

from feature_seed.store.block import Block

MOST = 500_000


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [7],
        [2_000] * 1_000,
        [170] * 6_000,
        [MOST, MOST, 1],
        [1, 3 * MOST, 1, 1],
        [400_000, 100_001, 399_999, 100_000],
    ],
)
def test_blocks_are_bounded_in_bytes(sizes: list[int]) -> None:
    """Before: entities of any size. After: all of them, in order, in blocks that are small, but not needlessly so."""
    keys = [b"k%d" % n for n in range(len(sizes))]
    payloads = [b"%d" % (n % 10) * size for n, size in enumerate(sizes)]
    blocks = list(Block.cut(range(len(sizes)), keys, payloads, payloads, keys, commands=6, guarded=True))
    assert [shard for block in blocks for shard in block.shards] == list(range(len(sizes)))
    assert [key for block in blocks for key in block.keys] == keys
    assert [size for block in blocks for size in block.sizes] == sizes
    assert b"".join(block.payload for block in blocks) == b"".join(payloads)
    assert all(len(block.payload) == sum(block.sizes) for block in blocks)
    assert all(len(block.payload) <= MOST or len(block.keys) == 1 for block in blocks)
    assert all(len(block.payload) + following.sizes[0] > MOST for block, following in pairwise(blocks))
    assert all((block.commands, block.guarded) == (6, True) for block in blocks)
    assert all((b"".join(block.columns[0]), block.columns[1]) == (block.payload, block.keys) for block in blocks)
    assert [block.pick([0]).columns for block in blocks] == [[[one[0]] for one in block.columns] for block in blocks]
