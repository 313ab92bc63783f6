"""What travels from the warehouse to the store."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """Ready commands of some entities.

    Attributes:
        shards: the shard of each entity.
        keys: the keys written, one text per entity, for error messages.
        payload: RESP, one entity after another.
        commands: how many Redis commands that is, per entity.
        guarded: whether a reply of 0 means that the store's newer state was kept.
    """

    shards: Sequence[int]
    keys: Sequence[bytes]
    payload: bytes
    commands: int
    guarded: bool
