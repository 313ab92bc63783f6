"""The ready-made configurations: each is seeded from a small table of its shape, and compared with plain Python."""

import math
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import redis

import feature_seed.features
from feature_seed.graph.configuration import read
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.support.declared import declared_keys, differences, load, stored
from feature_seed_tests.support.shapes import MakeGold, Rows, Types

EXAMPLES = Path(feature_seed.features.__file__).parent / "examples"

NOW = datetime.now(timezone.utc).replace(microsecond=0)
CHANCE = random.Random(11)

# A key's value, and until when it is there, in Unix seconds.
Keys = dict[str, tuple[Any, float]]


@dataclass(frozen=True)
class Shape:
    """A table, and what the example makes of it."""

    types: Types
    rows: Rows
    expected: Callable[[Rows], Keys]


def times(count: int) -> list[datetime]:
    """Of two days, most of them of late."""
    return sorted(NOW - timedelta(seconds=10 + int(CHANCE.random() ** 4 * 2 * 86400)) for _ in range(count))


def grouped(rows: Iterable[Any], *names: str) -> dict[tuple[Any, ...], list[Any]]:
    groups: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def windowed(rows: Sequence[Any], unix: Callable[[Any], float], seconds: float, tick: float) -> list[Any]:
    """The rows of so long before the watermark, which is the end of the newest row's tick."""
    watermark = max(map(unix, rows)) + tick - 1e-6
    return [row for row in rows if unix(row) > watermark - seconds]


FOREVER = math.inf

CONTRACT = {
    "transaction_id": "String",
    "card_id": "String",
    "customer_id": "String",
    "merchant_category": "String",
    "amount": "Float64",
    "timestamp": "DateTime64(3, 'UTC')",
    "location_lat": "Nullable(Float64)",
    "location_long": "Nullable(Float64)",
}


def riskfabric() -> Shape:
    renamed = {"g.customer_id" if name == "customer_id" else name: type_ for name, type_ in CONTRACT.items()}
    types = {name: type_ for name, type_ in renamed.items() if not name.startswith("location")}
    rows = [
        {
            "transaction_id": f"t{i}",
            "card_id": f"card{i % 7}",
            "g.customer_id": f"cust{i % 3}",
            "merchant_category": "GROCERY",
            "amount": round(CHANCE.uniform(1, 90), 2),
            "timestamp": time,
            "merchant_id": f"m{CHANCE.randrange(4)}",
            "is_fraud": CHANCE.random() < 0.2,
        }
        for i, time in enumerate(times(200))
    ]

    def expected(rows: Rows) -> Keys:
        keys: Keys = {}
        for (customer,), own in grouped(rows, "g.customer_id").items():
            hours = [row["timestamp"].hour for row in own]
            night = sum(hour >= 22 or hour < 6 for hour in hours) / len(own)
            fraud = sum(row["is_fraud"] for row in own) / len(own)
            agg = {"fraud_rate": fraud, "night_ratio": night, "mean_hour": sum(hours) / len(hours)}
            keys[f"cust:{customer}:agg"] = agg, FOREVER
        for (merchant,), own in grouped(rows, "merchant_id").items():
            keys[f"merch:{merchant}:agg"] = {"fraud_rate": sum(row["is_fraud"] for row in own) / len(own)}, FOREVER
        late = windowed(rows, lambda row: row["timestamp"].timestamp(), 60, 0.001)
        for (card,), own in grouped(late, "card_id").items():
            burst = {row["transaction_id"]: row["timestamp"].timestamp() for row in own}
            keys[f"card:{card}:burst"] = burst, max(burst.values()) + 60
        return keys

    return Shape({**types, "merchant_id": "String", "is_fraud": "Bool"}, rows, expected)


def sparkov() -> Shape:
    types = {
        "trans_num": "String",
        "cc_num": "Int64",
        "category": "String",
        "amt": "Float64",
        "unix_time": "Int64",
        "merch_lat": "Float64",
        "merch_long": "Float64",
        "merchant": "String",
        "lat": "Float64",
        "long": "Float64",
        "city": "String",
    }
    rows = [
        {
            "trans_num": f"{i:032x}",
            "cc_num": 4000000000000000 + i % 6,
            "category": CHANCE.choice(["food", "food", "gas_transport"]),
            "amt": round(CHANCE.uniform(1, 90), 2),
            "unix_time": int(time.timestamp()),
            "merch_lat": 40.5,
            "merch_long": -74.5,
            "merchant": f"fraud_Shop {CHANCE.randrange(5)}",
            "lat": 40.0 + i % 6,
            "long": -74.0,
            "city": "Springfield",
        }
        for i, time in enumerate(times(150))
    ]

    def expected(rows: Rows) -> Keys:
        keys: Keys = {}
        for name, seconds in {"10m": 600, "1h": 3600, "24h": 86400}.items():
            for (card,), own in grouped(windowed(rows, lambda row: row["unix_time"], seconds, 1), "cc_num").items():
                members = {f"{row['trans_num']}:{row['amt']:g}": row["unix_time"] for row in own}
                keys[f"card:{card}:tx:{name}"] = members, max(members.values()) + seconds
        for (card,), own in grouped(rows, "cc_num").items():
            end = max(row["unix_time"] for row in own) + 30 * 86400
            amounts = [row["amt"] for row in own]
            keys[f"card:{card}:merchants"] = {row["merchant"] for row in own}, end
            profile = {
                "count": len(own),
                "avg_amount": statistics.fmean(amounts),
                "std_amount": statistics.pstdev(amounts),
                "max_amount": max(amounts),
                "home_lat": own[0]["lat"],
                "home_long": -74.0,
                "top_category": Counter(row["category"] for row in own).most_common(1)[0][0],
            }
            keys[f"card:{card}:profile"] = profile, end
        return keys

    return Shape(types, rows, expected)


def counters() -> Shape:
    rows = [
        {
            "transaction_id": f"t{i}",
            "card_id": f"c{i % 9}",
            "customer_id": f"u{i % 3}",
            "merchant_category": "food",
            "amount": round(CHANCE.uniform(1, 90), 2),
            "timestamp": time,
            "location_lat": None,
            "location_long": None,
        }
        for i, time in enumerate(times(300))
    ]

    def expected(rows: Rows) -> Keys:
        keys: Keys = {}
        for name, seconds in {"5m": 300, "1h": 3600, "24h": 86400}.items():
            late = windowed(rows, lambda row: row["timestamp"].timestamp(), seconds, 0.001)
            for (card,), own in grouped(late, "card_id").items():
                end = max(row["timestamp"].timestamp() for row in own) + seconds
                keys[f"velocity:{card}:count:{name}"] = len(own), end
                keys[f"velocity:{card}:amount:{name}"] = math.fsum(row["amount"] for row in own), end
        return keys

    return Shape(CONTRACT, rows, expected)


def paysim() -> Shape:
    numbers = ("amount", "oldbalanceOrg", "newbalanceOrig", "oldbalanceDest", "newbalanceDest")
    types = {"step": "Int64", "type": "String", "nameOrig": "String", "nameDest": "String", "isFraud": "Int64"}
    rows = [
        {
            "step": 1 + i // 3,
            "type": CHANCE.choice(["CASH_OUT", "TRANSFER"]),
            "nameOrig": f"C{i % 20}",
            "nameDest": f"M{CHANCE.randrange(6)}",
            "isFraud": int(CHANCE.random() < 0.2),
            **{name: CHANCE.choice([0.0, round(CHANCE.uniform(1, 9000), 2)]) for name in numbers},
        }
        for i in range(120)
    ]

    def expected(rows: Rows) -> Keys:
        keys: Keys = {}
        for (receiver,), own in grouped(rows, "nameDest").items():
            found = {
                "count": len(own),
                "amount": math.fsum(row["amount"] for row in own),
                "fraud_rate": sum(row["isFraud"] for row in own) / len(own),
                "senders": len({row["nameOrig"] for row in own}),
            }
            latest = sorted(own, key=lambda row: (row["step"], f"{row['nameOrig']}:"), reverse=True)[:5]
            keys[f"acct:{receiver}:in"] = found, FOREVER
            keys[f"acct:{receiver}:latest"] = [f"{row['nameOrig']} {row['amount']:.12g}" for row in latest], FOREVER
        emptied = [row for row in rows if row["oldbalanceOrg"] > 0 and row["newbalanceOrig"] == 0]
        for (sender,), own in grouped(emptied, "nameOrig").items():
            keys[f"acct:{sender}:emptied"] = len(own), FOREVER
        for (sender, receiver), own in grouped(rows, "nameOrig", "nameDest").items():
            keys[f"acct:{sender}:to:{receiver}"] = math.fsum(row["amount"] for row in own), FOREVER
        return keys

    return Shape({**types, **dict.fromkeys(numbers, "Float64")}, rows, expected)


def tabformer() -> Shape:
    texts = ("Time", "Amount", "Use Chip", "Errors?", "Is Fraud?")
    types = dict.fromkeys(("User", "Card", "Year", "Month", "Day", "Merchant Name", "MCC"), "Int64")
    rows = [
        {
            "User": i % 4,
            "Card": i % 2,
            "Year": 2019,
            "Month": 9,
            "Day": 1 + i % 28,
            "Time": f"{i % 24:02}:{i % 60:02}",
            "Amount": f"${CHANCE.uniform(1, 90):.2f}",
            "Use Chip": CHANCE.choice(["Online Transaction", "Chip Transaction"]),
            "Merchant Name": CHANCE.choice([-5475680618560174533, 3527213246127876953, 42]),
            "MCC": CHANCE.choice([5912, 5411]),
            "Errors?": CHANCE.choice(["", "", "", "Bad PIN"]),
            "Is Fraud?": CHANCE.choice(["No", "No", "Yes"]),
        }
        for i in range(120)
    ]

    def expected(rows: Rows) -> Keys:
        keys: Keys = {}
        settled = [row for row in rows if not row["Errors?"]]
        honest = [row for row in settled if row["Is Fraud?"] == "No"]
        for (user, card), own in grouped(honest, "User", "Card").items():
            keys[f"card:{user}-{card}:merchants"] = {str(row["Merchant Name"]) for row in own}, FOREVER
        for (user,), own in grouped(settled, "User").items():
            online = sum(row["Use Chip"] == "Online Transaction" for row in own)
            largest = max(float(row["Amount"][1:]) for row in own)
            found = {"count": online, "share": online / len(own), "largest": largest}
            keys[f"user:{user}:online"] = found, FOREVER
        for (category,), own in grouped(settled, "MCC").items():
            keys[f"mcc:{category}:fraud"] = sum(row["Is Fraud?"] == "Yes" for row in own) / len(own), FOREVER
        return keys

    return Shape({**types, **dict.fromkeys(texts, "String")}, rows, expected)


SHAPES = [riskfabric, sparkov, counters, paysim, tabformer]


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {shape.__name__ for shape in SHAPES}


@pytest.mark.parametrize(
    "shape",
    [pytest.param(shape, id=shape.__name__, marks=() if shape is riskfabric else pytest.mark.slow) for shape in SHAPES],
)
def test_an_example(make_gold: MakeGold, store: OnlineStore, online: redis.Redis, shape: Callable[[], Shape]) -> None:
    """Before: a table of the shape. Runs: two loads of the example. After: every key that has not expired is right,
    parity finds no difference, and the second load has changed no byte.
    """
    made, example = shape(), read(EXAMPLES / f"{shape.__name__}.yaml")
    warehouse = make_gold(made.types, made.rows, mapping=example.mapping)
    started = online.time()[0]
    load(warehouse, store, example.declared)
    found = declared_keys(online)
    ended = online.time()[0] + 1
    right = made.expected(made.rows)
    assert {key for key, (_, end) in right.items() if end > ended} <= found.keys()
    assert found.keys() <= {key for key, (_, end) in right.items() if end >= started}
    for key, value in found.items():
        assert _alike(value, right[key][0]), (key, value, right[key])
    assert [differences(warehouse, online, one) for one in example.declared] == [[] for _ in example.declared]
    before = stored(online)
    load(warehouse, store, example.declared)
    after = stored(online)
    assert after == {key: one for key, one in before.items() if key in after}
    assert {key for key, (_, end) in right.items() if end > online.time()[0] + 1} <= {key.decode() for key in after}


def _alike(one: Any, other: Any) -> bool:
    """The same, but for the last digits of numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_alike(value, other[name]) for name, value in one.items())
    return math.isclose(one, other, rel_tol=1e-9) if isinstance(one, float) else one == other
