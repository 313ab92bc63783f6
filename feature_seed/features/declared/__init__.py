"""A declared feature: keys that the operator's configuration describes, beside the standard features."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from feature_seed.errors import ConfigurationError
from feature_seed.sql import balanced

Order = Literal["oldest_first", "newest_first"]

# What a load does with a key that exists: what the kind's rule says, or nothing.
Conflict = Literal["load", "keep"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

LONGEST_LIST = 1000

_ENTRIES = ("key", "window", "where", "expire", "on_conflict", "select")


@dataclass(frozen=True)
class Hash:
    """A HASH: an aggregate expression for each field. A field whose value is NULL is absent."""

    fields: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.fields or not all(isinstance(one, str) and one for one in self.fields.values()):
            raise ConfigurationError("a hash needs fields: hash: {count: count(), mean: avg(amount)}")

    @property
    def expressions(self) -> tuple[str, ...]:
        return tuple(self.fields.values())


@dataclass(frozen=True)
class String:
    """A STRING: one aggregate expression."""

    value: str

    def __post_init__(self) -> None:
        if not self.value:
            raise ConfigurationError("a string needs an aggregate expression: string: sum(amount)")

    @property
    def expressions(self) -> tuple[str, ...]:
        return (self.value,)


@dataclass(frozen=True)
class List:
    """A LIST: `member`, an expression over one row, of the entity's `length` latest rows."""

    member: str
    length: int = 10
    order: Order = "oldest_first"

    def __post_init__(self) -> None:
        if not self.member or self.order not in ("oldest_first", "newest_first"):
            raise ConfigurationError("a list needs a member: list: {member: amount, length: 10, order: newest_first}")
        if not isinstance(self.length, int) or not 1 <= self.length <= LONGEST_LIST:
            raise ConfigurationError(f"length is {self.length}: give a whole number from 1 to {LONGEST_LIST}")

    @property
    def expressions(self) -> tuple[str, ...]:
        return (self.member,)


@dataclass(frozen=True)
class ZSet:
    """A ZSET: `member` and `score`, expressions over one row. Of a member that is there twice the latest row counts."""

    member: str
    score: str

    def __post_init__(self) -> None:
        if not (self.member and self.score):
            raise ConfigurationError(
                "a zset needs a member and a score: zset: {member: transaction_id, score: toUnixTimestamp(timestamp)}"
            )

    @property
    def expressions(self) -> tuple[str, ...]:
        return (self.member, self.score)


@dataclass(frozen=True)
class Set:
    """A SET: `member`, an expression over one row."""

    member: str

    def __post_init__(self) -> None:
        if not self.member:
            raise ConfigurationError("a set needs a member: set: merchant_id")

    @property
    def expressions(self) -> tuple[str, ...]:
        return (self.member,)


Kind = Hash | String | List | ZSet | Set

KINDS = {"hash": Hash, "string": String, "list": List, "zset": ZSet, "set": Set}


@dataclass(frozen=True)
class Declared:
    """A feature of the rows of gold that have the same values in the key's columns.

    Attributes:
        name: of the asset.
        key: the key's template, with columns of gold in braces: `user:{customer_id}:merchant:{merchant_id}`.
        kind: the type of the key, and the expressions of its content.
        window: how long before the watermark rows count, in seconds; None for all rows.
        where: a condition on a row; '' for all rows.
        expire: how long after the entity's newest row in the window the key expires, in seconds. None is the window,
            since then no row of it is left; without a window the key does not expire.
        on_conflict: `keep` leaves a key that exists as it is.
        select: the file of a SELECT over `transactions`, the usable rows. Expressions see its rows in place of them: it
            yields the key's columns, `timestamp`, and what they name.
    """

    name: str
    key: str
    kind: Kind
    window: int | None = None
    where: str = ""
    expire: int | None = None
    on_conflict: Conflict = "load"
    select: str = ""
    columns: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*", self.name):
            raise ConfigurationError(f"{self.name!r} is no name of a feature: give letters, digits and _")
        literals, columns = re.split(r"{\w+}", self.key), re.findall(r"{(\w+)}", self.key)
        if not columns or set("{}") & set("".join(literals)):
            raise ConfigurationError(
                f"{self.name}: the key {self.key!r} names no column of gold in braces: key: 'merch:{{merchant_id}}:agg'"
            )
        for text in (*self.kind.expressions, self.where):
            if not balanced(text):
                raise ConfigurationError(
                    f"{self.name}: a parenthesis, a bracket or a quote is open in {text}: close it"
                )
        if self.select and not Path(self.select).is_file():
            raise ConfigurationError(f"{self.name}: select is {self.select}, and there is no such file: name one")
        if self.on_conflict not in ("load", "keep"):
            raise ConfigurationError(f"{self.name}: on_conflict is {self.on_conflict!r}: choose load or keep")
        object.__setattr__(self, "columns", tuple(dict.fromkeys(columns)))

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any]) -> "Declared":
        """A feature as a configuration file writes it: `{key: …, set: merchant_id, window: 24h}`.

        Raises:
            ConfigurationError: naming the feature, with the right form.
        """
        kinds = [kind for kind in KINDS if kind in entry]
        if len(kinds) != 1 or "key" not in entry:
            raise ConfigurationError(
                f"{name} needs a key and one of {', '.join(KINDS)}: key: 'last:{{card_id}}', string: max(amount)"
            )
        if unknown := sorted(entry.keys() - {*_ENTRIES, *kinds}):
            raise ConfigurationError(f"{name}: {', '.join(unknown)} is unknown: choose from {', '.join(_ENTRIES)}")
        try:
            kind = _kind(kinds[0], entry[kinds[0]])
            durations = {one: seconds(entry[one]) for one in ("window", "expire") if one in entry}
        except ConfigurationError as e:
            raise ConfigurationError(f"{name}: {e}") from e
        rest: Any = {one: str(entry[one]) for one in ("where", "on_conflict", "select") if one in entry}
        return cls(name, str(entry["key"]), kind, **durations, **rest)

    @property
    def type(self) -> str:
        """Of its key: `hash`, `string`, `list`, `zset` or `set`."""
        return type(self.kind).__name__.lower()

    @property
    def selected(self) -> str:
        """The text of the file of `select`."""
        return Path(self.select).read_text() if self.select else ""

    @property
    def lifetime(self) -> int | None:
        """After how many seconds the key expires, counted from the entity's newest row in the window."""
        return self.window if self.expire is None else self.expire


def seconds(duration: str) -> int:
    """A duration with its unit, `60s`, `10m`, `24h`, `30d` or `2w`, in seconds."""
    found = re.fullmatch(r"([1-9]\d{0,6})([smhdw])", str(duration))
    if not found:
        raise ConfigurationError(f"{duration!r} is no duration: give a whole number with s, m, h, d or w, as in 24h")
    return int(found[1]) * _SECONDS[found[2]]


def _kind(name: str, content: Any) -> Kind:
    """`string` and `set` are one expression, the others have named parts."""
    if name == "hash":
        return Hash(dict(content) if isinstance(content, Mapping) else {})
    if name in ("string", "set"):
        return (String if name == "string" else Set)(content if isinstance(content, str) else "")
    parts: dict[str, Any] = dict(content) if isinstance(content, Mapping) else {}
    accepted = [one.name for one in fields(KINDS[name])]
    if unknown := sorted(parts.keys() - {*accepted}):
        raise ConfigurationError(f"{', '.join(unknown)} is unknown in a {name}: choose from {', '.join(accepted)}")
    return KINDS[name](**{"member": "", **({"score": ""} if name == "zset" else {}), **parts})
