"""Snapshots as they are exported: every value of every file arrives as it is there, or the run is blocked first."""

import gzip
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import read_card
from feature_seed.errors import ConfigurationError, GoldError
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.gold import GOLD_COLUMNS, RELATIONS
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import COLUMNS, TYPES, transaction, write_parquet
from feature_seed_tests.support.outcome import holds, refused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROWS = [transaction(i, f"c{i % 5}", seconds=i) for i in range(30)]

MOMENT = datetime(2026, 1, 1, 12, 30, 15, tzinfo=timezone.utc)

# Of every kind of type that gold's columns may have: what is written, and what gold has to have of it.
IDS: dict[str, tuple[Any, Any]] = {
    "String": ("05411", "05411"),
    "FixedString(4)": (b"ab\0\0", "ab"),
    "FixedString(2)": (b"xy", "xy"),
    "UUID": (UUID(int=2**127 + 7), str(UUID(int=2**127 + 7))),
    "UInt64": (2**64 - 1, str(2**64 - 1)),
    "Int64": (-(2**63), str(-(2**63))),
    "UInt8": (255, "255"),
}
NUMBERS: dict[str, tuple[Any, Any]] = {
    "Float64": (3.5, 3.5),
    "Float32": (0.25, 0.25),
    "Int64": (2**53 + 1, float(2**53 + 1)),
    "UInt64": (2**64 - 1, float(2**64 - 1)),
    "Int8": (-7, -7.0),
    "Decimal(9, 2)": (Decimal("-1234567.89"), -1234567.89),
    "Decimal(38, 6)": (Decimal("0.000001"), 0.000001),
    "Decimal(76, 0)": (Decimal(10) ** 60, 1e60),
}
TIMES: dict[str, tuple[Any, Any]] = {
    "DateTime('UTC')": (MOMENT, MOMENT),
    "DateTime64(0, 'UTC')": (MOMENT, MOMENT),
    "DateTime64(3, 'America/New_York')": (MOMENT.replace(microsecond=123000), MOMENT.replace(microsecond=123000)),
    "DateTime64(6, 'UTC')": (MOMENT.replace(microsecond=123456), MOMENT.replace(microsecond=123456)),
    "DateTime64(9, 'Asia/Tokyo')": (MOMENT.replace(microsecond=654321), MOMENT.replace(microsecond=654321)),
}
CATEGORIES: dict[str, tuple[Any, Any]] = {
    **{name: IDS[name] for name in ("String", "FixedString(4)", "Int64", "UInt8")},
    "Enum8('food' = 1)": ("food", "food"),
}
KINDS: dict[str, Mapping[str, tuple[Any, Any]]] = {
    "card_id": IDS,
    "merchant_category": CATEGORIES,
    "amount": NUMBERS,
    "timestamp": TIMES,
}


def gold_has(warehouse: Warehouse, column: str) -> list[Any]:
    """A column of the relation that everything is seeded from."""
    query = f"WITH gold AS ({RELATIONS['gold']}) SELECT transaction_id, {column} FROM gold ORDER BY transaction_id"
    with warehouse.client() as client, warehouse.errors():
        rows = client.query(query, warehouse.table, query_tz="UTC", tz_mode="aware").result_rows
    return [value for _, value in rows]


@pytest.mark.parametrize("column", KINDS)
def test_files_of_two_types(chdb: Client, tmp_path: Path, column: str) -> None:
    """For every pair of types that a column may have, each value is what it is where its file stands alone."""
    kinds = list(KINDS[column].items())
    for i, (type_, (value, _)) in enumerate(kinds):
        write_parquet(chdb, tmp_path / f"{i}.parquet", [transaction(i, **{column: value})], **{column: type_})
    for (i, (type_, (_, one))), (j, (other_type, (_, other))) in combinations(enumerate(kinds), 2):
        found = gold_has(Warehouse(gold_parquet=f"{tmp_path}/{{{i},{j}}}.parquet"), column)
        assert found == [one, other], f"{type_} and {other_type}"


@pytest.mark.parametrize("column", COLUMNS)
def test_files_with_and_without_null(chdb: Client, tmp_path: Path, column: str) -> None:
    """NULL of a file whose column may have it stays NULL beside a file whose column may not: it is no zero."""
    required = TYPES[column].removeprefix("Nullable(").removesuffix(")")
    write_parquet(chdb, tmp_path / "a.parquet", [transaction(1)], **{column: required})
    write_parquet(chdb, tmp_path / "b.parquet", [replace(transaction(2), **{column: None})])
    write_parquet(chdb, tmp_path / "c.parquet", [transaction(3)], **{column: required})
    with Warehouse(gold_parquet=f"{tmp_path}/*.parquet").client() as client:
        rows = client.query(f"SELECT isNull({column}) FROM gold_snapshot").result_rows
    assert sorted(missing for (missing,) in rows) == [0, 0, 1]


@pytest.mark.parametrize(
    ("column", "type_", "value", "says"),
    [
        ("amount", "String", "$1.00", "Float, Decimal or integer"),
        ("card_id", "Float64", 7.0, "String, FixedString, UUID or integer"),
        ("merchant_category", "Float64", 5411.0, "String, FixedString, Enum or integer"),
        ("timestamp", "Date32", MOMENT.date(), "DateTime or DateTime64"),
        ("timestamp", "Int64", 1767225600, "DateTime or DateTime64"),
        ("location_lat", "Bool", True, "Float, Decimal or integer"),
        ("location_long", "Array(Float64)", [1.5], "Float, Decimal or integer"),
    ],
)
def test_one_file_of_a_type_that_is_none_of_gold_s(
    chdb: Client, tmp_path: Path, column: str, type_: str, value: Any, says: str
) -> None:
    """Among others, and whether it comes first or last: file, column and both types are named."""
    for name, other in (("a", "b"), ("b", "a")):
        directory = tmp_path / name
        directory.mkdir()
        write_parquet(chdb, directory / f"{name}.parquet", [transaction(1, **{column: value})], **{column: type_})
        write_parquet(chdb, directory / f"{other}.parquet", [transaction(2)])
        with pytest.raises(GoldError) as raised:
            Warehouse(gold_parquet=str(directory)).profile()
        assert (
            f"{column} is {type_} in {directory}/{name}.parquet and not {says}; "
            f"it is {TYPES[column].replace('(3,', '(3,')} in {directory}/{other}.parquet"
        ) in str(raised.value)


def write_as(chdb: Client, path: Path, columns: str, whole: Path) -> Path:
    """A file of these columns of another."""
    path.parent.mkdir(exist_ok=True, parents=True)
    statement = f"INSERT INTO FUNCTION file({{path:String}}, 'Parquet') SELECT {columns} FROM file({{whole:String}})"
    chdb.command(statement, {"path": str(path), "whole": str(whole)})
    return path


@pytest.mark.parametrize("column", COLUMNS)
def test_one_file_lacks_a_column(chdb: Client, tmp_path: Path, column: str) -> None:
    """File and column are named. A directory that is called after it is no substitute, and told of."""
    whole = write_parquet(chdb, tmp_path / "whole.parquet", [transaction(1)])
    less = write_as(chdb, tmp_path / f"{column}=7" / "less.parquet", f"* EXCEPT {column}", whole)
    with pytest.raises(GoldError) as raised:
        Warehouse(gold_parquet=str(tmp_path)).profile()
    assert f"{column} is missing in {less}: its directory is called after it" in str(raised.value)
    assert f"it is {TYPES[column]} in {whole}" in str(raised.value)


def test_amounts_of_one_file_are_whole(chdb: Client, tmp_path: Path, online: redis.Redis, store: OnlineStore) -> None:
    """Through the whole job, for amounts and categories at once: what the store has is what each file has."""
    rows = [transaction(i, f"c{i % 5}", seconds=i, amount=i + 0.5) for i in range(30)]
    rows += [transaction(i, f"c{i % 5}", seconds=i, amount=i, merchant_category=5411 + i) for i in range(30, 60)]  # type: ignore[arg-type]
    write_parquet(chdb, tmp_path / "2026-01.parquet", rows[:30])
    types = {"amount": "Int64", "merchant_category": "UInt16", "timestamp": "DateTime64(6, 'UTC')"}
    write_parquet(chdb, tmp_path / "2026-02.parquet", rows[30:], **types)
    holds(Warehouse(gold_parquet=str(tmp_path / "*.parquet")), store, online, rows)


def test_a_file_of_another_type_blocks_the_run(
    chdb: Client, tmp_path: Path, online: redis.Redis, store: OnlineStore
) -> None:
    """Through the whole job: `$1.00` is no amount, whatever other files have, and nothing is written."""
    write_parquet(chdb, tmp_path / "a.parquet", ROWS)
    write_parquet(chdb, tmp_path / "b.parquet", [transaction(99, amount="$1.00")], amount="Nullable(String)")
    says = refused(Warehouse(gold_parquet=str(tmp_path)), store, online)
    assert f"amount is Nullable(String) in {tmp_path}/b.parquet and not Float, Decimal or integer" in says


def test_categories_that_are_numbers(make_warehouse: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """ISO 18245 codes are integers in many tables: they arrive as their digits, and NULL as null."""
    codes: list[Any] = [5411, 5541, 742, 0, None]
    rows = [transaction(i, f"c{i}", merchant_category=code) for i, code in enumerate(codes)]
    holds(make_warehouse(rows, merchant_category="Nullable(Int64)"), store, online, rows)
    card = read_card(online, "c2")
    assert card and card.history[0].merchant_category == "742"


# --- which files


def test_a_directory_as_spark_writes_it(chdb: Client, tmp_path: Path, online: redis.Redis, store: OnlineStore) -> None:
    """Its Parquet files are read once each; marks, checksums, hidden files, attempts and other files are not."""
    root = tmp_path / "it's {} gold".replace("{}", "of all")
    (root / "_dt=1").mkdir(parents=True)
    draft = write_parquet(chdb, tmp_path / "draft.parquet", ROWS[:10]).read_bytes()
    (root / "part-00000-a.c000.snappy.parquet").write_bytes(draft)
    (root / ".part-00000-a.c000.snappy.parquet.crc").write_bytes(b"crc\0")
    (root / "_SUCCESS").write_bytes(b"")
    (root / "README.txt").write_bytes(b"no Parquet")
    for hidden in ("_temporary/0/part-0.parquet", ".cache/part-0.parquet", "_part-1.parquet", ".part-1.parquet"):
        (root / hidden).parent.mkdir(parents=True, exist_ok=True)
        (root / hidden).write_bytes(draft)
    write_parquet(chdb, root / "_dt=1" / "part-0.parquet", ROWS[10:20])
    (root / "dt=2026-01-01 00%3A00").mkdir()
    write_parquet(chdb, tmp_path / "draft.parquet", ROWS[20:]).rename(root / "dt=2026-01-01 00%3A00" / "000000_0")
    (root / "latest").symlink_to(root / "_dt=1")
    holds(Warehouse(gold_parquet=str(root)), store, online, ROWS)


def test_what_a_directory_is(chdb: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a hidden directory, given by a relative path, through a link or as a glob: the same files."""
    root = tmp_path / ".exports" / "gold.parquet"
    root.mkdir(parents=True)
    write_parquet(chdb, root / "a.parquet", ROWS[:2])
    write_parquet(chdb, root / "b.parquet", ROWS[2:4])
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    numbers = [row.transaction_id for row in ROWS[:4]]
    for named in (
        root,
        f"{root}/",
        ".exports/gold.parquet",
        "link",
        "./x/../link",
        ".exports/gold.parquet/*",
        f"{root}/?.parquet",
    ):
        assert gold_has(Warehouse(gold_parquet=str(named)), "transaction_id") == numbers, named
    assert gold_has(Warehouse(gold_parquet=str(root / "a.parquet")), "transaction_id") == numbers[:2]


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        ("_delta_log/00000000000000000000.json", "Delta Lake"),
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/v1.metadata.json", "Iceberg"),
    ],
)
def test_tables_that_keep_deleted_rows_in_files(chdb: Client, tmp_path: Path, mark: str, kind: str) -> None:
    """The directory of a lakehouse table has files of rows that are deleted: it is no snapshot."""
    write_parquet(chdb, tmp_path / "part-0.parquet", ROWS)
    (tmp_path / mark).parent.mkdir()
    (tmp_path / mark).write_text("{}")
    with pytest.raises(GoldError, match=f"is a table of {kind}, among whose files"):
        Warehouse(gold_parquet=str(tmp_path)).profile()


@pytest.mark.parametrize("named", ["", "_hidden", "*.csv", "gone.parquet", "gone/"])
def test_nothing_to_read(tmp_path: Path, named: str) -> None:
    (tmp_path / "_hidden").mkdir()
    with pytest.raises(GoldError, match=r"No Parquet file matches FEATURE_SEED_GOLD_PARQUET '.*'"):
        Warehouse(gold_parquet=f"{tmp_path}/{named}").profile()


@pytest.mark.parametrize(
    "named", ["https://host/gold.parquet", "gs://bucket/gold", "hdfs://host/gold", "s3://", "s3:///k"]
)
def test_places_that_are_not_read(named: str) -> None:
    """An address is refused by name, before anything is looked for on this machine."""
    with pytest.raises(ConfigurationError, match=r"FEATURE_SEED_GOLD_PARQUET '.*'.* s3://bucket/key"):
        Warehouse(gold_parquet=named).profile()


# --- how they are compressed


def test_files_are_read_as_what_they_are(chdb: Client, tmp_path: Path, online: redis.Redis, store: OnlineStore) -> None:
    """A name's last part may tell what is inside Parquet or what is around it: how the file begins decides."""
    parts = [ROWS[first : first + 5] for first in range(0, 30, 5)]
    written = [write_parquet(chdb, tmp_path / "draft.parquet", part).read_bytes() for part in parts]
    root = tmp_path / "gold"
    root.mkdir()
    (root / "a.parquet.snappy").write_bytes(written[0])
    (root / "b.parquet.gz").write_bytes(written[1])
    (root / "c.parquet.gz").write_bytes(gzip.compress(written[2]))
    (root / "d.parquet.zst").write_bytes(zstd.compress(written[3]))
    (root / "e.gz.parquet").write_bytes(written[4])
    (root / "f.parquet").write_bytes(written[5])
    holds(Warehouse(gold_parquet=str(root)), store, online, ROWS)
    with pytest.raises(GoldError, match=r"(?s)cannot be read: .*g\.parquet\.zst"):
        (root / "g.parquet.zst").write_bytes(zstd.compress(b"no Parquet"))
        Warehouse(gold_parquet=str(root)).profile()


def test_a_time_of_day(chdb: Client, tmp_path: Path) -> None:
    """Parquet's TIME is no moment: read as one it would be in 1970."""
    path = write_parquet(chdb, tmp_path / "gold.parquet", [transaction(1)], timestamp="DateTime64(6, 'UTC')")
    # ClickHouse writes none, so the footer is changed: in Parquet's Thrift the logical type TIMESTAMP is the eighth
    # kind and TIME the seventh, with the same fields.
    before, name, after = path.read_bytes().rpartition(b"\x18\x09timestamp%")
    assert name and after.count(b"\x8c\x11") == 1
    path.write_bytes(before + name + after.replace(b"\x8c\x11", b"\x7c\x11"))
    with pytest.raises(GoldError, match="timestamp is Time and not DateTime or DateTime64"):
        Warehouse(gold_parquet=str(path)).profile()


def test_files_are_looked_at_once(chdb: Client, tmp_path: Path) -> None:
    """As long as they stay as they are: one that is written anew between two looks is looked at again."""
    write_parquet(chdb, tmp_path / "a.parquet", ROWS[:2])
    warehouse = Warehouse(gold_parquet=str(tmp_path))
    assert gold_has(warehouse, "amount") == [10.5] * 2
    path = tmp_path / "a.parquet"
    path.unlink()
    write_parquet(chdb, path, [transaction(i, amount="1.00") for i in range(9)], amount="String")
    with pytest.raises(GoldError, match="amount is String and not"):
        gold_has(warehouse, "amount")


def test_a_damaged_snapshot_has_a_version(chdb: Client, tmp_path: Path) -> None:
    """So the sensors launch a run, which fails and says what is wrong: their own failures alert nobody."""
    write_parquet(chdb, tmp_path / "a.parquet", [transaction(1, amount="1.00")], amount="String")
    versions = set()
    for body in (b"no Parquet", b"no Parquet either"):
        (tmp_path / "b.parquet").write_bytes(body)
        with Warehouse(gold_parquet=str(tmp_path)).client(view=False) as client:
            versions.add(Warehouse(gold_parquet=str(tmp_path)).version(client))
    assert len(versions) == 2


def listed_types() -> Sequence[str]:
    """Every kind of type that a column may have, in words."""
    return sorted({one for column in GOLD_COLUMNS.values() for one in column.type.replace(" or ", ", ").split(", ")})


def test_every_kind_of_type_is_tried() -> None:
    tried = " ".join([*IDS, *NUMBERS, *TIMES, *CATEGORIES, "integer"])
    assert [one for one in listed_types() if one not in tried] == []
