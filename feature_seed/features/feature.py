"""A feature: the keys in Redis that an asset stands for, and what their values mean."""

from collections.abc import Mapping
from dataclasses import dataclass

from feature_seed.contract import (
    CARD_HISTORY,
    CARD_LAST_TS,
    CARD_LOCATION,
    CARD_SEED,
    CARD_SEQ,
    CUSTOMER_SEED,
    CUSTOMER_STATS,
    Key,
)
from feature_seed.features.entity import CARDS, CUSTOMERS, Entity


@dataclass(frozen=True)
class Value:
    """A field or value in Redis: how to parse its text, the gold column behind it, and what it says."""

    type: str
    column: str
    meaning: str


@dataclass(frozen=True)
class Feature:
    """A feature of an entity: an asset.

    Attributes:
        name: the name of the asset.
        description: what it tells a scorer.
        entity: what it is a feature of.
        keys: what is written per entity, the asset's own.
        values: every field or value that is written.
    """

    name: str
    description: str
    entity: Entity
    keys: tuple[Key, ...]
    values: Mapping[str, Value]


HISTORY = Feature(
    "card_history",
    "The latest transactions of every card, and how many transactions the card has made.",
    CARDS,
    keys=(CARD_HISTORY, CARD_SEQ, CARD_SEED),
    values={
        "transaction_id": Value("string", "transaction_id", "Orders transactions of the same time."),
        "merchant_category": Value("string", "merchant_category", "null where gold has none."),
        "amount": Value("double", "amount", "The amount paid, as in gold."),
        "timestamp": Value("string", "timestamp", "ISO 8601 in UTC, with milliseconds; in an array Unix seconds."),
        "location_lat": Value("double", "location_lat", "Degrees; null where gold has none."),
        "location_long": Value("double", "location_long", "Degrees; null where gold has none."),
        "seq": Value("int", "transaction_id", "How many transactions the card has made."),
    },
)
LOCATION = Feature(
    "card_location",
    "Where and when every card was last used.",
    CARDS,
    keys=(CARD_LOCATION, CARD_LAST_TS),
    values={
        "lat": Value("double", "location_lat", "Degrees, of the latest transaction that has coordinates."),
        "lon": Value("double", "location_long", "Degrees, of the latest transaction that has coordinates."),
        "last_ts": Value("double", "timestamp", "Unix seconds of the latest transaction, milliseconds as decimals."),
    },
)
STATS = Feature(
    "customer_stats",
    "The running mean and variance of every customer's amounts: the state of Welford's algorithm.",
    CUSTOMERS,
    keys=(CUSTOMER_STATS, CUSTOMER_SEED),
    values={
        "count": Value("int", "amount", "How many amounts."),
        "mean": Value("double", "amount", "Their mean."),
        "M2": Value("double", "amount", "The sum of their squared deviations from the mean."),
    },
)

FEATURES = (HISTORY, LOCATION, STATS)
