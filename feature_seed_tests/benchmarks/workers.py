"""Two runs of half the shards each at the same time, beside one run of all: where two machines would end up.

    $ python -m feature_seed_tests.benchmarks.workers --cards 100000 --transactions 1000000

Each line is `seed_shard` over ranges of shards into an empty store, with its checks and Dagster's start. `warm_start`
would come after it on any line, and is left out.

- one run: of all shards.
- at the same time: two runs of one backfill, which share the lock of the store, as with FEATURE_SEED_SHARDS_PER_RUN=8.
- in turns: two runs that are of no backfill. Both begin, and one waits for the lock until the other has ended. It would
  fail after 90 s.
- first half, second half: each by itself, with the whole machine.

`seconds` are from the first start to the last end, and `loads` those of the run with the longer loads. CPU is that of
the runs' processes, with ClickHouse embedded in each. `ClickHouse` has the queries of the loads alone, and `floor` is
redis-cli --pipe of their commands. Two machines have one Redis. They end with the longer half at the earliest, and not
before all commands are in.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import clickhouse_connect

from feature_seed.features.entity import ENTITIES, OnConflict
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.benchmarks import job
from feature_seed_tests.benchmarks.halves import Recording, query_seconds
from feature_seed_tests.benchmarks.stage import (
    Contents,
    Figures,
    cpu_seconds,
    empty_store,
    some_cards,
    staged,
    write_gold,
)

Shards = Sequence[str]

SHARDS = shard_names(Layout().shard_count)
HALVES = (SHARDS[: len(SHARDS) // 2], SHARDS[len(SHARDS) // 2 :])


@dataclass(frozen=True)
class Way:
    """The runs that seed, by their shards; of one backfill, if they share the lock."""

    name: str
    runs: Sequence[Shards]
    backfill: str = ""

    def tags(self, shards: Shards) -> dict[str, str]:
        bounds = {"dagster/asset_partition_range_start": shards[0], "dagster/asset_partition_range_end": shards[-1]}
        return bounds | ({"dagster/backfill": self.backfill} if self.backfill else {})


TOGETHER = (
    Way("one run", [SHARDS]),
    Way("two at the same time", HALVES, "halves"),
    Way("two in turns", HALVES),
)
ALONE = (Way("first half", HALVES[:1]), Way("second half", HALVES[1:]))


def measure(way: Way, gold: Path, home: Path, on_conflict: OnConflict, some: list[str]) -> tuple[Figures, Contents]:
    """All runs of a way, which begin at the same time."""
    with empty_store(home) as redis, ThreadPoolExecutor() as pool:
        started = time.perf_counter()
        reports = list(pool.map(lambda shards: job.run(gold, home, on_conflict, way.tags(shards)), way.runs))
        figures = {
            "seconds": time.perf_counter() - started,
            "loads": max(job.loading(report) for report in reports),
            "CPU s": sum(report["cpu_seconds"] for report in reports),
            "Redis CPU s": cpu_seconds(redis),
        }
        return figures, Contents.of(redis, some)


def parts(shards: Shards, gold: Path, home: Path, on_conflict: OnConflict) -> Figures:
    """What of a run's loads is ClickHouse, and what is Redis."""
    warehouse, layout = Warehouse(gold_parquet=str(gold)), Layout(on_conflict=on_conflict)
    streams = [FeatureStream(warehouse, layout, entity, tuple(shards)) for entity in ENTITIES]
    recording = Recording.of(streams, home / "commands.resp")
    with empty_store(home):
        started = time.perf_counter()
        recording.load(home)
        floor = time.perf_counter() - started
    return {"ClickHouse": sum(map(query_seconds, streams)), "floor": floor}


def compare(gold: Path, home: Path, on_conflict: OnConflict, some: list[str]) -> None:
    """Print a row for each way.

    Raises:
        SystemExit: two ways left different things in the store.
    """
    columns = ("seconds", "loads", "CPU s", "Redis CPU s", "ClickHouse", "floor")
    print(f"{'':24}" + "".join(f"{column:>12}" for column in columns))
    rows: dict[str, Figures] = {}
    expected: Contents | None = None
    for way in (*TOGETHER, *ALONE):
        figures, contents = measure(way, gold, home, on_conflict, some)
        expected = expected or contents
        if way in TOGETHER and contents != expected:
            raise SystemExit(f"{way.name} and {TOGETHER[0].name} differ: {contents.difference(expected)}")
        if len(way.runs) == 1:
            figures |= parts(way.runs[0], gold, home, on_conflict)
        rows[way.name] = figures
        print(f"{way.name:24}" + "".join(f"{figures[one]:12.1f}" for one in columns if one in figures), flush=True)
    longer, one = max(rows[way.name]["seconds"] for way in ALONE), rows[TOGETHER[0].name]
    bound = max(longer, one["floor"])
    print(f"two machines: {bound:.1f} s at best, {one['seconds'] / bound:.2f} times as fast as one")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m feature_seed_tests.benchmarks.workers")
    parser.add_argument("--cards", type=int, default=100_000)
    parser.add_argument("--transactions", type=int, default=1_000_000)
    parser.add_argument("--ids", type=int, default=36, help="characters of every id (default: 36, as a UUID has)")
    parser.add_argument("--on-conflict", choices=get_args(OnConflict), default="overwrite")
    parser.add_argument("--dir", type=Path, help="where gold is kept for the next run (default: removed afterwards)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    with staged("workers", arguments.dir) as home, clickhouse_connect.get_client(interface="chdb") as client:
        size = arguments.cards, arguments.transactions
        gold = write_gold(client, *size, arguments.dir or home, arguments.ids)
        compare(gold, home, arguments.on_conflict, some_cards(client, gold))


if __name__ == "__main__":
    main()
