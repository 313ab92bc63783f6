"""The environment: every variable, checked before anything is connected to."""

import os
from collections.abc import Sequence
from math import nan
from typing import TypeVar

import dagster as dg

from feature_seed.errors import ConfigurationError

Choice = TypeVar("Choice", bound=str)

# Name, meaning, and what holds when it is unset.
VARIABLES = {
    "CLICKHOUSE_HOST": ("the warehouse", "ClickHouse embedded in the process (chdb)"),
    "CLICKHOUSE_PORT": ("its HTTP port", "8123, with `CLICKHOUSE_SECURE` 8443"),
    "CLICKHOUSE_USER": ("its user", "`default`"),
    "CLICKHOUSE_PASSWORD": ("the user's password", "none"),
    "CLICKHOUSE_DATABASE": ("gold's database", "`default`"),
    "CLICKHOUSE_SECURE": ("`1`: over TLS", "`0`"),
    "CLICKHOUSE_CA": ("file of the authority that signed its certificate", "those that Python trusts"),
    "CLICKHOUSE_VERIFY": ("`0`: any certificate will do", "`1`"),
    "FEATURE_SEED_GOLD_TABLE": ("gold table", "`fact_transactions_gold`"),
    "FEATURE_SEED_GOLD_PARQUET": ("gold snapshot (path or glob) for the embedded engine", "a generated sample"),
    "FEATURE_SEED_PASS_MB": (
        "memory for what ClickHouse collects of cards or customers at a time; with less of it, gold is read more often",
        "`540`",
    ),
    "REDIS_URL": (
        "the feature store: `redis://`, `rediss://`, `unix://`",
        "a Redis server of its own under `FEATURE_SEED_HOME`",
    ),
    "REDIS_PASSWORD": ("its password, kept out of the URL", "none"),
    "REDIS_CLUSTER": ("`1`: a Redis Cluster, of which `REDIS_URL` names a node; needs key tags", "`0`"),
    "FEATURE_SEED_HOME": ("local files", "`.feature_seed`"),
    "FEATURE_SEED_WAIT_REPLICAS": (
        "replicas of each primary that must have a load before it is done, 0 to 5",
        "`0`: replication is not waited for",
    ),
    "FEATURE_SEED_SHARDS": ("partitions, 1 to 256", "`16`"),
    "FEATURE_SEED_SHARDS_PER_RUN": ("partitions that a run of a backfill seeds", "all of them in one run"),
    "FEATURE_SEED_HISTORY_LENGTH": ("transactions kept per card, 1 to 1000", "`10`"),
    "FEATURE_SEED_HISTORY_ORDER": ("`oldest_first`, or `newest_first` for scorers that LPUSH", "`oldest_first`"),
    "FEATURE_SEED_KEY_TAGS": ("`1`: braces around ids, one Redis Cluster slot per card", "`0`"),
    "FEATURE_SEED_MAX_REJECTED": ("share of gold rows, 0 to 1, that may be rejected before the run is blocked", "`0`"),
    "FEATURE_SEED_MAX_AGE_HOURS": ("age of the newest transaction at which the run is blocked", "age is reported only"),
    "FEATURE_SEED_WATERMARK_LAG": (
        "for how many seconds before a run begins gold may lack rows: the run does not read these seconds",
        "`0`",
    ),
    "FEATURE_SEED_SAMPLE": ("entities of each feature that a run compares with gold, or `all`", "`1000`"),
    "FEATURE_SEED_ALERT_WEBHOOK": ("where a failed run is posted to as JSON", "failures are only logged"),
    "FEATURE_SEED_ON_CONFLICT": ("`keep_newer` or `overwrite`", "`keep_newer`"),
    "FEATURE_SEED_MAX_RATE": ("entities written per second at most", "as fast as Redis takes them"),
    "FEATURE_SEED_MAX_LATENCY_MS": (
        "p99 of the store's answers that a load may cause; it slows down where it would cause a longer one",
        "nobody measures it",
    ),
    "FEATURE_SEED_MEMORY_CHECK": (
        "`refuse`, or only `warn` of, a store that may evict features or is too small for them",
        "`refuse`",
    ),
}

_WAREHOUSE_DETAILS = (
    "CLICKHOUSE_PORT",
    "CLICKHOUSE_USER",
    "CLICKHOUSE_PASSWORD",
    "CLICKHOUSE_DATABASE",
    "CLICKHOUSE_SECURE",
    "CLICKHOUSE_CA",
    "CLICKHOUSE_VERIFY",
)

_STORE_DETAILS = ("REDIS_PASSWORD", "REDIS_CLUSTER", "FEATURE_SEED_WAIT_REPLICAS")


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


def shard_count() -> int:
    return number("FEATURE_SEED_SHARDS", 16, 1, 256)  # two hexadecimal digits; an event per shard takes 16–40 ms


def shards_per_run() -> int | None:
    """None for all of them."""
    return number("FEATURE_SEED_SHARDS_PER_RUN", 0, 1, 256) if is_set("FEATURE_SEED_SHARDS_PER_RUN") else None


def sample_size() -> int | None:
    """None for all of them."""
    everything = os.environ.get("FEATURE_SEED_SAMPLE") == "all"
    return None if everything else number("FEATURE_SEED_SAMPLE", 1000, 1, 1_000_000_000, " or all")


def home() -> str:
    return os.environ.get("FEATURE_SEED_HOME") or ".feature_seed"


def require_whole() -> None:
    """Refuse half a production configuration: nobody should seed a sample into a real store.

    Raises:
        ConfigurationError: naming the variable that is missing, or that stands without its fellow.
    """
    require_store()
    _require_head("CLICKHOUSE_HOST", _WAREHOUSE_DETAILS)
    if is_set("CLICKHOUSE_HOST") and is_set("FEATURE_SEED_GOLD_PARQUET"):
        raise ConfigurationError(
            "CLICKHOUSE_HOST and FEATURE_SEED_GOLD_PARQUET both name a gold table: unset one of them"
        )
    if is_set("REDIS_URL") and not (is_set("CLICKHOUSE_HOST") or is_set("FEATURE_SEED_GOLD_PARQUET")):
        raise ConfigurationError(
            "REDIS_URL is set and no gold source is: set CLICKHOUSE_HOST, or FEATURE_SEED_GOLD_PARQUET for a snapshot"
        )


def require_store() -> None:
    """The same for those who only look at the store, as a scorer does.

    Raises:
        ConfigurationError: as above.
    """
    _require_head("REDIS_URL", _STORE_DETAILS)
    if flag("REDIS_CLUSTER") and not flag("FEATURE_SEED_KEY_TAGS"):
        raise ConfigurationError(
            "REDIS_CLUSTER is 1 and FEATURE_SEED_KEY_TAGS is not: a card's keys are written in one step, which Redis "
            "Cluster allows within a slot alone. Set FEATURE_SEED_KEY_TAGS=1, here and for every reader of the keys"
        )
    if is_set("CLICKHOUSE_HOST") and not is_set("REDIS_URL"):
        raise ConfigurationError("CLICKHOUSE_HOST is set and REDIS_URL is not: name the store to seed in REDIS_URL")


def _require_head(head: str, details: Sequence[str]) -> None:
    for name in details:
        if is_set(name) and not is_set(head):
            raise ConfigurationError(f"{name} is set and {head} is not: set {head} too, or neither")
