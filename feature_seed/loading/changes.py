"""What a load would change: entities whose digest, count or live events differ from gold or from their seeds."""

import math
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from feature_seed.errors import printable
from feature_seed.store.block import Block

_EXAMPLES = 3

# If a greater share of a shard has to be sent, the shard is read whole. So are all shards if more entities are sent.
_FEW, _MANY = 1 / 4, 128_000


@dataclass
class Changes:
    """The cards or the customers of some shards, as the store has them and as gold has them.

    Attributes:
        watermark: of the load, in Unix seconds. An entity that is ahead of it is sent.
        clock: the store's, in Unix seconds.
        hashes: the hashes of the entities that a load has to send, by shard.
        entities: how many gold has, by shard; `different` are those whose digest in the store differs.
        counts: how many of gold's entities are `known` to the store, from how many `rows` they were last loaded, how
            many are `new` or `changed`, how many have `shrunk`, and how many rows these have `lost`.
        examples: keys of entities that differ.
        losses: the largest losses, as rows and in words.
        seconds: what it took to look; `size` are the bytes of the commands that asked.
    """

    watermark: float = math.inf
    clock: Callable[[], float] = time.time
    hashes: defaultdict[int, "array[int]"] = field(default_factory=lambda: defaultdict(lambda: array("I")))
    entities: Counter[int] = field(default_factory=Counter)
    different: Counter[int] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    losses: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0
    size: int = 0
    _reached: set[bytes] = field(default_factory=set, repr=False)  # watermarks that are not ahead; most seeds share one
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

    def look(self, block: Block, replies: Sequence[Any]) -> None:
        """Add the entities of a block, by the replies to the commands of `changes.sql`: count and seed of each.

        The nodes of a cluster reply in threads of their own.
        """
        lives, seeds = [one[0] if type(one) is list else one for one in replies[::2]], replies[1::2]
        entities = zip(block.shards, block.keys, lives, seeds, *block.columns, strict=True)
        with self._lock:
            reached = self._reached
            # The seed as a load writes it, without a dict of its fields: a quarter of the time.
            unlike = [
                (shard, key, live, seed, digest, count, hashed)
                for shard, key, live, seed, digest, count, hashed in entities
                if live != count
                or type(seed) is not list
                or len(seed) != 6
                or seed[3] != count
                or seed[5] != digest
                or seed[1] not in reached
            ]
            self.entities.update(block.shards)
            closer = [self._look_closer(*one) for one in unlike]
            known, differ, before = map(sum, zip(*closer, strict=True)) if closer else (0, 0, 0)
            new, of_gold = len(unlike) - known, block.columns[1]
            alike = sum(map(int, of_gold)) - sum(int(one[5]) for one in unlike)
            self.counts.update(known=len(seeds) - new, rows=alike + before, new=new, changed=differ - new)

    def _look_closer(
        self, shard: int, key: bytes, live: Any, seed: Any, digest: bytes, count: bytes, hashed: int
    ) -> tuple[bool, bool, int]:
        """Whether the store knows an entity, whether it differs from gold, and the rows that it was loaded from.

        An error stands for a key of another type: that is for the load to complain of.
        """
        texts = iter(seed if type(seed) is list else [b"", b""])
        fields = dict(zip(texts, texts, strict=True))
        # An entity that has expired is as gold has it, also if the scorer has written to it since.
        ended = b"digest" not in fields and b"" not in fields and self._has_ended(digest)
        if ended and live is None and not fields:
            return True, False, int(count)
        seeded = count if ended else fields.get(b"count", b"")
        before = int(seeded) if seeded.isdigit() else 0
        same = ended or (seeded == count and fields.get(b"digest") == digest)
        if not same:
            self.different[shard] += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(printable(key))
        # A seed of three fields, watermark, count and digest, has no record, and nothing left or forgotten.
        if not same or live != count or len(fields) != 3 or self._is_ahead(fields.get(b"watermark", b"")):
            self.hashes[shard].append(hashed)
        if (lost := before - int(count)) > 0:
            self.counts.update(shrunk=1, lost=lost)
            self._add_loss(lost, f"{printable(key)} has {int(count):,} rows in gold and had {before:,}")
        return live is not None or seeded.isdigit(), not same, before

    def _has_ended(self, digest: bytes) -> bool:
        """Whether the end of an entity that expires has come. Its digest then ends in `:expire:newest`."""
        _, *ending = digest.split(b":")
        return bool(ending) and sum(map(float, ending)) <= self.clock()

    def _is_ahead(self, watermark: bytes) -> bool:
        ahead = not _number(watermark) <= self.watermark
        if not ahead:
            self._reached.add(watermark)
        return ahead

    def _add_loss(self, rows: int, text: str) -> None:
        self.losses = sorted([*self.losses, (rows, text)], reverse=True)[:_EXAMPLES]

    def few(self) -> Mapping[int, Sequence[int]]:
        """The hashes by shard, where it pays to read the rows of these entities only."""
        few = {shard: some for shard, some in self.hashes.items() if len(some) <= self.entities[shard] * _FEW}
        return few if sum(map(len, few.values())) <= _MANY else {}


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf
