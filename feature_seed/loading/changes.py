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


@dataclass
class Changes:
    """Of an entity in some shards, as `changes.lua` says it of some at a time.

    Attributes:
        hashes: of the entities that a load has to send, by shard.
        entities: of gold, by shard, and those whose digest in the store is `different`.
        counts: of gold's entities those that are `known` to the store in some form, and the `rows` that they were last
            loaded from; those that are `new` or `changed`; those that have `shrunk`, and the rows that these `lost`.
        examples: keys of entities that differ.
        losses: the largest, by rows, and in words.
    """

    hashes: dict[int, "array[int]"] = field(default_factory=dict)
    entities: Counter[int] = field(default_factory=Counter)
    different: Counter[int] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    losses: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0
    bytes: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def all_changed(self) -> bool:
        """Whether no seed is as gold says: what is written, or when it expires, may have been set otherwise."""
        return 0 < self.counts["known"] == self.counts["changed"]

    @property
    def to_send(self) -> int:
        """How many entities a load sends: of shards that are read whole, all."""
        few = self.few()
        return sum(len(few[shard]) if shard in few else self.entities[shard] for shard in self.hashes)

    def add(self, shard: int, reply: Sequence[Any]) -> None:
        """A reply; the nodes of a cluster reply in threads of their own."""
        numbers, (example, worst, before, now), hashes = reply[:6], reply[6:10], reply[10:]
        counts = dict(zip(("known", "rows", "new", "changed", "shrunk", "lost"), numbers, strict=True))
        with self._lock:
            self.counts.update(counts)
            self.entities[shard] += counts["known"] + counts["new"]
            self.different[shard] += counts["new"] + counts["changed"]
            self.examples += [printable(example)] if example and len(self.examples) < _EXAMPLES else []
            if worst:
                text = f"{printable(worst)} has {now:,} rows in gold and had {before:,}"
                self.losses = sorted([*self.losses, (before - now, text)], reverse=True)[:_EXAMPLES]
            if hashes:
                self.hashes.setdefault(shard, array("I")).extend(hashes)

    def few(self) -> Mapping[int, Sequence[int]]:
        """The hashes by shard, where it pays to read rows of these entities only."""
        few = {shard: some for shard, some in self.hashes.items() if len(some) <= self.entities[shard] * _FEW}
        return few if sum(map(len, few.values())) <= _MANY else {}
