"""How seconds and memory grow with the number of cards, with ClickHouse embedded and as a server.

    $ python -m feature_seed_tests.benchmarks.growth --cards 100000 400000 1000000 2000000 4000000

seeds ten transactions a card by the real job into an empty Redis, as benchmarks.seed does, once from a snapshot and
once over HTTP from the tests' server, which is ClickHouse embedded in a process of its own. `--per-card` makes it fewer
transactions, where Redis would not fit in memory. `--dir` keeps gold for the next run: 0.3 GB per million of cards.
"""

import argparse
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import clickhouse_connect

from feature_seed_tests.benchmarks import job
from feature_seed_tests.benchmarks.stage import empty_store, served, write_gold
from feature_seed_tests.support.clickhouse_http import ClickHouseServer


def variables(server: ClickHouseServer) -> dict[str, str]:
    """Of a run that reads from it."""
    return {
        "CLICKHOUSE_HOST": server.host,
        "CLICKHOUSE_PORT": str(server.port),
        "CLICKHOUSE_USER": server.user,
        "CLICKHOUSE_PASSWORD": server.password,
    }


class Load(NamedTuple):
    """Seconds end to end, of them seconds of seeding, the process's peak memory in MB, and what Redis then holds."""

    seconds: float
    seeding: float
    peak: float
    redis: float


def measure(gold: Path | None, home: Path, on_conflict: str, **environment: str) -> Load:
    with empty_store(home) as redis:
        started = time.perf_counter()
        report = job.run(gold, home, on_conflict, **environment)
        seconds, held = time.perf_counter() - started, redis.info("memory")["used_memory"]  # type: ignore[index]
        return Load(seconds, sum(report["seconds"].values()), report["peak_bytes"] / 1e6, held / 1e6)


def grow(home: Path, gold: Path, cards: int, on_conflict: str) -> None:
    """Print a row of the table."""
    embedded = measure(gold, home, on_conflict)
    with served(gold, home) as clickhouse:
        server = measure(None, home, on_conflict, **variables(clickhouse))
    print(f"{cards:>12,}" + "".join(f"{value:>12,.0f}" for value in (*embedded[:3], *server)), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m feature_seed_tests.benchmarks.growth")
    parser.add_argument("--cards", type=int, nargs="+", default=[100_000, 400_000, 1_000_000, 2_000_000, 4_000_000])
    parser.add_argument("--per-card", type=int, default=10, help="transactions of a card (default: 10)")
    parser.add_argument("--on-conflict", default="keep_newer")
    parser.add_argument("--dir", type=Path, help="where gold is kept for the next run (default: removed afterwards)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that Redis and files go then, too
    print(f"{'':>12}{'embedded':>36}{'server':>36}")
    print(f"{'cards':>12}" + f"{'seconds':>12}{'seeding':>12}{'peak MB':>12}" * 2 + f"{'Redis MB':>12}")
    for cards in arguments.cards:
        with TemporaryDirectory(prefix="growth-", dir=arguments.dir) as name:
            home = Path(name)
            with clickhouse_connect.get_client(interface="chdb") as client:
                gold = write_gold(client, cards, arguments.per_card * cards, arguments.dir or home)
            grow(home, gold, cards, arguments.on_conflict)


if __name__ == "__main__":
    main()
