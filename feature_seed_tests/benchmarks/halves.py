"""The two halves of seeding, each alone: ClickHouse without Redis, and Redis without ClickHouse."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client

from feature_seed.loading.stream import FeatureStream
from feature_seed.store.block import Block
from feature_seed.store.local import LocalRedis
from feature_seed.store.online_store import OnlineStore

_CLI = shutil.which("redis-cli")

LOADER = "redis-cli --pipe" if _CLI else "bulk connection"


class _DiscardedStream(FeatureStream):
    """The same passes and the same queries. Their results never leave ClickHouse."""

    def _begin(
        self, client: Client, query: str, parameters: dict[str, Any], settings: dict[str, str]
    ) -> AbstractContextManager[Iterable[Any]]:
        client.command(f"{query}\nFORMAT Null", parameters, settings=settings)
        return nullcontext([[[0], [b""], [b""]]])

    def require_whole(self, client: Client, delivered: int) -> None:
        """Nothing is delivered here."""


def query(stream: FeatureStream) -> int:
    """Have ClickHouse alone run the stream's queries. Returns how many there are."""
    return sum(1 for _ in _DiscardedStream(stream.warehouse, stream.layout, stream.entity, stream.shards))


def query_seconds(stream: FeatureStream) -> float:
    """How long ClickHouse alone takes for the stream's queries."""
    started = time.perf_counter()
    query(stream)
    return time.perf_counter() - started


@dataclass(frozen=True)
class Recording:
    """Every command of some streams in one file.

    `blocks` are the blocks that were sent, each with its size in the file in place of its payload; `guards` are the
    scripts that the commands may call.
    """

    path: Path
    blocks: Sequence[tuple[int, Block]]
    guards: Sequence[str]

    @classmethod
    def of(cls, streams: Sequence[FeatureStream], path: Path) -> "Recording":
        with path.open("wb") as file:
            blocks = [
                (file.write(block.payload), replace(block, keys=[b"recorded"] * len(block.keys), payload=b""))
                for stream in streams
                for block in stream
            ]
            os.fsync(file.fileno())  # without this the disk is still busy while the first load is timed
        return cls(path, blocks, [stream.entity.guard for stream in streams])

    def load(self, home: Path) -> None:
        """Send everything to the server under `home`, until that has acknowledged every command."""
        with OnlineStore(home=str(home)).bulk(self.guards) as redis, self.path.open("rb") as file:
            if _CLI:
                pipe = [_CLI, "-s", str(LocalRedis(home).socket), "--pipe"]
                subprocess.run(pipe, stdin=file, stdout=subprocess.DEVNULL, check=True)
                return
            for size, block in self.blocks:
                redis.write(replace(block, payload=file.read(size)))
            redis.drain()
