"""How declared features are loaded: one pass over gold for all features whose keys have the same columns."""

import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from feature_seed.contract import CARD_HISTORY, Key
from feature_seed.environment import MOST_SHARDS
from feature_seed.features.declared.declared import Declared
from feature_seed.features.entity import Entity
from feature_seed.features.feature import Feature, Value
from feature_seed.sql import columns_called, filtered, literal, lua, over, sha_of, sql, words

_CONTRACT = {*CARD_HISTORY.fields, "card_id", "customer_id"}

# Columns that our relations add. Gold may have columns of these names as well.
_OWN = re.compile(r"\b(lat|lon|at_zero|out_of_range|valid)\b")

_COMMANDS = {"hash": "HSET", "string": "SET", "list": "RPUSH", "zset": "ZADD", "set": "SADD"}


@dataclass(frozen=True)
class DeclaredEntity(Entity):
    """The features whose keys have the same columns, in the same order. An entity is a combination of their values."""

    features: tuple[Declared, ...] = ()

    @classmethod
    def of(cls, *features: Declared) -> "DeclaredEntity":
        first = features[0]
        name = "_".join(("of", *first.columns, *([first.name] if first.select else [])))
        return cls(name, "_key_1", (), 1, entity_bytes=200 + 100 * len(features), row_bytes=100, features=features)

    @classmethod
    def all_of(cls, features: Iterable[Declared]) -> list["DeclaredEntity"]:
        """As few as there can be: one for all features with the same columns and the same SELECT."""
        groups: dict[tuple[object, ...], list[Declared]] = {}
        for feature in features:
            groups.setdefault((feature.columns, feature.select), []).append(feature)
        return [cls.of(*group) for group in groups.values()]

    @cached_property
    def guard(self) -> str:
        return lua("features/declared/load")

    def parameters(self, **layout: int) -> dict[str, str | int]:
        """The guard and the layout: names of keys are in the query, and there is no digest."""
        return {**layout, "script": sha_of(self.guard)}

    @property
    def sources(self) -> tuple[Path, ...]:
        return tuple(sorted(Path(__file__).parent.glob("*.*")))

    @property
    def collects(self) -> int:
        """How many features collect rows."""
        return sum(one.kind in ("list", "zset", "set") for one in self.features)

    def feature(self, one: Declared) -> Feature:
        """One of these features, as its asset and its checks have it."""
        counted = f", of the {one.window:,} seconds before the watermark" if one.window else ""
        return Feature(
            one.name,
            f"A {one.kind} that the configuration declares{counted}.",
            self,
            keys=(Key(one.name, one.key, one.kind.upper(), tuple(one.expressions) if one.kind == "hash" else ()),),
            values={name: Value("string", "", expression) for name, expression in one.expressions.items()},
        )

    def counted_at(self, feature: str) -> int:
        """What is added to the number of a shard where keys of this feature are counted. A key's first part counts."""
        return MOST_SHARDS * [one.name for one in self.features].index(feature)

    @property
    def _windows(self) -> list[tuple[int | None, str]]:
        """The windows and conditions of the features, each once."""
        return list(dict.fromkeys((one.window, one.where) for one in self.features))

    @property
    def _keys(self) -> dict[str, str]:
        """The key's columns, and what their texts are called."""
        return {column: f"_key_{i}" for i, column in enumerate(self.features[0].columns, 1)}

    def rows(self, gold: str) -> dict[str, str]:
        """The relations up to `chosen`: the rows that the features read. `gold` is the warehouse's."""
        others, select = columns_called(names_in(self.features)), self.features[0].selected
        keys = [f"ifNull(toString({column}), '') AS {key}" for column, key in self._keys.items()]
        windows = [f"{_seen(*one)} AS _in_{i}" for i, one in enumerate(self._windows)]
        return {
            "gold": hidden(_OWN, gold, others),
            "transactions": sql("features/declared/transactions").format(others=others),
            **({"selected": sql("features/declared/selected").format(select=select)} if select else {}),
            "chosen": sql("features/declared/chosen").format(
                columns=",\n    ".join([*keys, *windows]),
                source="selected" if select else "transactions",
                named=" AND ".join(f"{key} != ''" for key in self._keys.values()),
                read=" OR ".join(f"_in_{i}" for i, _ in enumerate(windows)),
            ),
        }

    def command_query(self, gold: str, aggregates: Set[str]) -> str:
        """The query whose rows are a key's counter, name and ready command. An entity's shard is that of its first key.

        `aggregates` are the names of ClickHouse's aggregate functions.
        """
        keys = ", ".join(self._keys.values())
        newest = [f"maxOrNullIf(_time, _in_{i}) AS _newest_{i}" for i, _ in enumerate(self._windows)]
        values = [text for i, one in enumerate(self.features) for text in self._collected(i, one, aggregates)]
        commands = [
            sql("features/declared/command").format(
                number=i, counted_at=self.counted_at(one.name), command=_COMMANDS[one.kind]
            )
            for i, one in enumerate(self.features)
        ]
        prepared = ",\n".join(self._prepared(i, one) for i, one in enumerate(self.features))
        relations = {
            **self.rows(gold),
            "collected": sql("features/declared/collected").format(
                columns=",\n    ".join([keys, *newest, *values]), keys=keys
            ),
            "prepared": sql("features/declared/prepared").format(features=prepared),
        }
        return over(relations, sql("features/declared/commands").format(commands=",\n".join(commands)))

    def _window(self, feature: Declared) -> int:
        return self._windows.index((feature.window, feature.where))

    def _collected(self, number: int, feature: Declared, aggregates: Set[str]) -> Iterator[str]:
        """The values of an entity, or the rows that they are made of."""
        seen = f"_in_{self._window(feature)}"
        if feature.kind in ("hash", "string"):
            for i, one in enumerate(feature.expressions.values()):
                of_rows = filtered(one, seen, aggregates) if self._windows[1:] else one
                yield f"nullIf({as_text(of_rows)}, 'nan') AS _value_{number}_{i}"
            return
        member = as_text(feature.expressions["member"])
        there, text = f"{seen} AND isNotNull({member})", f"assumeNotNull({member})"
        if feature.kind == "set":
            yield f"groupUniqArrayIf({text}, {there}) AS _rows_{number}"
            return
        by = "transaction_id"
        if feature.kind == "zset":
            score = f"toFloat64({feature.expressions['score']})"
            there, by = f"{there} AND ifNull(isFinite({score}), 0)", f"assumeNotNull({score})"
        yield f"groupArrayIf((_time, {by}, {text}), {there}) AS _rows_{number}"

    def _prepared(self, number: int, feature: Declared) -> str:
        newest, cut = f"_newest_{self._window(feature)}", "''"
        end, due = "''", f"isNotNull({newest})"
        if feature.lifetime:
            end = f"toString(intDiv(assumeNotNull({newest}), 1000) + {feature.lifetime * 1000})"
            due = f"ifNull({newest} > {{until:Int64}} - {feature.lifetime * 1_000_000}, 0)"
        if feature.window and feature.kind == "zset":
            before = f"({{until:Int64}} - {feature.window * 1_000_000}) / 1000000"
            cut = f"if(_rule_{number} = 'unite', toString({before}), '')"
        absent, arguments = _arguments(number, feature)
        texts = {"key": self._name(feature), "rule": _rule(number, feature), "end": end, "due": due, "cut": cut}
        return sql("features/declared/feature").format(number=number, absent=absent, arguments=arguments, **texts)

    def _name(self, feature: Declared) -> str:
        """The name of a feature's key, as expressions over the texts of its columns."""
        parts = re.split(r"{(\w+)}", feature.key)
        return ", ".join(f"tagged({self._keys[one]})" if i % 2 else literal(one) for i, one in enumerate(parts))


def names_in(features: Iterable[Declared]) -> set[str]:
    """Words that may be columns of gold beside the contract's. Keywords and names of lambdas are among them."""
    texts = [text for one in features for text in (*one.columns, *one.expressions.values(), one.where, one.selected)]
    return {word for text in texts for word in words(text)} - _CONTRACT


def hidden(own: re.Pattern[str], relation: str, columns: str) -> str:
    """A relation with these columns before its own.

    The names that the relation adds begin with _, so that a column of gold is not taken for one of them.
    """
    return own.sub(r"_\1", relation).replace("SELECT\n", f"SELECT\n    {columns}", 1)


def as_text(expression: str) -> str:
    return f"CAST(toString({expression}), 'Nullable(String)')"


def _seen(window: int | None, where: str) -> str:
    parts = [f"_time > {{until:Int64}} - {window * 1_000_000}"] if window else []
    parts += [f"({where})"] if where else []
    return f"ifNull({' AND '.join(parts)}, 0)" if parts else "toUInt8(1)"


def _rule(number: int, feature: Declared) -> str:
    """What is done with a key that exists: a zset is united where its scores are Unix seconds."""
    if feature.on_conflict == "keep":
        return "'keep'"
    seconds = f"arrayAll(row -> abs(row.2 - row.1 / 1000000) <= 1, _rows_{number})"
    return {"set": "'unite'", "zset": f"if({seconds}, 'unite', 'replace')"}.get(feature.kind, "'replace'")


def _arguments(number: int, feature: Declared) -> tuple[str, str]:
    """The fields without a value, and the arguments of the command that writes the others."""
    rows, none = f"_rows_{number}", "emptyArrayString()"
    if feature.list:
        latest = f"arrayMap(row -> row.3, arraySlice(arrayReverseSort({rows}), 1, {feature.list.length}))"
        return none, latest if feature.list.order == "newest_first" else f"arrayReverse({latest})"
    if feature.kind == "zset":
        return none, f"arrayFlatten(arrayMap(row -> [toString(row.2), row.3], arraySort({rows})))"
    if feature.kind == "set":
        return none, f"arraySort({rows})"
    values = {literal(field): f"_value_{number}_{i}" for i, field in enumerate(feature.expressions)}
    named = feature.kind == "hash"
    there = (f"if(isNull({v}), [], [{f'{field}, ' if named else ''}assumeNotNull({v})])" for field, v in values.items())
    missing = (f"if(isNull({v}), [{field}], [])" for field, v in values.items() if named)
    return f"arrayConcat({', '.join([none, *missing])})", f"arrayConcat({', '.join([none, *there])})"
