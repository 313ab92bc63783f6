"""What passes by itself is tried again, a bounded number of times; what does not fails at the first attempt."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_seed.contract import Ready, read_ready
from feature_seed.errors import StoreError
from feature_seed.store import online_store
from feature_seed.store.block import Block
from feature_seed.store.bulk import BulkConnection
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.patience import patient, wait_for
from feature_seed_tests.support.redis_server import free_port, redis_server, wait_until_refused
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import assert_holds, said

ROWS = [transaction(i, f"c{i}", seconds=i) for i in range(600)]

pytestmark = pytest.mark.usefixtures("second_attempts")


@pytest.fixture
def warehouse(make_parquet: MakeWarehouse) -> Warehouse:
    return make_parquet(ROWS)


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    """Whatever servers a test enters are gone after it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def break_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, Callable[[], None]], None]:
    """Have something happen once, at the first block of the entity whose keys begin like this."""

    def plan(beginning: bytes, happen: Callable[[], None]) -> None:
        write, left = BulkConnection.write, [happen]

        def breaking(self: BulkConnection, block: Block) -> None:
            if left and block.keys[0].startswith(beginning):
                left.pop()()
            write(self, block)

        monkeypatch.setattr(BulkConnection, "write", breaking)

    return plan


def attempts(result: dg.ExecuteInProcessResult, step: str) -> int:
    """How often a step was tried."""
    started = [event.step_key for event in result.all_events if event.event_type_value == "STEP_RESTARTED"]
    return 1 + started.count(step)


class Turned(NoBackoff):
    """Has something happen when the store has turned the product away for the first time, before it tries again."""

    def __init__(self, happen: Callable[[], object]) -> None:
        self.left = [happen]

    def compute(self, failures: int) -> float:
        while self.left:
            self.left.pop()()
        return 0


@pytest.fixture
def when_turned_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], Turned]:
    def plan(happen: Callable[[], object]) -> Turned:
        turned = Turned(happen)
        passing = (redis.ConnectionError, redis.TimeoutError)
        monkeypatch.setattr(online_store, "_CONNECT", Retry(turned, online_store._CONNECT.get_retries(), passing))
        return turned

    return plan


def kill(port: int) -> None:
    """Kill the server that listens there."""
    with patient(port=port) as client:
        info: Any = client.info("server")
    os.kill(info["process_id"], signal.SIGKILL)
    wait_until_refused(port)


@pytest.fixture
def restarting(servers: ExitStack, when_turned_away: Callable[[Callable[[], object]], Turned]) -> int:
    """The port of a server. Once it is killed, another, empty one takes its place when somebody has found it away."""
    port = servers.enter_context(redis_server())
    when_turned_away(lambda: servers.enter_context(redis_server(port=port)))
    return port


def test_a_server_that_restarts_in_mid_load(
    warehouse: Warehouse, restarting: int, break_at: Callable[[bytes, Callable[[], None]], None]
) -> None:
    """Killed as the cards come, and back, empty, a moment later: every key is right in the end."""
    port = restarting
    break_at(b"card:", lambda: kill(port))
    result = seed(warehouse, OnlineStore(url=f"redis://127.0.0.1:{port}"), job="seed_all")
    assert attempts(result, "cards") == 2
    with patient(port=port) as client:
        ready = read_ready(client)
        assert ready and (ready.state, ready.cards) == ("ready", 600)
        assert_holds(client, expect(ROWS))


def test_a_server_that_restarts_after_a_feature_is_in(
    warehouse: Warehouse, restarting: int, break_at: Callable[[bytes, Callable[[], None]], None]
) -> None:
    """What the server had acknowledged is gone with it: another attempt of one step must not call the store ready."""
    port = restarting
    break_at(b"cust:", lambda: kill(port))
    with pytest.raises(StoreError, match="was restarted since this run began to write"):
        seed(warehouse, OnlineStore(url=f"redis://127.0.0.1:{port}"))
    with patient(port=port) as client:
        assert said(client) in (None, Ready("seeding"))


def test_a_server_that_is_loading_its_data(
    make_parquet: MakeWarehouse, tmp_path: Path, when_turned_away: Callable[[Callable[[], object]], Turned]
) -> None:
    """Before: a server that answers LOADING, until it has said so to the run. It is waited for."""
    options = ("--dir", str(tmp_path), "--loading-process-events-interval-bytes", "1024")
    with redis_server(*options) as port, patient(port=port) as client:
        client.mset({f"k{i}": "x" * 100 for i in range(50_000)})
        client.save()
    warehouse, port = make_parquet(ROWS[:10]), free_port()
    # Minutes for all keys, and 20 ms from one look at its clients to the next.
    slowly = redis_server(*options, "--key-load-delay", "2000", port=port, wait=False)
    with slowly, patient(port=port) as client:
        wait_for(lambda: answer(client) == "LOADING", "the server answers LOADING")

        def finish() -> None:
            client.config_set("key-load-delay", 0)
            wait_for(lambda: answer(client) == "PONG", "the server has its data")

        turned = when_turned_away(finish)
        seed(warehouse, OnlineStore(url=f"redis://127.0.0.1:{port}"))
        assert not turned.left
        assert client.exists("k0", "card:c0:history") == 2


def answer(client: redis.Redis) -> str:
    """What a server that starts answers, '' while it does not."""
    try:
        return "PONG" if client.ping() else ""
    except redis.BusyLoadingError:
        return "LOADING"
    except redis.ConnectionError:
        return ""


@pytest.mark.parametrize("part", ["store", "warehouse"])
def test_what_stays_away_fails_in_the_end(make_parquet: MakeWarehouse, store: OnlineStore, part: str) -> None:
    """Three attempts, and the last error is the one that is given."""
    warehouse, port = make_parquet(ROWS[:10]), free_port()
    if part == "store":
        store = OnlineStore(url=f"redis://127.0.0.1:{port}")
    else:
        warehouse = Warehouse(host="127.0.0.1", port=port)
    result = seed(warehouse, store, job="load_shard", shard="00", raise_on_error=False)
    assert attempts(result, "cards") == 3
    assert f"{port} cannot be reached" in error(result, "cards")


def error(result: dg.ExecuteInProcessResult, step: str) -> str:
    """What the step failed with, causes included."""
    found = result.failure_data_for_node(step)
    assert found and found.error
    return found.error.to_string()


def connections(online: redis.Redis, store: OnlineStore) -> int:
    """How often a store that cannot be used is connected to."""

    def received() -> int:
        stats: Any = online.info("stats")
        return stats["total_connections_received"]

    before = received()
    with pytest.raises(StoreError), store.client():
        pass
    return received() - before


def test_what_does_not_pass_is_not_tried_again(
    make_parquet: MakeWarehouse, server: Warehouse, redis_port: int, online: redis.Redis, store: OnlineStore
) -> None:
    """A wrong password, of either side, a refused command, a missing table: one attempt each."""
    warehouse = make_parquet(ROWS[:10])
    for wrong_warehouse, wrong_store, message in (
        (warehouse, OnlineStore(url=f"redis://127.0.0.1:{redis_port}", password="wrong"), "REDIS_PASSWORD"),
        (warehouse, OnlineStore(url=f"redis://127.0.0.1:{redis_port}"), "REDIS_PASSWORD"),
        (Warehouse(host=server.host, port=server.port, user="nobody"), store, "CLICKHOUSE_PASSWORD"),
        (Warehouse(gold_parquet="gone.parquet"), store, "No Parquet file"),
    ):
        result = seed(wrong_warehouse, wrong_store, raise_on_error=False)
        assert attempts(result, "cards") == 1
        assert message in error(result, "cards")
    assert connections(online, OnlineStore(url=f"redis://127.0.0.1:{redis_port}", password="wrong")) == 1
    online.set("card:c1:history", "another's")
    result = seed(warehouse, store, raise_on_error=False)
    assert attempts(result, "cards") == 1
    assert "WRONGTYPE" in error(result, "cards")
