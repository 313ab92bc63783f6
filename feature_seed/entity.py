"""What an entity is: its SELECT over gold, its keys in Redis, and the script that guards them."""

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
class Entity:
    """What gold's transactions are grouped by; all of its features are loaded in one pass, each entity's in one step.

    Attributes:
        name: of its SELECT and its guard.
        id: gold's column of it.
        keys: what is written, of all its features.
        replies: Redis replies to one entity's commands without a guard.
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
        """The Lua script of `keep_newer`: brings an entity to gold's state and keeps the live events gold lacks."""
        return (_PACKAGE / "lua" / f"{self.name}.lua").read_text()

    @cached_property
    def guard_sha(self) -> str:
        """What EVALSHA calls the guard by."""
        return hashlib.sha1(self.guard.encode(), usedforsecurity=False).hexdigest()

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that decide what is written."""
        modes = (f"sql/commands/{self.name}.{mode}.sql" for mode in get_args(OnConflict))
        names = (f"sql/{self.name}.sql", *modes, f"lua/{self.name}.lua")
        return tuple(Path(str(_PACKAGE / name)) for name in names)

    def relations(self, *, deep: bool = False) -> dict[str, str]:
        """Its relation and those it reads; `deep` cuts before it collects."""
        return {
            "gold": sql("gold"),
            "transactions": sql("transactions"),
            "recent": sql("recent") if deep else "SELECT *, 0 AS made FROM transactions",
            self.name: sql(self.name),
        }

    def commands(self, on_conflict: OnConflict, *, deep: bool) -> str:
        """The query whose rows are an entity's shard, keys and ready commands."""
        commands = sql(f"commands/{self.name}.{on_conflict}")
        return over(self.relations(deep=deep), f"SELECT shard, keys, commands FROM (\n{commands})")

    def parameters(self) -> dict[str, str]:
        """Key templates under the names the SQL knows them by, the entity column and the guard."""
        templates = {key.name: key.template for key in self.keys}
        return {**templates, "entity": self.id, "script": self.guard_sha}


CARDS = Entity(
    "cards",
    "card_id",
    keys=(CARD_HISTORY, CARD_SEQ, CARD_SEEDED, CARD_LOCATION, CARD_LAST_TS),
    replies=6,
    entity_bytes=150,
    row_bytes=90,
)
CUSTOMERS = Entity("customers", "customer_id", keys=(CUSTOMER_STATS,), replies=1, entity_bytes=100, row_bytes=16)

ENTITIES = (CARDS, CUSTOMERS)
