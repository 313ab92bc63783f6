"""How seconds and memory grow with the number of cards, with ClickHouse embedded and as a server.

    $ python -m feature_seed_tests.benchmarks.growth --cards 100000 400000 1000000 2000000 4000000

seeds ten transactions a card by the real job into an empty Redis, as benchmarks.seed does, and the same gold again,
once from a snapshot and once over HTTP from the tests' server, which is ClickHouse embedded in a process of its own.
The seconds are those of the whole job, and in parentheses those of its loads. `--per-card` makes it fewer transactions,
where Redis would not fit in memory. `--dir` keeps gold for the next run: 0.3 GB per million of cards.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import clickhouse_connect

from feature_seed_tests.benchmarks import job
from feature_seed_tests.benchmarks.stage import empty_store, served, staged, write_gold
from feature_seed_tests.support.clickhouse_http import ClickHouseServer


def variables(server: ClickHouseServer) -> dict[str, str]:
    """Of a run that reads from it."""
    return {
        "CLICKHOUSE_HOST": server.host,
        "CLICKHOUSE_PORT": str(server.port),
        "CLICKHOUSE_USER": server.user,
        "CLICKHOUSE_PASSWORD": server.password,
    }


class Measured(NamedTuple):
    """A first and a second run, the larger peak memory of their processes in MB, and what Redis then holds."""

    first: job.Report
    second: job.Report
    redis: float

    @property
    def cells(self) -> list[str]:
        runs = (self.first, self.second)
        seconds = [f"{one['whole']:,.0f} ({job.loading(one):,.0f})" for one in runs]
        return [*seconds, f"{max(one['peak_bytes'] for one in runs) / 1e6:,.0f}"]


def measure(gold: Path | None, home: Path, on_conflict: str, **environment: str) -> Measured:
    with empty_store(home) as redis:
        first, second = (job.run(gold, home, on_conflict, **environment) for _ in range(2))
        held: Any = redis.info("memory")
        return Measured(first, second, held["used_memory"] / 1e6)


def grow(home: Path, gold: Path, cards: int, on_conflict: str) -> None:
    """Print a row of the table."""
    embedded = measure(gold, home, on_conflict)
    with served(gold, home) as clickhouse:
        server = measure(None, home, on_conflict, **variables(clickhouse))
    row(f"{cards:,}", *embedded.cells, *server.cells, f"{server.redis:,.0f}")


def row(*cells: str) -> None:
    print("".join(f"{cell:>12}" for cell in cells), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m feature_seed_tests.benchmarks.growth")
    parser.add_argument("--cards", type=int, nargs="+", default=[100_000, 400_000, 1_000_000, 2_000_000, 4_000_000])
    parser.add_argument("--per-card", type=int, default=10, help="transactions of a card (default: 10)")
    parser.add_argument("--on-conflict", default="keep_newer")
    parser.add_argument("--dir", type=Path, help="where gold is kept for the next run (default: removed afterwards)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    row("", "embedded", "", "", "server")
    row("cards", *("first", "second", "peak MB") * 2, "Redis MB")
    for cards in arguments.cards:
        with staged("growth", arguments.dir) as home:
            with clickhouse_connect.get_client(interface="chdb") as client:
                gold = write_gold(client, cards, arguments.per_card * cards, arguments.dir or home)
            grow(home, gold, cards, arguments.on_conflict)


if __name__ == "__main__":
    main()
