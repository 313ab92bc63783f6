"""Loads whose process is killed or interrupted: at any moment, and as each step starts."""

import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import dagster as dg

from feature_seed.store.lock import LEASE_SECONDS
from feature_seed_tests.faults.contents import FOR_EVER, FREE, Contents
from feature_seed_tests.faults.outcome import Recovery, total
from feature_seed_tests.faults.seeder import Seeder
from feature_seed_tests.faults.stage import Stage

STEPS = ("gold_checks", "cards", "customers", "feature_checks", "warm_start")

# Of files in embedded ClickHouse's directory, while nothing is spilled: its status, and the view's definition.
_EMPTY_BYTES = 5000


@dataclass(frozen=True)
class Moment:
    """So many seconds after the start of a step, or with '' of the process."""

    step: str
    seconds: float = 0


@dataclass(frozen=True)
class Kill:
    """A number of runs, each sent a signal at a moment.

    Attributes:
        tried: its name in the table.
        what: the signal.
        moments: when, one run for each.
        reseed: the store is ready, for an older gold.
    """

    tried: str
    what: signal.Signals
    moments: Sequence[Moment]
    reseed: bool = False

    def run(self, stage: Stage, seeder: Seeder) -> Recovery:
        with dg.DagsterInstance.from_config(str(seeder.home)) as instance:
            return total([self._once(stage, seeder, instance, moment) for moment in self.moments])

    def _once(self, stage: Stage, seeder: Seeder, instance: dg.DagsterInstance, moment: Moment) -> Recovery:
        change, runs = stage.change(reseed=self.reseed), instance.get_runs_count()
        with stage.store(reseed=self.reseed) as (port, online):
            seeder.start(stage.gold, port)
            seeder.wait_until(moment.step, moment.seconds)
            seeder.send(self.what)
            code = seeder.end()
            found, record = Contents.of(online), Record.of(instance, runs)
            left = _left(seeder, code, found, record)
            after = stage.in_peace(port, online)
        well = code == 0 or record.succeeded
        return Recovery(
            self.tried,
            1,
            ended_well=int(well),
            half_written=change.half_written(found),
            lied=change.lies(found, record.loaded) + (well and not change.done(found)),
            unclear=int(code not in (0, 1, -signal.SIGINT, -self.what, None)),
            lost=change.lost(after),
            different=change.different(after),
            left_behind=left + (after.lock_ms != FREE),
        )


def whole_run(stage: Stage, seeder: Seeder) -> float:
    """How many seconds the process takes for a first load."""
    with stage.store(reseed=False) as (port, _):
        started = time.monotonic()
        seeder.start(stage.gold, port)
        assert seeder.end() == 0, seeder.printed()
        return time.monotonic() - started


def any_moments(chance: Random, whole: float, count: int) -> list[Moment]:
    return [Moment("", chance.uniform(0, whole)) for _ in range(count)]


def _left(seeder: Seeder, code: int | None, found: Contents, record: "Record") -> int:
    """What is left and should not be.

    A process that is killed leaves its lock for the rest of its lease, its record at Dagster as it was, and the
    directory of embedded ClickHouse, with nothing of gold in it. A process that ends otherwise leaves nothing.
    """
    if code != -signal.SIGKILL:
        return (code is None) + _processes_and_files(seeder) + (found.lock_ms != FREE) + (not record.ended)
    gold = sum(_size(directory) > _EMPTY_BYTES for directory in seeder.temporary.glob("clickhouse-embedded-*"))
    for directory in seeder.temporary.glob("clickhouse-embedded-*"):
        shutil.rmtree(directory)
    return gold + _processes_and_files(seeder) + (found.lock_ms > LEASE_SECONDS * 1000 or found.lock_ms == FOR_EVER)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _processes_and_files(seeder: Seeder) -> int:
    return seeder.left_processes() + len(list(seeder.temporary.iterdir()))


@dataclass(frozen=True)
class Record:
    """What Dagster knows of a run: whether it ended, and in success, and which features it says are loaded."""

    ended: bool = True
    succeeded: bool = False
    loaded: frozenset[str] = frozenset()

    @classmethod
    def of(cls, instance: dg.DagsterInstance, runs_before: int) -> "Record":
        """The record of the run after the first so many. A run may be killed before Dagster knows of it."""
        if instance.get_runs_count() == runs_before:
            return cls()
        run = instance.get_runs(limit=1)[0]
        events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        keys = [event.dagster_event.asset_key for event in events if event.dagster_event]
        loaded = frozenset(key.to_user_string() for key in keys if key)
        return cls(run.is_finished, run.is_success, loaded - {"warm_start"})
