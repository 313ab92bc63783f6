"""The order of the lists in a store: a load that would have them the other way round is refused before it writes."""

from datetime import datetime, timedelta, timezone

import pytest
import redis

from feature_seed.contract import Ready, Transaction, read_card
from feature_seed.errors import StoreError
from feature_seed.loading.layout import Layout
from feature_seed.loading.order import require_order
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.run import seed

WATERMARK = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)

READY = Ready("ready", watermark=WATERMARK.isoformat())


def element(minutes: float) -> str:
    """A transaction so many minutes after the watermark; at odd ones an array."""
    time = WATERMARK + timedelta(minutes=minutes)
    paid = Transaction(f"t{minutes}", None, 1.0, time.isoformat(timespec="milliseconds"), None, None)
    return paid.encode("array" if minutes % 2 else "object")


# Of a scorer that takes them for seconds.
MILLISECONDS = '["t",null,1.0,1767225600123,null,null]'

# Minutes of each list's transactions, the order of the load, and whether the load is refused.
CASES = {
    "a store that is empty": ([], "oldest_first", False),
    "lists of one": ([[-3], [5]], "newest_first", False),
    "oldest first": ([[-3, -2, -1]] * 3, "oldest_first", False),
    "oldest first, and newest first is set": ([[-3, -2, -1]] * 3, "newest_first", True),
    "newest first, and oldest first is set": ([[-1, -2, -3]] * 3, "oldest_first", True),
    "a scorer that LPUSHes to few of them": ([[-3, -2, -1]] * 9 + [[5, -3, -2, -1]], "oldest_first", True),
    "a scorer that RPUSHes": ([[-3, -2, -1]] * 9 + [[-3, -2, -1, 5]], "oldest_first", False),
    "a scorer that RPUSHes to few that are newest first": (
        [[-1, -2, -3]] * 9 + [[-1, -2, -3, 5]],
        "newest_first",
        True,
    ),
    "one late event": ([[-3, -2, -1, 5]] * 3 + [[5, 4]], "oldest_first", False),
    "elements that nobody can read": ([["x", -1], [MILLISECONDS, -1]] * 3, "newest_first", False),
}


@pytest.mark.parametrize(("lists", "order", "is_refused"), CASES.values(), ids=CASES)
def test_the_order_of_some_lists(
    online: redis.Redis, lists: list[list[float | str]], order: str, is_refused: bool
) -> None:
    for i, minutes in enumerate(lists):
        online.rpush(f"card:{i}:history", *(one if isinstance(one, str) else element(one) for one in minutes))
    layout = Layout(newest_first=order == "newest_first")
    if not is_refused:
        require_order(online, "here", layout, READY)
        return
    theirs = "oldest_first" if layout.newest_first else "newest_first"
    with pytest.raises(StoreError, match=f"Set FEATURE_SEED_HISTORY_ORDER={theirs}"):
        require_order(online, "here", layout, READY)


def test_a_load_in_the_other_order(make_parquet: MakeWarehouse, online: redis.Redis, store: OnlineStore) -> None:
    """Before: lists oldest first. `keep_newer` in the other order changes nothing, and `overwrite` turns them round."""
    warehouse = make_parquet([transaction(i, f"c{i % 3}", seconds=i) for i in range(12)])
    seed(warehouse, store)
    keys = {key: online.dump(key) for key in online.scan_iter("*")}
    with pytest.raises(StoreError, match="3 of 3 that were looked at are oldest_first"):
        seed(warehouse, store, newest_first=True)
    assert {key: online.dump(key) for key in online.scan_iter("*") if key != b"feature_seed:lock"} == keys
    seed(warehouse, store, newest_first=True, on_conflict="overwrite")
    assert read_card(online, "c0").history[0].transaction_id == "t009"
    seed(warehouse, store, newest_first=True)
