"""A declared feature: keys that the operator's configuration describes, beside the standard features."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, FilePath, PrivateAttr, model_validator

from feature_seed.features.declared.entry import Condition, Entry, Expression, Order

# A hash and a string have aggregates, the others expressions over a row.
KINDS = ("hash", "string", "list", "zset", "set")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _seconds(duration: object) -> int:
    """A duration with its unit, `60s`, `10m`, `24h`, `30d` or `2w`, in seconds."""
    found = re.fullmatch(r"([1-9]\d{0,6})([smhdw])", str(duration))
    if not found:
        raise ValueError(f"{duration!r} is no duration: give a whole number with s, m, h, d or w, as in 24h")
    return int(found[1]) * _UNITS[found[2]]


Duration = Annotated[int, BeforeValidator(_seconds)]


class Latest(Entry):
    """What a list has: the latest rows of an entity."""

    member: Expression = Field(description="member: amount")
    length: int = Field(default=10, ge=1, le=1000, description="length: 10, a whole number from 1 to 1000")
    order: Order = Field(default="oldest_first", description="order: newest_first, or order: oldest_first")


class Scored(Entry):
    """What a zset has: every row of an entity."""

    member: Expression = Field(description="member: transaction_id")
    score: Expression = Field(description="score: toUnixTimestamp(timestamp)")


class Declared(Entry):
    """A feature of the rows of gold that have the same values in the key's columns. It has one of KINDS.

    Attributes:
        key: the key's template, with columns of gold in braces: `user:{customer_id}:merchant:{merchant_id}`.
        window: how long before the watermark rows count, in seconds; None for all rows.
        where: a condition on a row; '' for all rows.
        expire: how long after the entity's newest row in the window the key expires, in seconds. Without `expire`
            the key expires after the window, when no row is left. Without a window it does not expire.
        on_conflict: `keep` leaves a key that exists as it is. `load` does what the kind's rule says.
        select: the file of a SELECT over `transactions`, the usable rows. Expressions see the rows of this SELECT
            instead. It yields the key's columns, `timestamp`, and what the expressions name.
    """

    key: str = Field(
        pattern=r"^[^{}]*(\{\w+\}[^{}]*)+$",
        description="key: 'merch:{merchant_id}:agg', with columns of gold in braces",
    )
    hash: dict[Annotated[str, Field(min_length=1)], Expression] | None = Field(
        default=None, min_length=1, description="hash: {count: count(), mean: avg(amount)}"
    )
    string: Expression | None = Field(default=None, description="string: sum(amount)")
    list: Latest | None = Field(default=None, description="list: {member: amount, length: 10, order: newest_first}")
    zset: Scored | None = Field(
        default=None, description="zset: {member: transaction_id, score: toUnixTimestamp(timestamp)}"
    )
    set: Expression | None = Field(default=None, description="set: merchant_id")
    window: Duration | None = Field(default=None, description="window: 24h")
    where: Condition = Field(default="", description="where: is_fraud = 0")
    expire: Duration | None = Field(default=None, description="expire: 2h")
    on_conflict: Literal["load", "keep"] = Field(default="load", description="on_conflict: keep, or on_conflict: load")
    select: FilePath | None = Field(default=None, description="select: device.sql, a file that is there")

    _name: str = PrivateAttr("")

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> "Declared":
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise ValueError(f"a feature needs one of {', '.join(KINDS)}")
        return self

    def called(self, name: str) -> "Declared":
        """Give the feature its name, which is the asset's."""
        self._name = name
        return self

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def expressions(self) -> Mapping[str, str]:
        """The expressions of a hash by field; of another kind the `value`, or the `member` and the `score`."""
        content: Any = getattr(self, self.kind)
        if isinstance(content, Entry):
            return content.model_dump(include={"member", "score"})
        return content if self.hash else {"value" if self.string else "member": content}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the key names, each once."""
        return tuple(dict.fromkeys(re.findall(r"{(\w+)}", self.key)))

    @property
    def lifetime(self) -> int | None:
        """After how many seconds the key expires, counted from the entity's newest row in the window."""
        return self.window if self.expire is None else self.expire

    @property
    def selected(self) -> str:
        """The text of the file of `select`."""
        return self.select.read_text() if self.select else ""
