"""What may happen to the store while it is seeded, at full length: minutes, and tables of what was lost.

    $ python -m feature_seed_tests.faults [race] [nights] [kill] [cut]

Ends with an error when anything was lost, counted twice, half-written or left behind where nothing may be.
"""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client

from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.faults.cut import Cut, Restart, gold_at, served
from feature_seed_tests.faults.kill import STEPS, Kill, Moment, any_moments, whole_run
from feature_seed_tests.faults.nights import Nights
from feature_seed_tests.faults.outcome import Outcome, Recovery, show, total
from feature_seed_tests.faults.race import Race
from feature_seed_tests.faults.scorer import Style
from feature_seed_tests.faults.seeder import seeder
from feature_seed_tests.faults.stage import stage, write_golds

_SEPARATE = Style(atomic=False)

RACES = (
    Race("first load, then reseeds", 120_000, 12, checked=True),
    Race("first load, gold as it was", 40_000, 6, rebuild_every=0),
    Race("reseeds of a seeded store", 60_000, 6, rebuild_every=1, seeded_before=True, checked=True),
    Race("the same for LPUSH, newest first", 60_000, 8, style=Style(newest_first=True)),
    Race("overwrite, gold rebuilt each time", 40_000, 6, rebuild_every=1, seeded_before=True, on_conflict="overwrite"),
    Race("overwrite, gold as it was", 40_000, 6, rebuild_every=0, seeded_before=True, on_conflict="overwrite"),
    Race("separate commands, reseeds", 20_000, 6, rebuild_every=1, seeded_before=True, style=_SEPARATE),
    Race("separate commands, gold as it was", 20_000, 6, rebuild_every=0, seeded_before=True, style=_SEPARATE),
)

# A single load can hurt such a scorer once per entity, so these are run many times.
FIRST_LOADS = (
    Race("separate commands, first loads", 500, 1, rebuild_every=0, style=_SEPARATE),
    Race("separate commands, first loads, each once more", 500, 1, rebuild_every=0, style=_SEPARATE, mended=True),
)
_TIMES = 12


def race() -> Iterator[Outcome]:
    with campaign() as (client, directory):
        for one in RACES:
            yield one.run(client, directory)
        for one in FIRST_LOADS:
            yield total([one.run(client, directory) for _ in range(_TIMES)])


NIGHTS = (
    Nights("nights", 60, 400, 600, 1500, outages=frozenset({20, 21, 33}), emptied=40),
    Nights("nights, newest first", 30, 400, 600, 1500, newest_first=True, emptied=12),
    Nights("nights, separate commands", 60, 400, 600, 1500, plain=5),
    Nights("nights, from separate commands to recording", 40, 400, 600, 1500, plain=5, converted=20),
)


def nights() -> Iterator[Outcome]:
    with campaign() as (client, directory):
        for one in NIGHTS:
            yield from one.run(client, directory)


_CARDS = 12_000


def kills(chance: Random, whole: float) -> tuple[Kill, ...]:
    steps = [Moment(step, chance.uniform(0, 0.2)) for step in STEPS]
    return (
        Kill("SIGKILL at any moment, first load", signal.SIGKILL, any_moments(chance, whole, 15)),
        Kill("SIGKILL at any moment, ready store", signal.SIGKILL, any_moments(chance, whole, 15), reseed=True),
        Kill("SIGKILL at each step", signal.SIGKILL, steps),
        Kill("SIGTERM at each step", signal.SIGTERM, steps),
        Kill("SIGINT at each step", signal.SIGINT, steps, reseed=True),
    )


CUTS = (
    Cut("connection to Redis reset in mid-batch", "store", "reset", "requests", 4),
    Cut("the same, three times a run", "store", "reset", "requests", 3, breaks=3, reseed=True),
    Cut("replies of Redis cut short", "store", "cut", "replies", 4, reseed=True),
    Cut("Redis silent for longer than the timeout", "store", "pause", "replies", 4),
    Cut("connection to ClickHouse reset", "warehouse", "reset", "replies", 4),
    Cut("answers of ClickHouse cut short", "warehouse", "cut", "replies", 4, reseed=True),
    Cut("the same, three times a run", "warehouse", "cut", "replies", 3, breaks=3),
    Cut("ClickHouse silent for longer than the timeout", "warehouse", "pause", "replies", 4),
    Restart("Redis killed, back with its data", 4, kept=True),
    Restart("Redis killed, back empty", 4, kept=False, reseed=True),
)


def kill() -> Iterator[Recovery]:
    with campaign() as (client, directory), seeder(directory) as process:
        gold, older = write_golds(client, directory, _CARDS)
        played = stage(directory, Warehouse(gold_parquet=str(gold)), older)
        for one in kills(Random(7), whole_run(played, process)):
            yield one.run(played, process)


def cut() -> Iterator[Recovery]:
    with campaign() as (client, directory):
        gold, older = write_golds(client, directory, _CARDS)
        with served(gold) as server:
            played = stage(directory, gold_at(server.port), older)
            for one in CUTS:
                yield one.run(played, Random(one.tried))


@contextmanager
def campaign() -> Iterator[tuple[Client, Path]]:
    with TemporaryDirectory(prefix="faults-") as directory, get_client(interface="chdb") as client:
        yield client, Path(directory)


CAMPAIGNS: Mapping[str, Callable[[], Iterator[Outcome | Recovery]]] = {
    "race": race,
    "nights": nights,
    "kill": kill,
    "cut": cut,
}


def main() -> None:
    outcomes: list[Outcome | Recovery] = []
    for name in sys.argv[1:] or CAMPAIGNS:
        for outcome in CAMPAIGNS[name]():
            print(outcome, file=sys.stderr)
            outcomes.append(outcome)
    show(outcomes)
    sys.exit(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    main()
