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
    """A way to load: the seconds that all cards take, those of the same `again`, and what is in the store then.

    And, where they are known, its memory, and the seconds of an `incremental` load for which nothing is new.
    """

    name: str
    seconds: float
    again: float
    contents: Contents
    peak_bytes: int | None = None
    incremental: float | None = None


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
            seconds = twice(lambda: seed(self.client, _subset(self.home, cards), redis))
            first, again = (one * max(1, self.profile.cards / cards) for one in seconds)
            return Load(name, first, again, Contents.of(redis, self.witnesses))

    def _materialized(self, repository: Repository) -> Load:
        with empty_store(self.home) as redis:
            repository.apply()
            peaks: list[int] = []
            first, again = twice(lambda: peaks.append(repository.materialize()))
            started = time.perf_counter()
            repository.materialize_newer()
            incremental = time.perf_counter() - started
            keys: Any = redis.dbsize()
            entities = self.profile.cards + self.profile.customers
            if keys != entities:
                raise SystemExit(f"feast left {keys:,} keys for {entities:,} cards and customers")
            contents = Contents(keys, repository.read(self.witnesses))
            return Load("feast", first, again, contents, peaks[0], incremental)


def twice(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of some work, and of the same again."""
    started = time.perf_counter()
    work()
    done = time.perf_counter()
    work()
    return done - started, time.perf_counter() - done


def _subset(home: Path, cards: int) -> Path:
    return home / f"subset-{cards}.parquet"
