"""Declared features: every kind, with window, condition and end, on both paths, compared with plain Python."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import redis

from feature_seed.contract import read_ready
from feature_seed.errors import WarehouseError
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.support.declared import declare, declared_keys, differences, load, stored
from feature_seed_tests.support.run import checks, metadata, seed
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

FEATURES = declare(
    {
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
    }
)


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


def test_every_kind(make_snapshot_of: MakeGold, store: OnlineStore, online: redis.Redis) -> None:
    """Before: gold with columns of its own. Runs: seed_all, then a load. After: every key is right, each check passes,
    the load has changed no byte, and only the standard features feed the counts of ready.
    """
    gold = rows()
    warehouse = make_snapshot_of(TYPES, gold, FEATURES)
    result = seed(warehouse, store, job="seed_all", declared=FEATURES)
    assert all(one.passed for one in checks(result).values()), checks(result)
    assert {f"{one.name}.{check}" for one in FEATURES for check in ("parity", "entity_count")} < checks(result).keys()
    assert declared_keys(online) == approximately(expected(gold))
    cards, pairs = by(gold, "card_id"), by(gold, "customer_id", "merchant_id")
    assert metadata(result, "card_agg")["dagster/row_count"] == len(cards)
    assert metadata(result, "pair")["dagster/row_count"] == len(pairs)
    ready = read_ready(online)
    assert (ready.cards, ready.customers) == (12, 5)
    before = stored(online)
    for (card,), of_card in by(since(gold, DAY / 4), "card_id").items():
        assert before[f"card:{card}:burst".encode()][1] == round((unix(of_card[-1]) + DAY) * 1000)
    load(warehouse, store, FEATURES)
    assert stored(online) == before


BURST, MERCHANTS, AMOUNTS, HONEST, TOP = "card:1:burst", "card:1:merchants", "a:1", "v:1", "m:1:top"


def test_parity_sees_a_difference_of_every_kind(
    make_table_of: MakeGold, store: OnlineStore, online: redis.Redis
) -> None:
    """Before: a store as gold is. A value of each kind is changed, taken away, or given another end: each is told."""
    warehouse = make_table_of(TYPES, rows(), FEATURES)
    load(warehouse, store, FEATURES)
    assert declared_keys(online) == approximately(expected(rows()))
    named = {one.name: one for one in FEATURES}
    assert [differences(warehouse, online, one) for one in FEATURES] == [[] for _ in FEATURES]
    wrong: dict[str, tuple[str, Callable[[], Any]]] = {
        "card_agg": ("card:1:agg", lambda: online.hset("card:1:agg", "count", 7)),
        "card_burst": (BURST, lambda: online.zpopmin(BURST)),
        "card_merchants": (MERCHANTS, lambda: online.spop(MERCHANTS)),
        "card_amounts": (AMOUNTS, lambda: online.lpush(AMOUNTS, 5)),
        "card_honest": (HONEST, lambda: online.persist(HONEST)),
        "merchant_top": (TOP, lambda: online.zadd(TOP, {"another": 1})),
        "pair": ("u:c1:m:1", lambda: online.delete("u:c1:m:1")),
    }
    for name, (key, change) in wrong.items():
        change()
        (difference,) = differences(warehouse, online, named[name])
        assert difference.startswith(f"{key} "), difference


def test_beside_a_live_scorer(make_table_of: MakeGold, store: OnlineStore, online: redis.Redis) -> None:
    """Before: a store that was seeded, and what a scorer has written since. Runs: a load. After: what is united has it
    all within the window, with the later end; the rest is gold; and what is kept is as it was.
    """
    gold = rows()
    warehouse = make_table_of(TYPES, gold, FEATURES)
    load(warehouse, store, FEATURES)
    newest = max(map(unix, gold))
    online.zadd(BURST, {"live": newest + 60, "old": newest - DAY, (known := "t0000"): newest + 5})
    online.sadd(MERCHANTS, "99")
    online.pexpire(MERCHANTS, 5 * DAY * 1000)
    online.hset("card:1:agg", mapping={"count": 1000, "theirs": "x"})
    online.incrbyfloat(HONEST, 5)
    online.lpush(AMOUNTS, 1)
    online.zadd(TOP, {"another": 1})
    load(warehouse, store, FEATURES)
    found, right = declared_keys(online), expected(gold)
    assert found.pop("card:1:agg").pop("theirs") == "x"
    live = {"live": newest + 60, known: newest + 5}
    assert found.pop(BURST) == pytest.approx({**right.get(BURST, {}), **live})
    assert found.pop(MERCHANTS) == {*right[MERCHANTS], "99"}
    assert online.pttl(MERCHANTS) > 4 * DAY * 1000
    for key in (BURST, MERCHANTS, "card:1:agg"):
        right.pop(key, None)
    assert found == approximately(right)

    kept = [one.model_copy(update={"on_conflict": "keep"}) for one in FEATURES]
    online.set(HONEST, 5)
    online.delete(AMOUNTS)
    load(warehouse, store, kept)
    found = declared_keys(online)
    assert (found[HONEST], found[MERCHANTS]) == (5, {*expected(gold)[MERCHANTS], "99"})
    assert found[AMOUNTS] == pytest.approx(expected(gold)[AMOUNTS])
    assert [differences(warehouse, online, one) for one in kept] == [[] for _ in kept]


def test_what_has_expired_is_not_written(make_table_of: MakeGold, store: OnlineStore, online: redis.Redis) -> None:
    """Before: gold that ended two hours ago. After: keys that end within that time are not there, and not missed."""
    gold = [{**row, "timestamp": row["timestamp"] - timedelta(hours=2)} for row in rows()]
    declared = declare(
        {
            "hour": {"key": "h:{card_id}", "string": "count()", "window": "1h"},
            "short": {"key": "s:{card_id}", "hash": {"count": "count()"}, "expire": "1m"},
            "day": {"key": "d:{card_id}", "list": {"member": "amount"}, "expire": "1d"},
        }
    )
    warehouse = make_table_of(TYPES, gold, declared)
    load(warehouse, store, declared)
    newest = max(map(unix, gold))
    alive = [card for (card,), of_card in by(gold, "card_id").items() if unix(of_card[-1]) > newest - DAY]
    assert declared_keys(online).keys() == {f"d:{card}" for card in alive}
    assert [differences(warehouse, online, one) for one in declared] == [[], [], []]


def test_many_members_come_in_parts(make_table_of: MakeGold, store: OnlineStore, online: redis.Redis) -> None:
    """Before: a card with 12,000 transactions. A set and a zset of them come in commands of 5,000 arguments at most;
    what replaces a key, or is kept, in one.
    """
    gold = [{**row, "card_id": 1, "transaction_id": f"t{i}"} for i, row in enumerate(rows(100) * 120)]
    scores = {"seconds": "toUnixTimestamp(timestamp)", "amount": "amount"}
    declared = declare(
        {
            "members": {"key": "s:{card_id}", "set": "transaction_id"},
            "kept": {"key": "k:{card_id}", "set": "transaction_id", "on_conflict": "keep"},
            **{
                name: {"key": name + ":{card_id}", "zset": {"member": "transaction_id", "score": score}}
                for name, score in scores.items()
            },
        }
    )
    warehouse = make_table_of(TYPES, gold, declared)
    assert load(warehouse, store, declared) == 3 + 1 + 5 + 1
    ids = {row["transaction_id"] for row in gold}
    found = declared_keys(online)
    assert found["s:1"] == found["k:1"] == found["seconds:1"].keys() == found["amount:1"].keys() == ids


def test_keys_with_tags(make_table_of: MakeGold, store: OnlineStore, online: redis.Redis) -> None:
    """Braces around each id, as the standard features write them."""
    declared = [one for one in FEATURES if one.name in ("pair", "card_agg")]
    warehouse = make_table_of(TYPES, rows(), declared)
    load(warehouse, store, declared, key_tags=True)
    assert {"u:{c1}:m:{1}", "card:{1}:agg"} < declared_keys(online).keys()
    assert [differences(warehouse, online, one, key_tags=True) for one in declared] == [[], []]


def test_a_select_of_ones_own(make_gold: MakeGold, store: OnlineStore, online: redis.Redis, tmp_path: Path) -> None:
    """Before: a file with a SELECT over the usable rows, for what expressions over a row's columns cannot say."""
    file = tmp_path / "device.sql"
    file.write_text(
        """
        SELECT merchant_id, max(timestamp) AS timestamp, toJSONString(map('cards', uniqExact(card_id))) AS text
        FROM transactions
        GROUP BY merchant_id
        """
    )
    entry = {"key": "m:{merchant_id}:json", "string": "any(text)", "select": str(file), "expire": "7d"}
    declared = declare({"merchant_json": entry, "beside": {"key": "n:{merchant_id}", "string": "count()"}})
    gold = rows()
    warehouse = make_gold(TYPES, gold, declared)
    load(warehouse, store, declared)
    found = declared_keys(online)
    merchants = by(gold, "merchant_id")
    assert {key: text for key, text in found.items() if key.startswith("m:")} == {
        f"m:{merchant}:json": f'{{"cards":{len({row["card_id"] for row in own})}}}'
        for (merchant,), own in merchants.items()
    }
    assert found["n:1"] == len(merchants[1,])
    assert [differences(warehouse, online, one) for one in declared] == [[], []]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"key": "k:{card_id}", "hash": {"n": "summ(amount)"}}, "summ"),
        ({"key": "k:{card_id}", "string": "amount"}, "amount"),
        ({"key": "k:{device_id}", "string": "count()"}, "device_id"),
        ({"key": "k:{card_id}", "set": "sum(amount)"}, "aggregate"),
        ({"key": "k:{card_id}", "string": "count()", "where": "status = 'settled'"}, "status"),
    ],
)
def test_a_wrong_expression_is_refused_by_name(
    make_table_of: MakeGold, store: OnlineStore, online: redis.Redis, entry: dict[str, Any], says: str
) -> None:
    """Before: a feature that ClickHouse does not take, beside a right one. Its name is told, and nothing is written."""
    declared = declare({"right": {"key": "r:{card_id}", "string": "count()", "window": "1h"}, "wrong_one": entry})
    with pytest.raises(WarehouseError, match=rf"(?s)^Feature wrong_one: .*{says}"):
        load(make_table_of(TYPES, rows(10), declared), store, declared)
    assert "k:0" not in declared_keys(online)


def approximately(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: one if isinstance(one, set) else pytest.approx(one, rel=1e-9) for key, one in keys.items()}
