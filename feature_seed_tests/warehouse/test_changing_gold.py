"""Gold that changes while it is read: what mixes two golds is never a success, and what is added is for later."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import read_ready
from feature_seed.errors import GoldError
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.support.bank import (
    CARDS,
    MAKE,
    NEWER,
    OLDER,
    ROWS,
    UNUSABLE,
    at,
    gold_rows,
    history,
    make_gold,
    nothing_left,
)
from feature_seed_tests.support.clickhouse_http import ClickHouseServer
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import transaction, write_parquet
from feature_seed_tests.support.run import checks, seed
from feature_seed_tests.support.store import assert_holds

# Which makes some scans per entity.
PASS_BYTES = 80_000


@pytest.fixture
def mutable(bank: ClickHouseServer, gold: Warehouse) -> Iterator[Warehouse]:
    """The same gold, made again afterwards."""
    yield at(bank.port, pass_bytes=PASS_BYTES)
    make_gold(bank.port)


REBUILT = "Gold table 'gold' was rebuilt while it was read, and the store may hold some of both: run again"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (f"{MAKE} AS {ROWS}", REBUILT),
        (f"TRUNCATE TABLE bank.gold; INSERT INTO bank.gold {ROWS}", REBUILT),
        ("ALTER TABLE bank.gold UPDATE amount = 2 WHERE card_id = 'c1' SETTINGS mutations_sync = 1", REBUILT),
        (
            f"INSERT INTO bank.gold VALUES {OLDER}",
            "got rows older than 2026-01-01 00:19:59.*run again when the ETL is done",
        ),
        (
            f"INSERT INTO bank.gold VALUES {UNUSABLE}",
            "got rows older than 2026-01-01 00:19:59.*run again when the ETL is done",
        ),
        ("DROP TABLE bank.gold", "There is no gold table 'gold' in database 'bank' of 127.0.0.1"),
    ],
)
def test_gold_that_is_rebuilt_during_the_read(
    bank: ClickHouseServer, mutable: Warehouse, store: OnlineStore, change: str, says: str
) -> None:
    """In the first of some scans another connection changes what is read: the step fails and says so."""
    mutable.profile()
    bank.play("run", sql=change)
    with nothing_left(), pytest.raises(GoldError, match=says):
        seed(mutable, store)


def test_gold_that_grows_during_the_read(
    bank: ClickHouseServer, mutable: Warehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """Rows are added and merged in the first scan of the whole job: it succeeds, checks included, and the store holds
    gold up to the watermark that it names, for a stream to go on from."""
    bank.play("run", sql=f"INSERT INTO bank.gold VALUES {NEWER}; OPTIMIZE TABLE bank.gold")
    result = seed(mutable, store, job="seed_all")
    assert all(check.passed for check in checks(result).values())
    assert_holds(online, expect(gold_rows()))
    ready = read_ready(online)
    assert ready and ready.watermark == "2026-01-01T00:19:59.000999+00:00"
    with at(bank.port).client() as client:
        assert client.command("SELECT count() FROM bank.gold") == 2 * CARDS + 2


def test_snapshot_that_is_replaced_during_the_read(chdb: Client, tmp_path: Path) -> None:
    """A file takes the place of gold's between two scans, which is an error; a file that is added is not."""
    rows = gold_rows()
    write_parquet(chdb, tmp_path / "gold.parquet", rows)
    write_parquet(chdb, tmp_path / "other", rows[:-1])
    shutil.copy(tmp_path / "gold.parquet", tmp_path / "copy")
    read = history(Warehouse(gold_parquet=str(tmp_path / "*.parquet"), pass_bytes=PASS_BYTES))
    blocks = iter(read)
    count = len(next(blocks).keys)
    write_parquet(chdb, tmp_path / "added.parquet", [transaction(0, seconds=1e6)])
    assert count + sum(len(block.keys) for block in blocks) == CARDS
    blocks = iter(history(Warehouse(gold_parquet=str(tmp_path / "*.parquet"), pass_bytes=PASS_BYTES)))
    next(blocks)
    (tmp_path / "other").replace(tmp_path / "gold.parquet")
    with pytest.raises(GoldError, match="was rebuilt while it was read"):
        list(blocks)
