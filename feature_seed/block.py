"""What travels from the warehouse to the store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

# Of a block. With all 2,000 that come at once of 4 M cards, 3 MB, the process grows by two fifths more while it loads:
# the next do not fit where others were. With 64 it takes a sixth more CPU.
_ENTITIES = 256


@dataclass(frozen=True)
class Block:
    """Ready commands of some entities.

    Attributes:
        shards: the shard of each entity.
        keys: the keys written, one text per entity, for error messages; with key tags its first tag tells the slot.
        payload: RESP, one entity after another. In one piece: 1,000 in a queue cost a tenth of memory in fragments.
        sizes: of each entity's part of it, in bytes.
        commands: how many Redis commands that is, per entity.
        guarded: whether a reply of 0 means that the store's newer state was kept.
    """

    shards: Sequence[int]
    keys: Sequence[bytes]
    payload: bytes
    sizes: Sequence[int]
    commands: int
    guarded: bool

    @classmethod
    def cut(
        cls, shards: Sequence[int], keys: Sequence[bytes], payloads: Sequence[bytes], *, commands: int, guarded: bool
    ) -> Iterator["Block"]:
        """Blocks of a bounded size, of any number of entities."""
        for first in range(0, len(keys), _ENTITIES):
            some = slice(first, first + _ENTITIES)
            texts = payloads[some]
            yield cls(shards[some], keys[some], b"".join(texts), [*map(len, texts)], commands, guarded)

    def pick(self, positions: Sequence[int]) -> "Block":
        """The block of these entities alone."""
        shards, keys, sizes = ([column[i] for i in positions] for column in (self.shards, self.keys, self.sizes))
        payload = b"".join(self.payload[self._ends[i] - self.sizes[i] : self._ends[i]] for i in positions)
        return replace(self, shards=shards, keys=keys, payload=payload, sizes=sizes)

    @cached_property
    def _ends(self) -> Sequence[int]:
        return list(accumulate(self.sizes))
