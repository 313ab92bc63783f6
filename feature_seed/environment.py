"""The environment: every variable, checked before any connection is made."""

import os
from collections.abc import Sequence
from math import nan
from typing import TypeVar

import dagster as dg

from feature_seed.errors import ConfigurationError

Choice = TypeVar("Choice", bound=str)

# Name, meaning, and what holds when it is unset.
VARIABLES = {
    "CLICKHOUSE_HOST": ("host of the ClickHouse server", "ClickHouse runs embedded in the process (chdb)"),
    "CLICKHOUSE_PORT": ("its HTTP port", "8123, or 8443 with `CLICKHOUSE_SECURE`"),
    "CLICKHOUSE_USER": ("its user", "`default`"),
    "CLICKHOUSE_PASSWORD": ("password of the user", "none"),
    "CLICKHOUSE_DATABASE": ("database of the gold table", "`default`"),
    "CLICKHOUSE_SECURE": ("`1`: connect over TLS", "`0`"),
    "CLICKHOUSE_CA": (
        "file of the authority that signed the server's certificate",
        "the authorities that Python trusts",
    ),
    "CLICKHOUSE_VERIFY": ("`0`: accept any certificate", "`1`"),
    "FEATURE_SEED_CONFIG": (
        "file that maps gold's columns and declares features",
        "gold and keys are as here",
    ),
    "FEATURE_SEED_GOLD_TABLE": ("name of the gold table", "`fact_transactions_gold`"),
    "FEATURE_SEED_GOLD_FINAL": ("`0`: read a table that keeps versions of a row without FINAL", "`1`"),
    "FEATURE_SEED_GOLD_PARQUET": (
        "Parquet files to read in place of a gold table: a file, a directory, a glob or `s3://bucket/key`",
        "a generated sample",
    ),
    "FEATURE_SEED_ZERO_IS_UNKNOWN": ("`1`: coordinates (0, 0) and a time of 1970-01-01 00:00:00 are unknown", "`0`"),
    "AWS_ACCESS_KEY_ID": ("key for S3", "a profile or a role"),
    "AWS_SECRET_ACCESS_KEY": ("its secret", "as above"),
    "AWS_SESSION_TOKEN": ("its token", "none"),
    "AWS_REGION": ("region of the bucket", "`AWS_DEFAULT_REGION`"),
    "AWS_DEFAULT_REGION": ("the same", "AWS is asked"),
    "AWS_ENDPOINT_URL_S3": ("S3 server other than AWS", "`AWS_ENDPOINT_URL`"),
    "AWS_ENDPOINT_URL": ("the same", "AWS"),
    "FEATURE_SEED_PASS_MB": ("memory of one pass over gold in ClickHouse; less memory means more passes", "`540`"),
    "REDIS_URL": (
        "the store: `redis://`, `rediss://`, `unix://`, `redis+sentinel://` or `rediss+sentinel://`",
        "a local Redis under `FEATURE_SEED_HOME`",
    ),
    "REDIS_PASSWORD": ("its password, so that it is not in the URL", "none"),
    "REDIS_SENTINEL_PASSWORD": ("password of the sentinels in `REDIS_URL`", "none is sent to them"),
    "REDIS_CLUSTER": ("`1`: `REDIS_URL` names a node of a Redis Cluster; needs `FEATURE_SEED_KEY_TAGS=1`", "`0`"),
    "FEATURE_SEED_HOME": ("folder of the sample and the local Redis", "`.feature_seed`"),
    "FEATURE_SEED_WAIT_REPLICAS": (
        "how many replicas of each primary must have a load before it is done, 0 to 5",
        "`0`: a load waits for none",
    ),
    "FEATURE_SEED_SHARDS": ("number of shards, which are Dagster's partitions, 1 to 256", "`16`"),
    "FEATURE_SEED_SHARDS_PER_RUN": ("shards in one run of a backfill", "all of them"),
    "FEATURE_SEED_HISTORY_LENGTH": ("transactions in a card's history, 1 to 1000", "`10`"),
    "FEATURE_SEED_HISTORY_ORDER": ("`oldest_first`, or `newest_first` for scorers that LPUSH", "`oldest_first`"),
    "FEATURE_SEED_KEY_TAGS": ("`1`: write ids in braces, so that a card has one Redis Cluster slot", "`0`"),
    "FEATURE_SEED_MAX_REJECTED": (
        "share of gold's rows, 0 to 1, that may be rejected; more of them block the run",
        "`0`",
    ),
    "FEATURE_SEED_MAX_AGE_HOURS": (
        "age of gold's newest transaction above which the run is blocked",
        "any age is accepted",
    ),
    "FEATURE_SEED_WATERMARK_LAG": (
        "seconds before the start of a run for which gold may still lack rows; the run does not read them",
        "`0`",
    ),
    "FEATURE_SEED_SAMPLE": ("entities of each feature that a run compares with gold, or `all`", "`1000`"),
    "FEATURE_SEED_ALERT_WEBHOOK": ("URL that gets a failed run as JSON", "failures are only logged"),
    "FEATURE_SEED_DAGSTER_URL": (
        "where people open Dagster's pages, so that alerts link to the run",
        "alerts have no link",
    ),
    "FEATURE_SEED_SCHEDULE": (
        "cron line, in UTC, by which `seed_on_schedule` launches `seed_all`, for example `0 5 * * *`",
        "the schedule is off",
    ),
    "FEATURE_SEED_LOG_LEVEL": ("what a run prints: `INFO`, `WARNING`, or `DEBUG` for all that Dagster logs", "`INFO`"),
    "FEATURE_SEED_ON_CONFLICT": (
        "`keep_newer` keeps live events that gold lacks, `overwrite` writes gold alone",
        "`keep_newer`",
    ),
    "FEATURE_SEED_MAX_RATE": ("entities written per second at most", "as many as Redis takes"),
    "FEATURE_SEED_MAX_LATENCY_MS": (
        "p99 of the store's answers above which a load slows down",
        "a load measures nothing",
    ),
    "FEATURE_SEED_MEMORY_CHECK": (
        "`refuse` a store that may evict features or is too small, or only `warn`",
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
    """The same for those who only look at the store, as a scorer does.

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
