"""Seeding, beside its floor, its halves and other ways: all in one run, since only ratios outlive a machine.

    $ python -m feature_seed_tests.benchmarks.seed --cards 1000000 --transactions 10000000

A generated gold snapshot is seeded by the real job into a Redis server of its own, over a unix socket. `--rounds 3`
does everything three times in turns and shows medians, `--on-conflict keep_newer` seeds through the Lua guards, `--dir`
keeps gold for the next run (the disk needs some 6 GB more for a while).

- end to end: wall clock of `dagster job execute`, its start included; CPU seconds of that process, of Redis, and of all
  other processes meanwhile. A core or more of others' makes the ratios useless: the floor needs one core, seeding all.
- runs (benchmarks.runs): that first run; one with FEATURE_SEED_ELEMENT=array, beside the floor of its own commands; and
  over the store of the first, in `keep_newer`, one with the same gold, one with 1 % and one with all of the cards
  changed, beside what the other ways take when they send everything once more to a store that has it.
- steps: the seconds of each step of the run, by Dagster's events; and what is left, the start of Python and Dagster and
  their end.
- seeding: what the assets' materialisations state in `seconds`.
- floor: the same commands, recorded in a file before, loaded by `redis-cli --pipe` (without one on the PATH by
  BulkConnection). Both loads must leave the same number of keys and the same cards.
- ClickHouse alone: the same queries in the same passes, FORMAT Null.
- pipeline: a row at a time, the commands by redis-py in pipelines of 1,000; beyond 100,000 cards extrapolated.
- straightforward: the same, a round trip for each command; extrapolated from 2,000 cards. Round trips take 0.07 to
  0.16 ms from run to run.
- feast materialize: from features that ClickHouse has aggregated into Parquet before, its start included, where
  FEATURE_SEED_TEST_FEAST names an environment that has it (benchmarks.feast). Its `materialize-incremental` goes by the
  times of rows: it sends nothing where none is newer than its last run, also where others have changed.

Whatever loads, a handful of cards must come out as seeding left them.

Measured with Redis 7.0 on two cores, ids of 36 characters; `overwrite` in three rounds, `keep_newer` in one:

    cards  transactions  on conflict   whole job  loads  floor  whole / floor  loads / floor     peak
    1 M    10 M          overwrite          50 s   31 s   23 s           2.16           1.35  1.43 GB
    1 M    10 M          keep_newer         64 s   45 s   40 s           1.59           1.10  1.41 GB

What was tried on 1 M cards in `overwrite`, and the seconds of seeding it gave:

    Redis idle while a pass is grouped (4 blocks ahead)                          26.3
    128 blocks ahead: the next pass is grouped meanwhile                         -3
    location by argMax of a tuple, by time and id as one string                  5.3 CPU-s a pass
    location by max of one string that ends in the coordinates                   2.9 CPU-s a pass
    max_block_size of 4,096 instead of grouping in buckets                       no gain in time, a core less at times
    three passes (400 MB) instead of four (256 MB)                               -1.5 CPU-s, +0.2 GB
    spilling to disk (max_bytes_before_external_group_by) instead of passes      twice the CPU, 1.6 GB
    cutting by time first, at 10 transactions a card                             +25 % CPU, so only for deep histories
    list, place and time of a card from one query, in one transaction            -3
    a send buffer of 4 MB on a unix socket, as TCP has                           -2.5
    the next pass grouped while this one is written, in a second query           no gain: a third more CPU, +0.4 GB
    the same, the later queries in one stream, with half of the memory each      cards 35 -> 30, +0.05 GB
    the first pass, which is alone, in two streams                               cards -2, customers -2
    16 blocks sent before replies are read, not one                              -0.4 of 3.3 per 200,000 cards
    two streams for every pass                                                   +1.5, +0.1 GB
    two passes (540 MB) instead of three (360 MB)                                -1 (5 %), +0.1 GB
    memory given back before each pass, one thread that parses Parquet           no time, and -0.15 GB
    the filter no longer moved into the scan (optimize_move_to_prewhere)         -0.5 (2 %)
    replies counted by their lines instead of parsed                             -0.3 (1.5 %), for a parser of our own
    100 MB ahead instead of 32, or 150                                           -0.4, +0.07 GB; -0.7, +0.12 GB
    16 MB ahead instead of 32                                                    none; from a server +2, -10 MB
    the digests by HGETALL and GET, compared here, not by a script of 50         feature_checks 13.8 -> 10.8
    huge pages for ClickHouse (JE_MALLOC_CONF=thp:always)                        no gain, with half the page faults
"""

import argparse
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from statistics import median
from typing import get_args

import clickhouse_connect

from feature_seed.contract import Element
from feature_seed.features.entity import ENTITIES, OnConflict
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.benchmarks import feast, job, runs
from feature_seed_tests.benchmarks.comparison import Comparison, twice
from feature_seed_tests.benchmarks.halves import LOADER, Recording, query_seconds
from feature_seed_tests.benchmarks.pipeline import COMMANDS
from feature_seed_tests.benchmarks.stage import (
    Contents,
    Figures,
    busy_seconds,
    cpu_seconds,
    empty_store,
    staged,
    write_gold,
)

# Of the first run and of its loads to the floor, and GB with a million cards.
GOALS: dict[OnConflict, dict[str, float]] = {
    "overwrite": {"first": 2.2, "first loads": 1.5},
    "keep_newer": {"first": 2.0, "first loads": 2.0},
}
PEAK_GOAL = 1.5

# The ways to load, by the names of their figures, and what they are compared with.
WAYS = {
    "first": "feature_seed, end to end",
    "first loads": "  of it seeding",
    "floor": f"floor: {LOADER}",
    "pipeline": f"redis-py, pipelines of {COMMANDS:,}",
    "straightforward": "one command per round trip",
    "feast": "feast materialize",
}
BASES = ("floor", "first")


def seed(
    gold: Path, golds: Mapping[str, Path], home: Path, on_conflict: str, witnesses: list[str]
) -> tuple[Figures, Contents]:
    """The real job against an empty store, what that leaves there, and the later runs over it."""
    with empty_store(home) as redis:
        busy = busy_seconds()
        report = job.run(gold, home, on_conflict)
        busy, served = busy_seconds() - busy, cpu_seconds(redis)
        figures = {
            **runs.figures("first", report),
            "cpu": report["cpu_seconds"],
            "redis": served,
            "others": busy - served - report["cpu_seconds"],
            "first peak": report["peak_bytes"] / 1e9,
            **report["seconds"],
            **{f"step {name}": took for name, took in report["steps"].items()},
            "step start and end": report["whole"] - sum(report["steps"].values()),
        }
        seeded = Contents.of(redis, witnesses)
        for name, later in runs.LATER.items():
            figures |= runs.figures(name, job.run(golds[name], home, "keep_newer", **later.variables))
        return figures, seeded


def seed_arrays(gold: Path, home: Path, on_conflict: str, witnesses: list[str]) -> tuple[Figures, Contents]:
    """The real job against an empty store, with JSON arrays in the lists."""
    with empty_store(home) as redis:
        report = job.run(gold, home, on_conflict, FEATURE_SEED_ELEMENT="array")
        return runs.figures("array", report), Contents.of(redis, witnesses)


def replay(name: str, recording: Recording, home: Path, witnesses: list[str]) -> tuple[Figures, Contents]:
    """The floor: the same commands against an empty store, and again."""
    with empty_store(home) as redis:
        floor, again = twice(lambda: recording.load(home))
        return {name: floor, f"{name} again": again}, Contents.of(redis, witnesses)


def rounds(gold: Path, home: Path, on_conflict: OnConflict) -> Iterator[Figures]:
    """Everything measured, in turns, again and again.

    Raises:
        SystemExit: two loads left different things in the store, so that their times say nothing.
    """
    warehouse = Warehouse(gold_parquet=str(gold))
    streams, arrays = (_streams(warehouse, Layout(on_conflict=on_conflict, element=one)) for one in get_args(Element))
    with clickhouse_connect.get_client(interface="chdb") as client:
        comparison = Comparison.of(client, gold, home, warehouse.profile())
        witnesses, golds = comparison.witnesses, runs.write_golds(client, gold, home)
        recordings = {
            "floor": Recording.of(streams, home / "objects.resp"),
            "array floor": Recording.of(arrays, home / "arrays.resp"),
        }
        while True:
            figures, seeded = seed(gold, golds, home, on_conflict, witnesses)
            loads = {"arrays": seed_arrays(gold, home, on_conflict, witnesses)}
            loads |= {name: replay(name, recording, home, witnesses) for name, recording in recordings.items()}
            for name, (found, contents) in loads.items():
                if contents != seeded:
                    raise SystemExit(f"Seeding and {name} differ: {seeded.difference(contents)}")
                figures |= found
            figures |= {f"{stream.entity.name} alone": query_seconds(stream) for stream in streams}
            yield _with_ratios(figures | others(comparison, seeded))


def _streams(warehouse: Warehouse, layout: Layout) -> list[FeatureStream]:
    shards = tuple(shard_names(layout.shard_count))
    return [FeatureStream(warehouse, layout, entity, shards) for entity in ENTITIES]


def others(comparison: Comparison, seeded: Contents) -> Figures:
    """Seconds of the other ways, and GB where they are known."""
    figures = Figures()
    for load in comparison.loads():
        if load.contents.cards != seeded.cards:
            raise SystemExit(f"Seeding and {load.name} differ: {seeded.difference(load.contents)}")
        figures |= {load.name: load.seconds, f"{load.name} again": load.again}
        if load.incremental:
            figures[f"{load.name} incremental"] = load.incremental
        if load.peak_bytes:
            figures[f"{load.name} peak"] = load.peak_bytes / 1e9
    return figures


def _with_ratios(figures: Figures) -> Figures:
    ways = [name for name in WAYS if name in figures]
    compared = {f"{way} / {base}": figures[way] / figures[base] for way in ways for base in BASES}
    return figures | compared | runs.ratios(figures)


def show(figures: Figures, on_conflict: OnConflict) -> None:
    def row(title: str, *values: float) -> None:
        print(f"{title:36}" + "".join(f"{value:10.1f}" for value in values))

    columns = ("first", "cpu", "redis", "others")
    print(f"{'':36}{'seconds':>10}{'CPU s':>10}{'Redis s':>10}{'others s':>10}")
    row("end to end", *(figures[name] for name in columns))
    row(WAYS["first loads"], figures["first loads"])
    for entity in ENTITIES:
        row(f"    {entity.name}", figures[entity.name])
    row("ClickHouse alone", sum(figures[f"{entity.name} alone"] for entity in ENTITIES))
    for entity in ENTITIES:
        row(f"    {entity.name}", figures[f"{entity.name} alone"])
    show_steps(figures)
    show_ways(figures)
    runs.show(figures)
    print()
    goals = {f"{name} / floor": goal for name, goal in GOALS[on_conflict].items()}
    goals |= {f"{name} loads / full": one.goal for name, one in runs.LATER.items() if one.full} | {"second / full": 0.5}
    for name, goal in goals.items():
        print(f"{name:20}{figures[name]:8.2f}   goal: at most {goal}")
    print(f"{'peak memory, GB':20}{figures['first peak']:8.2f}   goal: below {PEAK_GOAL}")


def show_steps(figures: Figures) -> None:
    """Where the whole job's time goes."""
    print(f"\n{'':36}{'seconds':>10}{'/ floor':>10}{'of the job':>12}")
    for name, seconds in figures.items():
        if name.startswith("step "):
            shares = seconds / figures["floor"], 100 * seconds / figures["first"]
            print(f"{name.removeprefix('step '):36}{seconds:10.1f}{shares[0]:10.2f}{shares[1]:10.0f} %")


def show_ways(figures: Figures) -> None:
    """Seeding and the other ways, and how many times as long as the floor and as seeding they take."""
    print(f"\n{'':36}{'seconds':>10}{'/ floor':>10}{'/ feature_seed':>16}{'peak GB':>10}")
    for way in filter(figures.__contains__, WAYS):
        ratios = f"{figures[f'{way} / floor']:10.1f}{figures[f'{way} / first']:16.2f}"
        peak = f"{figures[f'{way} peak']:10.2f}" if f"{way} peak" in figures else ""
        print(f"{WAYS[way]:36}{figures[way]:10.1f}{ratios}{peak}")
    if "feast" not in figures:
        print(f"{WAYS['feast']:36}not measured: let {feast.VARIABLE} name an environment that has feast[redis]")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m feature_seed_tests.benchmarks.seed")
    parser.add_argument("--cards", type=int, default=1_000_000)
    parser.add_argument("--transactions", type=int, default=10_000_000)
    parser.add_argument("--ids", type=int, default=36, help="characters of every id (default: 36, as a UUID has)")
    parser.add_argument("--on-conflict", choices=get_args(OnConflict), default="overwrite")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dir", type=Path, help="where gold is kept for the next run (default: removed afterwards)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    with staged("seed", arguments.dir) as home:
        with clickhouse_connect.get_client(interface="chdb") as client:
            gold = write_gold(client, arguments.cards, arguments.transactions, arguments.dir or home, arguments.ids)
        measured = list(islice(rounds(gold, home, arguments.on_conflict), arguments.rounds))
    print(
        f"\n{arguments.cards:,} cards, {arguments.transactions:,} transactions, ids of {arguments.ids} characters, "
        f"{arguments.on_conflict}, {os.cpu_count()} cores, median of {arguments.rounds}\n"
    )
    show({name: median(figures[name] for figures in measured) for name in measured[0]}, arguments.on_conflict)


if __name__ == "__main__":
    main()
