"""Runs that are killed or cut off, in short; `python -m feature_seed_tests.faults` is the whole."""

import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import READY
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.faults.contents import Change, Contents
from feature_seed_tests.faults.cut import Cut, Restart, gold_at, served
from feature_seed_tests.faults.kill import Kill, Moment
from feature_seed_tests.faults.seeder import seeder
from feature_seed_tests.faults.stage import Stage, stage, write_golds

CARDS = 400


@pytest.fixture(scope="module")
def golds(chdb: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_golds(chdb, tmp_path_factory.mktemp("golds"), CARDS)


@pytest.fixture(scope="module")
def over_http(golds: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    gold, older = golds
    with served(gold) as server:
        yield stage(tmp_path_factory.mktemp("stage"), gold_at(server.port), older)


@pytest.mark.parametrize(
    "broken",
    [
        Kill("killed", signal.SIGKILL, [Moment("customers", 0.02)]),
        pytest.param(Kill("killed early", signal.SIGKILL, [Moment("", 0.7)]), marks=pytest.mark.slow),
        pytest.param(
            Kill("killed over a ready store", signal.SIGKILL, [Moment("customers")], reseed=True),
            marks=pytest.mark.slow,
        ),
        pytest.param(Kill("terminated", signal.SIGTERM, [Moment("cards", 0.05)]), marks=pytest.mark.slow),
    ],
    ids=lambda broken: broken.tried,
)
def test_killed(golds: tuple[Path, Path], tmp_path: Path, broken: Kill) -> None:
    """Before: an empty store, or one that is ready for older gold. A process seeds it, and is sent a signal. After it:
    no key that is neither old nor new, no claim of ours or of Dagster's that is not so, and nothing left behind. After
    the next run: the bytes of a run in peace.
    """
    with seeder(tmp_path) as process:
        outcome = broken.run(stage(tmp_path, Warehouse(gold_parquet=str(golds[0])), golds[1]), process)
    assert not outcome.failed, outcome
    assert outcome.ended_well == 0


@pytest.mark.parametrize(
    "broken",
    [
        Cut("Redis, reset", "store", "reset", "requests", 1),
        pytest.param(Cut("Redis, cut short", "store", "cut", "replies", 1, reseed=True), marks=pytest.mark.slow),
        pytest.param(Cut("Redis, silent", "store", "pause", "replies", 1), marks=pytest.mark.slow),
        pytest.param(Cut("ClickHouse, reset", "warehouse", "reset", "replies", 1), marks=pytest.mark.slow),
        pytest.param(Cut("ClickHouse, cut short", "warehouse", "cut", "replies", 1), marks=pytest.mark.slow),
        pytest.param(Restart("Redis, killed", 1, kept=True), marks=pytest.mark.slow),
        pytest.param(Restart("Redis, killed and empty", 1, kept=False, reseed=True), marks=pytest.mark.slow),
    ],
    ids=lambda broken: broken.tried,
)
def test_cut_off(over_http: Stage, broken: Cut | Restart) -> None:
    """The same for runs whose lines break or whose server restarts; those that can, go on and end well."""
    outcome = broken.run(over_http, Random(broken.tried))
    assert not outcome.failed, outcome
    assert outcome.ended_well or isinstance(broken, Restart)


def test_damage_is_counted(over_http: Stage) -> None:
    """A key that is missing, one with other bytes, and a store that says ready too soon: or the rest proves nothing."""
    with over_http.store(reseed=False) as (port, online):
        whole = over_http.in_peace(port, online)
        change = Change(Contents(), whole)
        assert (change.lost(whole), change.different(whole), change.half_written(whole), change.lies(whole, set())) == (
            (0,) * 4
        )
        damage(online)
        found = Contents.of(online)
    assert change.lost(found) == 1
    assert change.different(found) == change.half_written(found) == 1
    assert change.lies(found, {"card_history", "card_location"}) == 2  # the ready key, and Dagster of histories


def damage(online: redis.Redis) -> None:
    assert online.delete(next(online.scan_iter("cust:*:stats"))) and online.rpop(
        next(online.scan_iter("card:*:history"))
    )
    assert online.hget(READY.pattern, "state") == b"ready"
