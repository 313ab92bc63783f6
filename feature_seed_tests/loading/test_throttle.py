"""Loads that are throttled: by a cap, and by how long the store takes to answer others."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from logging import getLogger
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.features.feature import FEATURES
from feature_seed.loading import throttle
from feature_seed.loading.throttle import Throttle
from feature_seed.store.block import Block
from feature_seed.store.bulk import BulkConnection
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.patience import HANG_SECONDS, wait_for
from feature_seed_tests.support.redis_server import calls
from feature_seed_tests.support.run import metadata, seed
from feature_seed_tests.support.store import assert_holds

CARDS = 1500

ROWS = [transaction(i, f"c{i}", seconds=i, customer_id="p1") for i in range(CARDS)]


@pytest.fixture
def warehouse(make_parquet: MakeWarehouse) -> Warehouse:
    return make_parquet(ROWS)


def loads(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """What each feature's materialisation says of its load."""
    return {feature.name: metadata(result, feature.name) for feature in FEATURES}


def logged(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> str:
    return "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))


START = 1000.0


class Clock:
    """The time by which a throttle goes: nothing takes any but the throttle's own waiting, and what a test adds."""

    def __init__(self) -> None:
        self.now = START

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(throttle, "time", clock)
    return clock


def test_without_limits_blocks_pass_as_they_are(store: OnlineStore) -> None:
    blocks = iter([Block([0], [b"k"], b"x", [1], 1, False)])
    with Throttle().applied(blocks, store, getLogger()) as throttled:
        assert throttled is blocks


@pytest.mark.parametrize(("rate", "largest"), [(20, 1), (500, 10), (1e6, 16)])
def test_bursts_are_small(store: OnlineStore, clock: Clock, rate: float, largest: int) -> None:
    """Blocks of some entities, of differing sizes: all of them go, in order, a fiftieth of a second's at a time."""
    texts = [b"%d;" % (7**i) for i in range(20)]
    block = Block(list(range(20)), texts, b"".join(texts), [*map(len, texts)], 1, False)
    with Throttle(max_rate=rate).applied(iter([block, block]), store, getLogger()) as throttled:
        parts = list(throttled)
    assert max(len(part.keys) for part in parts) == largest
    assert [text for part in parts for text in part.keys] == texts * 2
    assert b"".join(part.payload for part in parts) == b"".join(texts) * 2
    assert all(sum(part.sizes) == len(part.payload) for part in parts)


def block(entities: int) -> Block:
    return Block([0] * entities, [b"k"] * entities, b"x" * entities, [1] * entities, 1, False)


def use_up_credit(throttled: Iterator[Block], clock: Clock) -> None:
    while clock.now == START:
        next(throttled)


def rate(throttled: Iterator[Block], clock: Clock) -> float:
    """Entities per second that come in the next fifth of a second."""
    started, entities = clock.now, 0
    while clock.now - started < 0.2:
        entities += len(next(throttled).keys)
    return entities / (clock.now - started)


@pytest.mark.parametrize("fastest", [100, 2000, 50_000])
def test_the_rate_is_kept_to(store: OnlineStore, clock: Clock, fastest: float) -> None:
    """After the twentieth of a second that it has to its credit, a load is as fast as allowed."""
    with Throttle(max_rate=fastest).applied(repeat(block(500)), store, getLogger()) as throttled:
        use_up_credit(throttled, clock)
        assert [rate(throttled, clock) for _ in range(3)] == [pytest.approx(fastest)] * 3


def test_a_load_is_no_faster_than_the_cap(warehouse: Warehouse, store: OnlineStore, online: redis.Redis) -> None:
    """Before: an empty store, which takes cards far faster. After: every key, in the time that the cap leaves."""
    done = loads(seed(warehouse, store, max_rate=4000))
    for feature in ("card_history", "card_location"):
        assert done[feature]["seconds"] >= 0.95 * CARDS / 4000 - 0.05
        assert "probe_p99_ms" not in done[feature]
    assert_holds(online, expect(ROWS))


def test_a_store_that_was_slow_for_a_while(
    store: OnlineStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What probes say is said here. Every late answer halves the rate, down to a limit, where some more are told; 99
    answers in time double it; and when the store is late again, that is told again.
    """
    told: list[Callable[[float], None]] = []

    @contextmanager
    def probes(_: OnlineStore, on_latency: Callable[[float], None]) -> Iterator[Callable[[], None]]:
        told.append(on_latency)
        yield lambda: None

    monkeypatch.setattr(throttle, "probes", probes)
    monkeypatch.setattr(throttle, "_MAX_LATE_AT_SLOWEST", 2)
    with Throttle(max_latency_ms=10).applied(repeat(block(16)), store, getLogger()) as throttled:
        use_up_credit(throttled, clock)
        for slow_periods, rates in (1, (8_000, 4_000, 2_000)), (2, (16_000, 8_000, 4_000, 2_000)):
            for expected in rates:
                assert rate(throttled, clock) == pytest.approx(expected)
                assert len(caplog.records) == slow_periods - 1
                told[0](0.011)
            for _ in range(2):
                told[0](0.011)
            next(throttled)
            assert len(caplog.records) == slow_periods
            assert "however slow this load is: it goes on at 2000 entities per second" in caplog.text
            for expected in (2_000, 4_000, 8_000):
                assert rate(throttled, clock) == pytest.approx(expected)
                for _ in range(99):
                    next(throttled)
                    told[0](0.009)


@contextmanager
def busy(online: redis.Redis) -> Iterator[None]:
    """Another client holds the server for some milliseconds at a time, most of the time."""
    done = threading.Event()

    def hold() -> None:
        while not done.wait(0.002):
            online.eval("local i = 0; while i < 1000000 do i = i + 1 end", 0)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture
def first_block(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something happen once, as a load writes its first block."""

    def plan(happen: Callable[[], object]) -> None:
        write, left = BulkConnection.write, [happen]

        def happening(self: BulkConnection, block: Block) -> None:
            while left:
                left.pop()()
            write(self, block)

        monkeypatch.setattr(BulkConnection, "write", happening)

    return plan


def test_a_store_that_is_slow(
    warehouse: Warehouse,
    store: OnlineStore,
    online: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    first_block: Callable[[Callable[[], object]], None],
) -> None:
    """Before: a store that answers later than it may, whatever the load does. The load goes on slowly, and says why.
    After: every key. Over one that may be as slow as it likes, the same load says nothing.
    """
    monkeypatch.setattr(throttle, "_MAX_LATE_AT_SLOWEST", 5)
    with dg.DagsterInstance.ephemeral() as instance:
        with busy(online):
            before = calls(online, "time")
            first_block(lambda: wait_for(lambda: calls(online, "time") > before + 20, "it is probed"))
            slow = seed(warehouse, store, max_latency_ms=0.001, instance=instance)
        assert_holds(online, expect(ROWS))
        online.flushall()
        quick = seed(warehouse, store, max_latency_ms=1000 * HANG_SECONDS, instance=instance)
        assert "however slow this load is: it goes on at 2000 entities per second" in logged(slow, instance)
        assert "however slow this load is" not in logged(quick, instance)
    for feature in ("card_history", "card_location"):
        assert loads(slow)[feature]["probe_p99_ms"] > 1
    assert_holds(online, expect(ROWS))


def test_probes_that_fail_end_the_load(
    second_attempts: None,
    warehouse: Warehouse,
    store: OnlineStore,
    online: redis.Redis,
    first_block: Callable[[Callable[[], object]], None],
) -> None:
    """The probes' connection is cut in mid-load: the step is tried again, and no thread is left behind."""

    def probing() -> Any:
        clients: Any = online.client_list()
        return next((client["id"] for client in clients if client["cmd"] == "time"), None)

    def cut() -> None:
        online.client_kill_filter(_id=wait_for(probing, "the store is probed"))
        wait_for(lambda: not probers(), "the probes have ended")

    first_block(cut)
    result = seed(warehouse, store, max_latency_ms=1000 * HANG_SECONDS)
    restarted = [event.step_key for event in result.all_events if event.event_type_value == "STEP_RESTARTED"]
    assert restarted == ["cards"]
    assert_holds(online, expect(ROWS))
    assert not probers()


def probers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "probes"]


def test_a_stall_is_no_burst(store: OnlineStore, clock: Clock) -> None:
    """After a pause of the warehouse, no more than a twentieth of a second is caught up with."""

    def stalling() -> Iterator[Block]:
        yield block(50)
        clock.now += 0.5
        yield block(50)

    with Throttle(max_rate=500).applied(stalling(), store, getLogger()) as throttled:
        times = [clock.now - START for _ in throttled]
    assert times == pytest.approx([0, 0, 0.01, 0.03, 0.05, 0.55, 0.55, 0.56, 0.58, 0.6])
