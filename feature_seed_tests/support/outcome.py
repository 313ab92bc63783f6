"""What the whole job makes of a gold: the store holds it, or the run is refused and leaves the store as it was."""

import json
import math
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pytest
import redis

from feature_seed.contract import read_ready
from feature_seed.errors import GoldError
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.limits import GoldLimits
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import Row
from feature_seed_tests.support.run import checks, seed
from feature_seed_tests.support.store import assert_holds, dump, features

ALL_MAY_BE_REJECTED = GoldLimits(max_rejected=1)


def holds(
    warehouse: Warehouse,
    store: OnlineStore,
    online: redis.Redis,
    rows: Sequence[Row],
    warnings: Sequence[str] = (),
    **layout: Any,
) -> dict[str, dg.AssetCheckEvaluation]:
    """Run everything: the store holds what plain Python makes of the rows, and no check but these warnings fails."""
    result = seed(warehouse, store, job="seed_all", limits=ALL_MAY_BE_REJECTED, raise_on_error=False, **layout)
    evaluated = checks(result)
    failed = {name: one.description for name, one in evaluated.items() if not one.passed}
    assert set(failed) == {f"gold_transactions.{name}" for name in warnings}, failed
    ready = read_ready(online)
    assert ready and ready.state == "ready"
    expected = expect(rows, **{name: layout[name] for name in ("history_length", "newest_first") if name in layout})
    assert evaluated["gold_transactions.rejected_rows"].metadata["rejected"].value == expected.rejected
    assert_holds(online, expected, tags=layout.get("key_tags", False))
    assert_readable(online)
    return evaluated


def assert_readable(online: redis.Redis) -> None:
    """Any reader can read all: histories are JSON in UTF-8 without NaN, numbers are finite, places on the globe."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for key, (type_, value) in features(online).items():  # type: ignore[misc]
        if type_ == b"list":
            for element in value:
                json.loads(element.decode(), parse_constant=refuse)
        else:
            numbers = value.values() if type_ == b"hash" else [value]
            assert all(math.isfinite(float(number)) for number in numbers), key
        if key.endswith(b":loc"):
            assert abs(float(value[b"lat"])) <= 90, key
            assert abs(float(value[b"lon"])) <= 180, key


def refused(warehouse: Warehouse, store: OnlineStore, online: redis.Redis) -> str:
    """Run everything. Returns what the schema check says. The store must be left as it was."""
    online.set("card:c1:seq", 4)
    before = dump(online)
    result = seed(warehouse, store, job="seed_all", limits=ALL_MAY_BE_REJECTED, raise_on_error=False)
    assert not result.success
    assert dump(online) == before
    with pytest.raises(GoldError) as raised:
        warehouse.profile()
    schema = checks(result)["gold_transactions.schema"]
    assert not schema.passed
    assert str(schema.description) == str(raised.value)
    return str(raised.value)
