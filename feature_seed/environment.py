"""The environment, checked before any connection is made. The table of README.md says what each variable means."""

import os
from collections.abc import Sequence
from math import nan
from typing import TypeVar

import dagster as dg

from feature_seed.errors import ConfigurationError

Choice = TypeVar("Choice", bound=str)

_WAREHOUSE_DETAILS = [f"CLICKHOUSE_{one}" for one in ("PORT", "USER", "PASSWORD", "DATABASE", "SECURE", "CA", "VERIFY")]
_STORE_DETAILS = ("REDIS_PASSWORD", "REDIS_SENTINEL_PASSWORD", "REDIS_CLUSTER", "FEATURE_SEED_WAIT_REPLICAS")


def is_set(name: str) -> bool:
    """Set and not empty: compose files and CI write an unset variable as an empty one."""
    return bool(os.environ.get(name))


def secret(name: str) -> dg.EnvVar | None:
    """A reference that Dagster resolves when a run starts, so that the value is in no config and no log."""
    return dg.EnvVar(name) if is_set(name) else None


def choice(name: str, accepted: Sequence[Choice]) -> Choice:
    """One of `accepted`, the first when unset."""
    value = os.environ.get(name) or accepted[0]
    for one in accepted:
        if one == value:
            return one
    raise ConfigurationError(f"{name} is {value!r}: choose {' or '.join(accepted)}")


def flag(name: str) -> bool:
    return choice(name, ("0", "1")) == "1"


def number(name: str, default: int, low: int, high: int, or_else: str = "") -> int:
    value = os.environ.get(name) or str(default)
    if not (value.isascii() and value.isdecimal() and low <= int(value) <= high):
        raise ConfigurationError(f"{name} is {value!r}: give a whole number from {low} to {high}{or_else}")
    return int(value)


def decimal(name: str, low: float, high: float) -> float | None:
    """A number that may have decimals, None when unset."""
    value = os.environ.get(name)
    if not value:
        return None
    try:
        parsed = float(value)
    except ValueError:
        parsed = nan
    if not low <= parsed <= high:
        raise ConfigurationError(f"{name} is {value!r}: give a number from {low:g} to {high:g}")
    return parsed


# Two hexadecimal digits; an event per shard takes 16–40 ms.
MOST_SHARDS = 256


def shard_count() -> int:
    return number("FEATURE_SEED_SHARDS", 16, 1, MOST_SHARDS)


def shards_per_run() -> int | None:
    """None for all of them."""
    return number("FEATURE_SEED_SHARDS_PER_RUN", 0, 1, MOST_SHARDS) if is_set("FEATURE_SEED_SHARDS_PER_RUN") else None


def sample_size() -> int | None:
    """None for all of them."""
    everything = os.environ.get("FEATURE_SEED_SAMPLE") == "all"
    return None if everything else number("FEATURE_SEED_SAMPLE", 1000, 1, 1_000_000_000, " or all")


def max_loss() -> float:
    loss = decimal("FEATURE_SEED_MAX_LOSS", 0, 1)
    return 0.1 if loss is None else loss


def home() -> str:
    return os.environ.get("FEATURE_SEED_HOME") or ".feature_seed"


def require_whole() -> None:
    """Refuse half a production configuration: nobody should seed a sample into a real store.

    Raises:
        ConfigurationError: naming the variable that is missing, or that is set without the one it needs.
    """
    require_store()
    _require_head("CLICKHOUSE_HOST", _WAREHOUSE_DETAILS)
    if is_set("CLICKHOUSE_HOST") and is_set("FEATURE_SEED_GOLD_PARQUET"):
        raise ConfigurationError(
            "CLICKHOUSE_HOST and FEATURE_SEED_GOLD_PARQUET both name a gold table: unset one of them"
        )
    if is_set("REDIS_URL") and not (is_set("CLICKHOUSE_HOST") or is_set("FEATURE_SEED_GOLD_PARQUET")):
        raise ConfigurationError(
            "REDIS_URL is set and no gold is named: set CLICKHOUSE_HOST, or FEATURE_SEED_GOLD_PARQUET for Parquet files"
        )


def require_store() -> None:
    """Refuse half a configuration of the store: whoever only looks at a store, as a scorer does, needs no gold.

    Raises:
        ConfigurationError: as above.
    """
    _require_head("REDIS_URL", _STORE_DETAILS)
    if flag("REDIS_CLUSTER") and not flag("FEATURE_SEED_KEY_TAGS"):
        raise ConfigurationError(
            "REDIS_CLUSTER is 1 and FEATURE_SEED_KEY_TAGS is not: feature_seed writes a card's keys in one step, and "
            "Redis Cluster allows that within one slot only. Set FEATURE_SEED_KEY_TAGS=1, here and for every reader of "
            "the keys"
        )
    if is_set("CLICKHOUSE_HOST") and not is_set("REDIS_URL"):
        raise ConfigurationError("CLICKHOUSE_HOST is set and REDIS_URL is not: name the store to seed in REDIS_URL")


def _require_head(head: str, details: Sequence[str]) -> None:
    for name in details:
        if is_set(name) and not is_set(head):
            raise ConfigurationError(f"{name} is set and {head} is not: set {head} too, or neither")
