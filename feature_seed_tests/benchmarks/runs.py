"""A load of what has changed, beside a load of everything: seconds and bytes as ratios of one run.

    $ python -m feature_seed_tests.benchmarks.changes --cards 200000 --transactions 2000000

The real job seeds a gold. Then it loads it with FEATURE_SEED_FULL=1, as it is, and with 1 % of its cards changed. Last
it loads a gold of which all have changed with FEATURE_SEED_FULL=1, and then the first again, of which all have too. The
seconds are those of the loads, with the pass that looks for changes. The bytes are what the loads and these passes send
to Redis.
"""

import argparse
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from feature_seed_tests.benchmarks import job
from feature_seed_tests.benchmarks.stage import empty_store, write_gold

# What sends everything, and looks for nothing.
FULL = {"FEATURE_SEED_FULL": "1", "FEATURE_SEED_MAX_LOSS": "1"}

# Of seconds to those of a load of everything.
GOALS = {"nothing changed": 0.25, "1 % changed": 0.3, "all changed": 1.1}


def write_changed(client: Client, gold: Path, changed: Path, one_in: int) -> Path:
    """The same snapshot with other amounts of one card in so many."""
    client.command(
        "INSERT INTO FUNCTION file({changed:String}, 'Parquet') SELECT * REPLACE (if(sipHash64(card_id) % "
        "{one_in:UInt32} = 0, amount + 1, amount) AS amount) FROM file({gold:String}, 'Parquet')",
        {"gold": str(gold), "changed": str(changed), "one_in": one_in},
    )
    return changed


def measure(title: str, gold: Path, home: Path, **variables: str) -> tuple[float, float]:
    """Seconds of the loads, and MB to Redis."""
    started = time.perf_counter()
    report = job.run(gold, home, "keep_newer", **variables)
    seconds, megabytes = sum(report["seconds"].values()), sum(report["bytes"].values()) / 1e6
    print(f"{title:16}{seconds:10.1f} s{megabytes:10.1f} MB{time.perf_counter() - started:10.1f} s in all", flush=True)
    return seconds, megabytes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m feature_seed_tests.benchmarks.changes")
    parser.add_argument("--cards", type=int, default=200_000)
    parser.add_argument("--transactions", type=int, default=2_000_000)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that Redis and files go then, too
    with TemporaryDirectory(prefix="changes-") as name, clickhouse_connect.get_client(interface="chdb") as client:
        home = Path(name)
        gold = write_gold(client, arguments.cards, arguments.transactions, home)
        few, other = (write_changed(client, gold, home / f"{one_in}.parquet", one_in) for one_in in (100, 1))
        with empty_store(home):
            measure("first", gold, home)
            same = measure("everything", gold, home, **FULL)
            found = {
                title: (same, measure(title, changed, home)) for title, changed in zip(GOALS, (gold, few), strict=False)
            }
            found["all changed"] = (measure("everything new", other, home, **FULL), measure("all changed", gold, home))
    for title, (everything, changed) in found.items():
        seconds, size = (one / other for one, other in zip(changed, everything, strict=True))
        print(f"{title:16}{seconds:8.2f} of the seconds (goal {GOALS[title]}){size:8.2f} of the bytes")


if __name__ == "__main__":
    main()
