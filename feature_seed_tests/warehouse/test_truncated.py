"""An answer of the warehouse that ends early, stalls or errs is never a success and leaves nothing."""

import os
import random
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from feature_seed.contract import read_ready
from feature_seed.errors import StoreError, WarehouseError
from feature_seed.features import entity
from feature_seed.loading.layout import Layout
from feature_seed.loading.stream import FeatureStream
from feature_seed.store import client
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse import failures
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.bank import (
    BROKE_OFF,
    CARDS,
    KEYS,
    LATE,
    MAKE,
    ROWS,
    at,
    delivered,
    gold_rows,
    history,
    make_gold,
    nothing_left,
    wait_until_left,
)
from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.patience import HANG_SECONDS, wait_for
from feature_seed_tests.support.redis_server import free_port
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import assert_holds

MEMORY = "failed on gold table 'gold': .*Memory limit .total. exceeded"


@pytest.mark.parametrize(
    ("kind", "after", "says"),
    [
        ("cut", 90_000, BROKE_OFF),
        ("reset", 90_000, BROKE_OFF),
        ("exception", 100, MEMORY),
        ("old_exception", 100, MEMORY),
        ("stall", 90_000, "sent nothing for 1 s: "),
        (
            "end",
            100,
            r"cards is incomplete in shards 00, 01: gold has 600 entities there, and .* \d\d\d before",
        ),
    ],
)
def test_answer_that_is_not_whole_fails_the_step(
    bank: ClickHouseServer,
    gold: Warehouse,
    online: redis.Redis,
    store: OnlineStore,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    after: int,
    says: str,
) -> None:
    """Gold reads well; an answer breaks in mid-stream. Then the step has failed and says why and where, the store is
    not ready, and no thread or connection is left."""
    prefetched = FeatureStream.prefetched

    def impatiently(*given: Any) -> Any:
        monkeypatch.setattr(failures, "ANSWER_SECONDS", 1)  # not for what comes before, which a busy server delays
        return prefetched(*given)

    if kind == "stall":
        monkeypatch.setattr(FeatureStream, "prefetched", impatiently)
    gold.profile()
    bank.play(kind, after=after)
    with nothing_left(), pytest.raises(WarehouseError, match=says) as failure:
        seed(gold, store)
    assert f"ClickHouse at 127.0.0.1:{bank.port} " in str(failure.value)
    assert PASSWORD not in str(failure.value)
    ready = read_ready(online)
    assert ready and ready.state == "seeding"
    assert online.dbsize() < KEYS


def test_next_run_puts_everything_right(
    bank: ClickHouseServer, gold: Warehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """A run failed half-way; after another over the same gold every key is there and right, and the store is ready."""
    bank.play("end", after=100)
    with pytest.raises(WarehouseError):
        seed(gold, store)
    assert 1 < online.dbsize() < KEYS
    seed(gold, store, verify=True)
    assert_holds(online, expect(gold_rows()))
    ready = read_ready(online)
    assert ready and ready.state == "ready"


def test_missing_entities_of_some_shards_are_found(bank: ClickHouseServer, gold: Warehouse) -> None:
    """The same of two shards out of sixteen, which are read whole at first; the error has the numbers."""
    whole = delivered(history(gold, "03", "0a"))
    bank.play("end", after=8)
    blocks = []
    with pytest.raises(WarehouseError) as failure:
        blocks.extend(history(gold, "03", "0a"))
    assert 0 < sum(len(block.keys) for block in blocks) < whole < CARDS
    assert f"cards is incomplete in shards 03, 0a: gold has {whole} entities" in str(failure.value)
    assert f"delivered {sum(len(block.keys) for block in blocks)} before its answer ended" in str(failure.value)


def test_answer_without_its_row_is_no_answer(bank: ClickHouseServer, gold: Warehouse) -> None:
    """Not that of a stream but the profile's is cut among its headers, and looks whole and empty."""
    with gold.client() as client:
        bank.play("cut", after=100, everything=True)
        with pytest.raises(WarehouseError, match=f"127.0.0.1:{bank.port} sent an answer without its row"):
            gold.only_row(client, "SELECT 1 AS one", {})


@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_cut_off_at_random_moments(bank: ClickHouseServer, gold: Warehouse, kind: str) -> None:
    """Wherever an answer of some 100 kB is cut, either an error says so or everything was delivered: where not one
    block had come, by asking again. Cut among its headers it looks like an empty answer that is whole."""
    moments = random.Random(kind)
    outcomes = []
    with nothing_left():
        for after in [0, 1, 100, *(moments.randrange(1_000, 120_000) for _ in range(8))]:
            bank.play(kind, after=after)
            try:
                outcomes.append(delivered(history(gold)))
            except WarehouseError as e:
                assert BROKE_OFF in str(e) or (after < 1_000 and "delivered 0 before its answer ended" in str(e))
                outcomes.append(0)
    assert outcomes[:2] == [CARDS] * 2
    assert outcomes.count(0) >= 2
    assert set(outcomes) == {0, CARDS}


def test_server_that_is_killed_and_started_again(gold: Warehouse, tmp_path: Path) -> None:
    """A server dies in mid-stream, which is an error that names it. A read that begins while it restarts succeeds."""
    port = free_port()
    with clickhouse_server("seeder", PASSWORD, port=port) as first:
        make_gold(port)
        mortal = at(port)
        mortal.profile()
        first.play("slow", after=LATE, seconds=60)
        with (
            nothing_left(),
            pytest.raises(WarehouseError, match=f"127.0.0.1:{port} {BROKE_OFF}"),
            history(mortal).prefetched(1) as blocks,
        ):
            next(blocks)
            os.kill(first.pid, 9)
            list(blocks)
    with pytest.raises(WarehouseError, match=f"127.0.0.1:{port} cannot be reached"):
        delivered(history(mortal))
    setup = tmp_path / "setup.sql"
    setup.write_text(f"CREATE DATABASE bank ENGINE = Atomic; {MAKE}; INSERT INTO bank.gold {ROWS};")
    done: list[int] = []
    reader = threading.Thread(target=lambda: done.append(delivered(history(at(port)))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failures, "RETRY_DELAYS", (0.2,) * 5 * HANG_SECONDS)
        reader.start()
        with clickhouse_server("seeder", PASSWORD, setup, port):
            reader.join(HANG_SECONDS)
    assert done == [CARDS]


@pytest.mark.parametrize(("kind", "everything"), [("busy", True), ("reset", False)])
def test_what_could_not_begin_is_tried_again(
    bank: ClickHouseServer, gold: Warehouse, kind: str, everything: bool
) -> None:
    """The first requests, or streams, are turned away or reset, more often than clickhouse-connect bears."""
    bank.play(kind, times=2 if everything else 7, everything=everything)
    assert delivered(history(gold)) == CARDS


def test_trying_again_has_an_end(bank: ClickHouseServer, gold: Warehouse) -> None:
    """A server that never begins to answer is an error in the end, and was asked after each pause."""
    gold.profile()
    bank.play("busy", times=1000)
    started = time.monotonic()
    with nothing_left(), pytest.raises(WarehouseError, match=r"127.0.0.1.* answered HTTP status 503"):
        delivered(history(gold))
    assert sum(failures.RETRY_DELAYS) < time.monotonic() - started
    assert bank.played() == 3 * (1 + len(failures.RETRY_DELAYS))  # three times each by clickhouse-connect


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that are made before something is tried again."""
    made: list[float] = []
    monkeypatch.setattr(failures, "time", SimpleNamespace(sleep=made.append))
    return made


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"password": "wrong"}, "refuses user 'seeder'"),
        ({"gold_table": "missing"}, "no gold table 'missing'"),
        ({"database": "missing"}, "no database 'missing'"),
    ],
)
def test_what_is_refused_is_not_tried_again(
    gold: Warehouse, pauses: list[float], changes: dict[str, str], says: str
) -> None:
    with pytest.raises(WarehouseError, match=says):
        gold.model_copy(update=changes).profile()
    assert not pauses


def test_syntax_error_is_not_tried_again(gold: Warehouse, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entity.Entity, "commands", lambda *_, **__: "SELECT (")
    with pytest.raises(WarehouseError, match="SYNTAX_ERROR"):
        delivered(history(gold))
    assert not pauses


@pytest.mark.parametrize(("seconds", "after"), [(0.5, LATE), (2 * HANG_SECONDS, LATE + 5)])
def test_error_of_redis_ends_a_slow_answer_at_once(
    bank: ClickHouseServer, gold: Warehouse, online: redis.Redis, store: OnlineStore, seconds: float, after: int
) -> None:
    """Redis refuses the first block of an answer whose blocks are slow to come, or whose next comes too late for any
    test: the step ends with that error, no thread or connection is left, and the server has noticed."""
    for card in range(CARDS):
        online.sadd(f"card:c{card}:seq", "of another program")
    gold.profile()
    bank.play("slow", after=after, seconds=seconds)
    with nothing_left(), pytest.raises(StoreError, match="WRONGTYPE"):
        seed(gold, store)
    if seconds < 1:  # or the server sleeps as long
        wait_until_left(bank)


def test_reader_that_leaves_is_not_served_again(bank: ClickHouseServer, gold: Warehouse) -> None:
    """The first block is still waited for when the reader leaves: nothing tries to ask for it again."""
    gold.profile()
    bank.play("stall", after=0, times=100)
    with nothing_left(), history(gold).prefetched(1):
        wait_for(bank.played, "the reader waits")
    wait_until_left(bank)
    assert bank.played() == 1


def test_error_of_a_file_is_not_blamed_on_redis(store: OnlineStore) -> None:
    with pytest.raises(FileNotFoundError), store.client():
        Path("/nowhere").read_bytes()


def test_redis_that_stops_to_acknowledge(
    gold: Warehouse, online: redis.Redis, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket times out where replies are read in bulk: that is Redis's."""
    stream = FeatureStream(gold, Layout(on_conflict="overwrite"), entity.CUSTOMERS, ("00",))
    first, second, *_ = stream
    monkeypatch.setattr(client, "ANSWER_SECONDS", 1)
    with pytest.raises(StoreError, match="Redis did not acknowledge: timed out"), store.bulk() as bulk:
        bulk.write(first)
        online.client_pause(1000 * HANG_SECONDS, all=False)
        bulk.write(second)
        bulk.drain()
    online.client_unpause()
