"""Gold of any shape for tests: a table or a snapshot of rows with columns of their own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clickhouse_connect.driver.client import Client

from feature_seed.warehouse.clickhouse import Warehouse

MakeGold = Callable[..., Warehouse]


def create(client: Client, table: str, types: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of these columns and rows."""
    columns = ", ".join(f"{name} {type_}" for name, type_ in types.items())
    client.command(f"CREATE OR REPLACE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY tuple()")
    values = [[row[name] for row in rows] for name in types]
    client.insert(table, values, column_names=list(types), column_oriented=True)
