"""Gold tables for tests: rows of plain Python values, written by the real engine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client

TYPES = {
    "transaction_id": "Nullable(String)",
    "card_id": "Nullable(String)",
    "customer_id": "Nullable(String)",
    "merchant_category": "Nullable(String)",
    "amount": "Nullable(Float64)",
    "timestamp": "Nullable(DateTime64(3, 'UTC'))",
    "location_lat": "Nullable(Float64)",
    "location_long": "Nullable(Float64)",
}


@dataclass(frozen=True)
class Row:
    """A transaction as the ETL writes it; the types are those of the table. Bytes are texts that need not be UTF-8."""

    transaction_id: Any
    card_id: Any
    customer_id: Any
    merchant_category: str | bytes | None
    amount: Any
    timestamp: datetime | None
    location_lat: Any
    location_long: Any


START = datetime(2026, 1, 1, tzinfo=timezone.utc)

COLUMNS = [field.name for field in fields(Row)]


def transaction(number: int, card: str = "c1", seconds: float = 0, **changes: object) -> Row:
    """A transaction of the card's own customer, `seconds` after the start."""
    row = Row(f"t{number:03}", card, f"of {card}", "food", 10.5, START + timedelta(seconds=seconds), 1.5, -2.25)
    return replace(row, **changes)  # type: ignore[arg-type]


def create_table(client: Client, table: str, rows: Sequence[Row], **types: str) -> None:
    """A MergeTree table (quoted name) of these rows; `types` replaces the types of columns."""
    columns = ", ".join(f"{name} {type_}" for name, type_ in {**TYPES, **types}.items())
    client.command(f"CREATE OR REPLACE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY tuple()")
    if rows:
        values = [_alike([getattr(row, name) for row in rows]) for name in COLUMNS]
        client.insert(table, values, column_names=COLUMNS, column_oriented=True)


def _alike(values: Sequence[Any]) -> Sequence[Any]:
    """All texts as bytes if one of them is bytes: the driver takes no mixture."""
    if not any(isinstance(value, bytes) for value in values):
        return values
    return [value.encode() if isinstance(value, str) else value for value in values]


def write_parquet(client: Client, path: Path, rows: Sequence[Row], **types: str) -> Path:
    """A Parquet file of these rows, through a table of the embedded engine."""
    create_table(client, "draft", rows, **types)
    path.unlink(missing_ok=True)
    client.command("INSERT INTO FUNCTION file({path:String}, 'Parquet') SELECT * FROM draft", {"path": str(path)})
    client.command("DROP TABLE draft")
    return path


def read_parquet(client: Client, path: Path) -> Iterable[Row]:
    """Every row of a snapshot, as plain values; NaN is taken as written."""
    select = f"SELECT {', '.join(COLUMNS)} FROM file({{path:String}}, 'Parquet')"
    with client.query_rows_stream(select, {"path": str(path)}, query_tz="UTC") as rows:
        for row in rows:
            yield Row(*row)
