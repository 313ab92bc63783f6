"""The real parts that tests run against: embedded ClickHouse, ClickHouse over HTTP, and a Redis server."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import clickhouse_connect
import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.environment import VARIABLES
from feature_seed.online_store import OnlineStore
from feature_seed.warehouse import Warehouse
from feature_seed_tests.gold import Row, write_parquet
from feature_seed_tests.redis_server import redis_server

MakeWarehouse = Callable[..., Warehouse]

PASSWORD = "a-password-of-tests"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the configuration of the shell that runs it, or leaves files in the checkout."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FEATURE_SEED_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def chdb() -> Iterator[Client]:
    client = clickhouse_connect.get_client(interface="chdb")
    yield client
    client.close()


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    with redis_server(password=PASSWORD) as port:
        yield port


@pytest.fixture
def online(redis_port: int) -> Iterator[redis.Redis]:
    """A client of an empty store."""
    with redis.Redis(port=redis_port, password=PASSWORD) as client:
        client.flushall()
        yield client


@pytest.fixture
def store(redis_port: int, online: redis.Redis) -> OnlineStore:
    """The same store, as the resource."""
    return OnlineStore(url=f"redis://127.0.0.1:{redis_port}", password=PASSWORD)


@pytest.fixture
def make_parquet(chdb: Client, tmp_path: Path) -> MakeWarehouse:
    """Gold as a Parquet snapshot of given rows, for the embedded engine."""

    def make(rows: Sequence[Row], **types: str) -> Warehouse:
        return Warehouse(gold_parquet=str(write_parquet(chdb, tmp_path / "gold.parquet", rows, **types)))

    return make


@pytest.fixture
def make_warehouse(make_parquet: MakeWarehouse) -> MakeWarehouse:
    return make_parquet


@pytest.fixture
def make_table(make_parquet: MakeWarehouse) -> MakeWarehouse:
    return make_parquet
