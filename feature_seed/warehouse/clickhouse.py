"""The warehouse: ClickHouse, as a server or embedded in the process, and what gold holds."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
from clickhouse_connect import common
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error, OperationalError
from clickhouse_connect.driver.httpclient import HttpClient
from pydantic import Field, PrivateAttr

from feature_seed import tls
from feature_seed.errors import ConfigurationError, GoldError, WarehouseError
from feature_seed.sql import sql
from feature_seed.warehouse import embedded, failures
from feature_seed.warehouse.access import FREE, Access, Setting, examine, lift, refusal
from feature_seed.warehouse.failures import explain, with_retries
from feature_seed.warehouse.files import Snapshot
from feature_seed.warehouse.gold import GOLD_COLUMNS, keeps_versions, over_gold, remedy, tick, unreadable, wrong_columns
from feature_seed.warehouse.identity import Identity, identity_of_files, identity_of_table, table_of
from feature_seed.warehouse.place import place_of
from feature_seed.warehouse.profile import Profile, micros, require_readable
from feature_seed.warehouse.sockets import Sockets
from feature_seed.warehouse.source import GoldSource

T = TypeVar("T")

CONNECT_SECONDS = 10

# How fast an answer is read at least, in bytes of commands, however little the store has taken. ClickHouse hangs up
# when it can send nothing for 30 s. No query can change that http_send_timeout: the default profile at the server's
# start decides. ClickHouse can send again when a third of its socket's buffer is free: on Linux, after some 0.6 MB
# compressed were read.
READ_BYTES_PER_SECOND = 1_000_000

# clickhouse-connect gathers 10 MB of compressed blocks before it hands on the first. With a slow store these can last
# for more than 30 s, and errors in mid-stream are seen late. 64 KB is the least that it accepts.
common.set_setting("http_buffer_size", 65536)

# A query takes at most so many times the memory of what it collects in one pass.
MEMORY_OF_PASS = 4


class Warehouse(GoldSource):
    """Gold, in a ClickHouse server or, without `host`, in Parquet files read by ClickHouse embedded in the process.

    See feature_seed/warehouse/README.md. `pass_bytes` is about what ClickHouse collects in memory in a pass over gold.
    A pass reads all of gold, 1.6 CPU-seconds for 10 M rows of Parquet, so few are fast. Embedded ClickHouse takes 1 M
    cards in four passes at 540 MB, 19 CPU-seconds and 0.9 GB; in three at 720, 17 and 1.1; in two at 1,080, 16 and 1.2.
    """

    password: str | None = Field(default=None, repr=False)
    secure: bool = False
    verify: bool = True
    ca: str | None = None
    gold_final: bool = True
    s3_endpoint: str | None = None
    s3_region: str | None = None
    home: str = ".feature_seed"
    pass_bytes: int = 540_000_000

    _profile: Profile | None = PrivateAttr(default=None)
    _access: Access = PrivateAttr(default_factory=lambda: FREE)
    _files: Snapshot | None = PrivateAttr(default=None)

    @contextmanager
    def client(self, *, view: bool = True) -> Iterator[Client]:
        """A connection. If embedded, the gold snapshot is a view on it, unless only its version is asked for."""
        with self.errors():
            client = with_retries(self._connect) if self.host else self._embed(view)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def interruptible(self) -> Iterator[tuple[Client, Callable[[], None]]]:
        """A connection, and a function that ends its reading from another thread. Embedded, it does nothing."""
        with self.client() as client:
            yield client, Sockets(client).interrupt if isinstance(client, HttpClient) else lambda: None

    def _connect(self) -> Client:
        if self.ca and not Path(self.ca).exists():
            raise ConfigurationError(f"CLICKHOUSE_CA names {self.ca!r}, and there is no such file")
        try:
            client = self._open()
        except OperationalError as e:
            if not self.secure and tls.speaks_tls(self.host or "", self.port or 8123):
                raise WarehouseError(
                    f"ClickHouse at {self.address} cannot be reached: that port speaks TLS, so set CLICKHOUSE_SECURE=1"
                ) from e
            raise
        if self._access is FREE:
            self._access = examine(client, self)
        else:
            lift(client, self._access.restrictions)
        return self._with_final(client, self._access.final)

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
            autogenerate_session_id=False,  # a session ties a run's queries together, and runs one at a time
            connect_timeout=CONNECT_SECONDS,
            send_receive_timeout=failures.ANSWER_SECONDS,
            dedicated_pool=True,  # closed with the client
        )

    def _with_final(self, client: Client, final: Setting) -> Client:
        """Read with FINAL, by a setting: it reaches through views and Distributed, and spares engines without FINAL."""
        if not self.gold_final or final.value == "1":
            return client
        if not final.fixed:
            client.set_client_setting("final", 1)
        elif keeps_versions(engine := self.engine(client)):
            raise GoldError(
                f"Gold table {self.gold_table!r} is a {engine}, and user {self.login!r} may not change the setting "
                "final, without which replaced rows count as well: put final=1 into the user's profile, or make it "
                "changeable_in_readonly there, or set FEATURE_SEED_GOLD_FINAL=0 to read the table as it is"
            )
        return client

    def _embed(self, view: bool) -> Client:
        client = embedded.embed()
        if view:
            embedded.view(client, self._snapshot(client), self.gold_table, self.mapping)
        return client

    def _snapshot(self, client: Client) -> Snapshot:
        if self._files is None:
            named = self.gold_parquet or str(embedded.sample_gold(client, Path(self.home)))
            self._files = Snapshot(place_of(named, self.s3_endpoint, self.s3_region))
        return self._files

    def release_memory(self, client: Client) -> None:
        """Have embedded ClickHouse return the memory that it has freed: the next query needs it."""
        jemalloc = "SELECT count() FROM system.build_options WHERE name = 'USE_JEMALLOC' AND value IN ('1', 'ON')"
        if not self.host and client.command(jemalloc):
            client.command("SYSTEM JEMALLOC PURGE")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Name the table, the cause and the way out where ClickHouse only gives a code."""
        try:
            yield
        except Error as e:
            raise explain(e, self) from (None if self.mapping.salts else e)

    @property
    def access(self) -> Access:
        """What the server lets its user do; it is known from the first connection on."""
        return self._access

    @property
    def pass_memory(self) -> int:
        """What ClickHouse may collect in one pass: `pass_bytes`, or less if its user may not use as much memory."""
        memory = self._access.restrictions.memory
        return min(self.pass_bytes, memory // MEMORY_OF_PASS) if memory else self.pass_bytes

    @property
    def queries_at_once(self) -> int:
        """How many passes of a load, or digests of entities, may be under way. A server's user may have one query."""
        return 1 if self.host else 2

    @contextmanager
    def side_by_side(self) -> Iterator[Callable[[Callable[[], T]], Callable[[], T]]]:
        """A function that takes some work on gold, and gives what waits for the outcome.

        Embedded ClickHouse begins the work at once, in a thread. With a server, whose user may have one query, it is
        done when its outcome is asked for.
        """
        with ThreadPoolExecutor(self.queries_at_once, "side by side") as threads:
            yield cache if self.queries_at_once == 1 else lambda work: threads.submit(work).result

    @property
    def beside(self) -> dict[str, str]:
        """Settings of a query that runs beside another.

        A file's rows are then one stream. With two streams, a query that runs alone takes half of the time. But each
        stream has its own table of what it groups: 0.6 GB more for the digests of 1 M cards, 0.2 for a pass of a load.
        """
        return {} if self.host else {"parallelize_output_from_storages": "0"}

    def profile(self) -> Profile:
        """Check gold's columns, take the watermark and count the rows up to it, once per run.

        A GoldError says that the table, a column of the right type, or a row that can be used is missing.
        """
        profile = self.looked_at()
        require_readable(profile, self.gold_table)
        return profile

    def looked_at(self) -> Profile:
        """The same of gold that may have no usable row."""
        if self._profile is None:
            with self.client() as client, self.errors():
                self._profile = with_retries(lambda: self._examine(client))
        return self._profile

    def _examine(self, client: Client) -> Profile:
        columns = self.require_columns(client)
        identity = self.identity(client)  # asked before the rows are read, so that no change goes unseen
        parameters, formats = {**self.table, "latest": self.latest}, {"Tuple": "tuple"}
        options = {"query_formats": formats, "query_tz": "UTC", "tz_mode": "aware"}
        counts = self.only_row(client, over_gold("warehouse/profile"), parameters, **options)
        if small := self._access.restrictions.too_small(counts["rows"]):
            raise refusal(self, small)
        # The last microsecond of the newest tick: gold has every event of that tick.
        until = min(micros(counts["newest"]) + tick(columns["timestamp"]) - 1, self.latest)
        profile = Profile(**counts, until=until, identity=identity)
        if profile.rows > profile.rejected and keeps_versions(self.engine(client)):
            profile = replace(profile, content=self._readable(client, profile)["content"])
        return profile

    def only_row(self, client: Client, query: str, parameters: dict[str, Any], **options: Any) -> dict[str, Any]:
        """The row of a query over gold that has one row.

        An answer that was cut among its headers looks whole and has none.
        """
        rows = list(client.query(self.mapping.over(query), parameters, **options).named_results())
        if not rows:
            raise WarehouseError(f"ClickHouse at {self.address} sent an answer without its row: run again")
        return rows[0]

    def require_columns(self, client: Client) -> dict[str, str]:
        """Gold's columns and their types, as ClickHouse names them. A mapped column has the type of its expression.

        A GoldError names every missing and every mistyped column, and the columns that are there.
        """
        described = client.query("DESCRIBE TABLE {database:Identifier}.{gold:Identifier}", parameters=self.table)
        own = {column["name"]: column["type"] for column in described.named_results()}
        columns = {**own, **self.mapping.types(client, self.table, self.gold_table, own)}
        if wrong := wrong_columns(GOLD_COLUMNS, {"": columns}):
            lines = remedy(columns, self.mapping.columns)
            raise GoldError(f"{unreadable(self.gold_table, wrong, columns)}. {lines}")
        client.command(self.mapping.over(sql("warehouse/columns")), self.table)  # the right to read each of them
        return columns

    def version(self, client: Client) -> str:
        """The name of gold's state: another after every change. Gold without parts, as a view, is read whole for it."""
        return self.identity(client).version

    def identity(self, client: Client) -> Identity:
        """The version, and the parts that stay while rows are only added; a view has none."""
        if self.host:
            return identity_of_table(client, self, parts=self._access.parts)
        return identity_of_files(self._snapshot(client).listed(client), self.mapping)

    def require_unbroken(self, client: Client) -> None:
        """Gold may have grown since it was profiled, but only by rows newer than its watermark, which are not read.

        Any other change is a GoldError.
        """
        profile, now = self.profile(), self.identity(client)
        if not profile.identity.kept <= now.kept:
            raise GoldError(
                f"Gold table {self.gold_table!r} was rebuilt while it was read, and the store may hold some of both: "
                f"run again when the ETL is done"
            )
        if now.version == profile.version:
            return
        readable = self._readable(client, profile)
        before = {"rows": profile.rows - profile.rejected, "content": profile.content or readable["content"]}
        if readable != before:
            raise GoldError(
                f"Gold table {self.gold_table!r} got rows older than {profile.watermark}, its watermark, while "
                f"it was read, and the store may hold some of them: run again when the ETL is done"
            )

    def _readable(self, client: Client, profile: Profile) -> dict[str, int]:
        """The number and a sum of the usable rows that a query would read now, in case gold has grown."""
        return self.only_row(client, over_gold("warehouse/readable"), {**self.table, **profile.readable})

    def engine(self, client: Client) -> str:
        """The engine of gold's table; '' for files."""
        return table_of(client, self)[0] if self.host else ""
