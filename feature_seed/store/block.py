"""A block: the ready commands of some entities, on their way from the warehouse to the store."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

# The size of a block: some 250 cards or 3,000 customers. A single entity may be larger. ClickHouse delivers 2,000 cards
# at once, 4 MB. With blocks of 4 MB, the process grows by two fifths more while it loads: the next block does not fit
# where others were. Blocks of 0.1 MB take a sixth more CPU.
_BYTES = 500_000

# What a throttled load sends at once. Redis takes some 0.3 ms for it, in which it answers nobody else.
SLICE_ENTITIES = 16


@dataclass(frozen=True)
class Block:
    """Ready commands of some entities.

    Attributes:
        shards: the shard of each entity.
        keys: the keys written, one text per entity, for error messages; with key tags its first tag tells the slot.
        payload: RESP, one entity after another, in one piece: 1,000 in a queue cost a tenth of memory in fragments.
        sizes: the bytes of each entity's part of the payload.
        commands: how many Redis commands each entity has.
        guarded: whether a guard replies for each entity, which an Outcome counts.
        collect: takes the block and all replies to it, where somebody wants them.
        allowed: what error replies begin with that `collect` takes too.
        columns: what `collect` knows of each entity.
    """

    shards: Sequence[int]
    keys: Sequence[bytes]
    payload: bytes
    sizes: Sequence[int]
    commands: int
    guarded: bool
    collect: Callable[["Block", Sequence[Any]], None] | None = None
    allowed: tuple[str, ...] = ()
    columns: Sequence[Sequence[Any]] = ()

    @classmethod
    def cut(
        cls,
        shards: Sequence[int],
        keys: Sequence[bytes],
        payloads: Sequence[bytes],
        *columns: Sequence[Any],
        commands: int,
        guarded: bool,
        most: int = _BYTES,
    ) -> Iterator["Block"]:
        """Blocks of a bounded number of bytes, in order."""
        ends = list(accumulate(map(len, payloads)))
        first = 0
        while first < len(ends):
            before = ends[first - 1] if first else 0
            some = slice(first, max(first + 1, bisect_right(ends, before + most)))
            texts, its = payloads[some], [column[some] for column in columns]
            yield cls(shards[some], keys[some], b"".join(texts), [*map(len, texts)], commands, guarded, columns=its)
            first = some.stop

    def pick(self, positions: Sequence[int]) -> "Block":
        """The block of these entities alone."""
        shards, keys, sizes, *columns = (
            [column[i] for i in positions] for column in (self.shards, self.keys, self.sizes, *self.columns)
        )
        payload = b"".join(self.payload[self._ends[i] - self.sizes[i] : self._ends[i]] for i in positions)
        return replace(self, shards=shards, keys=keys, payload=payload, sizes=sizes, columns=columns)

    @cached_property
    def _ends(self) -> Sequence[int]:
        return list(accumulate(self.sizes))
