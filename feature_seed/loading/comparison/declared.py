"""The comparison of a declared feature in gold and in the store."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from feature_seed.errors import printable
from feature_seed.features.declared import Declared, Hash, List, Set, String, ZSet
from feature_seed.features.declared.entity import hidden, names_in
from feature_seed.loading.comparison.comparison import Comparison, Verdict
from feature_seed.sql import columns_called, sql
from feature_seed.store.cluster import primaries

# What the relation of usable rows calls its own, which gold may have as well.
_OWN = re.compile(r"(?<!\.)\b(id|number|category|paid|micros|placeless|latitude|longitude)\b")

_HASHES = 2**64

# The content of a key: the values by field, member or place in the list; a string has one without a name.
Content = Mapping[bytes | int, Any]


@dataclass(frozen=True, kw_only=True)
class DeclaredComparison(Comparison):
    """A declared feature in the shards of a run. What is united may hold more than gold; the rest is gold's alone."""

    declared: Declared

    def ask(self, select: str, relations: Sequence[str], **parameters: Any) -> list[dict[str, Any]]:
        """How many entities each shard has."""
        text = sql("loading/comparison/declared_entities").format(entities=self._select("0"))
        return self._rows(text, run_id="", first=0, last=_HASHES - 1)

    def scanned_keys(self, limit: int) -> dict[bytes, bytes]:
        """None: a window leaves entities behind, and their keys stay until they expire."""
        return {}

    def sample(self, run_id: str, share: float, slices: int) -> Iterator[list[dict[str, Any]]]:
        end = max(int(share * _HASHES), 1)
        for number in range(slices):
            first, last = end * number // slices, end * (number + 1) // slices - 1
            yield self._rows(self._select(_content(self.declared)), run_id=run_id, first=first, last=last)

    def _rows(self, select: str, **parameters: Any) -> list[dict[str, Any]]:
        others = columns_called(names_in([self.declared]))
        ids = "toString(gold.card_id) AS _card, toString(gold.customer_id) AS _customer,"
        usable = hidden(_OWN, sql("loading/comparison/usable")).replace("SELECT\n", f"SELECT {others}{ids}\n", 1)
        rows = sql("loading/comparison/declared_rows").format(others=others)
        query = f"WITH usable AS ({usable}), transactions AS ({rows}) {select}"
        common = {"entity": self.declared.columns[0], "shards": [int(shard, 16) for shard in self.shards]}
        found = self.gold.query(
            self.mapping.over(query),
            parameters={**self.table, "shard_count": self.layout.shard_count, **common, **parameters},
            query_formats={"String": "bytes", "Tuple": "tuple"},
        )
        return list(found.named_results())

    def _select(self, content: str) -> str:
        one = self.declared
        own = "SELECT *, toUnixTimestamp64Micro(toDateTime64(timestamp, 6, 'UTC')) AS _micros FROM (\n{}\n)"
        window = f"_micros > _until - {one.window * 1_000_000} AND " if one.window else ""
        return sql("loading/comparison/declared").format(
            content=content,
            keys=", ".join(f"ifNull(toString({column}), '')" for column in one.columns),
            source=f"({own.format(one.selected)})" if one.select else "transactions",
            condition=f"{window}ifNull(({one.where or 1}), 0)",
            lifetime=(one.lifetime or 10**10) * 1_000_000,
        )

    def _looked_at(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Verdict]:
        before = self._now()
        with self.store.pipeline(transaction=False) as pipeline:
            read = {
                "hash": pipeline.hgetall,
                "string": pipeline.get,
                "list": partial(pipeline.lrange, start=0, end=-1),
                "zset": partial(pipeline.zrange, start=0, end=-1, withscores=True),
                "set": pipeline.smembers,
            }[self.declared.type]
            for row in rows:
                read(self._key(row["ids"]))
                pipeline.pttl(self._key(row["ids"]))
            replies = pipeline.execute(raise_on_error=False)
        after = self._now()
        for row, found, left in zip(rows, replies[::2], replies[1::2], strict=True):
            yield self._verdict(row, found, (before + left, after + left), after)

    def _key(self, ids: Sequence[bytes]) -> bytes:
        names = dict(zip(self.declared.columns, ids, strict=True))
        parts = re.split(r"{(\w+)}", self.declared.key)
        texts = [b"{%b}" % names[part] if self.layout.key_tags else names[part] for part in parts[1::2]]
        return b"".join(one for pair in zip(map(str.encode, parts[::2]), [*texts, b""], strict=True) for one in pair)

    def _now(self) -> int:
        """The store's clock, in milliseconds."""
        seconds, micros = primaries(self.store)[0].time()  # type: ignore[misc]
        return seconds * 1000 + micros // 1000

    def _verdict(self, row: Mapping[str, Any], reply: Any, ends: tuple[int, int], now: int) -> Verdict:
        """`ends` is between when the key expires, by how long it had left."""
        one, key = self.declared, printable(self._key(row["ids"]))
        end = row["newest"] // 1000 + one.lifetime * 1000 if one.lifetime else None
        if end is not None and end <= now:
            return Verdict(live=False, unrecorded=False, difference="")
        if isinstance(reply, Exception):
            return Verdict(live=False, unrecorded=False, difference=f"{key} cannot be read: {reply}")
        gold, store = _of_gold(one, row["content"]), _of_store(one, reply)
        united = one.type == "set" or (one.type == "zset" and all(abs(s - m / 1e6) <= 1 for m, s, _ in row["content"]))
        beyond = store.keys() - gold.keys() if one.type != "hash" else set()
        wrong = next((name for name in gold if not _same(gold[name], store.get(name), united)), None)
        text = ""
        if wrong is not None:
            text = f"{key} {_shown(wrong)}: gold has {_shown(gold[wrong])}, the store {_shown(store.get(wrong))}"
        elif beyond and not united:
            text = f"{key} has {_shown(min(beyond))}, which gold has not"
        elif gold and end and not (ends[0] - 1 <= end <= ends[1] + 1 or (united and end < ends[1])):
            text = f"{key} expires at {ends[1]} and not at {end}, in Unix milliseconds"
        kept = one.on_conflict == "keep" and bool(store)
        return Verdict(live=bool(beyond or (kept and text)), unrecorded=False, difference="" if kept else text)


def _content(one: Declared) -> str:
    """A feature of an entity, as an expression over its rows."""
    if isinstance(one.kind, Hash | String):
        return f"[{', '.join(f'toNullable(toString({text}))' for text in one.kind.expressions)}]"
    member = f"toNullable(toString({one.kind.member}))"
    between = {
        ZSet: f"toFloat64({one.kind.score})" if isinstance(one.kind, ZSet) else "",
        Set: "0",
        List: "transaction_id",
    }
    return f"groupArray((_micros, {between[type(one.kind)]}, {member}))"


def _of_gold(one: Declared, found: Sequence[Any]) -> Content:
    if isinstance(one.kind, Hash):
        return dict(zip(map(str.encode, one.kind.fields), found, strict=True))
    if isinstance(one.kind, String):
        return {b"": found[0]}
    rows = sorted(row for row in found if row[2] is not None and row[1] is not None)
    if isinstance(one.kind, List):
        latest = [member for _, _, member in rows[-one.kind.length :]]
        return dict(enumerate(latest if one.kind.order == "oldest_first" else latest[::-1]))
    return {member: score if one.type == "zset" else 1 for _, score, member in rows}


def _of_store(one: Declared, reply: Any) -> Content:
    if one.type in ("hash", "zset"):
        return dict(reply)
    if one.type == "string":
        return {} if reply is None else {b"": reply}
    return dict(enumerate(reply)) if one.type == "list" else dict.fromkeys(reply, 1)


def _same(gold: Any, store: Any, united: bool) -> bool:
    """Numbers may differ in their last digits, since sums depend on the order; what is united may be later."""
    if gold is None or gold == b"nan":
        return store is None
    if gold == store or store is None:
        return store is not None
    try:
        one, other = float(gold), float(store)
    except ValueError:
        return False
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9) or (united and other > one)


def _shown(value: Any) -> str:
    return "nothing" if value is None else printable(value) if isinstance(value, bytes) else str(value)
