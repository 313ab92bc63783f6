"""The stream of ready commands that an asset returns, and that the IO manager writes to the store."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from math import ceil
from typing import Any

from clickhouse_connect.driver.client import Client

from feature_seed.contract import Ready
from feature_seed.errors import WarehouseError
from feature_seed.features.entity import Entity
from feature_seed.loading.changes import Changes
from feature_seed.loading.layout import Layout
from feature_seed.loading.prefetch import begun_ahead, prefetch
from feature_seed.sql import over, sql
from feature_seed.store.block import Block
from feature_seed.warehouse.clickhouse import READ_BYTES_PER_SECOND, Warehouse
from feature_seed.warehouse.failures import with_retries
from feature_seed.warehouse.gold import RELATIONS
from feature_seed.warehouse.profile import Profile, micros, unix_text

# Hashes of entities in a query: 180 KB of the 256 KB that a query may have by default.
CHOSEN = 16_000

# From this multiple of the history length on, ranking times first beats collecting everything: half the time at 500
# transactions a card, a quarter slower at 10.
DEEP = 4


@dataclass(frozen=True)
class FeatureStream:
    """An entity's blocks of ready commands for some shards, read from the warehouse while it is iterated.

    Yields blocks of some 0.5 MB. `pass_bytes` bounds the memory in ClickHouse, a few blocks that of this process. The
    stream raises an error unless every entity was delivered from one and the same gold. Blocks before the error stand.
    """

    warehouse: Warehouse
    layout: Layout
    entity: Entity
    shards: tuple[str, ...]
    before: Ready | None = None  # what the store said of itself when the load began
    changes: Changes | None = None  # the entities that are sent; None for all
    max_loss: float = 1

    @property
    def scripts(self) -> Sequence[str]:
        """The scripts that its commands call."""
        return [self.entity.guard]

    @property
    def numbers(self) -> list[int]:
        """Its shards, as SQL numbers them."""
        return sorted(int(shard, 16) for shard in self.shards)

    @property
    def expire(self) -> int:
        """After how many seconds its entities expire; 0 where they do not."""
        return self.layout.expire.get(self.entity.name, 0)

    @property
    def relations(self) -> dict[str, str]:
        """The relations over gold, without the entities that have expired by the watermark.

        If `expire` may have been set since the last load, expired entities are sent too, and go at once: their keys
        have no end, or a later one.
        """
        if not self.expire or (self.changes and self.changes.all_changed):
            return RELATIONS
        return {**RELATIONS, "every": RELATIONS["transactions"], "transactions": sql("loading/living")}

    @property
    def expected(self) -> int:
        """About how many entities there are, for progress: shards are alike."""
        if self.changes:
            return self.changes.to_send
        entities = self.warehouse.profile().entities(self.entity.id)
        return entities * len(self.shards) // self.layout.shard_count

    def counted_at(self, feature: str) -> int:
        """What a block adds to a shard's number to count this feature. An entity's standard features count as one."""
        return 0

    @property
    def settings(self) -> dict[str, str]:
        """What its query is sent with."""
        return dict(self.warehouse.access.faster)

    @contextmanager
    def prefetched(self, capacity: int, meanwhile: Callable[[], None] = lambda: None) -> Iterator[Iterator[Block]]:
        """The blocks. A thread reads ahead by `capacity` bytes of commands. Leaving early hangs up on the warehouse.

        While the consumer waits for a block, `meanwhile` is called now and then.

        If nobody takes the blocks, the answer that has begun is still read on, slowly: at most one pass more.
        """
        min_rate = READ_BYTES_PER_SECOND if self.warehouse.host else None
        with (
            self.warehouse.interruptible() as (client, interrupt),
            prefetch(self._read(client), capacity, interrupt, min_rate, meanwhile) as blocks,
        ):
            yield blocks

    def __iter__(self) -> Generator[Block, None, None]:
        with self.warehouse.client() as client, closing(self._read(client)) as blocks:
            yield from filter(None, blocks)

    def _read(self, client: Client) -> Generator[Block | None, None, None]:
        """The blocks, and None whenever an answer has been read to its end."""
        delivered = 0
        with self.warehouse.errors():
            for block in self._load(client):
                delivered += len(block.keys) if block else 0
                yield block
            self._end(client, delivered)

    def _end(self, client: Client, delivered: int) -> None:
        with_retries(lambda: self.warehouse.require_unbroken(client))
        self.require_whole(client, delivered)

    def rehearse(self) -> None:
        """Have the warehouse plan the query and read nothing: a refusal comes before the first write.

        Raises:
            WarehouseError: a limit of its user, on memory, columns, depth or size of a query, is too low.
        """
        profile = self.warehouse.profile()
        needed = self._collected(profile) // self.layout.shard_count
        if self.warehouse.pass_memory < min(needed, self.warehouse.pass_bytes):
            raise WarehouseError(
                f"max_memory_usage of ClickHouse's user leaves {self.warehouse.pass_memory:,} bytes for a pass, and "
                f"one shard of {self.entity.name} needs {needed:,}. Nothing was written. "
                f"Raise it for this user, or FEATURE_SEED_SHARDS"
            )
        query, parameters = self._query(profile), self._parameters()
        with self.warehouse.client() as client, self.warehouse.errors():
            with_retries(lambda: client.command(f"{query}\nLIMIT 0", parameters))

    def _deep(self, profile: Profile) -> bool:
        return profile.rows > DEEP * self.layout.history_length * profile.cards

    def _query(self, profile: Profile, chosen: Sequence[int] | None = None) -> str:
        """The query of a pass, over all transactions or those of the entities with these hashes."""
        relations = self.relations if chosen is None else _chosen(chosen)
        query = self.entity.commands(relations, self.layout.on_conflict, deep=self._deep(profile))
        return self.warehouse.mapping.over(query)

    @property
    def passes_at_once(self) -> int:
        """How many passes ClickHouse has in memory: one that is sent and, embedded, one that it collects."""
        return self.warehouse.queries_at_once

    def _load(self, client: Client) -> Iterator[Block | None]:
        """The blocks of each pass, and None after it.

        Embedded ClickHouse collects the next pass while the store takes one: the store was idle for a quarter of the
        time. A server does not: it breaks off what nobody reads for 30 s.
        """
        parameters, queries = self._parameters(), list(self._queries(self.warehouse.profile()))
        ahead = self.passes_at_once > 1 and len(queries) > 1
        with ExitStack() as opened:
            clients = [client, *([opened.enter_context(self.warehouse.client())] if ahead else [])]
            begins = [
                partial(
                    self._begin,
                    clients[number % len(clients)],
                    query,
                    {**parameters, "shards": shards},
                    {**self.settings, **(self.warehouse.beside if number else {})},
                )
                for number, (query, shards) in enumerate(queries)
            ]
            answers = begun_ahead(begins) if ahead else (begin() for begin in begins)
            for begun in opened.enter_context(closing(answers)):
                yield from self._blocks(begun)
                yield None

    def _queries(self, profile: Profile) -> Iterator[tuple[str, Sequence[int]]]:
        """The query of each pass, and its shards. From shards in which few entities are sent, only these are read."""
        few = self.changes.few() if self.changes else {}
        some = self.changes.hashes if self.changes and not self.changes.all_changed else self.numbers
        whole = [one for one in self.numbers if one not in few and one in some]
        for shards in self._passes(profile, whole):
            yield self._query(profile), shards
        hashes = [one for some in few.values() for one in some]
        for first in range(0, len(hashes), CHOSEN):
            yield self._query(profile, hashes[first : first + CHOSEN]), sorted(few)

    def _begin(
        self, client: Client, query: str, parameters: dict[str, Any], settings: dict[str, str]
    ) -> AbstractContextManager[Iterable[Any]]:
        """The answer to a query, whose first rows have come."""
        self.warehouse.release_memory(client)  # what is kept of the last pass makes this one's peak a sixth higher
        formats = {"String": "bytes"}
        return with_retries(
            lambda: client.query_column_block_stream(query, parameters, settings, query_formats=formats)
        )

    def _blocks(self, begun: AbstractContextManager[Iterable[Any]]) -> Iterator[Block]:
        with begun as blocks:
            for block in blocks:
                yield from self._cut(block)
                block.clear()  # clickhouse-connect keeps its first block, and the last one while it reads the next

    def _cut(self, columns: Sequence[Sequence[Any]]) -> Iterator[Block]:
        guarded = self.layout.on_conflict == "keep_newer"
        replies = self.entity.replies + (len(self.entity.keys) if self.expire else 0)
        return Block.cut(*columns, commands=1 if guarded else replies, guarded=guarded)

    def require_whole(self, client: Client, delivered: int) -> None:
        """Nothing in HTTP shows that an answer ended early if it ended between two blocks.

        Raises:
            WarehouseError: gold has more entities than were delivered.
        """
        expected = self.changes.to_send if self.changes else self.entities(client)
        if delivered < expected:
            raise WarehouseError(
                f"{self.entity.name} is incomplete in shards {', '.join(sorted(self.shards))}: gold has {expected:,} "
                f"entities there, and ClickHouse at {self.warehouse.address} delivered {delivered:,} before its answer "
                f"ended. What was delivered is in the store: run again"
            )

    def entities(self, client: Client, **until: int) -> int:
        """How many entities gold has, `until` a watermark. For some shards, or if entities expire, that is a scan."""
        if len(self.shards) == self.layout.shard_count and not self.expire:
            return self.warehouse.profile().entities(self.entity.id)
        query, parameters = over(self.relations, sql("loading/entities")), {**self._parameters(), **until}
        return with_retries(lambda: self.warehouse.only_row(client, query, parameters))["entities"]

    def expired(self, entity: Entity) -> int:
        """About how many of gold's entities in these shards have expired by the watermark."""
        stream, all_ = replace(self, entity=entity), self.warehouse.profile().entities(entity.id)
        if not stream.expire:
            return 0
        with self.warehouse.client() as client, self.warehouse.errors():
            return max(all_ * len(self.shards) // self.layout.shard_count - stream.entities(client), 0)

    def _parameters(self) -> dict[str, Any]:
        return {
            **self.entity.parameters(
                key_tags=self.layout.key_tags,
                history_length=self.layout.history_length,
                newest_first=self.layout.newest_first,
                array=self.layout.element == "array",
            ),
            **self.warehouse.table,
            **self.warehouse.profile().readable,
            "shard_count": self.layout.shard_count,
            "shards": self.numbers,
            "expire": self.expire,
            "watermark": self.warehouse.profile().unix,
            "seeded_watermark": self._seeded_watermark(self.warehouse.profile()),
        }

    def _seeded_watermark(self, profile: Profile) -> str:
        """Up to when the version before had loaded entities that have no seed yet; '' if it has loaded none.

        That version wrote the time of gold's newest transaction in milliseconds. For this gold, that is this load's
        watermark.
        """
        if not (self.before and self.before.watermark):
            return ""
        millisecond = micros(datetime.fromisoformat(self.before.watermark)) // 1000
        if millisecond == micros(profile.newest) // 1000:
            return profile.unix
        return unix_text(millisecond * 1000 + 999)

    def _collected(self, profile: Profile) -> int:
        """About how many bytes ClickHouse collects for all shards."""
        rows = profile.cards * self.layout.history_length if self._deep(profile) else profile.rows
        return rows * self.entity.row_bytes + profile.entities(self.entity.id) * self.entity.entity_bytes

    def _passes(self, profile: Profile, shards: Sequence[int]) -> Iterator[Sequence[int]]:
        """The shards in as few groups as memory allows. Each group is one more scan of gold."""
        if not shards:
            return
        collected = self._collected(profile) * self.passes_at_once
        passes = ceil(collected / self.warehouse.pass_memory * len(shards) / self.layout.shard_count)
        size = ceil(len(shards) / min(max(passes, 1), len(shards)))
        for first in range(0, len(shards), size):
            yield shards[first : first + size]


def _chosen(hashes: Sequence[int]) -> dict[str, str]:
    """The relations over gold; `transactions` has only the entities with these hashes."""
    chosen = sql("loading/chosen").replace("[hashes]", str(hashes))
    return {"gold": RELATIONS["gold"], "every": RELATIONS["transactions"], "transactions": chosen}
