"""The warehouse: ClickHouse, as a server or embedded in the process, and what its gold table holds."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
import dagster as dg
from clickhouse_connect import common
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error, OperationalError, StreamFailureError
from clickhouse_connect.driver.httpclient import HttpClient
from clickhouse_connect.driver.query import QueryResult
from pydantic import Field, PrivateAttr
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

from feature_seed import tls
from feature_seed.entity import sql
from feature_seed.errors import ConfigurationError, GoldError, WarehouseError, WarehouseUnavailableError
from feature_seed.gold import Identity, Profile, wrong_columns
from feature_seed.sample import sample_gold
from feature_seed.sockets import Sockets

T = TypeVar("T")

CONNECT_SECONDS = 10

# How long the server may send nothing at all while it is waited for. It names its progress every 120 s while it scans,
# keepalive finds a dead host in that time too, and how slowly blocks are read does not count: a healthy server is never
# silent for so long.
ANSWER_SECONDS = 300

# How fast an answer is read at least, in bytes of commands, whatever the store has taken of it. ClickHouse hangs up
# when it can send nothing for 30 s, its http_send_timeout, which no query can change: what counts is the default
# profile's at the server's start. It can send again when a third of its socket's buffer is free, on Linux for some
# 0.6 MB that were read, compressed.
READ_BYTES_PER_SECOND = 1_000_000

# clickhouse-connect gathers 10 MB of compressed blocks before it hands on the first. With a slow store those can last
# for more than 30 s, and errors in mid-stream are seen late; 64 KB is the least that it may have.
common.set_setting("http_buffer_size", 65536)

# Before each further try of a query that could not start: a server restarts in some seconds.
PAUSES = (0.5, 1.0, 2.0, 4.0)


# The view of the snapshot in the embedded engine.
_SNAPSHOT = "gold_snapshot"

# What ClickHouse calls a Parquet file that is none, is cut off, or does not fit the columns that it took from another.
_BAD_FILE = (
    "CANNOT_EXTRACT_TABLE_STRUCTURE",
    "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
    "CANNOT_PARSE_TEXT",
    "INCORRECT_DATA",
    "THERE_IS_NO_COLUMN",
)


@dataclass(frozen=True)
class Identifier:
    """A name for an `Identifier` parameter, which ClickHouse takes as it stands.

    clickhouse-connect escapes every str as for a `String` parameter, and so asks for another name where a quote, a
    backtick or a backslash is in it. Values of other types it writes as they print.
    """

    name: str

    def __str__(self) -> str:
        return self.name


# Errors of a server that another attempt may not meet.
_OVERLOADED = ("TOO_MANY_SIMULTANEOUS_QUERIES", "NETWORK_ERROR", "SOCKET_TIMEOUT", "ALL_CONNECTION_TRIES_FAILED")


class Warehouse(dg.ConfigurableResource):
    """Gold, in a ClickHouse server or, without `host`, in Parquet files read by ClickHouse embedded in the process.

    `pass_bytes` is about what ClickHouse collects in memory in one pass over gold. A pass reads all of it again, 1.4
    CPU-seconds for 10 M rows of Parquet, so few are fast: of 1 M cards with ClickHouse embedded, a job takes 44
    CPU-seconds and 1.1 GB at 256 MB, 42 and 1.2 at 360, 40 and 1.3 at 540, and 40 and 2.1 in one pass.
    """

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
    pass_bytes: int = 540_000_000

    _profile: Profile | None = PrivateAttr(default=None)

    @property
    def table(self) -> dict[str, Identifier]:
        """Gold's name, as the SQL's parameters."""
        if self.host:
            return {"database": Identifier(self.database), "gold": Identifier(self.gold_table)}
        return {"database": Identifier("default"), "gold": Identifier(_SNAPSHOT)}

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A connection; embedded, one on which the gold snapshot is a view."""
        with self.errors():
            client = patiently(self._connect) if self.host else self._embed()
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def interruptible(self) -> Iterator[tuple[Client, Callable[[], None]]]:
        """A connection, and what ends its reading from another thread. Embedded ClickHouse first ends its block."""
        with self.client() as client:
            yield client, Sockets(client).hang_up if isinstance(client, HttpClient) else lambda: None

    def _connect(self) -> Client:
        if self.ca and not Path(self.ca).exists():
            raise ConfigurationError(f"There is no file CLICKHOUSE_CA {self.ca!r}")
        try:
            return self._open()
        except OperationalError as e:
            if not self.secure and tls.speaks_tls(self.host or "", self.port or 8123):
                raise WarehouseError(
                    f"ClickHouse at {self.address} cannot be reached: it speaks TLS there, so set CLICKHOUSE_SECURE=1"
                ) from e
            raise

    def _open(self) -> Client:
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
            connect_timeout=CONNECT_SECONDS,
            send_receive_timeout=ANSWER_SECONDS,
            dedicated_pool=True,  # closed with the client
        )

    def _embed(self) -> Client:
        try:
            client = clickhouse_connect.get_client(interface="chdb")
        except ImportError as e:
            raise ConfigurationError(
                "ClickHouse embedded in the process needs chdb: "
                "pip install 'feature_seed[local]', or set CLICKHOUSE_HOST for a server"
            ) from e
        # Bound by the client: a view's definition takes no server-side parameters. Without the first two settings, what
        # a file lacks of another's columns is read as zeros. Each thread more that parses holds row groups, 100 MB at a
        # million rows each, and is no faster on two cores.
        client.command(
            f"CREATE OR REPLACE VIEW default.{_SNAPSHOT} AS SELECT * FROM file(%(snapshot)s, 'Parquet') SETTINGS "
            "input_format_parquet_allow_missing_columns = 0, input_format_null_as_default = 0, max_parsing_threads = 1",
            parameters={"snapshot": self._snapshot(client)},
        )
        return client

    def give_back(self, client: Client) -> None:
        """Have embedded ClickHouse return what it has freed, which is in the way of its next query's memory."""
        jemalloc = "SELECT count() FROM system.build_options WHERE name = 'USE_JEMALLOC' AND value IN ('1', 'ON')"
        if not self.host and client.command(jemalloc):
            client.command("SYSTEM JEMALLOC PURGE")

    def _snapshot(self, client: Client) -> str:
        if self.gold_parquet and set(self.gold_parquet) & set("*?{}") and Path(self.gold_parquet).exists():
            raise GoldError(
                f"FEATURE_SEED_GOLD_PARQUET {self.gold_parquet!r} is a file's name, and a glob that may match others: "
                "rename what has one of *?{} in its name"
            )
        return self.gold_parquet or str(sample_gold(client, Path(self.home)))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Name the table, the cause and the way out where ClickHouse only gives a code."""
        try:
            yield
        except Error as e:
            raise self._explain(e) from e

    def _explain(self, error: Error) -> WarehouseError:
        where = self.address
        if error.name == "UNKNOWN_TABLE":
            return GoldError(
                f"There is no gold table {self.gold_table!r} in database {self.database!r} of {where}: "
                f"build it, or name the right one in FEATURE_SEED_GOLD_TABLE and CLICKHOUSE_DATABASE"
            )
        if error.name == "UNKNOWN_DATABASE":
            return GoldError(f"There is no database {self.database!r} on {where}: check CLICKHOUSE_DATABASE")
        if error.name == "CANNOT_STAT" or "no files with provided path" in str(error):
            return GoldError(f"No Parquet file matches FEATURE_SEED_GOLD_PARQUET {self.gold_parquet!r}: {error}")
        if self.gold_parquet and error.name in _BAD_FILE:
            return GoldError(
                f"FEATURE_SEED_GOLD_PARQUET {self.gold_parquet!r} cannot be read: "
                f"a file is damaged, or lacks columns or values that others have. {error}"
            )
        if error.name in ("AUTHENTICATION_FAILED", "REQUIRED_PASSWORD", "UNKNOWN_USER"):
            return WarehouseError(
                f"ClickHouse at {where} refuses user {self.user!r}: check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD"
            )
        if _caused_by(error, ReadTimeoutError):
            return WarehouseUnavailableError(
                f"ClickHouse at {where} sent nothing for {ANSWER_SECONDS} s while it was waited for: "
                f"look at its load and at the network, and run again"
            )
        if error.code is None and isinstance(error, StreamFailureError):
            return WarehouseUnavailableError(
                f"ClickHouse at {where} broke off in the middle of its answer: "
                f"look into its log, and run again. {error}"
            )
        if error.code is None:
            kind = WarehouseError if tls.mistaken(error) else WarehouseUnavailableError
            return kind(
                f"ClickHouse at {where} cannot be reached: check CLICKHOUSE_HOST, CLICKHOUSE_PORT, CLICKHOUSE_SECURE "
                f"and CLICKHOUSE_CA. {error}"
            )
        kind = WarehouseUnavailableError if error.name in _OVERLOADED else WarehouseError
        return kind(f"ClickHouse at {where} failed on gold table {self.gold_table!r}: {error}")

    @property
    def address(self) -> str:
        """Where the warehouse is, for messages."""
        return f"{self.host}:{self.port}" if self.port else self.host or "embedded ClickHouse"

    def profile(self) -> Profile:
        """Check gold's columns and count its rows, once per run.

        Raises:
            GoldError: the table is missing, a column is missing or mistyped, or there is no row that can be used.
        """
        if self._profile is None:
            with self.client() as client, self.errors():
                self._profile = patiently(lambda: self._examine(client))
        return self._profile

    def _examine(self, client: Client) -> Profile:
        self.require_columns(client)
        identity = self.identity(client)  # before what it identifies, so that no change goes unseen
        query = f"WITH gold AS ({sql('gold')}) {sql('profile')}"
        counts = self.only_row(client.query(query, parameters=self.table, query_tz="UTC", tz_mode="aware"))
        if counts["rows"] == counts["rejected"]:
            found = f"all {counts['rows']} rows are rejected" if counts["rows"] else "it is empty"
            raise GoldError(f"Gold table {self.gold_table!r} has nothing to seed: {found}. The store was left as it is")
        return Profile(**counts, identity=identity)

    def only_row(self, result: QueryResult) -> dict[str, Any]:
        """The row of a query that has one; an answer that was cut among its headers looks whole and has none."""
        rows = list(result.named_results())
        if not rows:
            raise WarehouseError(f"ClickHouse at {self.address} answered nothing where it has to: run again")
        return rows[0]

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
        """A cheap name of what gold is: another after a rebuild or an insert, or when a file of a snapshot is written.

        Gold that has no parts, as a view, is read whole for it.
        """
        return self.identity(client).version

    def identity(self, client: Client) -> Identity:
        """The version, and what of it stays while rows are only added; of a view nothing does."""
        if not self.host:
            snapshot = {"snapshot": self._snapshot(client)}
            files = client.query(sql("version_parquet"), parameters=snapshot).result_rows
            return Identity(_digest(files), frozenset(files))
        named = {"database": self.database, "gold": self.gold_table}
        tables = list(client.query(sql("version"), parameters=named).named_results())
        if not tables:
            raise GoldError(f"There is no gold table {self.gold_table!r} in database {self.database!r}")
        table = tables[0]
        if table["blocks"]:
            partitions = {(table["created"], partition, first) for partition, first, _ in table["blocks"]}
            return Identity(_digest(table), frozenset(partitions))
        content = f"WITH gold AS ({sql('gold')}) {sql('version_content')}"
        rows = client.query(content, parameters=self.table).result_rows
        return Identity(_digest((table, rows)), frozenset(rows))

    def require_unbroken(self, client: Client) -> None:
        """Gold may only have grown since it was profiled, by rows newer than its watermark, which are not read.

        Raises:
            GoldError: it was rebuilt, rows were taken away or rewritten, or older ones were added.
        """
        profile, now = self.profile(), self.identity(client)
        if not profile.identity.kept <= now.kept:
            raise GoldError(
                f"Gold table {self.gold_table!r} was rebuilt while it was read, and the store may hold some of both: "
                f"run again when the ETL is done"
            )
        if now.version != profile.version and self._readable(client) != profile.rows - profile.rejected:
            raise GoldError(
                f"Gold table {self.gold_table!r} got rows older than {profile.watermark}, its newest so far, while "
                f"it was read, and the store may hold some of them: run again when the ETL is done"
            )

    def _readable(self, client: Client) -> int:
        """How many usable rows a query that begins now would read: a scan of two columns, in case gold has grown."""
        query = f"WITH gold AS ({sql('gold')}) {sql('readable')}"
        parameters = {**self.table, **self.profile().readable}
        return int(self.only_row(client.query(query, parameters))["rows"])


def patiently(begin: Callable[[], T]) -> T:
    """Try again, a few times and ever more slowly, what the server could not begin to answer.

    Not what it refuses, and not what took a whole timeout. Nothing may have been handed on before `begin` returns.
    """
    for pause in PAUSES:
        try:
            return begin()
        except OperationalError as e:
            if not _transient(e):
                raise
        time.sleep(pause)
    return begin()


def _transient(error: OperationalError) -> bool:
    """Refused or reset connections, and the statuses by which a proxy or a full server asks for another try."""
    if _caused_by(error, NewConnectionError):  # urllib3 takes a refusal for a kind of time-out
        return True
    slow = _caused_by(error, ConnectTimeoutError, ReadTimeoutError)
    return error.code is None and not slow and not tls.mistaken(error)


def _caused_by(error: BaseException | None, *kinds: type[HTTPError]) -> bool:
    while error and not isinstance(error, kinds):
        error = error.__cause__
    return error is not None


def _digest(identity: object) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
