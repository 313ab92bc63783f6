"""The stage of the benchmarks: a gold snapshot of any size, and a Redis server for every load."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from clickhouse_connect.driver.client import Client
from redis import Redis

from feature_seed.contract import READY, Card, read_card
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.local import LocalRedis
from feature_seed.store.lock import KEY as LOCK
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.benchmarks.memory import high_water
from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server

# As the job reads ahead.
BYTES_AHEAD = 16_000_000

# Seconds, GB and ratios, by name.
Figures = dict[str, float]


@contextmanager
def staged(name: str, directory: Path | None) -> Iterator[Path]:
    """A directory for a benchmark, in this one. Files and Redis go at its end, also if the benchmark is terminated."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if directory:
        directory.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{name}-", dir=directory) as home:
        yield Path(home)


def write_gold(client: Client, cards: int, transactions: int, directory: Path, ids: int = 13) -> Path:
    """The snapshot of this size in `directory`, written on first use, with ids of so many characters."""
    gold = directory.resolve() / f"gold-{cards}-{transactions}-{ids}.parquet"
    if not gold.exists():
        draft = gold.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        statement = Path(__file__).with_name("gold.sql").read_text()
        client.command(statement, {"gold": str(draft), "cards": cards, "transactions": transactions, "ids": ids})
        draft.rename(gold)
    return gold


def write_subset(client: Client, gold: Path, subset: Path, cards: int) -> list[str]:
    """Write all transactions of some cards to a snapshot of their own, and name a handful of these cards."""
    parameters = {"gold": str(gold), "subset": str(subset), "cards": cards}
    client.command(
        "INSERT INTO FUNCTION file({subset:String}, 'Parquet') SELECT * FROM file({gold:String}, 'Parquet') WHERE "
        "card_id IN (SELECT DISTINCT card_id FROM file({gold:String}, 'Parquet') ORDER BY 1 LIMIT {cards:UInt32})",
        parameters,
    )
    return some_cards(client, subset)


def some_cards(client: Client, gold: Path) -> list[str]:
    """A handful of a snapshot's cards, always the same."""
    some = "SELECT DISTINCT card_id FROM file({gold:String}, 'Parquet') ORDER BY sipHash64(card_id) LIMIT 20"
    return [str(card) for card in client.query(some, {"gold": str(gold)}).result_columns[0]]


@contextmanager
def served(gold: Path, home: Path, kind: str = "VIEW") -> Iterator[ClickHouseServer]:
    """A server that has the snapshot as its gold table, or a copy of it in a `kind` of "TABLE … ENGINE = …"."""
    kind, _, engine = kind.partition(" ")
    setup = home / "setup.sql"
    setup.write_text(f"CREATE {kind} fact_transactions_gold {engine} AS SELECT * FROM file('{gold}', 'Parquet')")
    with clickhouse_server("seeder", "of a benchmark", setup) as server:
        yield server


@contextmanager
def empty_store(home: Path) -> Iterator[Redis]:
    """A server of its own for every load: no load profits from memory that another has asked the kernel for."""
    try:
        with OnlineStore(home=str(home)).client() as client:
            yield client
    finally:
        LocalRedis(home).remove()


def load(store: OnlineStore, streams: Sequence[FeatureStream]) -> None:
    """Seed without Dagster, one entity after the other."""
    for stream in streams:
        with store.bulk([stream.entity.guard]) as connection, stream.prefetched(BYTES_AHEAD) as blocks:
            for block in blocks:
                connection.write(block)
            connection.drain()


class Effort(NamedTuple):
    """Seconds, CPU seconds, and GB that were resident at most."""

    seconds: float
    cpu: float
    peak: float


@dataclass(frozen=True)
class Meter:
    """Measures the process in which ClickHouse is: this one, or the server's."""

    client: Client
    pid: int = field(default_factory=os.getpid)

    def effort(self, work: Callable[[], object]) -> Effort:
        """What some work takes, in a process that has given back the memory of earlier work."""
        process = Path(f"/proc/{self.pid}")
        self.client.command("SYSTEM JEMALLOC PURGE")
        (process / "clear_refs").write_text("5")  # its peak begins anew
        started, used = time.perf_counter(), _cpu_seconds(process)
        work()
        seconds, cpu = time.perf_counter() - started, _cpu_seconds(process) - used
        return Effort(seconds, cpu, high_water(self.pid) / 1e9)


def _cpu_seconds(process: Path) -> float:
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    user, system = map(int, fields[11:13])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def medians(turns: Sequence[Effort]) -> Effort:
    return Effort(*map(median, zip(*turns, strict=True)))


def cpu_seconds(redis: Redis) -> float:
    """What the server has used since it started."""
    used: Any = redis.info("cpu")
    return used["used_cpu_user"] + used["used_cpu_sys"]


def busy_seconds() -> float:
    """What all processes of this machine have used since it started. This shows whether a measurement was disturbed."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = map(int, fields)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contents:
    """What a load left behind: how many keys of features, and some cards as a scorer reads them."""

    keys: int
    cards: dict[str, Card | None]

    @classmethod
    def of(cls, redis: Redis, cards: Sequence[str]) -> "Contents":
        keys: Any = redis.dbsize()
        others: Any = redis.exists(READY.pattern, LOCK)  # a backfill leaves the lock to run out
        return cls(keys - others, {card: read_card(redis, card) for card in cards})

    def difference(self, other: "Contents") -> str:
        cards = [card for card, state in self.cards.items() if state != other.cards[card]]
        return f"{self.keys:,} and {other.keys:,} keys, other cards: {', '.join(cards) or 'none'}"
