"""What gold is: its columns, what tells one state of it from another, and how much is in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Column:
    """A column that gold must have: `type` in words, `accepted` as a pattern of ClickHouse's type names."""

    type: str
    accepted: str
    description: str


def _id(description: str) -> Column:
    return Column("String, FixedString, UUID or integer", r"(String|FixedString\(\d+\)|UUID|U?Int\d+)", description)


def _number(description: str) -> Column:
    return Column("Float, Decimal or integer", r"(Float(32|64)|Decimal\(.+\)|U?Int\d+)", description)


# Nullable and LowCardinality are accepted around any of them.
GOLD_COLUMNS = {
    "transaction_id": _id("Identifies the transaction; settles ties in time."),
    "card_id": _id("The card that paid."),
    "customer_id": _id("The customer who holds the card."),
    "merchant_category": Column(
        "String, FixedString or Enum",
        r"(String|FixedString\(\d+\)|Enum(8|16)\(.+\))",
        "What kind of merchant was paid; may be missing.",
    ),
    "amount": _number("The amount paid; rows without a finite one are rejected."),
    "timestamp": Column("DateTime or DateTime64", r"DateTime(64)?(\(.+\))?", "When it was paid."),
    "location_lat": _number("Latitude in degrees; may be missing."),
    "location_long": _number("Longitude in degrees; may be missing."),
}


def wrong_columns(found: dict[str, str]) -> list[str]:
    """Every column that is missing, or of a type that cannot be used."""
    return [
        f"{name} is {found[name]} and not {column.type}" if name in found else f"{name} is missing"
        for name, column in GOLD_COLUMNS.items()
        if not re.fullmatch(column.accepted, _unwrap(found.get(name, "")))
    ]


def _unwrap(type_: str) -> str:
    """The type inside Nullable and LowCardinality."""
    return re.sub(r"^(LowCardinality|Nullable)\((.*)\)$", r"\2", re.sub(r"^LowCardinality\((.*)\)$", r"\1", type_))


@dataclass(frozen=True)
class Identity:
    """What tells one state of gold from another.

    Attributes:
        version: another after every change of gold.
        kept: what stays while rows are only added; files of a snapshot, a table with its partitions' first blocks.
    """

    version: str
    kept: frozenset[Sequence[Any]]


@dataclass(frozen=True)
class Profile:
    """What gold holds.

    Attributes:
        rows: in all.
        rejected: of them, those that cannot be used.
        cards, customers: how many the usable rows name, exact but for hashes that collide.
        watermark: time of the newest usable transaction, in UTC.
        identity: of what was looked at.
    """

    rows: int
    rejected: int
    cards: int
    customers: int
    watermark: datetime
    identity: Identity

    @property
    def version(self) -> str:
        return self.identity.version

    @property
    def until(self) -> int:
        """The watermark in microseconds since 1970, as the SQL's parameter."""
        return (self.watermark - _EPOCH) // timedelta(microseconds=1)

    @property
    def readable(self) -> dict[str, int | bool]:
        """By which the SQL chooses what is read: rows up to the watermark, looked at one by one if any was rejected."""
        return {"until": self.until, "all_valid": not self.rejected}

    def entities(self, column: str) -> int:
        """How many an id column names: `card_id` or `customer_id`."""
        return self.cards if column == "card_id" else self.customers
