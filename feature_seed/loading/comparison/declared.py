"""The comparison of a declared feature in gold and in the store."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

from feature_seed.errors import printable
from feature_seed.features.declared.declared import Declared
from feature_seed.features.declared.entity import as_text, hidden, names_in
from feature_seed.features.feature import Feature
from feature_seed.loading.comparison.comparison import Comparison, Verdict
from feature_seed.loading.comparison.scan import FORMATS, HASHES, Found, Row, sample_share, slice_of
from feature_seed.sql import columns_called, literal, sql

# Columns that the relation of usable rows adds. Gold may have columns of these names as well.
_OWN = re.compile(r"(?<!\.)\b(card|customer|number|category|paid|micros|placeless|latitude|longitude)\b")


@dataclass(frozen=True, kw_only=True)
class DeclaredComparison(Comparison):
    """A declared feature in the shards of a run. What is united may hold more than gold; the rest is gold's alone."""

    declared: Declared

    def scans(self, run_id: str, size: int | None, scanned: Mapping[str, Set[bytes]]) -> Iterator[Mapping[str, Found]]:
        text = sql("loading/comparison/declared_entities").format(entities=self._select("0", "0"))
        rows = {f"{row['shard']:02x}": row for row in self._over_rows(text, run_id="", first=0, last=HASHES - 1)}
        entities = {shard: rows[shard]["entities"] if shard in rows else 0 for shard in self.shards}
        share, slices = sample_share(size, sum(entities.values()), sum(row["transactions"] for row in rows.values()))
        (feature,), select = self.features, self._select(*_content(self.declared))
        for number in range(slices):
            some = self._over_rows(select, run_id=run_id, **slice_of(share, number, slices))
            yield {feature.entity.name: Found(entities, frozenset(), some)}

    def scanned_keys(self, feature: Feature, limit: int) -> dict[bytes, bytes]:
        """No keys: entities leave a window, and their keys stay until they expire."""
        return {}

    def _over_rows(self, select: str, **parameters: Any) -> list[dict[str, Any]]:
        others = columns_called(names_in([self.declared]))
        usable = hidden(_OWN, sql("loading/comparison/usable"), others)
        rows = sql("loading/comparison/declared_rows").format(others=others)
        query = f"WITH usable AS ({usable}), transactions AS ({rows}) {select}"
        asked = {**self._parameters, "entity": self.declared.columns[0], **parameters}
        return list(self.gold.query(self.warehouse.mapping.over(query), asked, query_formats=FORMATS).named_results())

    def _select(self, content: str, united: str) -> str:
        one = self.declared
        own = "(SELECT *, toUnixTimestamp64Micro(toDateTime64(timestamp, 6, 'UTC')) AS _micros FROM (\n{}\n))"
        window = f"_micros > _until - {one.window * 1_000_000} AND " if one.window else ""
        return sql("loading/comparison/declared").format(
            content=content,
            united=united,
            keys=", ".join(f"ifNull(toString({column}), '')" for column in one.columns),
            source=own.format(one.selected) if one.select else "transactions",
            condition=f"{window}ifNull(({one.where or 1}), 0)",
            lifetime=(one.lifetime or 10**10) * 1_000_000,
        )

    def _looked_at(self, feature: Feature, rows: Sequence[Row]) -> Iterator[Verdict]:
        before = self._now()
        with self.store.pipeline(transaction=False) as pipeline:
            read = {
                "hash": pipeline.hgetall,
                "string": pipeline.get,
                "list": partial(pipeline.lrange, start=0, end=-1),
                "zset": partial(pipeline.zrange, start=0, end=-1, withscores=True),
                "set": pipeline.smembers,
            }[self.declared.kind]
            for row in rows:
                read(self._key(row["ids"]))
                pipeline.pttl(self._key(row["ids"]))
            replies = pipeline.execute(raise_on_error=False)
        after = self._now()
        for row, reply, left in zip(rows, replies[::2], replies[1::2], strict=True):
            yield self._verdict(row, reply, (before + left - 1, after + left + 1), after)

    def _key(self, ids: Sequence[bytes]) -> bytes:
        texts = {b"{%b}" % name.encode(): one for name, one in zip(self.declared.columns, ids, strict=True)}
        tags = self.layout.key_tags
        return re.sub(rb"{\w+}", lambda m: b"{%b}" % texts[m[0]] if tags else texts[m[0]], self.declared.key.encode())

    def _verdict(self, row: Mapping[str, Any], reply: Any, ends: tuple[int, int], now: int) -> Verdict:
        """`ends` are the times between which the key expires. `now` is a time after the key was read."""
        one, united = self.declared, bool(row["united"])
        end = row["newest"] // 1000 + one.lifetime * 1000 if one.lifetime else None
        if end is not None and end <= now:
            return Verdict(live=False, unrecorded=False, difference="")
        if isinstance(reply, Exception):
            return Verdict(live=False, unrecorded=False, difference=f"{printable(self._key(row['ids']))}: {reply}")
        gold, store = _of_gold(one, row["content"]), _of_store(one.kind, reply)
        beyond = store.keys() - gold.keys() if one.kind != "hash" else set()
        wrong = next((name for name in gold if not _same(gold[name], store.get(name), united)), None)
        text = ""
        if wrong is not None:
            text = f"{_shown(wrong)}: gold has {_shown(gold[wrong])}, the store {_shown(store.get(wrong))}"
        elif beyond and not united:
            text = f"{_shown(min(beyond))}: gold has nothing, the store {_shown(store[min(beyond)])}"
        elif gold and end and not (ends[0] <= end <= ends[1] or (united and end < ends[1])):
            text = f"expires at {ends[1]} and not at {end}, in Unix milliseconds"
        kept = one.on_conflict == "keep" and bool(store)
        difference = f"{printable(self._key(row['ids']))} {text}" if text and not kept else ""
        return Verdict(live=bool(beyond or (kept and text)), unrecorded=False, difference=difference)


def _content(one: Declared) -> tuple[str, str]:
    """What gold makes of an entity's rows: pairs of names and values, in order of time; whether the key is united."""
    if one.kind in ("hash", "string"):
        pairs = (f"({literal(name)}, {as_text(text)})" for name, text in one.expressions.items())
        return f"[{', '.join(pairs)}]", "0"
    score = f"toFloat64({one.expressions.get('score', 1)})"
    by = "transaction_id" if one.kind == "list" else score
    united = {"list": "0", "set": "1"}.get(one.kind, f"countIf(abs({score} - _micros / 1e6) > 1) = 0")
    rows = f"arraySort(groupArray((_micros, {by}, {as_text(one.expressions['member'])})))"
    return f"arrayMap(row -> (row.3, row.2), {rows})", united


def _of_gold(one: Declared, pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    if one.kind == "string":
        return {b"": pairs[0][1]}
    known = [(name, value) for name, value in pairs if name is not None]
    if one.list:
        latest = [name for name, _ in known[-one.list.length :]]
        return dict(enumerate(latest if one.list.order == "oldest_first" else latest[::-1]))
    return {name: value for name, value in known if value is not None or one.kind == "hash"}


def _of_store(kind: str, reply: Any) -> dict[Any, Any]:
    if kind == "string":
        return {} if reply is None else {b"": reply}
    if kind == "list":
        return dict(enumerate(reply))
    return dict.fromkeys(reply, 1.0) if kind == "set" else dict(reply)


def _same(gold: Any, store: Any, united: bool) -> bool:
    """Numbers may differ in their last digits, since sums depend on the order. A united score may be greater."""
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
