"""Gold of any shape for tests: a table of rows with columns of their own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clickhouse_connect.driver.client import Client

from feature_seed.features.declared.declared import Declared
from feature_seed.features.declared.entity import names_in
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.mapping import GoldMapping

MakeGold = Callable[..., Warehouse]

# Columns by name, and rows by them.
Types = Mapping[str, str]
Rows = Sequence[Mapping[str, Any]]


def create(client: Client, table: str, types: Types, rows: Rows) -> None:
    """A table of these columns and rows."""
    columns = ", ".join(f"`{name}` {type_}" for name, type_ in types.items())
    client.command(f"CREATE OR REPLACE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY tuple()")
    values = [[row[name] for row in rows] for name in types]
    client.insert(table, values, column_names=list(types), column_oriented=True)


def mapping_of(declared: Sequence[Declared]) -> GoldMapping:
    """The mapping of a configuration that has these features and maps no column."""
    return GoldMapping(others=sorted(names_in(declared)))
