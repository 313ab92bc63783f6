"""A scorer's reads while the store is seeded: quiet, unthrottled, and adaptive, in one run.

    $ python -m feature_seed_tests.benchmarks.latency

`--dir` keeps gold for the next run, `--limit` sets FEATURE_SEED_MAX_LATENCY_MS (default: the quiet store's p99, or 1 ms
where that is less), and `--first` puts store and scorer before everything else on this machine, as if they had another.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
from redis import Redis

from feature_seed.store.local import LocalRedis
from feature_seed_tests.benchmarks import job
from feature_seed_tests.benchmarks.scorer import Span, scorer
from feature_seed_tests.benchmarks.stage import busy_seconds, cpu_seconds, empty_store, staged, write_gold

QUIET_SECONDS = 20

MODES = ("overwrite", "keep_newer")


@dataclass(frozen=True)
class Figures:
    """The milliseconds of the scorer's reads, the seconds of the loads, and how many cores did other work."""

    p50: float
    p99: float
    p999: float
    seconds: float
    others: float


@dataclass(frozen=True)
class Work:
    """When something was done to the store, and the CPU seconds it took."""

    spans: Sequence[Span]
    cpu_seconds: float


@dataclass(frozen=True)
class Stage:
    """A store, what it is seeded from, and a scorer; `first`: store and scorer run before everything else."""

    redis: Redis
    gold: Path
    home: Path
    cards: int
    rate: int
    first: bool

    def measure(self, work: Callable[[], Work]) -> Figures:
        """How the scorer's reads fare meanwhile."""
        with scorer(LocalRedis(self.home).socket, self.cards, self.rate, self.home) as (process, reads):
            if self.first:
                put_first(process)
            started, busy, served = time.time(), busy_seconds(), cpu_seconds(self.redis)
            done = work()
            served, elapsed = cpu_seconds(self.redis) - served, time.time() - started
            others = busy_seconds() - busy - served - done.cpu_seconds
        latencies = sorted(seconds * 1000 for span in done.spans for seconds in reads.within(span))
        p50, p99, p999 = (latencies[int(len(latencies) * quantile)] for quantile in (0.5, 0.99, 0.999))
        return Figures(p50, p99, p999, sum(until - since for since, until in done.spans), others / elapsed)

    def rest(self) -> Work:
        time.sleep(1)  # the scorer starts
        started = time.time()
        time.sleep(QUIET_SECONDS)
        return Work([(started, time.time())], 0)

    def seed(self, on_conflict: str, **variables: str) -> Work:
        report = job.run(self.gold, self.home, on_conflict, **variables)
        spans = [(ended - report["seconds"][name], ended) for name, ended in report["ended"].items()]
        return Work(spans, report["cpu_seconds"])


def compare(stage: Stage, limit: float | None) -> None:
    """Print a table, row by row.

    `limit` is FEATURE_SEED_MAX_LATENCY_MS of the adaptive loads; by default what the quiet store's p99 allows them.
    """
    stage.seed("overwrite")
    quiet = stage.measure(stage.rest)
    allowed = f"{limit or max(quiet.p99, 1):.3g}"
    adaptive = {"FEATURE_SEED_MAX_LATENCY_MS": allowed}
    columns = ("p50 ms", "p99 ms", "p99.9 ms", "p99 ratio", "seconds", "others")
    print(f"\n{'':36}" + "".join(f"{column:>10}" for column in columns))
    show("quiet", quiet, quiet)
    for mode in MODES:
        show(f"{mode}, unthrottled", stage.measure(lambda mode=mode: stage.seed(mode)), quiet)
        name = f"{mode}, adaptive ({allowed} ms)"
        show(name, stage.measure(lambda mode=mode: stage.seed(mode, **adaptive)), quiet)
    show("quiet, afterwards", stage.measure(stage.rest), quiet)


def show(name: str, figures: Figures, quiet: Figures) -> None:
    values = (figures.p50, figures.p99, figures.p999, figures.p99 / quiet.p99, figures.seconds, figures.others)
    print(f"{name:36}" + "".join(f"{value:10.2f}" for value in values), flush=True)


def put_first(process: int) -> None:
    """Schedule a process before all others. Only root can."""
    os.sched_setscheduler(process, os.SCHED_RR, os.sched_param(1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m feature_seed_tests.benchmarks.latency")
    parser.add_argument("--cards", type=int, default=200_000)
    parser.add_argument("--transactions", type=int, default=2_000_000)
    parser.add_argument("--rate", type=int, default=500, help="reads per second")
    parser.add_argument("--limit", type=float, help="of the adaptive loads, ms (default: the quiet p99, at least 1)")
    parser.add_argument("--first", action="store_true", help="store and scorer run before everything else (root alone)")
    parser.add_argument("--dir", type=Path, help="where gold is kept for the next run (default: removed afterwards)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    with staged("latency", arguments.dir) as home:
        with clickhouse_connect.get_client(interface="chdb") as client:
            gold = write_gold(client, arguments.cards, arguments.transactions, arguments.dir or home)
        with empty_store(home) as redis:
            server: Any = redis.info("server")
            if arguments.first:
                put_first(server["process_id"])
            compare(Stage(redis, gold, home, arguments.cards, arguments.rate, arguments.first), arguments.limit)


if __name__ == "__main__":
    main()
