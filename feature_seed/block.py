"""What travels from the warehouse to the store."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property


@dataclass(frozen=True)
class Block:
    """Ready commands of some entities.

    Attributes:
        shards: the shard of each entity.
        keys: the keys written, one text per entity, for error messages; with key tags its first tag tells the slot.
        payloads: RESP, of one entity each.
        commands: how many Redis commands that is, per entity.
        guarded: whether a reply of 0 means that the store's newer state was kept.
    """

    shards: Sequence[int]
    keys: Sequence[bytes]
    payloads: Sequence[bytes]
    commands: int
    guarded: bool

    @cached_property
    def payload(self) -> bytes:
        """One entity after another, as it is sent."""
        return b"".join(self.payloads)

    def pick(self, positions: Sequence[int]) -> "Block":
        """The block of these entities alone."""
        shards, keys, payloads = ([all_[i] for i in positions] for all_ in (self.shards, self.keys, self.payloads))
        return replace(self, shards=shards, keys=keys, payloads=payloads)
