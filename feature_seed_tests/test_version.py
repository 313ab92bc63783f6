"""Gold's version: another after every change of its content, the same after everything else."""

import time
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from feature_seed.errors import GoldError
from feature_seed.warehouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.gold import TYPES, create_table, transaction, write_parquet

ROWS = [transaction(i, seconds=i) for i in range(10)]


def version(warehouse: Warehouse) -> str:
    with warehouse.client() as client, warehouse.errors():
        return warehouse.version(client)


def test_of_a_table(server: Warehouse, make_table: MakeWarehouse) -> None:
    warehouse = make_table(ROWS)
    table = warehouse.gold_table
    seen = [version(warehouse)]
    assert version(warehouse) == seen[0]
    with server.client() as client:
        for change in (f"INSERT INTO {table} SELECT * FROM {table} LIMIT 1", f"TRUNCATE TABLE {table}"):
            client.command(change)
            seen.append(version(warehouse))
        time.sleep(1.1)  # the embedded engine's tables have no UUIDs, and their times whole seconds
        create_table(client, table, ROWS)
        seen.append(version(warehouse))
        client.command(f"INSERT INTO {table} SELECT * FROM {table} LIMIT 1")
        before = version(warehouse)
        client.command(f"OPTIMIZE TABLE {table} FINAL")
    assert len({*seen, before}) == 5
    assert version(warehouse) == before


def test_of_a_view(server: Warehouse, make_table: MakeWarehouse) -> None:
    make_table(ROWS)
    view = Warehouse(
        host=server.host, port=server.port, user=server.user, password=server.password, gold_table="a_view"
    )
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
