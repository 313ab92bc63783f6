"""Two runs at once: the second waits for the first or says who it is, and no run goes on without its lock."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.contract import Ready, read_ready
from feature_seed.errors import StoreError
from feature_seed.graph import assets
from feature_seed.graph.readiness import ready_when_whole
from feature_seed.store import lock
from feature_seed.store.block import Block
from feature_seed.store.bulk import BulkConnection
from feature_seed.store.lock import KEY, Owner, StoreLock
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.deployment import wait_for
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import assert_holds, dump, said

ROWS = [transaction(i, f"c{i % 300}", seconds=i) for i in range(900)]

LOG = logging.getLogger("feature_seed_tests.lock")

LEASE_SECONDS = 0.6

A, B = Owner("run a", shared=False), Owner("run b", shared=False)


def text(online: redis.Redis) -> str:
    """What the lock says, '' when it is free."""
    found = online.get(KEY)
    return found.decode() if isinstance(found, bytes) else ""


def short(store: OnlineStore, owner: Owner, wait_seconds: float = 0) -> StoreLock:
    return StoreLock(store, owner, lease_seconds=LEASE_SECONDS, wait_seconds=wait_seconds)


@contextmanager
def taken(taker: StoreLock) -> Iterator[StoreLock]:
    taker.acquire(LOG)
    try:
        yield taker
    finally:
        taker.release()


def test_one_owner_at_a_time(store: OnlineStore, online: redis.Redis) -> None:
    """While a holds it, longer than a lease, b is told who does, where, and what to do; then it is free for b."""
    with taken(short(store, A)) as held:
        time.sleep(2 * LEASE_SECONDS)
        with pytest.raises(StoreError) as refused:
            short(store, B).acquire(LOG)
        held.require_held()
        held.confirm()
    for part in ("run a on", socket.gethostname(), str(os.getpid()), "terminate it"):
        assert part in str(refused.value)
    assert not online.exists(KEY)
    with taken(short(store, B)):
        assert text(online).startswith("run b on")


def test_waiting_says_for_whom(store: OnlineStore, online: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    """One line, however long it takes."""
    caplog.set_level(logging.INFO, LOG.name)
    online.set(KEY, "run z on another.host (process 7)", px=1200)
    with taken(short(store, B, wait_seconds=10)):
        assert [record.message.count("run z on another.host") for record in caplog.records] == [1]


def test_processes_of_a_run_share_it(store: OnlineStore, online: redis.Redis) -> None:
    """The second process of a run enters, and leaves the lock to the first."""
    with taken(short(store, A)) as first:
        second = short(store, A)
        assert second.acquire(LOG) is False
        second.release()
        first.confirm()
    assert not online.exists(KEY)


def test_runs_of_a_backfill_share_it(store: OnlineStore, online: redis.Redis) -> None:
    """None of them frees it for strangers: it runs out when all have ended."""
    run = dg.DagsterRun("seed_shard", tags={"dagster/backfill": "abc"})
    owner = Owner.of(run, processes=False)
    with taken(short(store, owner)) as one:
        with taken(short(store, Owner.of(dg.DagsterRun("x", tags=run.tags), processes=False))):
            pass
        one.confirm()
    with pytest.raises(StoreError, match="backfill abc"):
        short(store, A).acquire(LOG)
    with taken(short(store, A, wait_seconds=5 * LEASE_SECONDS)):
        pass


@pytest.mark.parametrize("found", ["", "run b on elsewhere (process 1)"])
def test_a_lost_lock_is_noticed(store: OnlineStore, online: redis.Redis, found: str) -> None:
    """Gone, or another's: at once when asked for, by itself at the next renewal; what is another's stays there."""
    reason = "run b on elsewhere" if found else "ran out"
    for notice in (StoreLock.confirm, lambda held: time.sleep(LEASE_SECONDS)):
        with taken(short(store, A)) as held:
            if found:
                online.set(KEY, found)
            else:
                online.delete(KEY)
            with pytest.raises(StoreError, match=f"run a lost the lock .*{reason}"):
                notice(held)
                held.require_held()
        assert text(online) == found
        online.delete(KEY)


def test_a_store_out_of_reach_ends_the_lease() -> None:
    """Before: held. The server is gone for longer than the lease: the holder may not go on."""
    with redis_server() as port:
        held = short(OnlineStore(url=f"redis://127.0.0.1:{port}"), A)
        held.acquire(LOG)
        held.require_held()
    time.sleep(1.5 * LEASE_SECONDS)
    with pytest.raises(StoreError, match="ran out"):
        held.require_held()
    held.stop_renewing()


def test_what_a_suspended_run_has_still_to_send_is_lost(store: OnlineStore, online: redis.Redis) -> None:
    """Before: a run that had the lock, was suspended before its next block, and whose lease ran out. Another took over.
    After: the first one's block is nowhere; connections of the same owner, of others and of another database are left.
    """
    names = {"feature_seed:run:b": 0, "a-scorer": 0, "feature_seed:run:c": 1}
    port = online.connection_pool.connection_kwargs["port"]
    others = [redis.Redis(port=port, password=PASSWORD, client_name=name, db=db) for name, db in names.items()]
    first = StoreLock(store, A, lease_seconds=0.05)
    first.acquire(LOG)
    first.stop_renewing()  # as one that is suspended, it renews nothing
    with store.bulk(name=A.connection) as connection:
        assert all(other.ping() for other in others)
        time.sleep(0.1)
        assert not online.exists(KEY)
        with taken(short(store, B)):
            set_ = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
            with pytest.raises(redis.ConnectionError):
                connection.write(Block([0], [b"k"], set_, [len(set_)], 1, False))
                connection.drain()
            assert online.get("k") is None
            assert {name for one in online.client_list() if (name := one["name"])} == set(names)
    for other in others:
        other.close()


def test_a_run_frees_the_store(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Whether it succeeds or fails."""
    seed(make_parquet(ROWS), store)
    assert not online.exists(KEY)
    online.delete("cust:of c1:stats")
    online.set("cust:of c1:stats", "something else's")
    with pytest.raises(StoreError):
        seed(make_parquet(ROWS), store)
    assert not online.exists(KEY)


def test_a_run_that_may_not_have_the_store_leaves_it_alone(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0)
    online.set(KEY, "run z on another.host (process 7)")
    with pytest.raises(StoreError, match=r"seeded by run z on another\.host"):
        seed(make_parquet(ROWS), store)
    assert dump(online) == {KEY.encode(): (b"string", b"run z on another.host (process 7)")}
    assert read_ready(online) is None
    online.delete(KEY)


@pytest.mark.parametrize("step", ["customers", "warm_start"])
def test_a_lock_that_is_lost_on_the_way_fails_the_step(
    make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before: another run takes the store while the last feature is written, or after it. No step succeeds since."""
    write = BulkConnection.write

    def robbed(happen: bool) -> None:
        if happen:
            online.set(KEY, "run z on another.host (process 7)")

    def robbed_before(self: BulkConnection, block: Block) -> None:
        robbed(step == "customers" and block.keys[0].endswith(b":stats"))
        write(self, block)

    monkeypatch.setattr(BulkConnection, "write", robbed_before)
    if step == "warm_start":
        monkeypatch.setattr(assets, "ready_when_whole", lambda *given: (robbed(True), ready_when_whole(*given))[1])
    result = seed(make_parquet(ROWS), store, verify=True, raise_on_error=False)
    failed = {event.step_key: str(event.step_failure_data.error) for event in result.get_step_failure_events()}
    assert "run z on another.host" in failed[step]
    assert said(online) == Ready("seeding")
    online.delete(KEY)


def test_materialize_all_is_one_process() -> None:
    """So that it holds the lock from its first step to its last."""
    from feature_seed.definitions import defs

    assert defs.resolve_implicit_global_asset_job_def().executor_def.name == "in_process"


_SEED = """
import sys
import dagster as dg
from feature_seed.graph import assets
from feature_seed.store import lock
from feature_seed.store.block import Block
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.support.run import seed

gold, url, password, lease = sys.argv[1:]
lock.LEASE_SECONDS = float(lease)
seed(
    Warehouse(gold_parquet=gold), OnlineStore(url=url, password=password), job="seed_all",
    instance=dg.DagsterInstance.get(),
)
"""


def scripts_run(online: redis.Redis) -> int:
    stats: Any = online.info("commandstats")
    return stats.get("cmdstat_evalsha", {"calls": 0})["calls"]


class Machine:
    """A process that runs seed_all on a Dagster instance of its own, as on another machine."""

    def __init__(self, home: Path, gold: str, port: int, lease_seconds: float) -> None:
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        self._log = home / "log"
        store = [f"redis://127.0.0.1:{port}", PASSWORD]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SEED, gold, *store, str(lease_seconds)],
                env={**os.environ, "DAGSTER_HOME": str(home)},
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        return self.process.wait(timeout=60)


@pytest.fixture
def held_up(tmp_path: Path, gold: str, redis_port: int, online: redis.Redis) -> Callable[[float], Machine]:
    """Start a run elsewhere that has the lock, with a lease of this many seconds, and has just been suspended."""

    def start(lease_seconds: float) -> Machine:
        machine = Machine(tmp_path / "elsewhere", gold, redis_port, lease_seconds)
        deadline = time.monotonic() + 60
        while not text(online):
            assert time.monotonic() < deadline, machine.log
            time.sleep(0.001)
        machine.stop()
        return machine

    return start


@pytest.fixture
def gold(make_parquet: MakeWarehouse) -> str:
    return str(make_parquet(ROWS).gold_parquet)


def test_the_second_run_waits_for_the_first(
    held_up: Callable[[float], Machine],
    gold: str,
    store: OnlineStore,
    online: redis.Redis,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Before: a run elsewhere has the lock. A run here waits, and says for whom; both succeed, every key is right."""
    first = held_up(lock.LEASE_SECONDS)
    owner, asked = text(online), scripts_run(online)
    with ThreadPoolExecutor() as pool:
        second = pool.submit(seed, Warehouse(gold_parquet=gold), store, job="seed_all", config={})
        wait_for(lambda: scripts_run(online) > asked + 1 or second.done(), 60, "the second asks for the lock again")
        assert said(online) in (None, Ready("seeding"))
        first.go_on()
        assert first.end() == 0, first.log[-3000:]
        run_id = second.result().run_id
    assert f"is being seeded by {owner}: waiting" in capfd.readouterr().err
    assert socket.gethostname() in owner and str(first.process.pid) in owner and run_id not in owner
    ready = read_ready(online)
    assert ready and (ready.state, ready.run_id) == ("ready", run_id)
    assert_holds(online, expect(ROWS))


def test_a_suspended_run_does_not_say_success(
    held_up: Callable[[float], Machine], gold: str, store: OnlineStore, online: redis.Redis
) -> None:
    """Before: the run with the lock does nothing for longer than its lease. The next run takes over and makes the store
    ready; the first, when it goes on, fails and changes nothing.
    """
    first = held_up(1)
    seed(Warehouse(gold_parquet=gold), store)
    assert_holds(online, expect(ROWS))
    before = dump(online)
    first.go_on()
    assert first.end() != 0
    assert "lost the lock of Redis" in first.log
    assert dump(online) == before


def test_a_killed_process_frees_the_store(store: OnlineStore, redis_port: int, online: redis.Redis) -> None:
    """Its lock stays and keeps others out, until the lease ends."""
    code = f"""
import logging, os, signal
from feature_seed.store.lock import Owner, StoreLock
from feature_seed.store.online_store import OnlineStore
store = OnlineStore(url="redis://127.0.0.1:{redis_port}", password="{PASSWORD}")
StoreLock(store, Owner("run a", False), lease_seconds=2).acquire(logging.getLogger())
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    with pytest.raises(StoreError, match="run a on"):
        short(store, B).acquire(LOG)
    with taken(short(store, B, wait_seconds=4)):
        assert text(online).startswith("run b on")
