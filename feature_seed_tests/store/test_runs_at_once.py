"""Two runs at once: the second waits for the first or says who that is. No run goes on without its lock."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from logging import getLogger
from pathlib import Path

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
from feature_seed_tests.support.patience import HANG_SECONDS, eventually
from feature_seed_tests.support.redis_server import calls
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import assert_holds, dump, lock_text, run_out, said

ROWS = [transaction(i, f"c{i % 300}", seconds=i) for i in range(900)]

ANOTHER = "run z on another.host (process 7)"


@pytest.fixture
def warehouse(make_parquet: MakeWarehouse) -> Warehouse:
    return make_parquet(ROWS)


def test_a_run_frees_the_store(warehouse: Warehouse, store: OnlineStore, online: redis.Redis) -> None:
    """A run that succeeds frees the lock, and so does one that fails."""
    seed(warehouse, store)
    assert not online.exists(KEY)
    online.delete("cust:of c1:stats")
    online.set("cust:of c1:stats", "something else's")
    with pytest.raises(StoreError):
        seed(warehouse, store)
    assert not online.exists(KEY)


def test_a_run_that_may_not_have_the_store_leaves_it_alone(
    warehouse: Warehouse, store: OnlineStore, online: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: another run has the lock of an empty store. The run names the other one and writes nothing."""
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0)
    online.set(KEY, ANOTHER)
    with pytest.raises(StoreError, match=r"seeded by run z on another\.host"):
        seed(warehouse, store)
    assert dump(online) == {KEY.encode(): (b"string", ANOTHER.encode())}
    assert read_ready(online) is None


@pytest.mark.parametrize("step", ["customers", "warm_start"])
def test_a_lock_that_is_lost_on_the_way_fails_the_step(
    warehouse: Warehouse, store: OnlineStore, online: redis.Redis, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Another run takes the store while the last feature is written, or after it. No later step succeeds."""
    write = BulkConnection.write

    def robbed_before_customers(self: BulkConnection, block: Block) -> None:
        if block.keys[0].startswith(b"cust:"):
            online.set(KEY, ANOTHER)
        write(self, block)

    def robbed_before_it_is_ready(*given: object) -> Ready:
        online.set(KEY, ANOTHER)
        return ready_when_whole(*given)  # type: ignore[arg-type]

    if step == "customers":
        monkeypatch.setattr(BulkConnection, "write", robbed_before_customers)
    else:
        monkeypatch.setattr(assets, "ready_when_whole", robbed_before_it_is_ready)
    result = seed(warehouse, store, verify=True, raise_on_error=False)
    failed = {event.step_key: str(event.step_failure_data.error) for event in result.get_step_failure_events()}
    assert "run z on another.host" in failed[step]
    assert said(online) == Ready("seeding")


def test_materialize_all_is_one_process() -> None:
    """The run of Materialize all holds the lock from its first step to its last."""
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
    """A process that loads gold on a Dagster instance of its own, as on another machine. It prints to `log`.

    Once the process has the lock, it suspends itself.
    """

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        with self._log.open("w") as printed:
            command = [sys.executable, "-c", _SEED, *arguments]
            self.process = subprocess.Popen(command, stdout=printed, stderr=printed)
        ended = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert ended and ended.si_code == os.CLD_STOPPED, self.log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def go_on(self) -> int:
        """Let the process load to its end; its exit code."""
        self.process.send_signal(signal.SIGCONT)
        return self.process.wait(HANG_SECONDS)


@pytest.fixture
def suspended(tmp_path: Path, warehouse: Warehouse, store: OnlineStore) -> Iterator[Callable[[float], Machine]]:
    """Start a run elsewhere that has the lock, with a lease of this many seconds, and has just been suspended."""
    started: list[Machine] = []

    def start(lease_seconds: float) -> Machine:
        machine = Machine(tmp_path / "log", str(warehouse.gold_parquet), str(store.url), PASSWORD, str(lease_seconds))
        started.append(machine)
        return machine

    yield start
    for machine in started:
        machine.process.kill()
        machine.process.wait()


def test_the_second_run_waits_for_the_first(
    suspended: Callable[[float], Machine],
    warehouse: Warehouse,
    store: OnlineStore,
    online: redis.Redis,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before: a run elsewhere has the lock. A run here waits, and says for whom. Both succeed, every key is right."""
    monkeypatch.setattr(lock, "WAIT_SECONDS", HANG_SECONDS)
    first = suspended(HANG_SECONDS)
    owner, asked = lock_text(online), calls(online, "evalsha")
    with ThreadPoolExecutor() as pool:
        second = pool.submit(seed, warehouse, store, verify=True, config={})
        eventually(lambda: calls(online, "evalsha") > asked + 1 or second.done())
        assert said(online) in (None, Ready("seeding"))
        assert first.go_on() == 0, first.log[-3000:]
        run_id = second.result().run_id
    assert f"is being seeded by {owner}: waiting" in capfd.readouterr().err
    assert socket.gethostname() in owner and str(first.process.pid) in owner and run_id not in owner
    ready = read_ready(online)
    assert ready and (ready.state, ready.run_id) == ("ready", run_id)
    assert_holds(online, expect(ROWS))


def test_a_suspended_run_does_not_say_success(
    suspended: Callable[[float], Machine], warehouse: Warehouse, store: OnlineStore, online: redis.Redis
) -> None:
    """Before: the run with the lock does nothing for longer than its lease. The next run takes over and is right.

    When the first run goes on, it fails and changes nothing.
    """
    first = suspended(1)
    seed(warehouse, store)
    assert_holds(online, expect(ROWS))
    before = dump(online)
    assert first.go_on() != 0
    assert "lost the lock of Redis" in first.log
    assert dump(online) == before


def test_a_killed_process_frees_the_store(
    suspended: Callable[[float], Machine], store: OnlineStore, online: redis.Redis
) -> None:
    """The lock of a killed run stays and keeps others out, until the lease ends."""
    suspended(lock.LEASE_SECONDS).process.kill()
    next_one = StoreLock(store, Owner("run b", shared=False), wait_seconds=0)
    with pytest.raises(StoreError, match=r"seeded by run [\w-]+ on"):
        next_one.acquire(getLogger())
    run_out(online)
    next_one.acquire(getLogger())
    assert lock_text(online).startswith("run b on")
    next_one.release()
