"""The lock: one owner at a time, until the owner frees it or its lease ends. An owner that lost it is told."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import Event
from types import SimpleNamespace

import dagster as dg
import pytest
import redis

from feature_seed.errors import StoreError
from feature_seed.store import lock
from feature_seed.store.lock import KEY, Owner, StoreLock
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.blocks import block_of
from feature_seed_tests.support.patience import HANG_SECONDS, eventually, patient
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.store import lock_text, run_out

LOG = logging.getLogger("feature_seed_tests.lock")

A, B = Owner("run a", shared=False), Owner("run b", shared=False)


def of(store: OnlineStore, owner: Owner, wait_seconds: float = 0) -> StoreLock:
    return StoreLock(store, owner, wait_seconds=wait_seconds)


@pytest.fixture
def quick_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock is renewed a hundred times as often: ten times a second."""

    class Hurried(Event):
        def wait(self, timeout: float | None = None) -> bool:
            return super().wait(timeout and timeout / 100)

    monkeypatch.setattr(lock, "Event", Hurried)


@contextmanager
def taken(taker: StoreLock) -> Iterator[StoreLock]:
    taker.acquire(LOG)
    try:
        yield taker
    finally:
        taker.release()


def test_one_owner_at_a_time(quick_renewals: None, store: OnlineStore, online: redis.Redis) -> None:
    """While a holds and renews the lock, b is told who does, where, and what to do. Then the lock is free for b."""
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
        assert lock_text(online).startswith("run b on")


def test_waiting_says_for_whom(
    store: OnlineStore, online: redis.Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run frees the lock before it is asked for the third time. One line of the log names that run."""
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
    """No run of a backfill frees the lock for strangers: the lease ends when all runs have ended."""
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
    quick_renewals: None, store: OnlineStore, online: redis.Redis, found: str, notice: Callable[[StoreLock], None]
) -> None:
    """Before: a holds the lock. It goes, or becomes another's.

    The next question or renewal raises an error. Another's lock stays.
    """
    with taken(of(store, A)) as held:
        online.set(KEY, found) if found else online.delete(KEY)
        with pytest.raises(StoreError, match=f"run a lost the lock .*{'run b on elsewhere' if found else 'ran out'}"):
            notice(held)
    assert lock_text(online) == found


def test_a_store_out_of_reach_ends_the_lease(quick_renewals: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: a holds the lock. The server goes: renewals fail, and a may not go on once its lease is over."""
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
    """Before: run a had the lock and was suspended before its next block. Its lease ran out, and b took over.

    After: the block of a is nowhere. Connections of b, of others and of another database are left.
    """
    names = {"feature_seed:run:b": 0, "a-scorer": 0, "feature_seed:run:c": 1}
    port = online.connection_pool.connection_kwargs["port"]
    others = [patient(port=port, password=PASSWORD, client_name=name, db=db) for name, db in names.items()]
    first = of(store, A)
    first.acquire(LOG)
    first.stop_renewing()  # a suspended run renews nothing
    with store.bulk(name=A.connection) as connection:
        assert all(other.ping() for other in others)
        run_out(online)
        with taken(of(store, B)):
            with pytest.raises(redis.ConnectionError):
                connection.write(block_of("SET k v"))
                connection.drain()
            assert online.get("k") is None
            assert {name for one in online.client_list() if (name := one["name"])} == set(names)
    for other in others:
        other.close()
