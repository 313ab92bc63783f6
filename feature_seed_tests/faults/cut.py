"""Loads that are cut off from the store or from the warehouse: by a broken line, or by a server that restarts."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from tempfile import mkdtemp

import dagster as dg

from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.faults.contents import FREE, Contents
from feature_seed_tests.faults.outcome import Recovery, total
from feature_seed_tests.faults.proxy import Break, Direction, Kind, Proxy, proxy
from feature_seed_tests.faults.stage import Part, Stage, impatience
from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server
from feature_seed_tests.support.patience import HANG_SECONDS, patient
from feature_seed_tests.support.redis_server import wait_until_refused
from feature_seed_tests.support.run import seed

_PASSWORD = "of a campaign"

# Threads of the campaign, not of the product: of the line that broke, of the server that is started again.
_OTHERS = ("proxy",)

# What every error of a run says first, whatever the reason.
_CLEAR = (
    "Redis at ",
    "ClickHouse at ",
    "Gold table ",
    "Another run may have written",
    "Redis refused ",
    "The check ",  # of a store that was emptied after its load
)


@contextmanager
def served(gold: Path) -> Iterator[ClickHouseServer]:
    """The snapshot as the gold table of a server."""
    setup = gold.with_suffix(".sql")
    table = "CREATE TABLE fact_transactions_gold ENGINE = MergeTree ORDER BY tuple()"
    setup.write_text(f"{table} AS SELECT * FROM file('{gold}', Parquet)")
    with clickhouse_server("seeder", _PASSWORD, setup) as server:
        yield server


def gold_at(port: int) -> Warehouse:
    return Warehouse(host="127.0.0.1", port=port, user="seeder", password=_PASSWORD)


@dataclass(frozen=True)
class Lines:
    """A run's ways to the store and to the warehouse."""

    store: Proxy
    warehouse: Proxy

    def to(self, part: Part) -> Proxy:
        return self.store if part == "store" else self.warehouse

    def run(self, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
        store = OnlineStore(url=f"redis://127.0.0.1:{self.store.port}")
        gold = gold_at(self.warehouse.port)
        return seed(gold, store, job="seed_all", instance=instance, raise_on_error=False)


@contextmanager
def lines(stage: Stage, port: int) -> Iterator[Lines]:
    with proxy(port) as store, proxy(int(stage.gold.port or 0)) as gold:
        yield Lines(store, gold)


@dataclass(frozen=True)
class Cut:
    """A number of runs, each cut off after a random number of bytes.

    Attributes:
        tried: its name in the table.
        part: from which part a run is cut off.
        kind, direction: how, and in what.
        runs: how many.
        breaks: of the line in a run, one after the other.
        reseed: the store is ready, for an older gold.
    """

    tried: str
    part: Part
    kind: Kind
    direction: Direction
    runs: int
    breaks: int = 1
    reseed: bool = False

    def run(self, stage: Stage, chance: Random) -> Recovery:
        most = volume(stage, self.part, self.direction, reseed=self.reseed) // self.breaks
        return total([self._once(stage, chance.randrange(most)) for _ in range(self.runs)])

    def _once(self, stage: Stage, after: int) -> Recovery:
        with stage.store(reseed=self.reseed) as (port, _), lines(stage, port) as way:
            way.to(self.part).plan(Break(self.kind, self.direction, after, self.breaks))
            silent = self.part if self.kind == "pause" else None
            return attempt(self.tried, stage, way, port, reseed=self.reseed, silent=silent)


def volume(stage: Stage, part: Part, direction: Direction, *, reseed: bool) -> int:
    """The bytes that pass in an undisturbed run, less a twentieth, by which runs may differ."""
    return _run_in_peace(stage, reseed).to(part).passed[direction] * 19 // 20


@cache
def _run_in_peace(stage: Stage, reseed: bool) -> Lines:
    with stage.store(reseed=reseed) as (port, _), lines(stage, port) as way:
        with dg.DagsterInstance.ephemeral() as instance:
            assert way.run(instance).success
        return way


@dataclass(frozen=True)
class Restart:
    """A number of runs, in each of which the store's server is killed at a random moment, and started again.

    Attributes:
        tried: its name in the table.
        runs: how many.
        kept: the server writes everything to disk before it acknowledges, and comes back with all of it.
        reseed: the store is ready, for an older gold.
    """

    tried: str
    runs: int
    kept: bool
    reseed: bool = False

    def run(self, stage: Stage, chance: Random) -> Recovery:
        most = volume(stage, "store", "requests", reseed=self.reseed)
        return total([self._once(stage, chance.randrange(most)) for _ in range(self.runs)])

    def _once(self, stage: Stage, after: int) -> Recovery:
        kept = ("--appendonly", "yes", "--appendfsync", "always", "--dir", mkdtemp(dir=stage.directory))
        options, back = kept if self.kept else (), threading.Event()
        with ExitStack() as servers:
            port, online = servers.enter_context(stage.store(*options, reseed=self.reseed))
            way = servers.enter_context(lines(stage, port))

            def restart() -> None:
                os.kill(online.info("server")["process_id"], signal.SIGKILL)  # type: ignore[index]
                wait_until_refused(port)
                servers.enter_context(stage.store(*options, reseed=False, port=port))
                back.set()

            way.store.plan(Break("call", "requests", after, call=restart))
            return attempt(self.tried, stage, way, port, reseed=self.reseed, kept=self.kept, back=back)


def attempt(
    tried: str,
    stage: Stage,
    way: Lines,
    port: int,
    *,
    reseed: bool,
    kept: bool = True,
    silent: Part | None = None,
    back: threading.Event | None = None,
) -> Recovery:
    """A run to which something happens, until the server is `back`, and an undisturbed run after it.

    If the store has not `kept` what it acknowledged, anything may be missing. Only `ready` must not lie then.
    """
    change = stage.change(reseed=reseed and kept)
    with impatience(silent), dg.DagsterInstance.ephemeral() as instance:
        before = set(threading.enumerate())
        result = way.run(instance)
        left = [one for one in threading.enumerate() if one not in before and one.name not in _OTHERS]
    assert back is None or back.wait(HANG_SECONDS)
    with patient(port=port) as online:
        found, reported = Contents.of(online), _reported(result) if kept else set()
        after = stage.in_peace(port, online)
    events = [event.event_type_value for event in result.all_events]
    return Recovery(
        tried,
        1,
        ended_well=int(result.success),
        attempts=events.count("STEP_RESTARTED"),
        half_written=change.half_written(found),
        lied=change.lies(found, reported) + (result.success and not change.done(found)),
        unclear=_unclear(result),
        lost=change.lost(after),
        different=change.different(after),
        left_behind=len(left) + (after.lock_ms != FREE),
    )


def _reported(result: dg.ExecuteInProcessResult) -> set[str]:
    """The features that are loaded by Dagster's record."""
    done = [event for event in result.all_events if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION]
    return {event.asset_key.to_user_string() for event in done if event.asset_key} - {"warm_start"}


def _unclear(result: dg.ExecuteInProcessResult) -> int:
    """How many steps failed with an error that does not say what is at fault."""
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    texts = [error.to_string() for error in errors if error]
    unclear = [text for text in texts if not any(beginning in text for beginning in _CLEAR)]
    return len(unclear) + (not result.success and not texts)
