"""Golds of every kind, by their rows, tables, files, names and columns: seeded, or refused with the reason.

Each table goes through the whole job, its checks included, and every key is compared with plain Python.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import read_card, read_customer
from feature_seed.errors import GoldError
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.gold import GOLD_COLUMNS
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.clickhouse_http import ClickHouseServer
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import COLUMNS, TYPES, create_table, transaction, write_parquet
from feature_seed_tests.support.outcome import ALL_MAY_BE_REJECTED, holds, refused
from feature_seed_tests.support.run import checks, fill, seed
from feature_seed_tests.support.store import assert_holds, features


def on(server: Warehouse | ClickHouseServer, **changes: str) -> Warehouse:
    place = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    return Warehouse(**{**place, **changes})


def test_a_transaction_that_is_there_twice(
    make_warehouse: MakeWarehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """Each row counts, and is told. Where time and id agree, the others decide: not the order in which gold is read."""
    rows = [transaction(i, f"c{i % 4}", seconds=i) for i in range(40)] * 2
    rows += [transaction(100, "amounts", amount=float(i % 13)) for i in range(26)]
    rows += [transaction(101, "categories", merchant_category=one) for one in ("b", None, "a", "", "ä", "B")]
    rows += [transaction(102, "places", location_lat=float(i), location_long=None if i % 3 else 1.0) for i in range(15)]
    rows += [transaction(103, "times", seconds=i) for i in range(3)]
    found = holds(make_warehouse(rows), store, online, rows, ["duplicate_transactions"])
    found = found["gold_transactions.duplicate_transactions"]
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert found.metadata["duplicates"].value == len(rows) - 44 == 86
    assert "86 duplicate rows, for example 't" in str(found.description)
    first = features(online)
    online.flushall()
    fill(make_warehouse(rows[::-1]), store)
    assert features(online) == first


def test_one_row_or_none(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """A row is enough. Without any that can be used the run fails before it writes, however many may be rejected."""
    bad = [transaction(1, amount=math.nan), transaction(2, card_id=None)]
    result = seed(make_parquet(bad), store, job="seed_all", limits=ALL_MAY_BE_REJECTED, raise_on_error=False)
    assert not result.success
    assert checks(result)["gold_transactions.not_empty"].description == "0 of 2 rows can be used"
    assert not online.dbsize()
    holds(make_parquet([transaction(1)]), store, online, [transaction(1)])


def crowd(chdb: Client, path: Path, size: int) -> Warehouse:
    """One card of `size` transactions, and one customer of as many cards; amounts are eighths, whose sums are exact."""
    chdb.command(
        "INSERT INTO FUNCTION file({path:String}, 'Parquet') SELECT concat('t', leftPad(toString(number), 8, '0')) AS "
        "transaction_id, number < {size:UInt64} AS busy, if(busy, 'busy', concat('c', toString(number))) AS card_id, "
        "if(busy, 'of busy', 'rich') AS customer_id, 'food' AS merchant_category, number % 1000 / 8 AS amount, "
        "toDateTime64('2026-01-01', 3, 'UTC') + toIntervalMillisecond(number) AS timestamp, 1.5 AS location_lat, "
        "2.5 AS location_long FROM numbers(2 * {size:UInt64})",
        {"path": str(path), "size": size},
    )
    return Warehouse(gold_parquet=str(path))


@pytest.mark.parametrize("size", [70_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_a_card_and_a_customer_of_very_many(
    chdb: Client, tmp_path: Path, online: redis.Redis, store: OnlineStore, size: int
) -> None:
    result = seed(crowd(chdb, tmp_path / "gold.parquet", size), store, job="seed_all")
    assert all(one.passed for one in checks(result).values())
    assert online.dbsize() == 5 * (size + 1) + 2 * 2 + 1
    eighths = [i % 1000 for i in range(size)]
    mean = sum(eighths) / size
    m2 = math.fsum((one - mean) ** 2 for one in eighths) / 64
    for customer in ("rich", "of busy"):
        state = read_customer(online, customer)
        assert state and state.count == size
        assert state.mean == pytest.approx(mean / 8, rel=1e-14)
        assert state.m2 == pytest.approx(m2, rel=1e-11)
    busy = read_card(online, "busy")
    assert busy and busy.seq == size
    assert [one.transaction_id for one in busy.history] == [f"t{i:08}" for i in range(size - 10, size)]
    assert busy.last_ts == 1767225600 + (size - 1) / 1000
    one = read_card(online, f"c{size + 77}")
    assert one and (one.seq, one.history[0].amount, one.location) == (1, 77 / 8, (1.5, 2.5))


@contextmanager
def made(client: Client, kind: str, name: str, definition: str) -> Iterator[None]:
    """What is made is gone afterwards."""
    client.command(f"CREATE {kind} {name} {definition}")
    yield
    client.command(f"DROP {kind} {name}")


@pytest.mark.parametrize(
    ("kind", "definition"),
    [
        ("VIEW", f"AS SELECT {', '.join(reversed(TYPES))} FROM gold_of_a_test"),
        ("TABLE", "AS gold_of_a_test ENGINE = Merge(currentDatabase(), '^gold_of_a_test$')"),
        ("TABLE", "ENGINE = Log AS SELECT * FROM gold_of_a_test"),
    ],
)
def test_gold_that_is_no_merge_tree(
    server: Warehouse, make_table: MakeWarehouse, online: redis.Redis, store: OnlineStore, kind: str, definition: str
) -> None:
    """Seeded as a table of parts is. Another row, or another value in one, is another version: also beside a NULL."""
    rows = [transaction(i, f"c{i % 5}", seconds=i) for i in range(50)]
    rows += [transaction(50, merchant_category=None, location_lat=None)]
    make_table(rows)
    warehouse = on(server, gold_table="other")
    written = "other" if "Log" in definition else "gold_of_a_test"
    with server.client() as client, made(client, kind, "other", definition):
        holds(warehouse, store, online, rows)
        versions = {warehouse.version(client), warehouse.version(client)}
        assert len(versions) == 1
        client.command(f"INSERT INTO {written} SELECT * FROM {written} WHERE merchant_category IS NULL")
        versions.add(warehouse.version(client))
        if written != "other":
            change = f"ALTER TABLE {written} UPDATE amount = 98.5 WHERE merchant_category IS NULL"
            client.command(f"{change} SETTINGS mutations_sync = 2")
            versions.add(warehouse.version(client))
        assert len(versions) == (2 if written == "other" else 3)


def damaged(whole: bytes, kind: str) -> bytes:
    return {
        "cut in half": whole[: len(whole) // 2],
        "without its last byte": whole[:-1],
        "zeros inside": whole[:500] + bytes(2000) + whole[2500:],
        "text": b"transaction_id,card_id\nt1,c1\n",
        "empty": b"",
    }[kind]


def test_a_file_that_cannot_be_read(chdb: Client, tmp_path: Path, online: redis.Redis, store: OnlineStore) -> None:
    """The file is named, and the store is left as it was. A directory is all of its files."""
    good = write_parquet(chdb, tmp_path / "a.parquet", [transaction(i, f"c{i}") for i in range(2000)]).read_bytes()
    bad = tmp_path / "bad.parquet"
    says: list[str] = []
    for kind in ("cut in half", "without its last byte", "zeros inside", "text", "empty"):
        bad.write_bytes(damaged(good, kind))
        with pytest.raises(GoldError) as raised:
            Warehouse(gold_parquet=str(bad)).profile()
        says.append(str(raised.value))
    for kind in ("zeros inside", "empty"):
        bad.write_bytes(damaged(good, kind))
        says.append(refused(Warehouse(gold_parquet=str(tmp_path)), store, online))
    for one in says:
        assert one.startswith("FEATURE_SEED_GOLD_PARQUET '")
        assert "cannot be read: a file is damaged" in one
        assert str(bad) in one


def select_as(chdb: Client, path: Path, columns: str, whole: Path) -> None:
    """A file of these columns of another."""
    statement = f"INSERT INTO FUNCTION file({{path:String}}, 'Parquet') SELECT {columns} FROM file({{whole:String}})"
    chdb.command(statement, {"path": str(path), "whole": str(whole)})


@pytest.mark.parametrize(
    ("database", "table"),
    [
        ("it's a \"b\" `c` \\d\\'e", "`quoted`"),
        ("50% %(gold)s {gold:Identifier}", "a.b; --/*\t\n$1$ ü☕"),
    ],
)
def test_names_of_tables_and_databases(
    server: Warehouse, online: redis.Redis, store: OnlineStore, database: str, table: str
) -> None:
    """ClickHouse allows any, and it is found."""
    rows = [transaction(i, f"c{i}") for i in range(3)]
    # The driver's own quoting leaves `quoted` as it is.
    quoted = ["`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`" for name in (database, table)]
    with server.client() as client, made(client, "DATABASE", quoted[0], "ENGINE = Atomic"):
        create_table(client, ".".join(quoted), rows)
        holds(on(server, database=database, gold_table=table), store, online, rows)


def test_names_of_files(chdb: Client, tmp_path: Path, online: redis.Redis, store: OnlineStore) -> None:
    """Any path can be read, but for one that is a glob as well: which is meant, only its owner knows."""
    rows = [transaction(i, f"c{i}") for i in range(3)]
    whole = write_parquet(chdb, tmp_path / "gold.parquet", rows).read_bytes()
    for name in ["it's a \"b\" `c` \\d\\'e", "50% %(snapshot)s [a]; --\t\n$1$ ü☕", "a*", "{b}"]:
        directory = tmp_path / name
        directory.mkdir()
        path = directory / f"{name}.parquet"
        path.write_bytes(whole)
        if set("*?{") & set(name):
            says = refused(Warehouse(gold_parquet=str(path)), store, online)
            assert f"{str(path)!r} is a file's name, and a glob that may match others: rename" in says
        else:
            fill(Warehouse(gold_parquet=str(path), gold_table=name), store)
            assert_holds(online, expect(rows))


def test_columns_in_another_case(chdb: Client, tmp_path: Path, online: redis.Redis, store: OnlineStore) -> None:
    draft = write_parquet(chdb, tmp_path / "draft.parquet", [transaction(1)])
    select_as(chdb, tmp_path / "gold.parquet", ", ".join(f"{name} AS {name.title()}" for name in COLUMNS), draft)
    says = refused(Warehouse(gold_parquet=str(tmp_path / "gold.parquet")), store, online)
    assert all(f"{name} is missing" in says for name in GOLD_COLUMNS)
    assert "There is: Transaction_Id Nullable(String), Card_Id" in says


def aliases() -> list[str]:
    """Every name that the SQL gives to something, and those of its relations."""
    queries = [one.read_text() for one in (Path(__file__).parents[2] / "feature_seed").rglob("*.sql")]
    found = set(re.findall(r"\bAS (\w+)|\b(\w+) AS \(", "\n".join(queries)))
    return sorted({"gold", "transactions", "recent", *(after or before for after, before in found)} - set(COLUMNS))


def test_columns_called_like_ours(
    make_parquet: MakeWarehouse, chdb: Client, tmp_path: Path, online: redis.Redis, store: OnlineStore
) -> None:
    """Columns that gold has beside its own are passed over, whatever they are called."""
    rows = [*(transaction(i, f"c{i % 3}", seconds=i) for i in range(30)), transaction(99, amount=None)]
    whole = Path(str(make_parquet(rows).gold_parquet))
    columns = ", ".join(["*", *(f"'of gold' AS `{name}`" for name in aliases())])
    assert len(aliases()) > 40
    select_as(chdb, tmp_path / "more.parquet", columns, whole)
    holds(Warehouse(gold_parquet=str(tmp_path / "more.parquet")), store, online, rows)
