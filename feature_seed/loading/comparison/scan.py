"""The scan of gold by which the features are compared: all that their checks ask of it, in one query.

The query shares nothing with the query that seeds.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from clickhouse_connect.driver.client import Client

from feature_seed.features.entity import ENTITIES
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.sql import sql
from feature_seed.warehouse.clickhouse import Warehouse

# Rows of gold that are held at a time. More rows are compared in slices: each slice is one more scan of gold.
_SLICE_ROWS = 1_000_000

# The rows of gold that an entity of a sample may have on average. If they have more, fewer entities are compared, but
# so many at least.
_ENTITY_ROWS, _FEWEST = 1000, 10

# The sample that the report takes over has so many entities, and is found by this name.
_SAMPLE, _FOUND = 1000, "sample"

# How many hashes there are.
HASHES = 2**64

# Ids are bytes, and need not be text. ClickHouse 24.8 names the elements of tuples, which would come as dicts.
FORMATS = {"String": "bytes", "Tuple": "tuple"}

# What is said of each sampled entity. A card has its newest time in microseconds since 1970, its latest transactions
# with the oldest first, its last known place if there is one, and whether its rows agree on what a feature has.
_SAMPLED = {
    "cards": ("id", "transactions", "newest", "latest", "place", "card_history", "card_location"),
    "customers": ("id", "amounts", "newest"),
}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What gold has of an entity.

    Attributes:
        entities: how many of them each shard has.
        known: which of the ids that were looked up are gold's.
        rows: the sampled entities.
    """

    entities: Mapping[str, int]
    known: Set[bytes]
    rows: Sequence[Row]

    def thinned(self, size: int) -> "Found":
        """The same with about so many sampled entities, or with fewer if there are no more."""
        return replace(self, rows=self.rows[:: max(len(self.rows) // size, 1)] if size else ())


@dataclass(frozen=True)
class Scan:
    """Scans of gold for some shards.

    `untils` are the watermarks of the shards' loads, in microseconds since 1970: one for each, or one for all.
    """

    warehouse: Warehouse
    gold: Client
    layout: Layout
    shards: Sequence[str]
    untils: Sequence[int]

    def scans(self, run_id: str, size: int | None, scanned: Mapping[str, Set[bytes]]) -> Iterator[Mapping[str, Found]]:
        """What gold has of cards and customers, with about `size` sampled ones: every run samples others.

        `scanned` are the ids to look up. One scan takes 6 CPU-seconds for 10 M rows. Without a size all entities are
        sampled, with a scan for every million rows.
        """
        profile, part = self.warehouse.profile(), len(self.shards) / self.layout.shard_count
        shares = {
            one.name: sample_share(size, profile.entities(one.id) * part, profile.rows * part) for one in ENTITIES
        }
        slices = max(count for _, count in shares.values())
        ids = {f"scanned_{one.name}": [zlib.crc32(id_) for id_ in scanned.get(one.name, ())] for one in ENTITIES}
        lives = {f"{one.name}_expire": self.layout.expire.get(one.name, 0) for one in ENTITIES}
        query = f"WITH usable AS ({sql('loading/comparison/usable')}),\n{sql('loading/comparison/scan')}"
        for number in range(slices):
            some = {name: slice_of(share, number, slices) for name, (share, _) in shares.items()}
            ends = {f"{end}_of_{name}": one for name, ends in some.items() for end, one in ends.items()}
            length = self.layout.history_length
            asked = {**self._parameters, "run_id": run_id, "history_length": length, **ids, **ends, **lives}
            row = self.warehouse.only_row(
                self.gold, query, asked, settings=self.warehouse.beside, query_formats=FORMATS
            )
            found = {one.name: self._found(row, one.name) for one in ENTITIES}
            if part == 1 and slices == 1 and size and size >= _SAMPLE:
                self.layout.found[_FOUND] = {name: one.thinned(_SAMPLE) for name, one in found.items()}
            yield found

    def _found(self, row: Row, name: str) -> Found:
        entities = {shard: row[name][int(shard, 16)] for shard in self.shards}
        rows = [dict(zip(_SAMPLED[name], one, strict=True)) for one in row[f"sampled_{name}"]]
        return Found(entities, set(row[f"known_{name}"]), rows)

    @property
    def _parameters(self) -> dict[str, Any]:
        return {
            **self.warehouse.table,
            "shard_count": self.layout.shard_count,
            "shards": [int(shard, 16) for shard in self.shards],
            "untils": list(self.untils),
        }


def sample(warehouse: Warehouse, layout: Layout) -> Mapping[str, Found]:
    """A part of the sample of all shards that the run has compared, or else a sample of its own."""
    if _FOUND not in layout.found:
        shards, until = shard_names(layout.shard_count), warehouse.profile().until
        with warehouse.client() as gold, warehouse.errors():
            return next(Scan(warehouse, gold, layout, shards, [until]).scans("", _SAMPLE, {}))
    return layout.found[_FOUND]


def slice_of(share: float, number: int, slices: int) -> dict[str, int]:
    """The `first` and the `last` hash of a slice of this share of all."""
    end = max(int(share * HASHES), 1)
    return {"first": end * number // slices, "last": end * (number + 1) // slices - 1}


def sample_share(size: int | None, entities: float, transactions: float) -> tuple[float, int]:
    """Which share of the entities is compared if `size` entities are asked for, and in how many slices."""
    if size is None:
        compared = float(entities)
    else:
        paid_for = size * min(_ENTITY_ROWS * entities / max(transactions, 1), 1)
        compared = min(max(paid_for, min(size, _FEWEST)), entities)
    share = compared / max(entities, 1)
    return share, max(min(ceil(share * transactions / _SLICE_ROWS), ceil(compared)), 1)
