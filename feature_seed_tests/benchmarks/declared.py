"""What declared features cost beside the standard ones.

    $ python -m feature_seed_tests.benchmarks.declared --cards 1000000 --transactions 10000000

Each line is a load from embedded ClickHouse into a local Redis, Dagster left out. `seconds` go on to the last
acknowledgement. CPU is this process's, in which ClickHouse is, and that of Redis. On two quiet cores:

                                keys   seconds   CPU s   Redis CPU s
    standard               1,499,953      43.8    25.9          31.2
    customer_agg             500,000       6.6     4.8           3.3
    merchant_agg              20,000       1.8     1.9           0.1
    card_burst                    39       1.4     1.4           0.0
    a hash of cards          999,953       8.3     4.7           5.4
    and a set              1,999,906      19.7    14.0          12.9
    and a zset of all rows 2,999,859      37.7    25.0          28.6

A hash of every card, or a hash of every customer, adds a fifth of what the three standard features take, a set of all
transactions a quarter more. A sorted set without a window has as many members as gold has rows, and adds two fifths.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import clickhouse_connect
from redis import Redis

from feature_seed.features.declared.declared import Declared
from feature_seed.features.declared.entity import DeclaredEntity, names_in
from feature_seed.features.entity import ENTITIES
from feature_seed.graph.configuration import read
from feature_seed.loading.declared import DeclaredStream
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.mapping import GoldMapping
from feature_seed_tests.benchmarks.stage import BYTES_AHEAD, write_gold
from feature_seed_tests.support.redis_server import redis_server

_EXAMPLE = Path(__file__).parents[2] / "feature_seed" / "features" / "examples" / "riskfabric.yaml"

_PASSWORD = "of-a-benchmark"

_OF_CARDS = {
    "a hash of cards": {"key": "card:{card_id}:agg", "hash": {"fraud": "avg(is_fraud)", "count": "count()"}},
    "and a set": {"key": "card:{card_id}:merchants", "set": "merchant_id"},
    "and a zset of all rows": {
        "key": "card:{card_id}:all",
        "zset": {"member": "transaction_id", "score": "toUnixTimestamp64Milli(timestamp) / 1000"},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cards", type=int, default=200_000)
    parser.add_argument("--transactions", type=int, default=2_000_000)
    arguments = parser.parse_args()
    ways: dict[str, list[Declared]] = {"standard": []}
    ways |= {one.name: [one] for one in read(_EXAMPLE).declared}
    cards = [Declared.model_validate(entry).called(f"of_cards_{i}") for i, entry in enumerate(_OF_CARDS.values())]
    ways |= {name: cards[: i + 1] for i, name in enumerate(_OF_CARDS)}
    with TemporaryDirectory() as directory, redis_server(password=_PASSWORD) as port:
        gold = _gold(arguments.cards, arguments.transactions, Path(directory))
        store = OnlineStore(url=f"redis://127.0.0.1:{port}", password=_PASSWORD)
        with Redis(port=port, password=_PASSWORD) as client:
            print(f"{'':22} {'keys':>9} {'seconds':>9} {'CPU s':>7} {'Redis CPU s':>13}")
            for name, declared in ways.items():
                _measure(name, _streams(gold, declared), store, client)


def _gold(cards: int, transactions: int, directory: Path) -> Path:
    """Gold with merchants and fraud."""
    gold = directory / "declared.parquet"
    client = clickhouse_connect.get_client(interface="chdb")
    select = (
        "SELECT *, cityHash64(transaction_id) % 20000 AS merchant_id, "
        "cityHash64(transaction_id, 1) % 100 = 0 AS is_fraud FROM file({plain:String}, 'Parquet')"
    )
    paths = {"gold": str(gold), "plain": str(write_gold(client, cards, transactions, directory))}
    client.command(f"INSERT INTO FUNCTION file({{gold:String}}, 'Parquet') {select}", paths)
    client.close()
    return gold


def _streams(gold: Path, declared: Sequence[Declared]) -> Sequence[FeatureStream]:
    warehouse = Warehouse(gold_parquet=str(gold), mapping=GoldMapping(others=sorted(names_in(declared))))
    warehouse.profile()  # a scan that each run has once
    layout, shards = Layout(), tuple(shard_names(16))
    if not declared:
        return [FeatureStream(warehouse, layout, entity, shards) for entity in ENTITIES]
    return [DeclaredStream(warehouse, layout, entity, shards) for entity in DeclaredEntity.all_of(declared)]


def _measure(name: str, streams: Sequence[FeatureStream], store: OnlineStore, client: Redis) -> None:
    started, cpu, redis, keys = time.monotonic(), time.process_time(), _cpu(client), 0
    for stream in streams:
        stream.rehearse()
        with (
            store.bulk([stream.entity.guard]) as connection,
            stream.prefetched(BYTES_AHEAD, connection.keep_alive) as blocks,
        ):
            for block in blocks:
                connection.write(block)
            connection.drain()
            keys += connection.entities
    seconds, used = time.monotonic() - started, time.process_time() - cpu
    print(f"{name:22} {keys:9,} {seconds:9.1f} {used:7.1f} {_cpu(client) - redis:13.1f}")


def _cpu(client: Redis) -> float:
    found = client.info("cpu")
    return found["used_cpu_user"] + found["used_cpu_sys"]  # type: ignore[index]


if __name__ == "__main__":
    main()
