"""ClickHouse embedded in the process: an engine with a view of the snapshot."""

from pathlib import Path

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from feature_seed.errors import ConfigurationError, GoldError
from feature_seed.warehouse.sample import sample_gold

# The view of the snapshot.
SNAPSHOT = "gold_snapshot"


def embed() -> Client:
    """An engine of its own, empty."""
    try:
        return clickhouse_connect.get_client(interface="chdb")
    except ImportError as e:
        raise ConfigurationError(
            "ClickHouse embedded in the process needs chdb: "
            "pip install 'feature_seed[local]', or set CLICKHOUSE_HOST for a server"
        ) from e


def view(client: Client, snapshot: str) -> None:
    """Make the snapshot a view."""
    # Bound by the client: a view's definition takes no server-side parameters. Without the first two settings, what
    # a file lacks of another's columns is read as zeros. Each thread more that parses holds row groups, 100 MB at a
    # million rows each, and is no faster on two cores.
    client.command(
        f"CREATE OR REPLACE VIEW default.{SNAPSHOT} AS SELECT * FROM file(%(snapshot)s, 'Parquet') SETTINGS "
        "input_format_parquet_allow_missing_columns = 0, input_format_null_as_default = 0, max_parsing_threads = 1",
        parameters={"snapshot": snapshot},
    )


def snapshot_path(client: Client, named: str | None, home: str) -> str:
    """The named path or glob, or that of the sample, which is written under `home` where it is missing."""
    if named and set(named) & set("*?{}") and Path(named).exists():
        raise GoldError(
            f"FEATURE_SEED_GOLD_PARQUET {named!r} is the name of a file, and a glob that may match others: "
            "rename the file, so that its name has none of *?{}"
        )
    return named or str(sample_gold(client, Path(home)))


def release_memory(client: Client) -> None:
    """Have the engine return what it has freed, which is in the way of its next query's memory."""
    jemalloc = "SELECT count() FROM system.build_options WHERE name = 'USE_JEMALLOC' AND value IN ('1', 'ON')"
    if client.command(jemalloc):
        client.command("SYSTEM JEMALLOC PURGE")
