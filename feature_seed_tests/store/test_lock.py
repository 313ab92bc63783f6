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
from itertools import count
from pathlib import Path
from threading import Event
from types import SimpleNamespace

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
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.patience import HANG_SECONDS, eventually, patient
from feature_seed_tests.support.redis_server import calls, redis_server
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import assert_holds, dump, said

ROWS = [transaction(i, f"c{i % 300}", seconds=i) for i in range(900)]

LOG = logging.getLogger("feature_seed_tests.lock")

A, B = Owner("run a", shared=False), Owner("run b", shared=False)


def text(online: redis.Redis) -> str:
    """What the lock says, '' when it is free."""
    found = online.get(KEY)
    return found.decode() if isinstance(found, bytes) else ""


def of(store: OnlineStore, owner: Owner, wait_seconds: float = 0) -> StoreLock:
    return StoreLock(store, owner, wait_seconds=wait_seconds)


@pytest.fixture
def quick_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock is renewed a hundred times as often: ten times a second."""

    class Hurried(Event):
        def wait(self, timeout: float | None = None) -> bool:
            return super().wait(timeout and timeout / 100)

    monkeypatch.setattr(lock, "Event", Hurried)


def run_out(online: redis.Redis) -> None:
    """Have the lease end now that would end by itself."""
    assert 0 < online.pttl(KEY) <= lock.LEASE_SECONDS * 1000
    online.pexpire(KEY, 1)
    eventually(lambda: not online.exists(KEY))


@contextmanager
def taken(taker: StoreLock) -> Iterator[StoreLock]:
    taker.acquire(LOG)
    try:
        yield taker
    finally:
        taker.release()


def test_one_owner_at_a_time(quick_renewals: None, store: OnlineStore, online: redis.Redis) -> None:
    """While a holds it and renews it, b is told who does, where, and what to do; then it is free for b."""
    half_of_it = round(lock.LEASE_SECONDS * 500)
    with taken(of(store, A)) as held:
        online.pexpire(KEY, half_of_it)
        eventually(lambda: online.pttl(KEY) > half_of_it)
        with pytest.raises(StoreError) as refused:
            of(store, B).acquire(LOG)
        held.require_held()
        held.confirm()
    for part in ("run a on", socket.gethostname(), str(os.getpid()), "terminate it"):
        assert part in str(refused.value)
    assert not online.exists(KEY)
    with taken(of(store, B)):
        assert text(online).startswith("run b on")


def test_waiting_says_for_whom(
    store: OnlineStore, online: redis.Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, however often it is asked for."""
    caplog.set_level(logging.INFO, LOG.name)
    online.set(KEY, "run z on another.host (process 7)")
    ask, asked = StoreLock._ask, count(1)

    def freed_for_the_third(self: StoreLock) -> int | str:
        if next(asked) == 3:
            online.delete(KEY)
        return ask(self)

    monkeypatch.setattr(StoreLock, "_ask", freed_for_the_third)
    with taken(of(store, B, wait_seconds=HANG_SECONDS)):
        assert [record.message.count("run z on another.host") for record in caplog.records] == [1]


def test_processes_of_a_run_share_it(store: OnlineStore, online: redis.Redis) -> None:
    """The second process of a run enters, and leaves the lock to the first."""
    with taken(of(store, A)) as first:
        second = of(store, A)
        assert second.acquire(LOG) is False
        second.release()
        first.confirm()
    assert not online.exists(KEY)


def test_runs_of_a_backfill_share_it(store: OnlineStore, online: redis.Redis) -> None:
    """None of them frees it for strangers: it runs out when all have ended."""
    run = dg.DagsterRun("seed_shard", tags={"dagster/backfill": "abc"})
    owner = Owner.of(run, processes=False)
    with taken(of(store, owner)) as one:
        with taken(of(store, Owner.of(dg.DagsterRun("x", tags=run.tags), processes=False))):
            pass
        one.confirm()
    with pytest.raises(StoreError, match="backfill abc"):
        of(store, A).acquire(LOG)
    run_out(online)
    with taken(of(store, A)):
        pass


def asked_for(held: StoreLock) -> None:
    held.stop_renewing()
    held.confirm()


def renewed(held: StoreLock) -> None:
    eventually(lambda: held.require_held() is not None)


@pytest.mark.parametrize("found", ["", "run b on elsewhere (process 1)"])
@pytest.mark.parametrize("notice", [asked_for, renewed])
def test_a_lost_lock_is_noticed(
    quick_renewals: None,
    store: OnlineStore,
    online: redis.Redis,
    found: str,
    notice: Callable[[StoreLock], None],
) -> None:
    """Held by a, then gone or another's: that raises as soon as it is asked for or renewed. Another's stays there."""
    with taken(of(store, A)) as held:
        online.set(KEY, found) if found else online.delete(KEY)
        with pytest.raises(StoreError, match=f"run a lost the lock .*{'run b on elsewhere' if found else 'ran out'}"):
            notice(held)
    assert text(online) == found


def test_a_store_out_of_reach_ends_the_lease(quick_renewals: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: held. The server is gone: renewals fail, and once the lease is over the holder may not go on."""
    renew, failed = StoreLock._renew_in_the_background, count()
    monkeypatch.setattr(StoreLock, "_renew_in_the_background", lambda self: (renew(self), next(failed)))
    with redis_server() as port:
        held = of(OnlineStore(url=f"redis://127.0.0.1:{port}"), A)
        held.acquire(LOG)
    tried = next(failed)
    eventually(lambda: next(failed) > tried + 3)
    held.require_held()
    later = time.monotonic() + lock.LEASE_SECONDS
    monkeypatch.setattr(lock, "time", SimpleNamespace(monotonic=lambda: later))
    with pytest.raises(StoreError, match="ran out"):
        held.require_held()
    held.stop_renewing()


def test_what_a_suspended_run_has_still_to_send_is_lost(store: OnlineStore, online: redis.Redis) -> None:
    """Before: a run that had the lock, was suspended before its next block, and whose lease ran out. Another took over.
    After: the first one's block is nowhere; connections of the same owner, of others and of another database are left.
    """
    names = {"feature_seed:run:b": 0, "a-scorer": 0, "feature_seed:run:c": 1}
    port = online.connection_pool.connection_kwargs["port"]
    others = [patient(port=port, password=PASSWORD, client_name=name, db=db) for name, db in names.items()]
    first = of(store, A)
    first.acquire(LOG)
    first.stop_renewing()  # as one that is suspended, it renews nothing
    with store.bulk(name=A.connection) as connection:
        assert all(other.ping() for other in others)
        run_out(online)
        with taken(of(store, B)):
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
        robbed(step == "customers" and block.keys[0].startswith(b"cust:"))
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
import os, signal, sys
from feature_seed.store import lock
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.support.run import seed

gold, url, password, lease = sys.argv[1:]
lock.LEASE_SECONDS = float(lease)
acquire = lock.StoreLock.acquire

def suspended(self, log):
    lock.StoreLock.acquire = acquire
    was_free = acquire(self, log)
    os.kill(os.getpid(), signal.SIGSTOP)
    return was_free

lock.StoreLock.acquire = suspended
seed(Warehouse(gold_parquet=gold), OnlineStore(url=url, password=password))
"""


class Machine:
    """A process that loads gold on a Dagster instance of its own, as on another machine.

    Once it has the lock it suspends itself. It prints to `log`.
    """

    def __init__(self, log: Path, gold: str, port: int, lease_seconds: float) -> None:
        self._log = log
        store = [f"redis://127.0.0.1:{port}", PASSWORD]
        with self._log.open("w") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SEED, gold, *store, str(lease_seconds)], stdout=printed, stderr=printed
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_until_suspended(self) -> None:
        ended = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert ended and ended.si_code == os.CLD_STOPPED, self.log

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        return self.process.wait(HANG_SECONDS)


@pytest.fixture
def held_up(tmp_path: Path, gold: str, redis_port: int, online: redis.Redis) -> Callable[[float], Machine]:
    """Start a run elsewhere that has the lock, with a lease of this many seconds, and has just been suspended."""

    def start(lease_seconds: float) -> Machine:
        machine = Machine(tmp_path / "log", gold, redis_port, lease_seconds)
        machine.wait_until_suspended()
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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before: a run elsewhere has the lock. A run here waits, and says for whom; both succeed, every key is right."""
    monkeypatch.setattr(lock, "WAIT_SECONDS", HANG_SECONDS)
    first = held_up(HANG_SECONDS)
    owner, asked = text(online), calls(online, "evalsha")
    with ThreadPoolExecutor() as pool:
        second = pool.submit(seed, Warehouse(gold_parquet=gold), store, verify=True, config={})
        eventually(lambda: calls(online, "evalsha") > asked + 1 or second.done())
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
StoreLock(store, Owner("run a", False)).acquire(logging.getLogger())
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    with pytest.raises(StoreError, match="run a on"):
        of(store, B).acquire(LOG)
    run_out(online)
    with taken(of(store, B)):
        assert text(online).startswith("run b on")
