"""The contract as a scorer uses it."""

import subprocess
import sys

import pytest
import redis

from feature_seed.contract import CARD_HISTORY, CUSTOMER_STATS, Transaction, Welford, read_card, read_customer
from feature_seed_tests.conftest import PASSWORD


def test_a_scorer_imports_it_alone() -> None:
    """Neither Dagster nor ClickHouse nor even redis-py comes with the contract."""
    heavy = {"dagster", "clickhouse_connect", "redis"}
    code = f"import sys, feature_seed.contract; print(sorted({heavy} & sys.modules.keys()))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize(
    ("entity_id", "tags", "key"),
    [
        ("42", False, "card:42:history"),
        ("42", True, "card:{42}:history"),
        ("{}", False, "card:{}:history"),
        ("a b", True, "card:{a b}:history"),
    ],
)
def test_keys(entity_id: str, tags: bool, key: str) -> None:
    assert CARD_HISTORY.of(entity_id, tags=tags) == key


def test_a_transaction_survives_the_wire() -> None:
    transaction = Transaction("t1", 'café "Zoë"\\', 0.1, "2026-01-01T00:00:00.001+00:00", None, -180.0)
    assert Transaction.decode(transaction.encode()) == transaction
    assert Transaction.decode(transaction.encode().encode()) == transaction
    assert Transaction.decode(transaction.encode()[:-1] + ',"scored":true}') == transaction
    assert transaction.time.timestamp() == 1767225600.001


def test_welford_fields_parse_back_to_the_same_doubles() -> None:
    state = Welford(3, 0.1 + 0.2, 1e-17)
    assert Welford.decode(state.encode()) == state
    assert Welford(4, 0.0, 10.0).variance == 2.5
    assert Welford().variance == 0.0


@pytest.mark.parametrize("decode_responses", [False, True])
def test_unknown_entities_and_both_kinds_of_clients(
    online: redis.Redis, redis_port: int, decode_responses: bool
) -> None:
    client = redis.Redis(port=redis_port, password=PASSWORD, decode_responses=decode_responses)
    assert read_card(client, "nobody") is None
    assert read_customer(client, "nobody") is None
    online.hset(CUSTOMER_STATS.of("somebody"), mapping={"count": 1, "mean": 2.5, "M2": 0})
    assert read_customer(client, "somebody") == Welford(1, 2.5, 0.0)
