"""The race of loads with live scorers: `seed_all` again and again, while events arrive by the thousand."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import READY, Card, Ready, Welford, read_card, read_customer
from feature_seed.features.entity import OnConflict
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.faults.outcome import Outcome
from feature_seed_tests.faults.scorer import ATOMIC, CONTEXT, Counter, Style, events, history_of_gold, read, score
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import START, Row, write_parquet
from feature_seed_tests.support.patience import HANG_SECONDS, patient
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import seed

# What the scorers have applied before the first load begins.
_HEAD_START = 200


@dataclass
class Scorers:
    """The running scorers, and what they have applied so far: events are the same in every process."""

    port: int
    style: Style
    counters: list[Counter] = field(init=False)
    reads: Counter = field(default_factory=Counter)
    violations: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.counters = [Counter() for _ in range(self.style.scorers)]

    @property
    def applied(self) -> int:
        return sum(counter.value for counter in self.counters)

    def rows(self) -> list[Row]:
        """Every event that the store has acknowledged, in the order of each scorer."""
        counts = enumerate(counter.value for counter in self.counters)
        return [row for scorer, count in counts for row in islice(events(scorer, self.style.scorers), count)]

    def rows_of_gold(self) -> list[Row]:
        """The rows of an ETL that is complete up to its newest row: no scorer is still at work on that time."""
        rows = self.rows()
        ends = [max(_times(rows, f"l{scorer}-"), default=START) for scorer in range(self.style.scorers)]
        return [row for row in rows if row.timestamp and row.timestamp < min(ends)]

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = CONTEXT.Event()
        processes = [
            CONTEXT.Process(target=score, args=(self.port, self.style, scorer, counter, stop), daemon=True)
            for scorer, counter in enumerate(self.counters)
        ]
        if self.style.atomic:  # a scorer that is not atomic leaves cards half-written by itself
            arguments = (self.port, self.style.newest_first, self.reads, self.violations, stop)
            processes.append(CONTEXT.Process(target=read, args=arguments, daemon=True))
        for process in processes:
            process.start()
        try:
            yield
        finally:
            stop.set()
            for process in processes:
                process.join(HANG_SECONDS)
        assert [process.exitcode for process in processes] == [0] * len(processes)


def _times(rows: list[Row], prefix: str) -> list[datetime]:
    return [row.timestamp for row in rows if row.timestamp and row.transaction_id.startswith(prefix)]


@dataclass(frozen=True)
class Race:
    """One race.

    Attributes:
        tried: its name in the table.
        events: it goes on until so many are applied,
        loads: and the store was seeded so often.
        rebuild_every: before every load with a multiple of this number, gold takes in the events so far; 0: never.
        seeded_before: the first load is over before the scorers start.
        on_conflict: what the loads do.
        style: how the scorers work.
        mended: one more load comes after the scorers have stopped.
        checked: loads are whole jobs, whose checks have to pass: no event that came meanwhile may look like damage.
    """

    tried: str
    events: int
    loads: int
    rebuild_every: int = 2
    seeded_before: bool = False
    on_conflict: OnConflict = "keep_newer"
    style: Style = ATOMIC
    mended: bool = False
    checked: bool = False

    @property
    def flawless(self) -> bool:
        return self.on_conflict == "keep_newer" and self.style.atomic

    def run(self, client: Client, directory: Path) -> Outcome:
        with redis_server() as port, patient(port=port) as online:
            scorers = Scorers(port, self.style)
            gold = write_parquet(client, directory / "gold.parquet", history_of_gold())
            if self.seeded_before:
                self._load(port, gold)
            with scorers.running():
                while scorers.applied < _HEAD_START:
                    time.sleep(0.01)
                loads = self._loads(client, scorers, gold)
            if self.mended:
                self._load(port, gold)
            return self._compare(online, scorers, loads + self.seeded_before + self.mended)

    def _loads(self, client: Client, scorers: Scorers, gold: Path) -> int:
        loads = 0
        while loads < self.loads or scorers.applied < self.events:
            if self.rebuild_every and loads % self.rebuild_every == self.rebuild_every - 1:
                write_parquet(client, gold, [*history_of_gold(), *scorers.rows_of_gold()])
            self._load(scorers.port, gold)
            loads += 1
        return loads

    def _load(self, port: int, gold: Path) -> None:
        store = OnlineStore(url=f"redis://127.0.0.1:{port}")
        job = "seed_all" if self.checked else "load"
        newest_first = self.style.newest_first
        warehouse = Warehouse(gold_parquet=str(gold))
        seed(warehouse, store, job=job, on_conflict=self.on_conflict, newest_first=newest_first)
        if not self.checked:  # the job does not call a store ready that has lost something
            call_ready(store, warehouse)

    def _compare(self, online: redis.Redis, scorers: Scorers, loads: int) -> Outcome:
        live = scorers.rows()
        expected = expect([*history_of_gold(), *live], newest_first=self.style.newest_first)
        cards = [_card(read_card(online, card_id), card) for card_id, card in expected.cards.items()]
        customers = [_customer(read_customer(online, name), state) for name, state in expected.customers.items()]
        return Outcome(
            self.tried,
            loads,
            len(live),
            lost=max(sum(one.lost for one in kind) for kind in (cards, customers)),
            counted_twice=max(sum(one.twice for one in kind) for kind in (cards, customers)),
            half_written=scorers.violations.value,
            different=sum(one.different for one in cards + customers),
            flawless=self.flawless,
        )


@dataclass(frozen=True)
class Difference:
    """An entity, and what it should be."""

    lost: int
    twice: int
    different: bool


def call_ready(store: OnlineStore, warehouse: Warehouse) -> None:
    with store.client() as client:
        ready = Ready("ready", watermark=warehouse.profile().watermark.isoformat())
        client.hset(READY.pattern, mapping=ready.encode())


def _card(found: Card | None, expected: Card) -> Difference:
    if not found:
        return Difference(expected.seq, 0, False)
    unlisted = len(set(expected.history) - set(found.history))
    lost, twice = max(expected.seq - found.seq, unlisted), max(found.seq - expected.seq, 0)
    return Difference(lost, twice, not lost and not twice and found != expected)


def _customer(found: Welford | None, expected: Welford) -> Difference:
    if not found:
        return Difference(expected.count, 0, False)
    lost, twice = max(expected.count - found.count, 0), max(found.count - expected.count, 0)
    same = math.isclose(found.mean, expected.mean, rel_tol=1e-9) and math.isclose(found.m2, expected.m2, rel_tol=1e-9)
    return Difference(lost, twice, not lost and not twice and not same)
