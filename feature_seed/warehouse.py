"""The warehouse: ClickHouse, as a server or embedded in the process, and what its gold table holds."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
import dagster as dg
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error
from pydantic import Field, PrivateAttr

from feature_seed.errors import ConfigurationError, GoldError, WarehouseError, WarehouseUnavailableError
from feature_seed.feature import sql
from feature_seed.sample import sample_gold


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


@dataclass(frozen=True)
class Profile:
    """What gold holds.

    Attributes:
        rows: in all.
        rejected: of them, those that cannot be used.
        cards, customers: estimates, within 2 %.
        watermark: time of the newest usable transaction, in UTC.
        version: a cheap identity, see `Warehouse.version`.
    """

    rows: int
    rejected: int
    cards: int
    customers: int
    watermark: datetime
    version: str

    def entities(self, column: str) -> int:
        """The estimate for an id column: `card_id` or `customer_id`."""
        return self.cards if column == "card_id" else self.customers


# Errors of a server that another attempt may not meet.
_OVERLOADED = ("TOO_MANY_SIMULTANEOUS_QUERIES", "NETWORK_ERROR", "SOCKET_TIMEOUT", "ALL_CONNECTION_TRIES_FAILED")


class Warehouse(dg.ConfigurableResource):
    """Gold, in a ClickHouse server or, without `host`, in Parquet files read by ClickHouse embedded in the process."""

    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = Field(default=None, repr=False)
    database: str = "default"
    secure: bool = False
    verify: bool = True
    ca: str | None = None
    gold_table: str = "fact_transactions_gold"
    gold_parquet: str | None = None
    home: str = ".feature_seed"

    _profile: Profile | None = PrivateAttr(default=None)

    @property
    def table(self) -> dict[str, str]:
        """Gold's name, as the SQL's parameters."""
        return {"database": self.database, "gold": self.gold_table}

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A connection; embedded, one on which the gold snapshot is a view named like the table."""
        with self.errors():
            client = self._connect() if self.host else self._embed()
        try:
            yield client
        finally:
            client.close()

    def _connect(self) -> Client:
        return clickhouse_connect.get_client(
            host=self.host,
            port=self.port or 0,
            username=self.user,
            password=self.password or "",
            database=self.database,
            secure=self.secure,
            verify=self.verify,
            ca_cert=self.ca,
            autogenerate_session_id=False,  # a session pins the queries of a run to one another, and runs one at a time
        )

    def _embed(self) -> Client:
        try:
            client = clickhouse_connect.get_client(interface="chdb")
        except ImportError as e:
            raise ConfigurationError(
                "ClickHouse embedded in the process needs chdb: "
                "pip install 'feature_seed[local]', or set CLICKHOUSE_HOST for a server"
            ) from e
        view = quote_identifier(self.gold_table)
        client.command(  # bound by the client: a view's definition takes no server-side parameters
            f"CREATE OR REPLACE VIEW default.{view} AS SELECT * FROM file(%(snapshot)s, 'Parquet')",
            parameters={"snapshot": self._snapshot(client)},
        )
        return client

    def _snapshot(self, client: Client) -> str:
        return self.gold_parquet or str(sample_gold(client, Path(self.home)))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Name the table, the cause and the way out where ClickHouse only gives a code."""
        try:
            yield
        except Error as e:
            raise self._explain(e) from e

    def _explain(self, error: Error) -> WarehouseError:
        where = f"{self.host}:{self.port}" if self.port else self.host or "embedded ClickHouse"
        if error.name == "UNKNOWN_TABLE":
            return GoldError(
                f"There is no gold table {self.gold_table!r} in database {self.database!r} of {where}: "
                f"build it, or name the right one in FEATURE_SEED_GOLD_TABLE and CLICKHOUSE_DATABASE"
            )
        if error.name == "UNKNOWN_DATABASE":
            return GoldError(f"There is no database {self.database!r} on {where}: check CLICKHOUSE_DATABASE")
        if error.name in ("CANNOT_STAT", "FILE_DOESNT_EXIST", "CANNOT_EXTRACT_TABLE_STRUCTURE"):
            return GoldError(f"No Parquet file matches FEATURE_SEED_GOLD_PARQUET {self.gold_parquet!r}: {error}")
        if error.name in ("AUTHENTICATION_FAILED", "REQUIRED_PASSWORD", "UNKNOWN_USER"):
            return WarehouseError(
                f"ClickHouse at {where} refuses user {self.user!r}: check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD"
            )
        if error.code is None:
            return WarehouseUnavailableError(
                f"ClickHouse at {where} cannot be reached: check CLICKHOUSE_HOST, CLICKHOUSE_PORT and "
                f"CLICKHOUSE_SECURE. {error}"
            )
        kind = WarehouseUnavailableError if error.name in _OVERLOADED else WarehouseError
        return kind(f"ClickHouse at {where} failed on gold table {self.gold_table!r}: {error}")

    def profile(self) -> Profile:
        """Check gold's columns and count its rows, once per run.

        Raises:
            GoldError: the table is missing, a column is missing or mistyped, or there is no row that can be used.
        """
        if self._profile is None:
            with self.client() as client, self.errors():
                self._profile = self._examine(client)
        return self._profile

    def _examine(self, client: Client) -> Profile:
        self.require_columns(client)
        query = f"WITH gold AS ({sql('gold')}) {sql('profile')}"
        counts = next(client.query(query, parameters=self.table, query_tz="UTC", tz_mode="aware").named_results())
        if counts["rows"] == counts["rejected"]:
            found = f"all {counts['rows']} rows are rejected" if counts["rows"] else "it is empty"
            raise GoldError(f"Gold table {self.gold_table!r} has nothing to seed: {found}. The store was left as it is")
        return Profile(**counts, version=self.version(client))

    def require_columns(self, client: Client) -> None:
        """Raise a GoldError that names every missing and mistyped column, and what is there."""
        columns = self.columns(client)
        if wrong := wrong_columns(columns):
            there = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
            raise GoldError(f"Gold table {self.gold_table!r} cannot be read: {'; '.join(wrong)}. There is: {there}")

    def columns(self, client: Client) -> dict[str, str]:
        """Gold's columns and their types, as ClickHouse names them."""
        described = client.query("DESCRIBE TABLE {database:Identifier}.{gold:Identifier}", parameters=self.table)
        return {column["name"]: column["type"] for column in described.named_results()}

    def version(self, client: Client) -> str:
        """A cheap identity of gold: another after a rebuild or an insert, or when a file of the snapshot is written.

        Gold that has no parts, as a view, is read whole for it.
        """
        if not self.host:
            snapshot = {"snapshot": self._snapshot(client)}
            return _digest(client.query(sql("version_parquet"), parameters=snapshot).result_rows)
        identity = client.query(sql("version"), parameters=self.table).result_rows
        if not identity:
            raise GoldError(f"There is no gold table {self.gold_table!r} in database {self.database!r}")
        if not any(blocks for _, _, blocks in identity):
            content = f"WITH gold AS ({sql('gold')}) {sql('version_content')}"
            identity = [*identity, *client.query(content, parameters=self.table).result_rows]
        return _digest(identity)


def _digest(identity: Sequence[Any]) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


def wrong_columns(found: dict[str, str]) -> list[str]:
    """Every column that is missing, or of a type that cannot be used."""
    return [
        f"{name} is {found[name]}" if name in found else f"{name} is missing"
        for name, column in GOLD_COLUMNS.items()
        if not re.fullmatch(column.accepted, _unwrap(found.get(name, "")))
    ]


def _unwrap(type_: str) -> str:
    """The type inside Nullable and LowCardinality."""
    return re.sub(r"^(LowCardinality|Nullable)\((.*)\)$", r"\2", re.sub(r"^LowCardinality\((.*)\)$", r"\1", type_))
