"""Gold's version: another after every change of its content, the same after everything else."""

from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from feature_seed.errors import GoldError
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import TYPES, create_table, transaction, write_parquet

ROWS = [transaction(i, seconds=i) for i in range(10)]


def version(warehouse: Warehouse) -> str:
    with warehouse.client() as client, warehouse.errors():
        return warehouse.version(client)


def at(server: Warehouse, **changes: str) -> Warehouse:
    place = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    return Warehouse(**{**place, **changes})


def test_of_a_table(server: Warehouse) -> None:
    """Before and after each write it differs, also when a rebuild gives the same rows; a merge changes nothing."""
    warehouse = at(server, database="atomic", gold_table="rebuilt")
    with server.client() as client:
        client.command("CREATE DATABASE IF NOT EXISTS atomic ENGINE = Atomic")
        create_table(client, "atomic.rebuilt", ROWS)
        seen = [version(warehouse)]
        assert version(warehouse) == seen[0]
        for change in (
            "INSERT INTO atomic.rebuilt SELECT * FROM atomic.rebuilt LIMIT 1",
            "TRUNCATE TABLE atomic.rebuilt",
        ):
            client.command(change)
            seen.append(version(warehouse))
        create_table(client, "atomic.rebuilt", ROWS)
        seen.append(version(warehouse))
        client.command("INSERT INTO atomic.rebuilt SELECT * FROM atomic.rebuilt LIMIT 1")
        seen.append(version(warehouse))
        client.command("OPTIMIZE TABLE atomic.rebuilt FINAL")
        assert version(warehouse) == seen[-1]
        client.command("DROP TABLE atomic.rebuilt")
    assert len(set(seen)) == 5


def test_of_a_view(server: Warehouse, make_table: MakeWarehouse) -> None:
    make_table(ROWS)
    view = at(server, gold_table="a_view")
    with server.client() as client:
        client.command(f"CREATE OR REPLACE VIEW a_view AS SELECT {', '.join(TYPES)} FROM gold_of_a_test")
        before = version(view)
        assert version(view) == before
        client.command("INSERT INTO gold_of_a_test SELECT * FROM gold_of_a_test LIMIT 1")
        assert version(view) != before
        client.command("DROP VIEW a_view")
    with pytest.raises(GoldError, match="no gold table 'a_view'"):
        version(view)


def test_of_a_snapshot(chdb: Client, tmp_path: Path) -> None:
    warehouse = Warehouse(gold_parquet=str(tmp_path / "*.parquet"))
    write_parquet(chdb, tmp_path / "a.parquet", ROWS[:5])
    one = version(warehouse)
    assert version(warehouse) == one
    write_parquet(chdb, tmp_path / "b.parquet", ROWS[5:])
    assert version(warehouse) != one
