"""What a feature is: its SELECT over gold, its keys in Redis, and the script that guards them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

from feature_seed.contract import (
    CARD_HISTORY,
    CARD_LAST_TS,
    CARD_LOCATION,
    CARD_SEEDED,
    CARD_SEQ,
    CUSTOMER_STATS,
    Key,
)

OnConflict = Literal["keep_newer", "overwrite"]

_PACKAGE = files("feature_seed")

# What the SQL is written in; lambdas are inlined where they are used, no call per value.
# `bulk`: length and text, as RESP writes every argument. `tagged`: an id as it stands in keys; ClickHouse's format()
# cannot take the braces itself, it stumbles over `{{{}}}`. `millis`: of microseconds, rounded down before 1970 as well.
# `sortable`: an Int64 as eight bytes in the same order, and `unsorted` back. `ordinal`: the bits of a double as an
# Int64 in the same order, and back.
_DIALECT = r"""
    (text -> concat('$', toString(length(text)), '\r\n', text, '\r\n')) AS bulk,
    (id -> if({key_tags:Bool}, concat('{', id, '}'), id)) AS tagged,
    (id -> toUInt16(sipHash64(id) % {shard_count:UInt16})) AS shard_of,
    (micros -> intDiv(micros - positiveModulo(micros, 1000), 1000)) AS millis,
    (number -> reverse(reinterpretAsFixedString(bitXor(toUInt64(number), bitShiftLeft(1::UInt64, 63))))) AS sortable,
    (bytes -> toInt64(bitXor(reinterpretAsUInt64(reverse(bytes)), bitShiftLeft(1::UInt64, 63)))) AS unsorted,
    (bits -> if(bits < 0, bitXor(bits, 9223372036854775807), bits)) AS ordinal
"""


def sql(name: str) -> str:
    """The text of `sql/{name}.sql`."""
    return (_PACKAGE / "sql" / f"{name}.sql").read_text()


def over(relations: Mapping[str, str], select: str) -> str:
    """A query over named relations, each of which may read the ones before it."""
    definitions = ",\n".join(f"{name} AS (\n{text})" for name, text in relations.items())
    return f"WITH {_DIALECT.strip()},\n{definitions}\n{select}"


@dataclass(frozen=True)
class Value:
    """A field or value in Redis: how to parse its text, the gold column behind it, and what it says."""

    type: str
    column: str
    meaning: str


@dataclass(frozen=True)
class Feature:
    """A feature of one kind of entity.

    Attributes:
        name: of its asset, its SELECT and its guard.
        description: what it tells a scorer.
        entity: gold's id column of the entity.
        keys: what is written per entity, the asset's own.
        values: every field or value that is written.
        reads: further keys that the guard looks at.
        replies: Redis replies to one entity's commands without a guard.
        entity_bytes: ClickHouse's memory per entity while it groups, measured with 10 transactions per card.
        row_bytes: the same per collected transaction.
    """

    name: str
    description: str
    entity: str
    keys: tuple[Key, ...]
    replies: int
    entity_bytes: int
    row_bytes: int
    values: Mapping[str, Value]
    reads: tuple[Key, ...] = ()

    @cached_property
    def guard(self) -> str:
        """The Lua script of `keep_newer`: brings an entity to gold's state and keeps the live events gold lacks."""
        return (_PACKAGE / "lua" / f"{self.name}.lua").read_text()

    @cached_property
    def guard_sha(self) -> str:
        """What EVALSHA calls the guard by."""
        return hashlib.sha1(self.guard.encode(), usedforsecurity=False).hexdigest()

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that decide what is written."""
        names = (f"sql/{self.name}.sql", *(f"sql/commands/{self.name}.{mode}.sql" for mode in get_args(OnConflict)))
        return tuple(Path(str(_PACKAGE / name)) for name in (*names, f"lua/{self.name}.lua"))

    def commands(self, on_conflict: OnConflict, *, deep: bool) -> str:
        """The query whose rows are an entity's shard, keys and ready commands; `deep` cuts before it collects."""
        relations = {
            "gold": sql("gold"),
            "transactions": sql("transactions"),
            "recent": sql("recent") if deep else "SELECT *, 0 AS made FROM transactions",
            self.name: sql(self.name),
        }
        commands = sql(f"commands/{self.name}.{on_conflict}")
        return over(relations, f"SELECT shard, keys, commands FROM (\n{commands})")

    def parameters(self) -> dict[str, str]:
        """Key templates under the names the SQL knows them by, the entity column and the guard."""
        templates = {key.name: key.template for key in self.keys + self.reads}
        return {**templates, "entity": self.entity, "script": self.guard_sha}


HISTORY = Feature(
    "card_history",
    "The latest transactions of every card, as a list, and how many it has made.",
    "card_id",
    keys=(CARD_HISTORY, CARD_SEQ, CARD_SEEDED),
    replies=5,
    entity_bytes=150,
    row_bytes=90,
    values={
        "transaction_id": Value("string", "transaction_id", "Decides the order of transactions of one time."),
        "merchant_category": Value("string", "merchant_category", "null where gold has none."),
        "amount": Value("double", "amount", "As in gold."),
        "timestamp": Value("string", "timestamp", "ISO 8601 in UTC, with milliseconds."),
        "location_lat": Value("double", "location_lat", "Degrees; null where gold has none."),
        "location_long": Value("double", "location_long", "Degrees; null where gold has none."),
        "seq": Value("int", "transaction_id", "How many transactions the card has made."),
        "seeded": Value("int", "transaction_id", "How many of them gold had when it was loaded."),
    },
)
LOCATION = Feature(
    "card_location",
    "Where and when every card was last used.",
    "card_id",
    keys=(CARD_LOCATION, CARD_LAST_TS),
    reads=(CARD_SEQ, CARD_SEEDED),
    replies=4,
    entity_bytes=600,
    row_bytes=0,
    values={
        "lat": Value("double", "location_lat", "Degrees, of the latest transaction that has coordinates."),
        "lon": Value("double", "location_long", "Degrees, of the latest transaction that has coordinates."),
        "last_ts": Value("double", "timestamp", "Unix seconds of the latest transaction, milliseconds as decimals."),
    },
)
STATS = Feature(
    "customer_stats",
    "The running mean and variance of every customer's amounts, as Welford's algorithm continues them.",
    "customer_id",
    keys=(CUSTOMER_STATS,),
    replies=1,
    entity_bytes=100,
    row_bytes=16,
    values={
        "count": Value("int", "amount", "How many amounts."),
        "mean": Value("double", "amount", "Their mean."),
        "M2": Value("double", "amount", "The sum of their squared deviations from the mean."),
        "seeded": Value("int", "amount", "How many of them gold had when it was loaded."),
    },
)

FEATURES = (HISTORY, LOCATION, STATS)
