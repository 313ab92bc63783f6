"""Ten transactions of each card's 500: the assets' own query beside a window function, in one run.

    $ python -m feature_seed_tests.benchmarks.deep

- cards: the query of the assets as it is, with counts, places and commands for Redis, FORMAT Null.
- row_number: `row_number() OVER (PARTITION BY card_id ORDER BY timestamp DESC, transaction_id DESC)` over gold as
  it is, rows that are ready for no store, FORMAT Null.

Both read a snapshot, embedded, and a MergeTree table of a server, in the order in which rows came and in that of cards.
Before anything is timed, every card's history of the snapshot is compared: as the assets' commands left it in Redis,
and as the window function's rows have it.

Measured with ClickHouse 26.9 on two cores, 10,000,000 transactions of 20,000 cards, medians of 3:

                         cards                      row_number            ratio
                         seconds  CPU s  peak GB    seconds  CPU s  peak GB    seconds  CPU s  peak GB
    snapshot                 1.5    2.4     0.64        2.1    4.2     1.53       0.70   0.56     0.42
    table, as rows came      1.3    2.4     0.41        6.8   13.2     1.48       0.18   0.18     0.28
    table, by card           1.0    1.8     0.41        1.3    2.6     1.48       0.72   0.68     0.28

A fifth of the time is reached where the window function has everything to sort. What it reads sorted by card, or from
Parquet, it sorts so fast that two scans of the bare columns take about as long; two fifths of the memory at most it is
everywhere.

What was tried on the table as rows came, and the CPU seconds it gave:

    each row looked at again for whether it is usable, where none is not         2.9
    not that                                                                     2.4
    the join by a hash of the id, or ANY LEFT                                    0.1 more
    full_sorting_merge instead of a hash join                                    8 more
    the filter moved into the scan                                               0.1 less, and of a snapshot 0.3 more
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from feature_seed.contract import CARD_HISTORY, HISTORY_LENGTH, Transaction
from feature_seed.features.entity import CARDS
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.benchmarks.halves import query
from feature_seed_tests.benchmarks.stage import Effort, Meter, empty_store, load, medians, served, staged, write_gold
from feature_seed_tests.benchmarks.straightforward import Row

GOAL = 0.2

TABLES = {
    "table, as rows came": "TABLE ENGINE = MergeTree ORDER BY tuple()",
    "table, by card": "TABLE ENGINE = MergeTree ORDER BY card_id SETTINGS allow_nullable_key = 1",
}

_ROW_NUMBER = Path(__file__).with_name("row_number.sql").read_text()

Histories = dict[str, list[Transaction]]


@dataclass(frozen=True)
class Gold:
    """Where the transactions are, and the ClickHouse that reads them."""

    warehouse: Warehouse
    client: Client
    meter: Meter

    @property
    def stream(self) -> FeatureStream:
        return FeatureStream(self.warehouse, Layout(), CARDS, tuple(shard_names(16)))

    def ranked(self) -> Histories:
        """Every card's history by row_number, oldest first."""
        ordered = f"{_ROW_NUMBER} ORDER BY card_id, timestamp, transaction_id"
        result = self.client.query(ordered, self._parameters, query_tz="UTC")
        rows = (Row(customer_id="", **row) for row in result.named_results())
        return {card: [row.transaction() for row in its] for card, its in groupby(rows, attrgetter("card_id"))}

    def efforts(self) -> dict[str, Effort]:
        """What the two take."""
        ranking = f"{_ROW_NUMBER}\nFORMAT Null"
        return {
            "cards": self.meter.effort(lambda: query(self.stream)),
            "row_number": self.meter.effort(lambda: self.client.command(ranking, self._parameters)),
        }

    @property
    def _parameters(self) -> dict[str, object]:
        return {**self.warehouse.table, "history_length": HISTORY_LENGTH}


@contextmanager
def snapshot(gold: Path) -> Iterator[Gold]:
    warehouse = Warehouse(gold_parquet=str(gold))
    with warehouse.client() as client:
        yield Gold(warehouse, client, Meter(client))


@contextmanager
def table(gold: Path, home: Path, kind: str) -> Iterator[Gold]:
    with served(gold, home, kind) as server:
        warehouse = Warehouse(host=server.host, port=server.port, user=server.user, password=server.password)
        warehouse.profile()  # a scan that belongs to no feature
        with warehouse.client() as client:
            yield Gold(warehouse, client, Meter(client, server.pid))


def seeded(stream: FeatureStream, home: Path, cards: list[str]) -> Histories:
    """Histories as the asset leaves them in a store."""
    with empty_store(home) as redis:
        load(OnlineStore(home=str(home)), [stream])
        with redis.pipeline(transaction=False) as pipeline:
            for card in cards:
                pipeline.lrange(CARD_HISTORY.of(card), 0, -1)
            lists = pipeline.execute()
    return {card: [*map(Transaction.decode, one)] for card, one in zip(cards, lists, strict=True)}


def compare(gold: Gold, home: Path) -> None:
    """Raise a SystemExit where the two differ in a card."""
    expected = gold.ranked()
    found = seeded(gold.stream, home, list(expected))
    if wrong := [card for card in expected if expected[card] != found[card]]:
        raise SystemExit(f"{len(wrong):,} of {len(expected):,} cards differ, as {wrong[0]}")
    print(f"{len(expected):,} cards have the same {sum(map(len, expected.values())):,} transactions", flush=True)


def show(name: str, turns: list[dict[str, Effort]]) -> None:
    """Medians, and how the one is to the other."""
    efforts = {way: medians([turn[way] for turn in turns]) for way in turns[0]}
    print(f"\n{name:24}{'seconds':>10}{'CPU s':>10}{'peak GB':>10}")
    for way, took in efforts.items():
        print(f"{way:24}" + "".join(f"{value:10.2f}" for value in took))
    ratios = (ours / theirs for ours, theirs in zip(*efforts.values(), strict=True))
    print(f"{'ratio':24}" + "".join(f"{ratio:10.2f}" for ratio in ratios) + f"   goal: at most {GOAL}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m feature_seed_tests.benchmarks.deep")
    parser.add_argument("--cards", type=int, default=20_000)
    parser.add_argument("--transactions", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="where gold is kept for the next run (default: removed afterwards)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    with staged("deep", arguments.dir) as home:
        with clickhouse_connect.get_client(interface="chdb") as client:
            file = write_gold(client, arguments.cards, arguments.transactions, arguments.dir or home)
        with snapshot(file) as gold:
            compare(gold, home)
            show("snapshot", [gold.efforts() for _ in range(arguments.rounds)])
        for title, kind in TABLES.items():
            with table(file, home, kind) as gold:
                show(title, [gold.efforts() for _ in range(arguments.rounds)])


if __name__ == "__main__":
    main()
