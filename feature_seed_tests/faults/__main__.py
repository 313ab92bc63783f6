"""What may happen to the store while it is seeded, at full length: minutes, and a table of what was lost.

    $ python -m feature_seed_tests.faults

Ends with an error when anything was lost, counted twice or half-written where nothing may be.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import clickhouse_connect

from feature_seed_tests.faults.outcome import Outcome, show, total
from feature_seed_tests.faults.race import Race
from feature_seed_tests.faults.scorer import Style

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
    with (
        TemporaryDirectory(prefix="race-") as directory,
        clickhouse_connect.get_client(interface="chdb") as client,
    ):
        for one in RACES:
            yield one.run(client, Path(directory))
        for one in FIRST_LOADS:
            yield total([one.run(client, Path(directory)) for _ in range(_TIMES)])


CAMPAIGNS: tuple[Callable[[], Iterator[Outcome]], ...] = (race,)


def main() -> None:
    outcomes = [outcome for campaign in CAMPAIGNS for outcome in campaign()]
    show(outcomes)
    sys.exit(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    main()
