"""Redis Sentinel: seeded like any store, and a failover costs another attempt, never a part of the features."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.errors import StoreError, StoreUnavailableError
from feature_seed.graph import retries
from feature_seed.loading.preflight import examine
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.graph.test_retries import attempts
from feature_seed_tests.support.blocks import block_of
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.patience import HANG_SECONDS
from feature_seed_tests.support.redis_server import free_port
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.sentinels import NAME, Sentinels, at_first_block, redis_sentinels, sentinel_of
from feature_seed_tests.support.store import assert_holds

SENTINEL_PASSWORD = "another-password-of-tests"

# Cards enough for several blocks.
ROWS = [transaction(i, f"c{i}", seconds=i) for i in range(2_000)]

pytestmark = pytest.mark.usefixtures("second_attempts")


@pytest.fixture(scope="module")
def sentinels() -> Iterator[Sentinels]:
    with redis_sentinels(PASSWORD, SENTINEL_PASSWORD) as started:
        yield started


@pytest.fixture
def store(sentinels: Sentinels) -> OnlineStore:
    """Empty, with one primary and a replica of it."""
    sentinels.settle()
    sentinels.primary().flushall()
    return store_of(sentinels.url)


@pytest.fixture
def warehouse(make_parquet: MakeWarehouse) -> Warehouse:
    return make_parquet(ROWS)


def store_of(url: str, sentinel_password: str | None = SENTINEL_PASSWORD) -> OnlineStore:
    return OnlineStore(url=url, password=PASSWORD, sentinel_password=sentinel_password)


@pytest.mark.slow
def test_a_primary_that_dies_in_mid_load(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is tried again, until the failover is over, and the new primary has it all.

    One that is replaced on purpose is a row of store/README.md.
    """
    monkeypatch.setattr(retries, "DELAYS_SECONDS", (2.0,) * HANG_SECONDS)
    with redis_sentinels(PASSWORD, SENTINEL_PASSWORD) as mortal:
        at_first_block(mortal.kill, monkeypatch)
        result = seed(warehouse, store_of(mortal.url), job="seed_all")
        assert attempts(result, "cards") > 1
        assert_holds(mortal.servers[1], expect(ROWS))


def test_a_failover_that_lost_nothing(warehouse: Warehouse, sentinels: Sentinels, store: OnlineStore) -> None:
    """Before: features that the replica has, which became the primary since. The store is called ready."""
    with dg.DagsterInstance.ephemeral() as instance:
        seed(warehouse, store, job="load_and_verify", instance=instance)
        sentinels.primary().wait(1, 10_000)
        sentinels.fail_over()
        seed(warehouse, store, job="warm_start", instance=instance)
    assert_holds(sentinels.primary(), expect(ROWS))


def test_what_a_former_primary_takes_is_not_called_loaded(sentinels: Sentinels, store: OnlineStore) -> None:
    """Before: a primary that was replaced and does not know yet. It acknowledges, and the load fails all the same."""
    with store.bulk() as loading:
        sentinels.fail_over()
        loading.write(block_of("SET card:x:seq 1"))
        loading.keep_alive()
        assert loading.entities == 1
        with pytest.raises(StoreUnavailableError, match="was replaced during the load"):
            loading.drain()


def test_a_former_primary_that_knows(sentinels: Sentinels, store: OnlineStore) -> None:
    """It refuses to write: another attempt finds the new one."""
    with store.client() as client:
        sentinels.fail_over()
        sentinels.settle()
        with pytest.raises(StoreUnavailableError, match="read only replica"), store.errors():
            client.set("x", 1)


@pytest.mark.usefixtures("store")
def test_sentinels_that_name_a_replica(sentinels: Sentinels) -> None:
    """Before: a sentinel that is behind, under a name of its own, by which the others do not correct it.

    Nothing is written, and it is tried again later.
    """
    port = sentinels.other.connection_pool.connection_kwargs["port"]
    with sentinel_of(port, PASSWORD, SENTINEL_PASSWORD, name="behind") as behind:
        store = store_of(f"redis+sentinel://127.0.0.1:{behind}/behind")
        with pytest.raises(StoreUnavailableError, match="names a replica of"), store.client() as client:
            examine(client, store)


def test_the_next_sentinel_is_asked(sentinels: Sentinels) -> None:
    """Before: the first one in the URL is gone."""
    store = store_of(sentinels.url.replace("://", f"://127.0.0.1:{free_port()},"))
    with store.client() as client:
        assert client.ping()


def test_what_is_wrong_with_sentinels(sentinels: Sentinels) -> None:
    """Each mistake is named, without a password; only what may pass is tried again."""
    server = sentinels.primary().connection_pool.connection_kwargs["port"]
    gone = free_port()
    for url, password, kind, says in (
        (sentinels.url, None, StoreError, "check REDIS_SENTINEL_PASSWORD"),
        (sentinels.url, "wrong", StoreError, "check REDIS_SENTINEL_PASSWORD"),
        (sentinels.url.replace(NAME, "other"), SENTINEL_PASSWORD, StoreError, "know no primary 'other'"),
        (f"redis+sentinel://127.0.0.1:{server}/{NAME}", PASSWORD, StoreError, f"{server} does not answer as a sent"),
        (f"redis+sentinel://127.0.0.1:{gone}/{NAME}", None, StoreUnavailableError, f"127.0.0.1:{gone}: .*refused"),
        (sentinels.url.replace("://", "://:wrong@"), SENTINEL_PASSWORD, StoreError, "check REDIS_PASSWORD"),
    ):
        with pytest.raises(kind, match=says) as refused, store_of(url, password).client():
            pass
        assert type(refused.value) is kind
        text = str(refused.value)
        assert PASSWORD not in text and SENTINEL_PASSWORD not in text and ":wrong" not in text


def test_the_database(sentinels: Sentinels) -> None:
    """The URL names it behind the primary."""
    with store_of(f"{sentinels.url}/3").client() as client:
        info: Any = client.client_list()
        assert {one["db"] for one in info if one["cmd"] == "client|list"} == {"3"}
    assert isinstance(client, redis.Redis)
