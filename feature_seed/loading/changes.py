"""What a load would change: entities whose digest, count or live events differ from gold or from their seeds."""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from feature_seed.errors import printable

_EXAMPLES = 3

# If a greater share of a shard has to be sent, the shard is read whole. So are all shards if more entities are sent.
_FEW, _MANY = 1 / 4, 128_000


@dataclass
class Changes:
    """The cards or the customers of some shards: the replies of `changes.lua` added up.

    Attributes:
        hashes: the hashes of the entities that a load has to send, by shard.
        entities: how many gold has, by shard; `different` are those whose digest in the store differs.
        counts: how many of gold's entities are `known` to the store, from how many `rows` they were last loaded, how
            many are `new` or `changed`, how many have `shrunk`, and how many rows these have `lost`.
        examples: keys of entities that differ.
        losses: the largest losses, as rows and in words.
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
        """Whether no seed is as gold says. Then the layout, or `expire`, may have been changed."""
        return 0 < self.counts["known"] == self.counts["changed"]

    @property
    def to_send(self) -> int:
        """How many entities a load sends: all of a shard that is read whole."""
        few = self.few()
        return sum(len(few[shard]) if shard in few else self.entities[shard] for shard in self.hashes)

    def add(self, shard: int, reply: Sequence[Any]) -> None:
        """Add a reply. The nodes of a cluster reply in threads of their own."""
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
        """The hashes by shard, where it pays to read the rows of these entities only."""
        few = {shard: some for shard, some in self.hashes.items() if len(some) <= self.entities[shard] * _FEW}
        return few if sum(map(len, few.values())) <= _MANY else {}
