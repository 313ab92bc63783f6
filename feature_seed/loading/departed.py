"""Entities that the store has from a load and gold no longer has: how they are found and removed."""

import hashlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import hiredis
import redis

from feature_seed.errors import StoreError, printable
from feature_seed.loading.stream import FeatureStream
from feature_seed.sql import lua, sha_of
from feature_seed.store.block import Block
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.failures import with_retries
from feature_seed.warehouse.gold import over_gold

_SCRIPT = f"{lua('features/events/elements')}\n{lua('loading/departed')}"
_SHA = sha_of(_SCRIPT)

# Keys that Redis looks at in a call of SCAN. A call takes some 0.2 ms, in which Redis answers nobody else.
_SCANNED = 250

# For so many entities calls are made at a time: 1 KB each.
_AT_ONCE = 1000

_EXAMPLES = 10


@dataclass(frozen=True)
class Departed(FeatureStream):
    """The calls that remove departed cards or customers. `before` is what the store says of itself.

    `found` has the state of each by the key of its seed: `departed`, `live` or `removed`.
    """

    found: dict[bytes, str] = field(default_factory=dict)

    @property
    def scripts(self) -> Sequence[str]:
        return [_SCRIPT]

    @property
    def expected(self) -> int:
        return Counter(self.found.values())["departed"]

    @property
    def share(self) -> float:
        """The share of the store's entities that would be removed."""
        return self.expected / max(getattr(self.before, self.entity.name) + len(self.found), 1)

    @property
    def metadata(self) -> dict[str, Any]:
        counts = Counter(self.found.values())
        examples = [printable(name) for name in sorted(self.found)[:_EXAMPLES]]
        return {"departed": len(self.found), "live": counts["live"], "removed": counts["removed"], "examples": examples}

    def __str__(self) -> str:
        text = "{departed:,} are in the store and no more in gold, {live:,} have live events, {removed:,} were removed"
        return f"{self.entity.name}: {text.format(**self.metadata)}"

    def find(self, store: OnlineStore) -> None:
        """Compare all entities of the store with gold.

        That takes 8 bytes of memory for each entity of gold, and some 0.2 KB for each other one, a scorer's own too.
        It is a GoldError if gold was rebuilt since it was profiled, and a StoreError if the store runs no SCAN.
        """
        with self.warehouse.client() as gold, self.warehouse.errors():
            query, parameters = over_gold("loading/departed"), self._parameters()
            row = with_retries(lambda: self.warehouse.only_row(gold, query, parameters))
            with_retries(lambda: self.warehouse.require_unbroken(gold))
        known = array("Q", row["hashes"])
        with store.client() as client:
            try:
                seeds: Iterator[bytes] = client.scan_iter(self._pattern, _SCANNED)
                unknown = {seed for seed in seeds if not _has(known, self._id(seed))}
            except redis.ResponseError as e:
                raise StoreError(
                    f"Redis at {store.address} runs no SCAN, so what gold has no more cannot be found. If a right is "
                    f"missing: ACL SETUSER {store.target.user} +scan. Else use python -m feature_seed forget. {e}"
                ) from e
        with store.bulk(self.scripts) as connection:
            for block in self._calls(unknown, "0"):
                connection.write(block)
            connection.drain()

    @contextmanager
    def prefetched(self, capacity: int, meanwhile: Callable[[], None] = lambda: None) -> Iterator[Iterator[Block]]:
        yield self._calls([name for name, what in self.found.items() if what == "departed"], "1")

    @property
    def _pattern(self) -> bytes:
        return self.entity.keys[-1].of(b"*", tags=self.layout.key_tags)

    def _id(self, seed: bytes) -> bytes:
        before, _, after = self._pattern.partition(b"*")
        return seed[len(before) : len(seed) - len(after)]

    def _calls(self, seeds: Iterable[bytes], remove: str) -> Iterator[Block]:
        left = iter(seeds)
        while some := list(islice(left, _AT_ONCE)):
            keys = [self.entity.names(self._id(seed), tags=self.layout.key_tags) for seed in some]
            calls = [("EVALSHA", _SHA, len(one), *one, str(self.before and self.before.unix), remove) for one in keys]
            payloads = [hiredis.pack_command(one) for one in calls]  # pyright: ignore[reportArgumentType]  a wrong stub
            blocks = Block.cut([0] * len(some), some, payloads, commands=1, guarded=False)
            yield from (replace(block, collect=self._add) for block in blocks)

    def _add(self, _: Block, replies: Sequence[Sequence[bytes]]) -> None:
        self.found.update({seed: what.decode() for what, seed in filter(None, replies)})


def _has(hashes: Sequence[int], entity_id: bytes) -> bool:
    """Whether the hash of an id, as `departed.sql` makes it, is among these sorted hashes."""
    hashed = int.from_bytes(hashlib.md5(entity_id, usedforsecurity=False).digest()[:8], "big")
    position = bisect_left(hashes, hashed)
    return position < len(hashes) and hashes[position] == hashed
