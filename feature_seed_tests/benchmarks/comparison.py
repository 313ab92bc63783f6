"""Other ways to bring the same features into Redis, on the same data, each into an empty server of its own.

What is slow is given some of the cards, and its time for all of them extrapolated.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client
from redis import Redis

from feature_seed.warehouse import Profile
from feature_seed_tests.benchmarks import pipeline, straightforward
from feature_seed_tests.benchmarks.stage import Contents, empty_store, write_subset

# How many cards each way is given at most.
STRAIGHTFORWARD_CARDS = 2_000
PIPELINE_CARDS = 100_000


@dataclass(frozen=True)
class Load:
    """A way to load: the seconds that all cards take, and what it left in the store."""

    name: str
    seconds: float
    contents: Contents


@dataclass(frozen=True)
class Comparison:
    """What is loaded: all transactions of a few and of many of gold's cards. The `witnesses` are among both."""

    client: Client
    home: Path
    profile: Profile
    witnesses: list[str]

    @classmethod
    def of(cls, client: Client, gold: Path, home: Path, profile: Profile) -> "Comparison":
        write_subset(client, gold, _subset(home, PIPELINE_CARDS), PIPELINE_CARDS)
        few = _subset(home, STRAIGHTFORWARD_CARDS)
        return cls(client, home, profile, write_subset(client, gold, few, STRAIGHTFORWARD_CARDS))

    def loads(self) -> Iterator[Load]:
        yield self._extrapolated("pipeline", pipeline.seed, PIPELINE_CARDS)
        yield self._extrapolated("straightforward", straightforward.seed, STRAIGHTFORWARD_CARDS)

    def _extrapolated(self, name: str, seed: Callable[[Client, Path, Redis], None], cards: int) -> Load:
        with empty_store(self.home) as redis:
            started = time.perf_counter()
            seed(self.client, _subset(self.home, cards), redis)
            seconds = (time.perf_counter() - started) * max(1, self.profile.cards / cards)
            return Load(name, seconds, Contents.of(redis, self.witnesses))


def _subset(home: Path, cards: int) -> Path:
    return home / f"subset-{cards}.parquet"
