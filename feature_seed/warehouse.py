"""The warehouse: ClickHouse, as a server or embedded in the process, and what its gold table holds."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import clickhouse_connect
import dagster as dg
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error
from pydantic import Field, PrivateAttr

from feature_seed.errors import ConfigurationError, GoldError, WarehouseError
from feature_seed.feature import sql
from feature_seed.sample import sample_gold

_ID = r"(String|FixedString\(\d+\)|UUID|U?Int\d+)"
_NUMBER = r"(Float(32|64)|Decimal\(.+\)|U?Int\d+)"
_TEXT = r"(String|FixedString\(\d+\)|Enum(8|16)\(.+\))"
_TIME = r"DateTime(64)?(\(.+\))?"

GOLD_COLUMNS = {
    "transaction_id": _ID,
    "card_id": _ID,
    "customer_id": _ID,
    "merchant_category": _TEXT,
    "amount": _NUMBER,
    "timestamp": _TIME,
    "location_lat": _NUMBER,
    "location_long": _NUMBER,
}


@dataclass(frozen=True)
class Profile:
    """What gold holds: `rows` in all, `rejected` unusable ones, entities by estimate (2 %), and its `version`."""

    rows: int
    rejected: int
    cards: int
    customers: int
    version: str


class Warehouse(dg.ConfigurableResource):
    """Gold, in a ClickHouse server or, without `host`, in Parquet files read by ClickHouse embedded in the process."""

    host: str | None = None
    port: int | None = None
    user: str | None = None
    password: str | None = Field(default=None, repr=False)
    database: str | None = None
    secure: bool = False
    gold_table: str = "fact_transactions_gold"
    gold_parquet: str | None = None
    home: str = ".feature_seed"

    _profile: Profile | None = PrivateAttr(default=None)

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
            database=self.database or "default",
            secure=self.secure,
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
            f"CREATE OR REPLACE VIEW {view} AS SELECT * FROM file(%(snapshot)s, 'Parquet')",
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
                f"There is no gold table {self.gold_table!r} in database {self.database or 'default'!r} of {where}: "
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
            return WarehouseError(
                f"ClickHouse at {where} cannot be reached: check CLICKHOUSE_HOST and CLICKHOUSE_PORT. {error}"
            )
        return WarehouseError(f"ClickHouse at {where} failed on gold table {self.gold_table!r}: {error}")

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
        gold = {"gold": self.gold_table}
        described = client.query("DESCRIBE TABLE {gold:Identifier}", parameters=gold).result_rows
        self._require({column[0]: column[1] for column in described})
        counts = next(client.query(f"WITH gold AS ({sql('gold')}) {sql('profile')}", parameters=gold).named_results())
        if counts["rows"] == counts["rejected"]:
            found = f"all {counts['rows']} rows are rejected" if counts["rows"] else "it is empty"
            raise GoldError(f"Gold table {self.gold_table!r} has nothing to seed: {found}. The store was left as it is")
        return Profile(**counts, version=self._version(client))

    def _require(self, found: dict[str, str]) -> None:
        """Name every column that is missing or of a type that cannot be used, in one message."""
        wrong = [
            f"{name} is missing" if name not in found else f"{name} is {found[name]}"
            for name, accepted in GOLD_COLUMNS.items()
            if not re.fullmatch(accepted, _unwrap(found.get(name, "")))
        ]
        if wrong:
            there = ", ".join(f"{name} {type_}" for name, type_ in found.items())
            raise GoldError(f"Gold table {self.gold_table!r} cannot be read: {'; '.join(wrong)}. There is: {there}")

    def _version(self, client: Client) -> str:
        """A cheap identity of gold: another after a rebuild or an insert, or when a file of the snapshot is written."""
        if self.host:
            identity = client.query(sql("version"), parameters={"gold": self.gold_table})
        else:
            identity = client.query(sql("version_parquet"), parameters={"snapshot": self._snapshot(client)})
        return hashlib.sha256(repr(identity.result_rows).encode()).hexdigest()[:16]


def _unwrap(type_: str) -> str:
    """The type inside Nullable and LowCardinality."""
    return re.sub(r"^(LowCardinality|Nullable)\((.*)\)$", r"\2", re.sub(r"^LowCardinality\((.*)\)$", r"\1", type_))
