"""A declared feature: keys that the operator's configuration describes, beside the standard features."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from feature_seed.errors import ConfigurationError
from feature_seed.sql import balanced

Order = Literal["oldest_first", "newest_first"]

# The kinds of keys, and the right form of each. A hash and a string have aggregates, the others expressions over a row.
FORMS = {
    "hash": "hash: {count: count(), mean: avg(amount)}",
    "string": "string: sum(amount)",
    "list": "list: {member: amount, length: 10, order: newest_first}",
    "zset": "zset: {member: transaction_id, score: toUnixTimestamp(timestamp)}",
    "set": "set: merchant_id",
}

DURATION = r"([1-9]\d{0,6})([smhdw])"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class Declared:
    """A feature of the rows of gold that have the same values in the key's columns.

    Attributes:
        name: of the asset.
        key: the key's template, with columns of gold in braces: `user:{customer_id}:merchant:{merchant_id}`.
        kind: one of FORMS.
        expressions: of a hash by field; of the others the `value`, or the `member` and the `score`.
        length, order: of a list, which has the latest rows.
        window: how long before the watermark rows count, in seconds; None for all rows.
        where: a condition on a row; '' for all rows.
        expire: how long after the entity's newest row in the window the key expires, in seconds. Without it that is the
            window, after which no row is left; without a window the key does not expire.
        on_conflict: `keep` leaves a key that exists as it is. `load` does what the kind's rule says.
        select: the file of a SELECT over `transactions`, the usable rows. Expressions see its rows in place of them: it
            yields the key's columns, `timestamp`, and what they name.
    """

    name: str
    key: str
    kind: str
    expressions: Mapping[str, str]
    length: int = 10
    order: Order = "oldest_first"
    window: int | None = None
    where: str = ""
    expire: int | None = None
    on_conflict: Literal["load", "keep"] = "load"
    select: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*", self.name):
            self._refuse("this is no name of a feature: give letters, digits and _")
        named = {"hash": self.expressions.keys(), "string": {"value"}, "zset": {"member", "score"}}
        right = self.expressions and self.expressions.keys() == named.get(self.kind, {"member"})
        if not right or not all(isinstance(one, str) and one and name for name, one in self.expressions.items()):
            self._refuse(f"the {self.kind} cannot be read: write {FORMS[self.kind]}")
        for text in (*self.expressions.values(), self.where):
            if not balanced(text):
                self._refuse(f"a parenthesis, a bracket or a quote is open in {text}: close it")
        if not self.columns or set("{}") & set(re.sub(r"{\w+}", "", self.key)):
            self._refuse(f"the key {self.key!r} names no column of gold in braces: key: 'merch:{{merchant_id}}:agg'")
        if self.order not in ("oldest_first", "newest_first") or self.length not in range(1, 1001):
            self._refuse(
                f"length is a whole number from 1 to 1000, order is newest_first or oldest_first: {FORMS['list']}"
            )
        if self.on_conflict not in ("load", "keep"):
            self._refuse(f"on_conflict is {self.on_conflict!r}: choose load or keep")
        if self.select and not Path(self.select).is_file():
            self._refuse(f"select names {self.select}, and there is no such file")

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any]) -> "Declared":
        """A feature as a configuration writes it: `{key: 'card:{card_id}:merchants', set: merchant_id, window: 24h}`.

        Raises:
            ConfigurationError: naming the feature, with the right form.
        """
        kinds = [kind for kind in FORMS if kind in entry]
        if len(kinds) != 1 or "key" not in entry:
            raise ConfigurationError(
                f"{name} needs a key and one of {', '.join(FORMS)}: key: 'last:{{card_id}}', string: max(amount)"
            )
        kind, content = kinds[0], entry[kinds[0]]
        alone = {"string": "value", "set": "member"}.get(kind, "")
        parts = dict(content) if isinstance(content, Mapping) else {alone: content}
        own = {one: parts.pop(one) for one in ("length", "order") if kind == "list" and one in parts}
        accepted = [
            one.name for one in fields(cls) if one.name not in ("name", "kind", "expressions", "length", "order")
        ]
        if unknown := sorted(entry.keys() - {*accepted, kind}):
            raise ConfigurationError(f"{name}: {', '.join(unknown)} is unknown: choose from {', '.join(accepted)}")
        try:
            durations = {one: seconds(entry[one]) for one in ("window", "expire") if one in entry}
        except ConfigurationError as e:
            raise ConfigurationError(f"{name}: {e}") from e
        rest: Any = {one: str(entry[one]) for one in ("where", "on_conflict", "select") if one in entry}
        return cls(name, str(entry["key"]), kind, parts, **own, **durations, **rest)

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
        return Path(self.select).read_text() if self.select else ""

    def _refuse(self, text: str) -> None:
        raise ConfigurationError(f"{self.name}: {text}")


def seconds(duration: str) -> int:
    """A duration with its unit, `60s`, `10m`, `24h`, `30d` or `2w`, in seconds."""
    found = re.fullmatch(DURATION, str(duration))
    if not found:
        raise ConfigurationError(f"{duration!r} is no duration: give a whole number with s, m, h, d or w, as in 24h")
    return int(found[1]) * _UNITS[found[2]]
