"""What shards cost: seeding sixteen of them beside one unsharded pass over gold, in one run.

    $ python -m feature_seed_tests.benchmarks.shards --cards 200000 --transactions 2000000

Each way loads cards and customers in `overwrite`, ClickHouse embedded, Dagster left out:

- one pass: FEATURE_SEED_SHARDS=1, and memory for everything at once.
- one run: 16 shards in as few passes as FEATURE_SEED_PASS_MB allows, as `seed_all` reads them.
- a pass each: 16 shards with memory for one of them, as a run for each shard reads them.

`queries` are ClickHouse's alone, FORMAT Null; `seeding` goes on to the last acknowledgement. CPU is this process's, in
which ClickHouse is, and peak its memory. All ways must leave the same number of keys and the same cards.

Measured on two cores, 200,000 cards of 2,000,000 transactions, medians of 3; ratios are to the first line:

                   scans  queries s  CPU s  ratio    seeding s  CPU s  ratio    peak GB
    one pass           2        1.1    2.1   1.00          3.0    3.1   1.00       0.83
    one run            2        1.1    2.1   0.96          2.8    3.0   0.97       0.83
    a pass each       32        6.4    9.1   4.25          8.1   10.5   3.39       0.50

and 1,000,000 cards of 10,000,000, once:

    one pass           2        5.2   10.1   1.00         22.0   18.6   1.00       2.33
    one run            3        6.2   11.8   1.17         20.1   18.4   0.99       1.46
    a pass each       32       25.0   36.5   3.61         35.0   43.1   2.31       0.76

Up to 540 MB of what ClickHouse collects, some 510,000 cards at ten transactions each, one run is one pass per entity,
and shards cost nothing. Beyond, it scans gold as often as FEATURE_SEED_PASS_MB demands, once for each shard at most:
that is what a smaller value, or a run for each shard, costs for less memory.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import clickhouse_connect

from feature_seed.features.entity import ENTITIES
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.benchmarks.halves import query
from feature_seed_tests.benchmarks.stage import (
    Contents,
    Effort,
    Meter,
    empty_store,
    load,
    medians,
    some_cards,
    staged,
    write_gold,
)

GOAL = 1.3


@dataclass(frozen=True)
class Way:
    """How gold is read; without `pass_bytes` as it is by default."""

    name: str
    shards: int
    pass_bytes: int | None = None

    def streams(self, gold: Path) -> list[FeatureStream]:
        warehouse = Warehouse(gold_parquet=str(gold))
        if self.pass_bytes:
            warehouse = warehouse.model_copy(update={"pass_bytes": self.pass_bytes})
        warehouse.profile()  # a scan that all ways have
        layout = Layout(shard_count=self.shards, on_conflict="overwrite")
        return [FeatureStream(warehouse, layout, entity, tuple(shard_names(self.shards))) for entity in ENTITIES]


WAYS = (Way("one pass", 1, 10**12), Way("one run", 16), Way("a pass each", 16, 1))


@dataclass(frozen=True)
class Measured:
    """What a way took, and how often it read gold."""

    scans: int
    queries: Effort
    seeding: Effort


def measure(way: Way, meter: Meter, gold: Path, home: Path, witnesses: list[str]) -> tuple[Measured, Contents]:
    streams = way.streams(gold)
    scans: list[int] = []
    queries = meter.effort(lambda: scans.extend(map(query, streams)))
    with empty_store(home) as redis:
        seeding = meter.effort(lambda: load(OnlineStore(home=str(home)), streams))
        return Measured(sum(scans), queries, seeding), Contents.of(redis, witnesses)


def measure_all(meter: Meter, gold: Path, home: Path, witnesses: list[str]) -> list[Measured]:
    """Every way in turn.

    Raises:
        SystemExit: two ways left different things in the store.
    """
    measured, contents = zip(*(measure(way, meter, gold, home, witnesses) for way in WAYS), strict=True)
    for way, found in zip(WAYS, contents, strict=True):
        if found != contents[0]:
            raise SystemExit(f"{way.name} and {WAYS[0].name} differ: {found.difference(contents[0])}")
    return list(measured)


def show(rounds: list[list[Measured]]) -> None:
    """Medians, and what they are to one pass."""
    columns = ("queries s", "CPU s", "peak GB", "seeding s", "CPU s", "peak GB")
    print(f"\n{'':14}{'scans':>6}" + "".join(f"{column:>10}{'ratio':>6}" for column in columns))
    base: tuple[float, ...] = ()
    for way, turns in zip(WAYS, zip(*rounds, strict=True), strict=True):
        figures = (*medians([turn.queries for turn in turns]), *medians([turn.seeding for turn in turns]))
        base = base or figures
        ratios = (f"{value:10.2f}{value / one:6.2f}" for value, one in zip(figures, base, strict=True))
        print(f"{way.name:14}{turns[0].scans:6}" + "".join(ratios))
    print(f"goal of one run: at most {GOAL}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m feature_seed_tests.benchmarks.shards")
    parser.add_argument("--cards", type=int, default=200_000)
    parser.add_argument("--transactions", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where gold is kept for the next run (default: removed afterwards)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    with staged("shards", arguments.dir) as home, clickhouse_connect.get_client(interface="chdb") as client:
        gold = write_gold(client, arguments.cards, arguments.transactions, arguments.dir or home)
        meter, witnesses = Meter(client), some_cards(client, gold)
        show([measure_all(meter, gold, home, witnesses) for _ in range(arguments.rounds)])


if __name__ == "__main__":
    main()
