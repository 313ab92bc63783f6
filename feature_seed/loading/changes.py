"""What a load would change: the entities whose digests, counts or live events are not what gold and their seeds say."""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from feature_seed.errors import printable

_EXAMPLES = 3

# A shard of which more has to be sent is read whole, and so are all where many scans of gold would be needed.
_FEW, _MANY = 1 / 4, 128_000


@dataclass(frozen=True, order=True)
class Loss:
    """An entity of which gold has fewer rows than the store was last loaded from."""

    rows: int
    key: str
    before: int
    now: int

    def __str__(self) -> str:
        return f"{self.key} has {self.now:,} rows in gold and had {self.before:,}"


@dataclass
class Changes:
    """Of an entity in some shards, as `changes.lua` says it of some at a time.

    Attributes:
        hashes: of the entities that a load has to send, by shard.
        entities: of gold, by shard.
        different: by shard, those whose digest in the store is not gold's.
        known: entities of gold that the store has in some form, and `new` those that it has not.
        rows: that the store has of the known ones, as it was last loaded.
        shrunk: entities of which gold has fewer rows than that, and by how many, `lost`, in all.
        examples: keys of entities that differ.
        losses: the largest.
    """

    hashes: dict[int, "array[int]"] = field(default_factory=dict)
    entities: Counter[int] = field(default_factory=Counter)
    different: Counter[int] = field(default_factory=Counter)
    known: int = 0
    new: int = 0
    rows: int = 0
    shrunk: int = 0
    lost: int = 0
    examples: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    seconds: float = 0
    bytes: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def to_send(self) -> int:
        return sum(map(len, self.hashes.values()))

    def add(self, shard: int, reply: Sequence[Any]) -> None:
        """A reply; the nodes of a cluster reply in threads of their own."""
        known, rows, new, changed, shrunk, lost, example, worst, before, now, *hashes = reply
        with self._lock:
            self.known += known
            self.rows += rows
            self.new += new
            self.shrunk += shrunk
            self.lost += lost
            self.entities[shard] += known + new
            self.different[shard] += new + changed
            if example and len(self.examples) < _EXAMPLES:
                self.examples.append(printable(example))
            if worst:
                loss = Loss(before - now, printable(worst), before, now)
                self.losses = sorted([*self.losses, loss], reverse=True)[:_EXAMPLES]
            if hashes:
                self.hashes.setdefault(shard, array("I")).extend(hashes)

    def few(self) -> Mapping[int, Sequence[int]]:
        """The hashes by shard, where it pays to read rows of these entities only."""
        few = {shard: some for shard, some in self.hashes.items() if len(some) <= self.entities[shard] * _FEW}
        return few if sum(map(len, few.values())) <= _MANY else {}
