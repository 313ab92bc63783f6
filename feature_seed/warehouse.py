"""The warehouse: ClickHouse, as a server or embedded in the process, and the stream of ready commands it gives."""

import hashlib
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import clickhouse_connect
import dagster as dg
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error
from pydantic import Field, PrivateAttr

from feature_seed.block import Block
from feature_seed.contract import HISTORY_LENGTH
from feature_seed.errors import ConfigurationError, GoldError, WarehouseError
from feature_seed.feature import Feature, OnConflict, sql
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

# What one pass over gold may collect. A pass reads all of gold again (1.5 CPU-seconds for 10 M rows of Parquet), so few
# are fast; 256 MB keep 1 M cards of 10 M rows at about 1 GB for the whole process, chdb's own 0.5 GB included.
PASS_BYTES = 256_000_000

# Entities per block: with histories of ten about 7 MB. Smaller blocks cost ClickHouse, larger ones memory.
BLOCK_ENTITIES = 4096

# From here on ranking times first beats collecting everything: 3 s instead of 6 s at 500 transactions a card, 25 % slower
# at 10 a card.
DEEP = 4


class Layout(dg.ConfigurableResource):
    """How features are laid out in the store; part of the contract with its readers."""

    shard_count: int = 16
    history_length: int = HISTORY_LENGTH
    newest_first: bool = False
    key_tags: bool = False
    on_conflict: OnConflict = "keep_newer"


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
                "ClickHouse embedded in the process needs chdb: pip install 'feature_seed[local]', or set CLICKHOUSE_HOST"
            ) from e
        snapshot = self.gold_parquet or sample_gold(client, Path(self.home))
        client.command(  # bound by the client: a view's definition takes no server-side parameters
            f"CREATE OR REPLACE VIEW {quote_identifier(self.gold_table)} AS SELECT * FROM file(%(snapshot)s, 'Parquet')",
            parameters={"snapshot": str(snapshot)},
        )
        return client

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
            return WarehouseError(f"ClickHouse at {where} refuses user {self.user!r}: check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD")
        if error.code is None:
            return WarehouseError(f"ClickHouse at {where} cannot be reached: check CLICKHOUSE_HOST and CLICKHOUSE_PORT. {error}")
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
        counts = client.query(f"WITH gold AS ({sql('gold')}) {sql('profile')}", parameters=gold).first_item
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
        """A cheap identity of gold: changes when the table is rebuilt or grows, or a file of the snapshot is written."""
        name = "version" if self.host else "version_parquet"
        snapshot = {"gold": self.gold_table, "snapshot": self.gold_parquet or str(sample_gold(client, Path(self.home)))}
        identity = client.query(sql(name), parameters=snapshot).result_rows
        return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class FeatureStream:
    """A feature's blocks of ready commands for some shards, read from the warehouse while it is iterated.

    Yields blocks of at most BLOCK_ENTITIES entities; memory is bounded by PASS_BYTES in ClickHouse and one block here.
    """

    warehouse: Warehouse
    layout: Layout
    feature: Feature
    shards: tuple[str, ...]

    def __iter__(self) -> Generator[Block, None, None]:
        profile = self.warehouse.profile()
        deep = profile.rows > DEEP * self.layout.history_length * profile.cards
        query = self.feature.commands(self.layout.on_conflict, deep=deep)
        parameters = self._parameters()
        with self.warehouse.client() as client, self.warehouse.errors():
            for shards in self._passes(profile, deep=deep):
                yield from self._blocks(client, query, {**parameters, "shards": shards})

    def _blocks(self, client: Client, query: str, parameters: dict[str, Any]) -> Iterator[Block]:
        guarded = self.layout.on_conflict == "keep_newer"
        commands = 1 if guarded else self.feature.replies
        settings = {"max_block_size": BLOCK_ENTITIES, "output_format_json_escape_forward_slashes": 0}
        with client.query_column_block_stream(
            query, parameters, settings=settings, query_formats={"String": "bytes"}
        ) as blocks:
            for block in blocks:
                keys, payloads = block[-2:]
                yield Block(keys, b"".join(payloads), commands, guarded)

    def _parameters(self) -> dict[str, Any]:
        return {
            **self.feature.parameters(key_tags=self.layout.key_tags),
            "gold": self.warehouse.gold_table,
            "shard_count": self.layout.shard_count,
            "history_length": self.layout.history_length,
            "newest_first": self.layout.newest_first,
        }

    def _passes(self, profile: Profile, *, deep: bool) -> Iterator[list[int]]:
        """The shards in as few groups as memory allows: each group is one more scan of gold."""
        shards = sorted(int(shard, 16) for shard in self.shards)
        rows = profile.cards * self.layout.history_length if deep else profile.rows
        entities = profile.cards if self.feature.entity == "card_id" else profile.customers
        collected = rows * self.feature.row_bytes + entities * self.feature.entity_bytes
        passes = ceil(collected / PASS_BYTES * len(shards) / self.layout.shard_count)
        size = ceil(len(shards) / min(passes, len(shards)))
        for first in range(0, len(shards), size):
            yield shards[first : first + size]


def shard_names(count: int) -> list[str]:
    """The partition keys of `count` shards: two hexadecimal digits (`00`, `01`, … `0f`)."""
    return [f"{shard:02x}" for shard in range(count)]


def _unwrap(type_: str) -> str:
    """The type inside Nullable and LowCardinality."""
    return re.sub(r"^(LowCardinality|Nullable)\((.*)\)$", r"\2", re.sub(r"^LowCardinality\((.*)\)$", r"\1", type_))
