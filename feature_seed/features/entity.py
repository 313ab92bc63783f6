"""An entity is a card or a customer: its SELECT over gold, its keys in Redis, and the script of `keep_newer`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import AnyStr, Literal

from feature_seed.contract import (
    CARD_HISTORY,
    CARD_LAST_TS,
    CARD_LOCATION,
    CARD_SEED,
    CARD_SEQ,
    CUSTOMER_SEED,
    CUSTOMER_STATS,
    Key,
)
from feature_seed.sql import lua, over, sha_of, sql, without_comments

OnConflict = Literal["keep_newer", "overwrite"]

# What the version before had in place of a card's seed: the next load takes it away.
_CARD_SEEDED = Key("card_seeded", "card:{card_id}:seeded", "STRING")


@dataclass(frozen=True)
class Entity:
    """What gold's transactions are grouped by. One pass loads all features; those of one entity come in one step.

    Attributes:
        name: the name of its SELECT and its guard.
        id: gold's column of its ids.
        keys: the keys of all its features; the last is its seed.
        replies: how often Redis replies to one entity without a guard; where keys expire, once more for each key.
        entity_bytes: ClickHouse's memory per entity while it groups, measured with 10 transactions per card.
        row_bytes: the same per collected transaction.
    """

    name: str
    id: str
    keys: tuple[Key, ...]
    replies: int
    entity_bytes: int
    row_bytes: int

    @cached_property
    def guard(self) -> str:
        """The Lua script of `keep_newer`: gold up to its watermark, and the events after it."""
        names = ("events/elements", "events/load", f"{self.name}/keep_newer")
        return "\n".join(lua(f"features/{name}") for name in names)

    @property
    def counter(self) -> Key:
        """The key that counts its events."""
        return next(key for key in self.keys if key in (CARD_SEQ, CUSTOMER_STATS))

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that decide what is written."""
        folders = (Path(__file__).parent / name for name in (self.name, "events"))
        return tuple(path for folder in folders for path in sorted(folder.iterdir()))

    def names(self, entity_id: AnyStr, *, tags: bool) -> list[AnyStr]:
        """All keys of one entity, in the order of `keys`, and the key that the version before had of a card."""
        keys = (*self.keys, _CARD_SEEDED) if CARD_SEED in self.keys else self.keys
        return [key.of(entity_id, tags=tags) for key in keys]

    def relations(self, *, deep: bool = False) -> dict[str, str]:
        """Its relation over the warehouse's `transactions`, and those it reads. `deep` cuts before it collects."""
        recent = sql("features/cards/recent") if deep else "SELECT *, 0 AS made, 0 AS whole FROM hashed"
        return {**self.hashed, "recent": recent, self.name: sql(f"features/{self.name}/select")}

    @property
    def hashed(self) -> dict[str, str]:
        """The relation of the transactions with their parts of the digest."""
        return {"hashed": sql(f"features/{self.name}/hashed")}

    def commands(self, transactions: Mapping[str, str], on_conflict: OnConflict, *, deep: bool) -> str:
        """The query over these relations whose rows are an entity's shard, keys and ready commands."""
        commands = sql(f"features/{self.name}/{on_conflict}")
        relations = {**transactions, **self.relations(deep=deep)}
        return over(relations, f"SELECT shard, keys, commands FROM (\n{commands})")

    def parameters(self, **layout: int) -> dict[str, str | int]:
        """Key templates under the names the SQL knows them by, the entity column, the guard and the layout.

        `layout` decides what is written, beside gold and the SQL. Every digest changes with the layout and with
        `hashed.sql` and `select.sql`, comments apart. The next load then sends every entity.
        """
        templates = {key.name: key.template for key in (*self.keys, _CARD_SEEDED)}
        select = without_comments("\n".join(self.relations().values()))
        number = int.from_bytes(hashlib.sha256(f"{select} {layout}".encode()).digest()[:8], "big")
        return {**templates, **layout, "entity": self.id, "script": sha_of(self.guard), "layout": number}


CARDS = Entity(
    "cards",
    "card_id",
    keys=(CARD_HISTORY, CARD_SEQ, CARD_LOCATION, CARD_LAST_TS, CARD_SEED),
    replies=8,
    entity_bytes=150,
    row_bytes=90,
)
CUSTOMERS = Entity(
    "customers", "customer_id", keys=(CUSTOMER_STATS, CUSTOMER_SEED), replies=6, entity_bytes=100, row_bytes=16
)

ENTITIES = (CARDS, CUSTOMERS)
