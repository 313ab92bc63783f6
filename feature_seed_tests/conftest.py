"""The real parts that tests run against: embedded ClickHouse, ClickHouse over HTTP, and a Redis server."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
import redis
import yaml
from clickhouse_connect.driver.binding import quote_identifier
from clickhouse_connect.driver.client import Client
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_seed.features.declared.declared import Declared
from feature_seed.graph import retries
from feature_seed.graph.report import report
from feature_seed.store import online_store
from feature_seed.store.local import LocalRedis
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse import failures
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.embedded import sample_gold
from feature_seed.warehouse.mapping import GoldMapping
from feature_seed_tests.support.clickhouse_http import clickhouse_server
from feature_seed_tests.support.documents import VARIABLES, code
from feature_seed_tests.support.expected import Expected, expect
from feature_seed_tests.support.gold import Row, create_table, read_parquet, write_parquet
from feature_seed_tests.support.patience import patient
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.shapes import MakeGold, Rows, Types, create, mapping_of

MakeWarehouse = Callable[..., Warehouse]

# Read before any test clears them.
_HOST = os.environ.get("CLICKHOUSE_HOST")
_PORT = os.environ.get("CLICKHOUSE_PORT") or "0"
_USER = os.environ.get("CLICKHOUSE_USER")
_PASSWORD = os.environ.get("CLICKHOUSE_PASSWORD")

PASSWORD = "a-password-of-tests"

# Engines whose settings no test changes: the embedded one, and that of `server`.
STEADY = {"chdb://:memory:"}

# Runs in this process are of two shards: Dagster keeps events for each, and with four a run takes a tenth longer. Read
# when the assets are imported, which nothing above does.
os.environ["FEATURE_SEED_SHARDS"] = SHARDS = "2"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the configuration of the shell that runs it, or leaves files in the checkout."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FEATURE_SEED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FEATURE_SEED_SHARDS", SHARDS)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are not tried again, and queries and connections at once."""
    monkeypatch.setattr(retries, "DELAYS_SECONDS", ())
    monkeypatch.setattr(failures, "RETRY_DELAYS", (0.01, 0.02, 0.04, 0.08))
    monkeypatch.setattr(online_store, "_CONNECT", Retry(NoBackoff(), 1, (redis.ConnectionError, redis.TimeoutError)))


@pytest.fixture
def second_attempts(quick_retries: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are tried again as often as in earnest, and at once."""
    monkeypatch.setattr(retries, "DELAYS_SECONDS", (0.1, 0.1))


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs leave the pictures out of their reports: they were a third of what a small run takes."""
    monkeypatch.setattr(report, "find_spec", lambda _: None)


@pytest.fixture(scope="session", autouse=True)
def one_handshake() -> Iterator[None]:
    """An engine of `STEADY` tells its 1,500 settings once, not to each connection: that is a seventh of a small run."""
    ask, take = Client._init_common_settings, Client._apply_init_result  # pyright: ignore[reportPrivateUsage]
    told: dict[object, Any] = {}

    def login(client: Any) -> object:
        return client.uri, client.database, getattr(client, "headers", {}).get("Authorization")

    def ask_once(self: Client, tz_source: Any) -> None:
        take(self, told[login(self)]) if login(self) in told else ask(self, tz_source)

    def remember(self: Client, result: Any) -> None:
        if self.uri in STEADY:
            told[login(self)] = result
        take(self, result)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "_init_common_settings", ask_once)
        patch.setattr(Client, "_apply_init_result", remember)
        yield


@pytest.fixture(scope="session")
def instance_yaml() -> dict[str, Any]:
    """The dagster.yaml that the documents give."""
    (block,) = [block for block in code("yaml") if block.startswith("storage:")]
    return yaml.safe_load(block)


@pytest.fixture
def home() -> Iterator[Path]:
    """Where local mode keeps its files; its Redis ends with the test."""
    home = Path(os.environ["FEATURE_SEED_HOME"])
    yield home
    LocalRedis(home).remove()


@pytest.fixture(scope="session")
def chdb() -> Iterator[Client]:
    client = clickhouse_connect.get_client(interface="chdb")
    yield client
    client.close()


@pytest.fixture(scope="session")
def sample(chdb: Client, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The sample that is seeded where no gold is named: 200,000 transactions of 5,000 cards."""
    return Warehouse(gold_parquet=str(sample_gold(chdb, tmp_path_factory.mktemp("sample"))))


@pytest.fixture(scope="session")
def sample_rows(chdb: Client, sample: Warehouse) -> Sequence[Row]:
    return list(read_parquet(chdb, Path(str(sample.gold_parquet))))


@pytest.fixture(scope="session")
def sample_expected(sample_rows: Sequence[Row]) -> Expected:
    return expect(sample_rows)


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    with redis_server(password=PASSWORD) as port:
        yield port


@pytest.fixture
def online(redis_port: int) -> Iterator[redis.Redis]:
    """A client of an empty store."""
    with patient(port=redis_port, password=PASSWORD) as client:
        client.flushall()
        yield client


@pytest.fixture
def store(redis_port: int, online: redis.Redis) -> OnlineStore:
    """The same store, as the resource."""
    return OnlineStore(url=f"redis://127.0.0.1:{redis_port}", password=PASSWORD)


@pytest.fixture(scope="session")
def server() -> Iterator[Warehouse]:
    """ClickHouse over HTTP: the server that CLICKHOUSE_HOST names, else the real engine behind its HTTP interface."""
    if _HOST:
        yield Warehouse(host=_HOST, port=int(_PORT), user=_USER, password=_PASSWORD)
        return
    with clickhouse_server(user="seeder", password=PASSWORD) as endpoint:
        STEADY.add(f"http://{endpoint.host}:{endpoint.port}")
        yield Warehouse(host=endpoint.host, port=endpoint.port, user=endpoint.user, password=endpoint.password)


@pytest.fixture
def make_table(server: Warehouse) -> Iterator[MakeWarehouse]:
    """Gold as a MergeTree table of given rows in the server; gone after the test."""
    made: list[str] = []

    def make(rows: Sequence[Row], gold_table: str = "gold_of_a_test", **types: str) -> Warehouse:
        with server.client() as client:
            create_table(client, quote_identifier(gold_table), rows, **types)
        made.append(quote_identifier(gold_table))
        return Warehouse(
            host=server.host, port=server.port, user=server.user, password=server.password, gold_table=gold_table
        )

    yield make
    with server.client() as client:
        for table in made:
            client.command(f"DROP TABLE IF EXISTS {table}")


@pytest.fixture
def make_parquet(chdb: Client, tmp_path: Path) -> MakeWarehouse:
    """Gold as a Parquet snapshot of given rows, for the embedded engine."""

    def make(rows: Sequence[Row], gold_table: str = "fact_transactions_gold", **types: str) -> Warehouse:
        path = write_parquet(chdb, tmp_path / "gold.parquet", rows, **types)
        return Warehouse(gold_parquet=str(path), gold_table=gold_table)

    return make


@pytest.fixture(params=["embedded", "server"])
def make_warehouse(request: pytest.FixtureRequest) -> MakeWarehouse:
    """Gold of given rows, once for the embedded engine and once over HTTP."""
    return request.getfixturevalue({"embedded": "make_parquet", "server": "make_table"}[request.param])


@pytest.fixture
def make_table_of(server: Warehouse) -> Iterator[MakeGold]:
    """Gold as a table in the server, of rows with columns of its own; gone after the test."""

    def make(
        types: Types, rows: Rows, declared: Sequence[Declared] = (), mapping: GoldMapping | None = None
    ) -> Warehouse:
        with server.client() as client:
            create(client, "gold_of_a_shape", types, rows)
        there = {name: getattr(server, name) for name in ("host", "port", "user", "password")}
        return Warehouse(gold_table="gold_of_a_shape", mapping=mapping or mapping_of(declared), **there)

    yield make
    with server.client() as client:
        client.command("DROP TABLE IF EXISTS gold_of_a_shape")


@pytest.fixture
def make_snapshot_of(chdb: Client, tmp_path: Path) -> MakeGold:
    """The same as a Parquet snapshot."""

    def make(
        types: Types, rows: Rows, declared: Sequence[Declared] = (), mapping: GoldMapping | None = None
    ) -> Warehouse:
        create(chdb, "draft", types, rows)
        path = tmp_path / "gold.parquet"
        path.unlink(missing_ok=True)
        chdb.command("INSERT INTO FUNCTION file({path:String}, 'Parquet') SELECT * FROM draft", {"path": str(path)})
        return Warehouse(gold_parquet=str(path), mapping=mapping or mapping_of(declared))

    return make


@pytest.fixture(params=["embedded", "server"])
def make_gold(request: pytest.FixtureRequest) -> MakeGold:
    """The same, once for the embedded engine and once over HTTP."""
    return request.getfixturevalue({"embedded": "make_snapshot_of", "server": "make_table_of"}[request.param])
