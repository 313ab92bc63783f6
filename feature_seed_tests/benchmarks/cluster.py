"""Seeding three nodes of a Redis Cluster, beside three `redis-cli --pipe` in parallel with the same commands.

    $ python -m feature_seed_tests.benchmarks.cluster --cards 200000 --transactions 2000000

Every load has a cluster of its own, without replicas. `--on-conflict keep_newer` loads through the Lua guards.

- floor: each node's commands, recorded in a file before, loaded by a `redis-cli --pipe` of its own, all three at once.
- connection: the same commands from memory, block by block as ClickHouse gave them, by ClusterConnection.
- seeding: from gold, ClickHouse embedded in the process; Dagster is left out.

All three must leave the same number of keys on every node. Three servers, ClickHouse and Python share two cores here,
so that the floor is no one-core floor: more cores change the ratios.

Measured with Redis 7.0 on two cores, 200,000 cards of 2,000,000 transactions, medians of 3:

    on conflict   floor   connection   seeding   connection / floor   seeding / floor
    overwrite     1.5 s        1.7 s     3.4 s                 1.15              2.27
    keep_newer    2.6 s        2.9 s     4.6 s                 1.14              1.81
"""

import argparse
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import get_args

import clickhouse_connect
from redis.crc import key_slot

from feature_seed.features.entity import ENTITIES, OnConflict
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.block import Block
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.benchmarks.stage import load, write_gold
from feature_seed_tests.support.redis_cluster import THIRDS, Cluster, redis_cluster

_PASSWORD = "of-a-benchmark"


@dataclass(frozen=True)
class Recording:
    """What seeding sends: its blocks by entity, and each node's commands in a file."""

    blocks: Sequence[tuple[str, Sequence[Block]]]
    files: Sequence[Path]

    @classmethod
    def of(cls, streams: Sequence[FeatureStream], home: Path) -> "Recording":
        blocks = [(stream.entity.guard, list(stream)) for stream in streams]
        files = [home / f"node-{i}.resp" for i in range(len(THIRDS))]
        for file, slots in zip(files, THIRDS, strict=True):
            with file.open("wb") as commands:
                for block in (block for _, some in blocks for block in some):
                    its = [position for position, key in enumerate(block.keys) if key_slot(key) in slots]
                    commands.write(block.pick(its).payload)
        subprocess.run(["sync"], check=True)  # or the disk is still busy with them while the first load is timed
        return cls(blocks, files)

    def load_by_cli(self, cluster: Cluster) -> None:
        loads = []
        for node, file in zip(cluster.primaries, self.files, strict=True):
            for guard, _ in self.blocks:
                node.client.script_load(guard)
            pipe = ["redis-cli", "-p", str(node.port), "-a", _PASSWORD, "--no-auth-warning", "--pipe"]
            with file.open("rb") as commands:
                loads.append(subprocess.Popen(pipe, stdin=commands, stdout=subprocess.DEVNULL))
        assert sum(load.wait() for load in loads) == 0

    def load_by_connection(self, cluster: Cluster) -> None:
        for guard, blocks in self.blocks:
            with cluster.store().bulk([guard]) as connection:
                for block in blocks:
                    connection.write(block)
                connection.drain()


def timed(way: Callable[[Cluster], None]) -> tuple[float, list[int]]:
    """Seconds into a new cluster, and how many keys every node then has."""
    with redis_cluster(_PASSWORD) as cluster:
        cluster.replica.client.shutdown(nosave=True)  # it would take a core from the others
        started = time.perf_counter()
        way(cluster)
        seconds = time.perf_counter() - started
        return seconds, [int(node.client.dbsize()) for node in cluster.primaries]  # type: ignore[arg-type]


def measure(gold: Path, home: Path, on_conflict: OnConflict, rounds: int) -> None:
    layout = Layout(key_tags=True, on_conflict=on_conflict)
    shards = tuple(shard_names(layout.shard_count))
    streams = [FeatureStream(Warehouse(gold_parquet=str(gold)), layout, entity, shards) for entity in ENTITIES]
    recording = Recording.of(streams, home)
    loads: dict[str, Callable[[Cluster], None]] = {
        "floor": recording.load_by_cli,
        "connection": recording.load_by_connection,
        "seeding": lambda cluster: load(cluster.store(), streams),
    }
    seconds: dict[str, list[float]] = {name: [] for name in loads}
    for _ in range(rounds):
        left = []
        for name, way in loads.items():
            took, keys = timed(way)
            seconds[name].append(took)
            left.append(keys)
        if left.count(left[0]) != len(left):
            raise SystemExit(f"The loads left different numbers of keys on the nodes: {left}")
        print(f"{left[0]} keys; " + ", ".join(f"{name} {took[-1]:.1f} s" for name, took in seconds.items()), flush=True)
    floor = median(seconds["floor"])
    for name, took in seconds.items():
        print(f"{name:12}{median(took):8.1f} s   / floor {median(took) / floor:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m feature_seed_tests.benchmarks.cluster")
    parser.add_argument("--cards", type=int, default=200_000)
    parser.add_argument("--transactions", type=int, default=2_000_000)
    parser.add_argument("--on-conflict", choices=get_args(OnConflict), default="overwrite")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not shutil.which("redis-cli"):
        raise SystemExit("redis-cli is not on the PATH: it is what seeding is compared with")
    with TemporaryDirectory(prefix="cluster-") as home:
        with clickhouse_connect.get_client(interface="chdb") as client:
            gold = write_gold(client, arguments.cards, arguments.transactions, Path(home))
        measure(gold, Path(home), arguments.on_conflict, arguments.rounds)


if __name__ == "__main__":
    main()
