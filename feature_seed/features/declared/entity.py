"""What declared features of one entity are loaded by: one pass over gold for all that have the same key columns."""

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from feature_seed.contract import CARD_HISTORY
from feature_seed.features import declared
from feature_seed.features.declared import Declared
from feature_seed.features.entity import Entity
from feature_seed.sql import columns_called, filtered, literal, lua, over, sql

# Names by which an expression may mean a column, in backticks or not.
_WORD = re.compile(r"'(?:[^'\\]|\\.)*'|`([^`]+)`|\b([^\W\d]\w*)\b(?!\s*\()")

_CONTRACT = {*CARD_HISTORY.fields, "card_id", "customer_id"}

# What our relations call their own, which gold may have as well.
_OWN = re.compile(r"\b(lat|lon|at_zero|out_of_range|valid)\b")

# Arguments of one command. What is united comes in several, so that each holds other clients up for a few milliseconds.
# What replaces a key comes in one: Redis takes 1,048,576 arguments.
_UNITED, _WHOLE = 5000, 1_000_000

_SHARDS = 256  # at most

COMMANDS = {"hash": "HSET", "string": "SET", "list": "RPUSH", "zset": "ZADD", "set": "SADD"}


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
    def all_of(cls, features: Sequence[Declared]) -> list["DeclaredEntity"]:
        """The fewest: one for all features of the same columns, and of the same SELECT where they have one."""
        groups: dict[tuple[object, ...], list[Declared]] = {}
        for feature in features:
            groups.setdefault((feature.columns, feature.select), []).append(feature)
        return [cls.of(*group) for group in groups.values()]

    @cached_property
    def guard(self) -> str:
        return lua("features/declared/load")

    @property
    def sources(self) -> tuple[Path, ...]:
        return tuple(sorted(Path(__file__).parent.glob("*.*")))

    def counter(self, feature: str) -> int:
        """What is added to a shard where keys of this feature are counted; a key's further parts are not."""
        return _SHARDS * [one.name for one in self.features].index(feature)

    @property
    def collects(self) -> int:
        """How many features collect rows."""
        return sum(one.type in ("list", "zset", "set") for one in self.features)

    @cached_property
    def conditions(self) -> list[tuple[int | None, str]]:
        """The windows and conditions of the features, each once."""
        return list(dict.fromkeys((one.window, one.where) for one in self.features))

    def rows(self, gold: str) -> dict[str, str]:
        """The relations up to `chosen`: the rows that the features read. `gold` is the warehouse's."""
        others = columns_called(names_in(self.features))
        keys = [f"_key_{i}" for i, _ in enumerate(self.features[0].columns, 1)]
        texts = zip(keys, self.features[0].columns, strict=True)
        columns = [f"ifNull(toString({column}), '') AS {key}" for key, column in texts]
        conditions = [f"{_condition(*one)} AS _in_{i}" for i, one in enumerate(self.conditions)]
        members = [text for i, feature in enumerate(self.features) for text in self._members(i, feature)]
        select = self.features[0].selected
        return {
            "gold": hidden(_OWN, gold).replace("SELECT\n", f"SELECT\n    {others}", 1),
            "transactions": sql("features/declared/transactions").format(others=others),
            **({"selected": sql("features/declared/selected").format(select=select)} if select else {}),
            "chosen": sql("features/declared/chosen").format(
                columns=",\n    ".join([*columns, *conditions, *members]),
                source="selected" if select else "transactions",
                named=" AND ".join(f"{key} != ''" for key in keys),
                read=" OR ".join(f"_in_{i}" for i in range(len(self.conditions))),
            ),
        }

    def command_query(self, gold: str, aggregates: Set[str]) -> str:
        """The query whose rows are a key's counter, name and ready command. The first key of an entity tells its shard.

        `aggregates` are the names of ClickHouse's aggregate functions.
        """
        keys = ", ".join(f"_key_{i}" for i, _ in enumerate(self.features[0].columns, 1))
        newest = [f"maxOrNullIf(_time, _in_{i}) AS _newest_{i}" for i in range(len(self.conditions))]
        values = [text for i, feature in enumerate(self.features) for text in self._values(i, feature, aggregates)]
        prepared = [self._prepared(i, feature) for i, feature in enumerate(self.features)]
        commands = [
            sql("features/declared/command").format(
                number=i, counter=self.counter(feature.name), command=COMMANDS[feature.type]
            )
            for i, feature in enumerate(self.features)
        ]
        relations = {
            **self.rows(gold),
            "grouped": f"SELECT {', '.join([keys, *newest, *values])}\nFROM chosen\nGROUP BY {keys}",
            "prepared": f"SELECT shard_of(_key_1) AS _shard,\n    {', '.join(prepared)}\nFROM grouped",
        }
        return over(relations, sql("features/declared/commands").format(commands=",\n".join(commands)))

    def _members(self, number: int, feature: Declared) -> Iterator[str]:
        seen = f"_in_{self._condition_of(feature)}"
        if isinstance(feature.kind, declared.List | declared.ZSet | declared.Set):
            member = f"CAST(toString({feature.kind.member}), 'Nullable(String)')"
            yield f"if({seen}, {member}, NULL) AS _member_{number}"
        if isinstance(feature.kind, declared.ZSet):
            yield f"if({seen}, toFloat64({feature.kind.score}), NULL) AS _score_{number}"

    def _values(self, number: int, feature: Declared, aggregates: Set[str]) -> Iterator[str]:
        kind, condition = feature.kind, self._condition_of(feature)
        member, there = f"assumeNotNull(_member_{number})", f"isNotNull(_member_{number})"
        if isinstance(kind, declared.List):
            yield f"groupArrayIf((_time, transaction_id, {member}), {there}) AS _rows_{number}"
        elif isinstance(kind, declared.ZSet):
            score = f"_score_{number}"
            yield (
                f"groupArrayIf((_time, assumeNotNull({score}), {member}), {there} AND ifNull(isFinite({score}), 0)) "
                f"AS _rows_{number}"
            )
        elif isinstance(kind, declared.Set):
            yield f"groupUniqArrayIf({member}, {there}) AS _rows_{number}"
        else:
            for i, expression in enumerate(kind.expressions):
                of_rows = filtered(expression, f"_in_{condition}", aggregates) if self.conditions[1:] else expression
                yield f"nullIf(CAST(toString({of_rows}), 'Nullable(String)'), 'nan') AS _value_{number}_{i}"

    def _prepared(self, number: int, feature: Declared) -> str:
        newest = f"_newest_{self._condition_of(feature)}"
        absent, arguments = _arguments(number, feature.kind)
        end, due, cut = "''", f"isNotNull({newest})", "''"
        if feature.lifetime:
            end = f"toString(intDiv(assumeNotNull({newest}), 1000) + {feature.lifetime * 1000})"
            due = f"ifNull({newest} > {{until:Int64}} - {feature.lifetime * 1_000_000}, 0)"
        if feature.window and feature.type == "zset":
            before = f"({{until:Int64}} - {feature.window * 1_000_000}) / 1000000"
            cut = f"if(_rule_{number} = 'unite', toString({before}), '')"
        return sql("features/declared/feature").format(
            number=number,
            key=_key(feature),
            rule=_rule(number, feature),
            end=end,
            cut=cut,
            absent=absent,
            arguments=arguments,
            united=_UNITED,
            whole=_WHOLE,
            due=due,
        )

    def _condition_of(self, feature: Declared) -> int:
        return self.conditions.index((feature.window, feature.where))


def names_in(features: Iterable[Declared]) -> set[str]:
    """What may be columns of gold beside the contract's: keywords and names of lambdas are among them."""
    texts = [text for one in features for text in (*one.columns, *one.kind.expressions, one.where, one.selected)]
    words = {match[1] or match[2] for text in texts for match in _WORD.finditer(text)}
    return {word for word in words if word} - _CONTRACT


def hidden(own: re.Pattern[str], relation: str) -> str:
    """A relation whose own names begin with _, so that a column of gold's that is called so is not taken for them."""
    return own.sub(r"_\1", relation)


def _condition(window: int | None, where: str) -> str:
    parts = [f"_time > {{until:Int64}} - {window * 1_000_000}"] if window else []
    parts += [f"({where})"] if where else []
    return f"ifNull({' AND '.join(parts)}, 0)" if parts else "toUInt8(1)"


def _key(feature: Declared) -> str:
    """The name of a feature's key, as an expression over the texts of its columns."""
    numbers = {column: i for i, column in enumerate(feature.columns, 1)}
    parts = re.split(r"{(\w+)}", feature.key)
    literals = map(literal, parts[::2])
    names = (f"tagged(_key_{numbers[column]})" for column in parts[1::2])
    return ", ".join(text for pair in zip(literals, (*names, "''"), strict=True) for text in pair)


def _rule(number: int, feature: Declared) -> str:
    if feature.on_conflict == "keep":
        return "'keep'"
    if feature.type == "zset":  # of scores that are Unix seconds
        seconds = f"arrayAll(row -> abs(row.2 - row.1 / 1000000) <= 1, _rows_{number})"
        return f"if({seconds}, 'unite', 'replace')"
    return "'unite'" if feature.type == "set" else "'replace'"


def _arguments(number: int, kind: declared.Kind) -> tuple[str, str]:
    """The fields without a value, and the arguments of the command that writes the others."""
    rows, none = f"_rows_{number}", "emptyArrayString()"
    if isinstance(kind, declared.List):
        latest = f"arraySlice(arrayReverseSort({rows}), 1, {kind.length})"
        ordered = latest if kind.order == "newest_first" else f"arrayReverse({latest})"
        return none, f"arrayMap(row -> row.3, {ordered})"
    if isinstance(kind, declared.ZSet):
        return none, f"arrayFlatten(arrayMap(row -> [toString(row.2), row.3], arraySort({rows})))"
    if isinstance(kind, declared.Set):
        return none, f"arraySort({rows})"
    fields = [literal(name) + ", " for name in kind.fields] if isinstance(kind, declared.Hash) else [""]
    values = [f"_value_{number}_{i}" for i in range(len(fields))]
    there = (
        f"if(isNull({value}), [], [{field}assumeNotNull({value})])" for field, value in zip(fields, values, strict=True)
    )
    if not isinstance(kind, declared.Hash):
        return none, next(there)
    missing = (f"if(isNull({value}), [{literal(name)}], [])" for name, value in zip(kind.fields, values, strict=True))
    return f"arrayConcat({none}, {', '.join(missing)})", f"arrayConcat({', '.join(there)})"
