"""Loads that are throttled: by a cap, and by how long the store takes to answer others."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from logging import getLogger
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.loading import throttle
from feature_seed.loading.throttle import Throttle
from feature_seed.store.block import Block
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.deployment import wait_for
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import assert_holds

CARDS = 1500

ROWS = [transaction(i, f"c{i}", seconds=i, customer_id="p1") for i in range(CARDS)]


@pytest.fixture
def warehouse(make_parquet: MakeWarehouse) -> Warehouse:
    return make_parquet(ROWS)


def loads(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """What each feature's materialisation says of its load."""
    found = {}
    for event in result.all_events:
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key:
            metadata = event.materialization.metadata
            found[event.asset_key.to_user_string()] = {name: value.value for name, value in metadata.items()}
    return found


def logged(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> str:
    return "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))


def test_without_limits_blocks_pass_as_they_are(store: OnlineStore) -> None:
    blocks = iter([Block([0], [b"k"], b"x", [1], 1, False)])
    with Throttle().applied(blocks, store, getLogger()) as throttled:
        assert throttled is blocks


@pytest.mark.parametrize(("rate", "largest"), [(20, 1), (500, 10), (1e6, 16)])
def test_bursts_are_small(store: OnlineStore, rate: float, largest: int) -> None:
    """Blocks of some entities, of differing sizes: all of them go, in order, a fiftieth of a second's at a time."""
    texts = [b"%d;" % (7**i) for i in range(20)]
    block = Block(list(range(20)), texts, b"".join(texts), [*map(len, texts)], 1, False)
    with Throttle(max_rate=rate).applied(iter([block, block]), store, getLogger()) as throttled:
        parts = list(throttled)
    assert max(len(part.keys) for part in parts) == largest
    assert [text for part in parts for text in part.keys] == texts * 2
    assert b"".join(part.payload for part in parts) == b"".join(texts) * 2
    assert all(sum(part.sizes) == len(part.payload) for part in parts)


def test_the_rate_is_kept_to(warehouse: Warehouse, store: OnlineStore, online: redis.Redis) -> None:
    """Before: an empty store, which takes cards far faster. After: every key, as fast as allowed."""
    done = loads(seed(warehouse, store, max_rate=2000))
    for feature in ("card_history", "card_location"):
        seconds = done[feature]["seconds"]
        assert 0.95 * CARDS / 2000 - 0.05 <= seconds <= 3 * CARDS / 2000
        assert "probe_p99_ms" not in done[feature]
    assert_holds(online, expect(ROWS))


@contextmanager
def busy(online: redis.Redis) -> Iterator[None]:
    """Another client holds the server for some milliseconds at a time, most of the time."""
    done = threading.Event()

    def hold() -> None:
        while not done.wait(0.002):
            online.eval("local i = 0; while i < 3000000 do i = i + 1 end", 0)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_store_that_is_slow_is_given_less(
    warehouse: Warehouse, store: OnlineStore, online: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: a store that answers late, whatever the load does. The load goes on slowly, and says why. After: every
    key. Over a quiet store, and one that may be as slow, the same load is faster.
    """
    monkeypatch.setattr(throttle, "_MAX_LATE_AT_SLOWEST", 5)  # a full machine leaves few probes to such a load
    with dg.DagsterInstance.ephemeral() as instance:
        with busy(online):
            slow = seed(warehouse, store, max_latency_ms=1, instance=instance)
        assert_holds(online, expect(ROWS))
        online.flushall()
        quick = seed(warehouse, store, max_latency_ms=1000, instance=instance)
        assert "however slow this load is: it goes on at 2000 entities per second" in logged(slow, instance)
        assert "however slow this load is" not in logged(quick, instance)
    for feature in ("card_history", "card_location"):
        assert loads(slow)[feature]["probe_p99_ms"] > 1
        assert loads(slow)[feature]["seconds"] > 0.5  # 0.75 s at the slowest rate, but the first are faster
        assert loads(quick)[feature]["seconds"] < loads(slow)[feature]["seconds"]
    assert_holds(online, expect(ROWS))


def rate(throttled: Iterator[Block], seconds: float) -> float:
    """Entities per second that come in the next seconds."""
    started, entities = time.monotonic(), 0
    while (elapsed := time.monotonic() - started) < seconds:
        entities += len(next(throttled).keys)
    return entities / elapsed


def test_a_store_that_was_slow_for_a_while(
    store: OnlineStore, online: redis.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that answers late for a second is given less, afterwards soon as much as before and more; and when it is
    late again, that is said again.
    """
    monkeypatch.setattr(throttle, "_MAX_LATE_AT_SLOWEST", 2)
    blocks = repeat(Block([0] * 16, [b"k"] * 16, b"x" * 16, [1] * 16, 1, False))
    with Throttle(max_latency_ms=10).applied(blocks, store, getLogger()) as throttled:
        for slow_periods in (1, 2):
            with busy(online):
                assert rate(throttled, 0.5) < 8_000
                assert rate(throttled, 0.2) < 3_000
            assert "however slow this load is" in caplog.text
            assert len(caplog.records) == slow_periods
            assert any(rate(throttled, 0.2) > 12_000 for _ in range(100)), "20 seconds later"


def test_probes_that_fail_end_the_load(warehouse: Warehouse, store: OnlineStore, online: redis.Redis) -> None:
    """The probes' connection is cut in mid-load: the step is tried again, and no thread is left behind."""
    killed = []

    def probing() -> Any:
        clients: Any = online.client_list()
        return next((client["id"] for client in clients if client["cmd"] == "time"), None)

    def kill() -> None:
        killed.append(wait_for(probing, 30, "the store is probed"))
        online.client_kill_filter(_id=killed[0])

    thread = threading.Thread(target=kill)
    thread.start()
    result = seed(warehouse, store, max_rate=2000, max_latency_ms=1000)
    thread.join()
    restarted = [event.step_key for event in result.all_events if event.event_type_value == "STEP_RESTARTED"]
    assert restarted == ["cards"]
    assert_holds(online, expect(ROWS))
    assert not [one for one in threading.enumerate() if one.name == "probes"]


def test_a_stall_is_no_burst(store: OnlineStore) -> None:
    """After a pause of the warehouse, no more than a twentieth of a second is caught up with."""
    block = Block([0] * 50, [b"k"] * 50, b"x" * 50, [1] * 50, 1, False)

    def stalling() -> Iterator[Block]:
        yield block
        time.sleep(0.5)
        yield block

    with Throttle(max_rate=500).applied(stalling(), store, getLogger()) as throttled:
        times = [time.monotonic() for _ in throttled]
    assert times[-1] - times[5] >= 0.1 - 0.05 - 0.02 - 0.01
