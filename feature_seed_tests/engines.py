"""The whole job on every version of ClickHouse that it must run on, and every key compared with plain Python.

    python -m feature_seed_tests.engines [VERSION …] [--home DIRECTORY]

installs the engine of each version from its wheel into an environment of its own, serves the tests' ClickHouse endpoint
from it, seeds shallow and deep gold of every accepted column type, and prints a table of versions and outcomes.
"""

import argparse
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import redis

from feature_seed.contract import read_ready
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.limits import GoldLimits
from feature_seed.warehouse.mapping import GoldMapping
from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server
from feature_seed_tests.support.declared import declare, differences, load
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import Row, create_table, transaction
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import checks, seed
from feature_seed_tests.support.store import assert_holds

# The wheels of each version's engine. Those before 26 import pandas and pyarrow.
WHEELS: dict[str, tuple[str, ...]] = {
    "24.8": ("chdb==3.1.2", "pandas", "pyarrow"),
    "25.5": ("chdb==3.4.1", "pandas", "pyarrow"),
    "25.8": ("chdb==3.7.2", "pandas", "pyarrow"),
    "26.3": ("chdb-core==26.3.0",),
    "26.9": ("chdb-core==26.9.0",),
}

# What the endpoint and its helpers import beside chdb; clickhouse-connect brings its compressors with it.
_NEEDED = ("clickhouse-connect>=1.12,<2", "redis>=8.1,<9")

_PASSWORD = "a-password-of-engines"

# Settings of the user's profile, by the name of the column: what every query must bear.
PROFILES: dict[str, dict[str, str]] = {
    "": {},
    "old analyzer": {"allow_experimental_analyzer": "0"},
    "compatibility 23.3": {"compatibility": "23.3"},
}


# Gold as it is, by expressions; and a feature of every kind, with a window, a condition and an end.
MAPPING = GoldMapping(
    columns={"customer_id": "concat('of ', card_id)", "amount": "toFloat64(amount)", "merchant_category": "NULL"},
    where="amount IS NOT NULL",
)
DECLARED = {
    "hash": {
        "key": "cust:{customer_id}:agg",
        "hash": {"mean": "avg(amount)", "dear": "countIf(amount > 9)"},
    },
    "string": {"key": "{card_id}:of:{customer_id}", "string": "sum(amount)", "where": "amount > 2", "window": "1d"},
    "list": {"key": "{card_id}:list", "list": {"member": "amount", "length": 5, "order": "newest_first"}},
    "zset": {
        "key": "{card_id}:zset",
        "zset": {"member": "transaction_id", "score": "toUnixTimestamp64Milli(timestamp) / 1000"},
        "expire": "50000d",
    },
    "set": {"key": "{card_id}:set", "set": "location_lat"},
}

# Versions that the old analyzer was taken out of.
_ONE_ANALYZER = ("26.9",)

# Outcomes that are no failure.
FINE = ("right", "has none")


@dataclass(frozen=True)
class Gold:
    """Rows, and the types of the table that they are in."""

    rows: Sequence[Row]
    types: dict[str, str]


def python(version: str, home: Path) -> Path:
    """An interpreter with the engine of this version, which is installed on first use."""
    place = home / version
    interpreter = place / "bin" / "python"
    if not (place / "done").exists():
        venv.create(place, clear=True, with_pip=True)
        packages = [*WHEELS[version], *_NEEDED]
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", *packages], check=True)
        (place / "done").touch()
    return interpreter


def golds() -> dict[str, list[Gold]]:
    """Shallow gold, and deep: ten cards of 100 transactions each. Column types as gold.py accepts them."""
    shallow = [transaction(i, f"c{i % 90}", seconds=i * 7 % 300, merchant_category=f"a/b {i % 5}") for i in range(300)]
    deep = [transaction(i, f"c{i % 10}", seconds=i * 7 % 500, amount=i / 8) for i in range(1000)]
    unlocated = {"location_lat": None, "location_long": None}
    shallow += [replace(row, transaction_id=f"u{i}", **unlocated) for i, row in enumerate(shallow[:50])]
    deep += [replace(row, transaction_id=f"u{i}", **unlocated) for i, row in enumerate(deep[:50])]
    return {
        "shallow": [Gold(shallow, {}), *_typed(shallow)],
        "deep": [Gold(deep, {}), *_typed(deep)],
    }


def _typed(rows: Sequence[Row]) -> Iterator[Gold]:
    """The same gold in tables of other types."""
    for types, values in _TYPES:
        yield Gold([replace(row, **values(i, row)) for i, row in enumerate(rows)], types)


def _numbered(text: str) -> int:
    return int("".join(filter(str.isdigit, text)))


_TYPES: list[tuple[dict[str, str], Any]] = [
    (
        {
            "transaction_id": "UUID",
            "card_id": "UInt64",
            "customer_id": "Nullable(Int64)",
            "merchant_category": "LowCardinality(Nullable(String))",
            "amount": "Decimal(18, 4)",
            "timestamp": "DateTime('Europe/Berlin')",
            "location_lat": "Nullable(Float32)",
            "location_long": "Nullable(Decimal(9, 6))",
        },
        lambda i, row: {
            "transaction_id": UUID(int=i),
            "card_id": 2**63 + _numbered(row.card_id),
            "customer_id": -_numbered(row.card_id),
            "amount": Decimal(i) / 4,
            "location_long": None if row.location_long is None else Decimal("-2.25"),
            "merchant_category": None if i % 3 else "café",
        },
    ),
    (
        {
            "transaction_id": "FixedString(6)",
            "card_id": "LowCardinality(String)",
            "customer_id": "LowCardinality(Nullable(String))",
            "merchant_category": "Enum8('food' = 1, 'fuel' = 2)",
            "amount": "Float32",
            "timestamp": "DateTime64(6, 'UTC')",
            "location_lat": "Nullable(Int8)",
            "location_long": "Nullable(Int32)",
        },
        lambda i, row: {
            "transaction_id": f"{i:06}".encode(),
            "merchant_category": "fuel" if i % 2 else "food",
            "amount": i / 8,
            "timestamp": row.timestamp + timedelta(microseconds=i),
            "location_lat": None if row.location_lat is None else 1,
            "location_long": None if row.location_long is None else -179,
        },
    ),
    (
        {
            "transaction_id": "UInt128",
            "card_id": "Nullable(UUID)",
            "customer_id": "Int16",
            "merchant_category": "Nullable(FixedString(4))",
            "amount": "Int64",
            "timestamp": "Nullable(DateTime64(3))",
            "location_lat": "Nullable(Float64)",
            "location_long": "Nullable(Float64)",
        },
        lambda i, row: {
            "transaction_id": 2**100 + i,
            "card_id": UUID(int=_numbered(row.card_id)) if i % 50 else None,
            "customer_id": _numbered(row.card_id),
            "merchant_category": None if i % 3 else b"fuel",
            "amount": i,
        },
    ),
]  # fmt: skip


@contextmanager
def stage(version: str, home: Path) -> Iterator[tuple[ClickHouseServer, Warehouse, OnlineStore, redis.Redis]]:
    """A server of this version, and an empty store."""
    served = clickhouse_server("seeder", _PASSWORD, python=python(version, home))
    with served as server, redis_server(password=_PASSWORD) as port:
        place = {"host": server.host, "port": server.port, "user": server.user, "password": _PASSWORD}
        with Warehouse(**place).client() as client:  # type: ignore[arg-type]
            client.command("CREATE DATABASE gold ENGINE = Atomic")  # as servers have by default, and old wheels do not
        warehouse = Warehouse(**place, database="gold")  # type: ignore[arg-type]
        store = OnlineStore(url=f"redis://127.0.0.1:{port}", password=_PASSWORD)
        with redis.Redis(port=port, password=_PASSWORD) as online:
            yield server, warehouse, store, online


def holds(warehouse: Warehouse, store: OnlineStore, online: redis.Redis, gold: Gold, **layout: Any) -> None:
    """Run the whole job: the store holds what plain Python makes of the rows, and no check that blocks has failed."""
    online.flushall()
    with warehouse.client() as client:
        create_table(client, "gold.fact_transactions_gold", gold.rows, **gold.types)
    fresh = warehouse.model_copy()
    result = seed(fresh, store, job="seed_all", limits=GoldLimits(max_rejected=1), **layout)
    assert all(one.passed for one in checks(result).values()), result
    assert_holds(online, expect(gold.rows))
    ready = read_ready(online)
    assert ready and ready.state == "ready"


def declared_hold(warehouse: Warehouse, store: OnlineStore, online: redis.Redis, gold: Gold) -> None:
    """The same of mapped gold, and every declared feature is what an independent query makes of it."""
    mapped = warehouse.model_copy(update={"mapping": MAPPING})
    holds(mapped, store, online, replace(gold, rows=[replace(row, merchant_category=None) for row in gold.rows]))
    fresh, declared = mapped.model_copy(), declare(DECLARED)
    assert load(fresh, store, declared) > 0
    assert [differences(fresh, online, one) for one in declared] == [[] for _ in declared]


def outcomes(version: str, home: Path) -> dict[str, str]:
    """What became of the job, for each depth of gold and each profile."""
    found: dict[str, str] = {}
    with stage(version, home) as (server, warehouse, store, online):
        for profile, settings in PROFILES.items():
            for depth, gold in golds().items():
                server.set_profile(**settings)
                none = profile == "old analyzer" and version in _ONE_ANALYZER
                outcome = "has none" if none else _outcome(warehouse, store, online, gold)
                found[f"{depth}, {profile}".removesuffix(", ")] = outcome
    return found


def _outcome(warehouse: Warehouse, store: OnlineStore, online: redis.Redis, golds: Sequence[Gold]) -> str:
    try:
        for i, gold in enumerate(golds):
            holds(warehouse, store, online, gold, element="array" if i % 2 else "object")
        declared_hold(warehouse, store, online, golds[0])
    except Exception as e:  # noqa: BLE001 - whatever it is, it is this version's outcome
        return f"{type(e).__name__}: {str(e).splitlines()[0][:200]}" if str(e) else type(e).__name__
    return "right"


def table(found: dict[str, dict[str, str]]) -> str:
    """Markdown: a row for each version, a column for each way."""
    columns = list(next(iter(found.values())))
    rows = [["ClickHouse", *columns], ["---"] * (len(columns) + 1)]
    rows += [[version, *(ways[column] for column in columns)] for version, ways in found.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=list(WHEELS), metavar="VERSION")
    parser.add_argument("--home", type=Path, default=Path(".engines"), help="where the engines are installed")
    arguments = parser.parse_args()
    found = {version: outcomes(version, arguments.home.resolve()) for version in arguments.versions}
    print(table(found))
    sys.exit(any(outcome not in FINE for ways in found.values() for outcome in ways.values()))


if __name__ == "__main__":
    main()
