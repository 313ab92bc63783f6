"""What runs are broken off on: each has a store of its own. And what a store holds if nothing happens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.graph import retries
from feature_seed.graph.report import report
from feature_seed.store import client, lock
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse import failures
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.benchmarks.stage import write_gold
from feature_seed_tests.faults.contents import Change, Contents
from feature_seed_tests.support.patience import patient
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import seed

# After how long a silent server is given up. A busy server is not silent for so long. If it was, it is asked again.
_SILENT_SECONDS = 3

Part = Literal["store", "warehouse"]


@contextmanager
def impatience(silent: Part | None = None) -> Iterator[None]:
    """Short back-offs, since a campaign has little time; no pictures; little patience with a part that falls silent."""
    with pytest.MonkeyPatch.context() as patch:
        if silent == "store":
            patch.setattr(client, "ANSWER_SECONDS", _SILENT_SECONDS)
        if silent == "warehouse":
            patch.setattr(failures, "ANSWER_SECONDS", _SILENT_SECONDS)
        patch.setattr(failures, "RETRY_DELAYS", (0.05, 0.1))
        patch.setattr(retries, "DELAYS_SECONDS", (0.1, 0.3))
        patch.setattr(report, "find_spec", lambda _: None)
        yield


@dataclass(frozen=True, eq=False)
class Stage:
    """Gold, and stores before and after it.

    Attributes:
        directory: with the dump of a store that was seeded from older gold.
        gold: what is seeded.
        older, newer: what a store holds after the older gold and after this gold, seeded without a disturbance.
    """

    directory: Path
    gold: Warehouse
    older: Contents = field(default_factory=Contents)
    newer: Contents = field(default_factory=Contents)

    def change(self, *, reseed: bool) -> Change:
        return Change(self.older if reseed else Contents(), self.newer)

    @contextmanager
    def store(self, *options: str, reseed: bool, port: int | None = None) -> Iterator[tuple[int, redis.Redis]]:
        """A server of its own, empty or seeded from the older gold."""
        dump = ("--dir", str(self.directory), "--dbfilename", "older.rdb" if reseed else "none.rdb")
        with redis_server(*dump, *options, port=port) as port, patient(port=port) as online:
            yield port, online

    def in_peace(self, port: int, online: redis.Redis) -> Contents:
        """What the store holds after an undisturbed run. The lock of a killed run has run out by then."""
        online.pexpire(lock.KEY, 1)
        return _in_peace(self.gold, port, online)


def _in_peace(gold: Warehouse, port: int, online: redis.Redis) -> Contents:
    with impatience():
        seed(gold, OnlineStore(url=f"redis://127.0.0.1:{port}"), verify=True)
    return Contents.of(online)


def write_golds(client: Client, directory: Path, cards: int) -> tuple[Path, Path]:
    """Gold with ten transactions a card, and an older one that lacks the last tenth of them."""
    gold, older = write_gold(client, cards, 10 * cards, directory), directory / "older.parquet"
    client.command(
        "INSERT INTO FUNCTION file({older:String}, 'Parquet') SELECT * FROM file({gold:String}, 'Parquet') "
        "WHERE timestamp < '2026-06-12'",
        {"older": str(older), "gold": str(gold)},
    )
    return gold, older


def stage(directory: Path, gold: Warehouse, older: Path) -> Stage:
    """Seed both without a disturbance."""
    bare = Stage(directory, gold)
    with bare.store(reseed=True) as (port, online):  # of which there is no dump yet
        before = _in_peace(Warehouse(gold_parquet=str(older)), port, online)
        online.save()
    with bare.store(reseed=False) as (port, online):
        return replace(bare, older=before, newer=bare.in_peace(port, online))
