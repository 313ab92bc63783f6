"""Gold: its columns, and the relations that queries over it read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feature_seed.sql import sql

_TEXT = r"String|FixedString\(\d+\)"


@dataclass(frozen=True)
class Column:
    """A column that gold must have.

    Attributes:
        type: the types that it may have, in words.
        accepted: the same as a pattern of ClickHouse's type names.
        common: ClickHouse's expression that brings it to one type, if a snapshot's files have several.
        description: what it holds.
        conversions: the expression that makes an accepted type of another type, by the pattern of that type.
    """

    type: str
    accepted: str
    common: str
    description: str
    conversions: Mapping[str, str]

    def accepts(self, type_: str) -> bool:
        return bool(re.fullmatch(self.accepted, unwrapped(type_)))

    def line(self, type_: str, expression: str) -> str:
        """What to write into the configuration for a column of this type, '' if there is none.

        A … stands for what cannot be known.
        """
        if not type_:
            return "NULL, or an expression" if "may be missing" in self.description else "…"
        converted = (text for pattern, text in self.conversions.items() if re.fullmatch(pattern, unwrapped(type_)))
        return next(converted, "…").format(expression)


def _id(description: str) -> Column:
    accepted = rf"({_TEXT}|UUID|U?Int\d+)"
    conversions = {r"Float\d+": "toString(toInt64({}))", r"Bool|Date.*|Decimal.*|Enum.*": "toString({})"}
    return Column("String, FixedString, UUID or integer", accepted, "toString({})", description, conversions)


def _number(description: str) -> Column:
    accepted = r"(Float(32|64)|Decimal\(.+\)|U?Int\d+)"
    conversions = {_TEXT: "toFloat64OrNull({})", "Bool": "toFloat64({})"}
    return Column("Float, Decimal or integer", accepted, "toFloat64({})", description, conversions)


# Columns that are read, each with what the contract wants of it; None where any type will do.
Columns = Mapping[str, Column | None]

# Nullable and LowCardinality are accepted around any of them.
GOLD_COLUMNS = {
    "transaction_id": _id("Identifies the transaction. Orders transactions of the same time."),
    "card_id": _id("The card that paid."),
    "customer_id": _id("The customer who holds the card."),
    "merchant_category": Column(
        "String, FixedString, Enum or integer",
        r"(String|FixedString\(\d+\)|Enum(8|16)\(.+\)|U?Int\d+)",
        "toString({})",
        "What kind of merchant was paid, as a word or as an ISO 18245 code; may be missing.",
        {r"Bool|Date.*|Decimal.*|Float\d+|UUID": "toString({})"},
    ),
    "amount": _number("The amount paid; rows without a finite one are rejected."),
    "timestamp": Column(
        "DateTime or DateTime64",
        r"DateTime(64)?(\(.+\))?",
        "toDateTime64({}, 6, 'UTC')",
        "When it was paid.",
        {
            "Int64": "fromUnixTimestamp({0}), or of milliseconds fromUnixTimestamp64Milli({0})",
            r"U?Int\d+": "fromUnixTimestamp({})",
            _TEXT: "parseDateTime64BestEffort({}, 6, 'UTC')",
            r"Date|Date32|Float\d+|Decimal.*": "toDateTime64({}, 6, 'UTC')",
        },
    ),
    "location_lat": _number("Latitude in degrees; may be missing."),
    "location_long": _number("Longitude in degrees; may be missing."),
}


def fits(name: str, column: Column | None, found: Mapping[str, str]) -> bool:
    """Whether a column is among those found, of a type that can be used: without a `column`, of any type."""
    return column.accepts(found.get(name, "")) if column else name in found


def wrong_columns(required: Columns, files: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Every column that a file lacks, or has of a type that cannot be used. Gold that is a table counts as one file."""
    return [text for name, column in required.items() if (text := _wrong(name, column, files))]


def _wrong(name: str, column: Column | None, files: Mapping[str, Mapping[str, str]]) -> str:
    """What is wrong with a column, '' if nothing: where, of which type, and which one others have."""
    bad = [path for path, found in files.items() if not fits(name, column, found)]
    if not bad:
        return ""
    type_ = files[bad[0]].get(name)
    text = f"{name} is {type_ or 'missing'}"
    if len(files) > 1:
        text += f" in {bad[0]}" + (f" and {len(bad) - 1:,} other files" if len(bad) > 1 else "")
    if type_ and column:
        text += f" and not {column.type}"
    elif re.search(rf"/{name}=", bad[0]):
        text += ": its directory is called after it, and values are read from the files alone"
    good = next((path for path in files if path not in bad), None)
    return text + (f"; it is {files[good][name]} in {good}" if good else "")


def unreadable(table: str, wrong: Sequence[str], found: Mapping[str, str]) -> str:
    """What is wrong with the columns of gold, and which columns there are."""
    there = ", ".join(f"{name} {type_}" for name, type_ in found.items())
    return f"Gold table {table!r} cannot be read: {'; '.join(wrong)}. There is: {there}"


def remedy(found: Mapping[str, str], expressions: Mapping[str, str]) -> str:
    """The lines of the configuration for the wrong columns. `expressions` are what the columns are made of."""
    lines = [
        f"{name}: {column.line(found.get(name, ''), expressions.get(name, name))}"
        for name, column in GOLD_COLUMNS.items()
        if not fits(name, column, found)
    ]
    return f"Write in FEATURE_SEED_CONFIG, under gold and columns, {'; '.join(lines)}"


def tick(timestamp: str) -> int:
    """The microseconds between two values of a column of this type: 1,000,000 for a DateTime."""
    digits = re.fullmatch(r"DateTime64\((\d)\b.*\)", unwrapped(timestamp))
    return 10 ** max(6 - (int(digits[1]) if digits else 0), 0)


def unwrapped(type_: str) -> str:
    """The type inside Nullable and LowCardinality."""
    return re.sub(r"^(LowCardinality|Nullable)\((.*)\)$", r"\2", re.sub(r"^LowCardinality\((.*)\)$", r"\1", type_))


@dataclass(frozen=True)
class Identifier:
    """A name for an `Identifier` parameter, which ClickHouse takes as it stands.

    clickhouse-connect escapes every str as for a `String` parameter. A name with a quote, a backtick or a backslash
    then becomes another name. clickhouse-connect writes values of other types as they print.
    """

    name: str

    def __str__(self) -> str:
        return self.name


# `gold`: every row, with its columns brought to one type each. `transactions`: the valid ones of the chosen shards.
RELATIONS = {name: sql(f"warehouse/{name}") for name in ("gold", "transactions")}


def over_gold(name: str) -> str:
    """The query `{name}.sql` over every row of gold."""
    return f"WITH gold AS (\n{RELATIONS['gold']})\n{sql(name)}"


def keeps_versions(engine: str) -> bool:
    """Whether a table of this engine holds replaced rows until it is merged or read with FINAL."""
    return bool(re.search(r"(Replacing|Collapsing|Coalescing|Summing|Aggregating)MergeTree$", engine))
