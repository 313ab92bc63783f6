"""ClickHouse embedded in the process: an engine with a view of the snapshot, or of a sample that it generates."""

import hashlib
import os
from pathlib import Path

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from feature_seed.errors import ConfigurationError
from feature_seed.sql import sql
from feature_seed.warehouse.files import Snapshot, columns_read, require_columns
from feature_seed.warehouse.mapping import GoldMapping
from feature_seed.warehouse.source import SNAPSHOT


def embed() -> Client:
    """An empty engine."""
    try:
        client = clickhouse_connect.get_client(interface="chdb")
    except ImportError as e:
        raise ConfigurationError(
            "ClickHouse embedded in the process needs chdb: "
            "pip install 'feature_seed[local]', or set CLICKHOUSE_HOST for a server"
        ) from e
    client.command(sql("warehouse/embedded"))
    return client


def view(client: Client, snapshot: Snapshot, table: str, mapping: GoldMapping) -> None:
    """Make the snapshot a view of the columns that are read. A GoldError names missing and mistyped columns."""
    files = snapshot.files(client)
    columns = columns_read(files, mapping)
    require_columns(files, columns, table)
    view, select = ".".join(SNAPSHOT.values()), snapshot.select(files, columns)
    # All clients of a process share the view, and it is gone for a moment while it is replaced.
    content = hashlib.sha256(select.encode()).hexdigest()
    if not client.query(sql("warehouse/viewed"), {"content": content}).result_rows:
        client.command(f"CREATE OR REPLACE VIEW {view} AS {select} COMMENT '{content}'")


def sample_gold(client: Client, home: Path) -> Path:
    """The path of the sample, a Parquet file under `home`. Embedded ClickHouse writes it on first use."""
    sample = home.resolve() / "sample_gold.parquet"
    if not sample.exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = sample.with_suffix(f".{os.getpid()}.parquet")  # renamed when whole: several processes may start at once
        select = sql("warehouse/sample")
        client.command(
            "INSERT INTO FUNCTION file({draft:String}, 'Parquet') SELECT * EXCEPT (unlocated) FROM (" + select + ")",
            parameters={"draft": str(draft)},
        )
        draft.rename(sample)
    return sample
