"""Other ways to bring the same features into Redis, on the same data, each into an empty server of its own.

What is slow is given some of the cards, and its time for all of them extrapolated.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client
from redis import Redis

from feature_seed.warehouse.profile import Profile
from feature_seed_tests.benchmarks import pipeline, straightforward
from feature_seed_tests.benchmarks.feast import Repository, feast_command
from feature_seed_tests.benchmarks.stage import Contents, empty_store, write_subset

# How many cards each way is given at most.
STRAIGHTFORWARD_CARDS = 2_000
PIPELINE_CARDS = 100_000


@dataclass(frozen=True)
class Load:
    """A way to load: the seconds that all cards take, what it left in the store, and its memory where it is known."""

    name: str
    seconds: float
    contents: Contents
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Comparison:
    """What is loaded: all transactions of a few and of many of gold's cards, and the features that feast is given.

    The `witnesses` are cards of both.
    """

    client: Client
    home: Path
    profile: Profile
    witnesses: list[str]
    repository: Repository | None

    @classmethod
    def of(cls, client: Client, gold: Path, home: Path, profile: Profile) -> "Comparison":
        write_subset(client, gold, _subset(home, PIPELINE_CARDS), PIPELINE_CARDS)
        few = _subset(home, STRAIGHTFORWARD_CARDS)
        witnesses = write_subset(client, gold, few, STRAIGHTFORWARD_CARDS)
        command = feast_command()
        repository = Repository.of(command, client, gold, home) if command else None
        return cls(client, home, profile, witnesses, repository)

    def loads(self) -> Iterator[Load]:
        yield self._extrapolated("pipeline", pipeline.seed, PIPELINE_CARDS)
        yield self._extrapolated("straightforward", straightforward.seed, STRAIGHTFORWARD_CARDS)
        if self.repository:
            yield self._materialized(self.repository)

    def _extrapolated(self, name: str, seed: Callable[[Client, Path, Redis], None], cards: int) -> Load:
        with empty_store(self.home) as redis:
            started = time.perf_counter()
            seed(self.client, _subset(self.home, cards), redis)
            seconds = (time.perf_counter() - started) * max(1, self.profile.cards / cards)
            return Load(name, seconds, Contents.of(redis, self.witnesses))

    def _materialized(self, repository: Repository) -> Load:
        with empty_store(self.home) as redis:
            repository.apply()
            seconds, peak = repository.materialize()
            keys: Any = redis.dbsize()
            entities = self.profile.cards + self.profile.customers
            if keys != entities:
                raise SystemExit(f"feast left {keys:,} keys for {entities:,} cards and customers")
            return Load("feast", seconds, Contents(keys, repository.read(self.witnesses)), peak)


def _subset(home: Path, cards: int) -> Path:
    return home / f"subset-{cards}.parquet"
