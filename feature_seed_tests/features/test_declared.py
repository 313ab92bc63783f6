"""Declared features: every kind, with window, condition and end, on both paths, compared with plain Python."""

import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis

from feature_seed.contract import read_ready
from feature_seed.features.declared import Declared
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.support.run import checks, materialised, seed
from feature_seed_tests.support.shapes import MakeGold

TYPES = {
    "transaction_id": "String",
    "card_id": "UInt64",
    "customer_id": "String",
    "merchant_category": "Nullable(String)",
    "amount": "Decimal(10, 2)",
    "timestamp": "DateTime64(3, 'UTC')",
    "location_lat": "Nullable(Float64)",
    "location_long": "Nullable(Float64)",
    "merchant_id": "Nullable(UInt32)",
    "is_fraud": "UInt8",
    "lat": "Float64",  # called as one of our own relations' columns
    "unused": "Array(String)",
}

DAY = 86400
NOW = datetime.now(timezone.utc).replace(microsecond=0)

FEATURES = [
    Declared.of(name, entry)
    for name, entry in {
        "card_agg": {
            "key": "card:{card_id}:agg",
            "hash": {
                "count": "count()",
                "fraud_rate": "avg(is_fraud)",
                "at_night": "countIf(toHour(timestamp) >= 22 OR toHour(timestamp) < 6) / count()",
                "home": "max(lat)",
                "dearest": "maxOrNullIf(amount, is_fraud = 1)",
            },
        },
        "card_burst": {
            "key": "card:{card_id}:burst",
            "zset": {"member": "transaction_id", "score": "toUnixTimestamp64Milli(timestamp) / 1000"},
            "window": "6h",
            "expire": "1d",
        },
        "card_merchants": {"key": "card:{card_id}:merchants", "set": "merchant_id", "window": "24h"},
        "card_amounts": {"key": "a:{card_id}", "list": {"member": "amount", "length": 3, "order": "newest_first"}},
        "card_honest": {"key": "v:{card_id}", "string": "sum(amount)", "window": "24h", "where": "is_fraud = 0"},
        "merchant_top": {
            "key": "m:{merchant_id}:top",
            "zset": {"member": "card_id", "score": "amount"},
            "expire": "2d",
        },
        "pair": {"key": "u:{customer_id}:m:{merchant_id}", "string": "count()"},
    }.items()
]


def rows(count: int = 400) -> list[dict[str, Any]]:
    """Of three days until some minutes ago; some without a merchant."""
    chance = random.Random(7)
    return [
        {
            "transaction_id": f"t{number:04}",
            "card_id": (card := chance.randrange(12)),
            "customer_id": f"c{card % 5}",
            "merchant_category": chance.choice(["food", None]),
            "amount": round(chance.uniform(1, 500), 2),
            "timestamp": NOW - timedelta(seconds=300 + round(chance.random() ** 2 * 3 * DAY, 3)),
            "location_lat": None,
            "location_long": None,
            "merchant_id": chance.choice([None, 1, 2, 3, 4, 5]),
            "is_fraud": int(chance.random() < 0.1),
            "lat": float(number),
            "unused": ["x"],
        }
        for number in range(count)
    ]


Rows = Sequence[dict[str, Any]]


def by(gold: Rows, *columns: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """The rows of each entity, by time and id."""
    groups = defaultdict(list)
    for row in sorted(gold, key=lambda row: (row["timestamp"], row["transaction_id"])):
        if all(row[column] not in (None, "") for column in columns):
            groups[tuple(row[column] for column in columns)].append(row)
    return groups


def unix(row: dict[str, Any]) -> float:
    return row["timestamp"].timestamp()


def since(gold: Rows, seconds: float) -> Rows:
    """What is not older than so long before the newest row."""
    newest = max(map(unix, gold))
    return [row for row in gold if unix(row) > newest + 0.001 - seconds - 1e-6]


def expected(gold: Rows) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for (card,), of_card in by(gold, "card_id").items():
        fraud = [row["amount"] for row in of_card if row["is_fraud"]]
        keys[f"card:{card}:agg"] = {
            "count": len(of_card),
            "fraud_rate": len(fraud) / len(of_card),
            "at_night": sum(row["timestamp"].hour >= 22 or row["timestamp"].hour < 6 for row in of_card) / len(of_card),
            "home": max(row["lat"] for row in of_card),
            **({"dearest": max(fraud)} if fraud else {}),
        }
        keys[f"a:{card}"] = [row["amount"] for row in of_card[:-4:-1]]
    for (card,), of_card in by(since(gold, DAY / 4), "card_id").items():
        keys[f"card:{card}:burst"] = {row["transaction_id"]: unix(row) for row in of_card}
    for (card,), of_card in by(since(gold, DAY), "card_id").items():
        if seen := {str(row["merchant_id"]) for row in of_card if row["merchant_id"]}:
            keys[f"card:{card}:merchants"] = seen
        if honest := [row["amount"] for row in of_card if not row["is_fraud"]]:
            keys[f"v:{card}"] = sum(honest)
    for (merchant,), of_merchant in by(gold, "merchant_id").items():
        keys[f"m:{merchant}:top"] = {str(row["card_id"]): row["amount"] for row in of_merchant}
    for (customer, merchant), of_pair in by(gold, "customer_id", "merchant_id").items():
        keys[f"u:{customer}:m:{merchant}"] = len(of_pair)
    return keys


def test_every_kind(make_gold: MakeGold, store: OnlineStore, online: redis.Redis) -> None:
    """Before: gold with columns of its own. Runs: seed_all twice. After: every key is right, each check passes, a second
    run changes no byte, and only the standard features feed the counts of ready."""
    gold = rows()
    warehouse = make_gold(TYPES, gold, FEATURES)
    result = seed(warehouse, store, job="seed_all", declared=FEATURES, shard_count=4)
    assert all(one.passed for one in checks(result).values()), checks(result)
    assert {f"{one.name}.{check}" for one in FEATURES for check in ("parity", "entity_count")} < checks(result).keys()
    assert declared_keys(online) == approximately(expected(gold))
    counts = {
        one.name: sum(load.metadata["dagster/row_count"].value for load in materialised(result, one.name))
        for one in FEATURES
    }
    assert counts["card_agg"] == 12
    assert counts["pair"] == len(by(gold, "customer_id", "merchant_id"))
    ready = read_ready(online)
    assert (ready.cards, ready.customers) == (12, 5)
    ends = {key: online.pexpiretime(key) for key in online.scan_iter() if not key.startswith(b"feature_seed:")}
    for (card,), of_card in by(since(gold, DAY / 4), "card_id").items():
        assert ends[f"card:{card}:burst".encode()] == round((unix(of_card[-1]) + DAY) * 1000)
    before = stored(online)
    seed(warehouse, store, job="seed_all", declared=FEATURES, shard_count=4)
    assert stored(online) == before
    assert {key: online.pexpiretime(key) for key in ends} == ends


def declared_keys(client: redis.Redis) -> dict[str, Any]:
    standard = (":history", ":loc", ":last_ts", ":seq", ":seed", ":stats")
    names = (key.decode() for key in client.scan_iter(count=1000))
    return {key: value(client, key) for key in names if not (key.endswith(standard) or key.startswith("feature_seed:"))}


def stored(client: redis.Redis) -> dict[bytes, Any]:
    return {key: client.dump(key) for key in client.scan_iter(count=1000) if not key.startswith(b"feature_seed:")}


def value(client: redis.Redis, key: str) -> Any:
    """A key's value, numbers as numbers."""
    type_ = client.type(key).decode()  # type: ignore[union-attr]
    if type_ == "hash":
        return {name.decode(): float(one) for name, one in client.hgetall(key).items()}  # type: ignore[union-attr]
    if type_ == "zset":
        return {name.decode(): score for name, score in client.zrange(key, 0, -1, withscores=True)}  # type: ignore[union-attr]
    if type_ == "set":
        return {one.decode() for one in client.smembers(key)}  # type: ignore[union-attr]
    return [float(one) for one in client.lrange(key, 0, -1)] if type_ == "list" else float(client.get(key))  # type: ignore[union-attr, arg-type]


def approximately(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: one if isinstance(one, set) else pytest.approx(one, rel=1e-9) for key, one in keys.items()}
