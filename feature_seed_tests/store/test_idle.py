"""Stores that close idle connections: a warehouse that takes its time costs no attempt."""

from collections.abc import Iterator

import pytest
import redis

from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.graph.test_retries import attempts
from feature_seed_tests.store.test_stores import OUTCOMES
from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import create_table, transaction
from feature_seed_tests.support.patience import eventually
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import assert_holds

pytestmark = pytest.mark.usefixtures("second_attempts")

ROWS = [transaction(i, f"c{i % 9}", seconds=i) for i in range(60)]

# The shortest of Redis' timeouts. It looks whether it has passed about once a second.
TIMEOUT_SECONDS = 1
PAUSE_SECONDS = 3.5


@pytest.fixture
def impatient() -> Iterator[redis.Redis]:
    """A server that closes what was idle for a second."""
    with redis_server("--timeout", str(TIMEOUT_SECONDS)) as port, redis.Redis(port=port) as client:
        yield client


def store_of(client: redis.Redis) -> OnlineStore:
    return OnlineStore(url=f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[ClickHouseServer]:
    with clickhouse_server(user="seeder", password="x") as started:
        yield started


def test_a_first_block_that_comes_late(endpoint: ClickHouseServer, impatient: redis.Redis) -> None:
    """Before: a warehouse that is silent for seconds before a block. The first attempt has every key in it."""
    warehouse = Warehouse(host=endpoint.host, port=endpoint.port, user=endpoint.user, password=endpoint.password)
    with warehouse.client() as client:
        create_table(client, "fact_transactions_gold", ROWS)
    endpoint.play("slow", after=0, seconds=PAUSE_SECONDS)
    result = seed(warehouse, store_of(impatient))
    assert endpoint.played() == 1
    assert attempts(result, "cards") == 1
    assert OUTCOMES["`timeout 1`, and a warehouse that takes 3 seconds to answer"] == "seeded"
    assert_holds(impatient, expect(ROWS))


def test_a_client_whose_connection_was_closed(impatient: redis.Redis) -> None:
    """What is held for the whole of a step connects again, when nothing is outstanding."""
    with store_of(impatient).client() as client:
        before = str(client.client_id())
        eventually(lambda: before not in {one["id"] for one in impatient.client_list()})
        assert str(client.client_id()) != before
