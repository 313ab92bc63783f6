"""The contract as a scorer uses it."""

import random
import subprocess
import sys
from datetime import datetime, timezone

import pytest
import redis

from feature_seed.contract import (
    CARD_HISTORY,
    CUSTOMER_STATS,
    Card,
    Element,
    Transaction,
    Welford,
    apply_event,
    read_card,
    read_customer,
)
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.patience import patient
from feature_seed_tests.support.store import dump


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


@pytest.mark.parametrize(("element", "more"), [("object", ',"scored":true}'), ("array", ",true]")])
@pytest.mark.parametrize("time", ["1900-01-01T00:00:00.999", "2026-01-01T00:00:00.001", "2299-12-31T23:59:59.999"])
def test_a_transaction_survives_the_wire(element: Element, more: str, time: str) -> None:
    transaction = Transaction("t1", 'café "Zoë"\\', 0.1, f"{time}+00:00", None, -180.0)
    written = transaction.encode(element)
    for one in (written, written.encode(), written[:-1] + more):
        assert Transaction.decode(one) == transaction


def test_an_array_is_in_the_order_of_the_contract() -> None:
    transaction = Transaction("t1", None, 12.5, "2026-01-01T01:00:00.123+01:00", 48.1, None)
    assert transaction.encode("array") == '["t1",null,12.5,1767225600.123,48.1,null]'
    assert transaction.time.timestamp() == 1767225600.123


def test_welford_fields_parse_back_to_the_same_doubles() -> None:
    state = Welford(3, 0.1 + 0.2, 1e-17)
    assert Welford.decode(state.encode()) == state
    assert Welford(4, 0.0, 10.0).variance == 2.5
    assert Welford().variance == 0.0


@pytest.mark.parametrize("decode_responses", [False, True])
def test_unknown_entities_and_both_kinds_of_clients(
    online: redis.Redis, redis_port: int, decode_responses: bool
) -> None:
    client = patient(port=redis_port, password=PASSWORD, decode_responses=decode_responses)
    assert read_card(client, "nobody") is None
    assert read_customer(client, "nobody") is None
    online.hset(CUSTOMER_STATS.of("somebody"), mapping={"count": 1, "mean": 2.5, "M2": 0})
    assert read_customer(client, "somebody") == Welford(1, 2.5, 0.0)


def event(number: int, seconds: float, amount: float = 1.0, place: float | None = 1.0) -> Transaction:
    time = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return Transaction(f"t{number}", "food", amount, time, place, None if place is None else -place)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("tags", [False, True])
def test_events_move_card_and_customer_on(online: redis.Redis, newest_first: bool, tags: bool) -> None:
    """Fifty events, from nothing, every other an array: list, place, time, count and statistics are plain Python's."""
    draw = random.Random(5)
    events = [event(i, 1e9 + i / 8, draw.lognormvariate(3, 2), None if i % 3 else i / 7) for i in range(50)]
    state = Welford()
    for i, one in enumerate(events):
        form: Element = "array" if i % 2 else "object"
        apply_event(online, "a", "b", one, history_length=4, newest_first=newest_first, element=form, tags=tags)
        state = state.update(one.amount)
    latest = events[:-5:-1] if newest_first else events[-4:]
    assert read_card(online, "b", tags=tags) == Card(tuple(latest), (48 / 7, -48 / 7), 1e9 + 49 / 8, 50)
    assert read_customer(online, "a", tags=tags) == state
    assert online.dbsize() == 7


def test_a_late_event_takes_nothing_back(online: redis.Redis) -> None:
    for one in (event(1, 100, place=None), event(2, 90, place=5.0), event(3, 80, place=6.0)):
        apply_event(online, "a", "b", one)
    card = read_card(online, "b")
    assert card and (card.location, card.last_ts, card.seq) == ((5.0, -5.0), 100.0, 3)
    assert [one.transaction_id for one in card.history] == ["t3", "t2", "t1"]


def test_an_event_is_applied_whole_or_not_at_all(online: redis.Redis) -> None:
    """Another program holds a key: no other key has a trace of the event."""
    online.set("card:b:history", "something else's")
    with pytest.raises(redis.ResponseError):
        apply_event(online, "a", "b", event(1, 100))
    assert online.keys() == [b"card:b:history"]


@pytest.mark.parametrize("key", ["card:b:history", "card:b:loc", "card:b:last_ts", "card:b:seq", "cust:a:stats"])
@pytest.mark.parametrize("held", ["another type", "no number"])
def test_no_key_keeps_an_event_half(online: redis.Redis, key: str, held: str) -> None:
    """Before: a card with an event, and another program's value in one of the keys. After another event: as before."""
    apply_event(online, "a", "b", event(1, 100))
    if held == "another type":
        online.delete(key)
        online.execute_command("SET" if key == "card:b:history" else "RPUSH", key, "something else's")
    elif key == "card:b:seq":
        online.set(key, "something else's")
    elif key == "cust:a:stats":
        online.hset(key, "M2", "something else's")
    else:
        return  # a list, a place and a time hold any text
    before = dump(online)
    with pytest.raises(redis.ResponseError):
        apply_event(online, "a", "b", event(2, 101))
    assert dump(online) == before


class Double(float):
    """As numpy's, which say their type in their repr."""

    def __repr__(self) -> str:
        return f"Double({float(self)!r})"


def test_doubles_of_any_kind(online: redis.Redis) -> None:
    apply_event(online, "a", "b", Transaction("t", None, Double(2.5), "2026-01-01T00:00:00Z", Double(1.5), Double(-1)))
    card, customer = read_card(online, "b"), read_customer(online, "a")
    assert card and card.location == (1.5, -1.0) and card.history[0].amount == 2.5
    assert customer == Welford(1, 2.5, 0.0)


def test_events_in_a_pipeline_after_the_server_forgot_the_script(online: redis.Redis) -> None:
    apply_event(online, "a", "b", event(0, 100))
    online.script_flush()
    with online.pipeline(transaction=False) as pipeline:
        for number in range(1, 5):
            apply_event(pipeline, "a", "b", event(number, 100 + number))
        pipeline.execute()
    online.script_flush()
    apply_event(online, "a", "b", event(5, 105))
    card, customer = read_card(online, "b"), read_customer(online, "a")
    assert card and customer and card.seq == customer.count == len(card.history) == 6
