"""EVENT: each event counts once, what can be no event is refused, and what is recorded is bounded."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
import redis.asyncio

from feature_seed.contract import (
    EVENT,
    READY,
    Applied,
    Ready,
    State,
    Transaction,
    apply_event,
    read_card,
    read_customer,
    read_ready,
    read_state,
)
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.oracle import Entity, Event, entity
from feature_seed_tests.support.pair import Pair, assert_same, records
from feature_seed_tests.support.store import dump, ends

BEGIN = int(time.time() - 40 * 86_400) * 1000


@pytest.fixture
def client(redis_port: int, online: redis.Redis) -> Iterator[redis.Redis]:
    with redis.Redis(port=redis_port, password=PASSWORD, decode_responses=True) as client:
        yield client


def at(number: int, seconds: float | None = None) -> Event:
    return Event(f"t{number:04}", round(BEGIN + 1000 * (number if seconds is None else seconds)), 1.0, (1.5, 2.5))


@pytest.mark.parametrize("tags", [False, True])
def test_a_pipeline_that_is_sent_again(online: redis.Redis, tags: bool) -> None:
    """Before: a batch was applied and its answer was lost. The batch once more, or its end, changes nothing."""
    batch = [replace(paid(number), merchant_category="café") for number in range(20)]

    def send(events: list[Transaction]) -> list[str]:
        with online.pipeline(transaction=False) as pipeline:
            for one in events:
                assert apply_event(pipeline, "a", "b", one, tags=tags) is None
            return [answer.decode() for answers in pipeline.execute() for answer in answers]

    assert send(batch) == ["applied"] * 40
    before = dump(online)
    assert send(batch) == ["duplicate"] * 40
    assert send(batch[10:]) == ["duplicate"] * 20
    assert dump(online) == before


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("start", [0, 13, 29])
def test_a_stream_that_starts_before_the_watermark(client: redis.Redis, newest_first: bool, start: int) -> None:
    """Before: loaded up to the 30th of 60 events. A stream that starts anywhere before it, twice, leaves the store that
    one leaves which starts at it.
    """
    pair, until = Pair(client, newest_first=newest_first), BEGIN + 29_000.999

    def contents(*starts: int) -> dict[str, object]:
        client.flushall()
        pair.load([at(number) for number in range(30)], until)
        for first in starts:
            for number in range(first, 60):
                pair.event(at(number), until)
        return pair.contents()

    assert contents(start, start) == contents(30)


def paid(number: int) -> Transaction:
    time = datetime.fromtimestamp(BEGIN / 1000 + number, timezone.utc).isoformat(timespec="milliseconds")
    return Transaction(f"t{number}", "food", 2.5, time, 1.0, 2.0)


def test_each_entity_has_an_answer_of_its_own(online: redis.Redis) -> None:
    """Before: a scorer in a cluster died between its two steps. Sent again, the event is applied where it was not."""
    apply_event(online, "a", "b", paid(1))
    online.delete("cust:a:stats", "cust:a:seed")
    assert apply_event(online, "a", "b", paid(1)) == Applied("duplicate", "applied")
    assert apply_event(online, "a", "b", paid(2), watermark=BEGIN / 1000 + 2) == Applied("in gold", "in gold")
    assert apply_event(online, "a", "b", paid(2), watermark=BEGIN / 1000 + 1.999999) == Applied("applied", "applied")


def test_an_event_that_is_not_recorded(online: redis.Redis) -> None:
    """It is applied each time it is sent; up to the watermark gold has it all the same."""
    for _ in range(2):
        assert apply_event(online, "a", "b", paid(1), record=False) == Applied("applied", "applied")
    card, customer = read_card(online, "b"), read_customer(online, "a")
    assert (card.seq, customer.count) == (2, 2)
    assert not online.exists("card:b:seed", "cust:a:seed")
    answer = apply_event(online, "a", "b", paid(1), record=False, watermark=BEGIN / 1000 + 5)
    assert answer == Applied("in gold", "in gold")


def ahead(seconds: float) -> str:
    return repr(time.time() + seconds)


REFUSED = {
    "over an hour ahead": {"time": lambda: ahead(3700)},
    "years ahead": {"time": lambda: "4102444800"},
    "milliseconds": {"time": lambda: str(BEGIN)},
    "before 1900": {"time": lambda: "-2208988801"},
    "no time": {"time": lambda: ""},
    "time is no number": {"time": lambda: "yesterday"},
    "time is NaN": {"time": lambda: "nan"},
    "amount is NaN": {"amount": lambda: "nan"},
    "amount is infinite": {"amount": lambda: "-inf"},
    "amount beyond 1e100": {"amount": lambda: "1.1e100"},
    "no amount": {"amount": lambda: ""},
    "no id": {"id": lambda: ""},
}


@pytest.mark.parametrize("tags", [False, True])
@pytest.mark.parametrize("why", REFUSED)
def test_what_can_be_no_event_changes_nothing(client: redis.Redis, why: str, tags: bool) -> None:
    """Before: an event. Afterwards an error that a scorer can tell by its code, and the same bytes."""
    pair = Pair(client, tags=tags)
    pair.event(at(1))
    before = pair.contents()
    changes = {name: value() for name, value in REFUSED[why].items()}
    with pytest.raises(redis.ResponseError, match=r"^REFUSED "):
        pair.event(at(2), **changes)
    assert pair.contents() == before


def test_an_event_up_to_an_hour_ahead_is_applied(client: redis.Redis) -> None:
    assert Pair(client).event(at(1), time=ahead(3500)) == ["applied", "applied"]


@pytest.mark.parametrize("place", [("nan", "1"), ("91", "1"), ("1", "-180.5"), ("", ""), ("north", "1")])
def test_what_is_no_place_is_unknown(client: redis.Redis, place: tuple[str, str]) -> None:
    pair = Pair(client)
    pair.event(at(1))
    card = client.register_script(EVENT)
    assert card(keys=pair.card_keys, args=[at(2).element, at(2).millis / 1000, "1", 10, 0, "t0002", "", 1, *place]) == [
        "applied"
    ]
    assert pair.hash(pair.key("loc")) == {"lat": "1.5", "lon": "2.5"}
    assert [event.place for event in records(pair.seeds()[0])] == [(1.5, 2.5), None]


def test_records_are_bounded(client: redis.Redis) -> None:
    """Of 500 records the older half goes, and what was dropped counts as a duplicate from then on."""
    pair = Pair(client)
    for number in range(499):
        pair.event(at(number))
    assert len(records(pair.seeds()[0])) == 499
    pair.event(at(499))
    for seed in pair.seeds():
        assert sorted(event.id for event in records(seed)) == [f"t{number:04}" for number in range(250, 500)]
        assert float(seed["forgot"]) == at(249).millis / 1000
    assert pair.event(at(3)) == ["duplicate", "duplicate"]
    assert pair.event(at(7777, 249)) == ["duplicate", "duplicate"]
    assert pair.event(at(7778, 249.001)) == ["applied", "applied"]
    assert_same(pair.state(), entity([*map(at, range(500)), at(7778, 249.001)], 10))
    # A load of a gold that holds what was dropped is exact.
    gold = [at(number) for number in range(300)]
    pair.load(gold, BEGIN + 299_000.999)
    assert_same(pair.state(), entity(map(at, range(500)), 10))
    assert all("forgot" not in seed for seed in pair.seeds())


def test_records_of_a_week_ago_are_dropped(client: redis.Redis) -> None:
    """They go when as many as fifty are there, however few are so old."""
    pair = Pair(client)
    for number in range(10):
        pair.event(at(number))
    week = 7 * 86_400
    for number in range(40):
        pair.event(at(1000 + number, week + 5 + number / 10))
    kept = [event.id for event in records(pair.seeds()[0])]
    assert sorted(kept) == ["t0009", *(f"t{1000 + number}" for number in range(40))]
    assert float(pair.seeds()[0]["forgot"]) == at(8).millis / 1000


def test_a_load_of_less_than_was_dropped(client: redis.Redis) -> None:
    """Gold lacks some of the dropped events: card and customer keep their counts, through one such load after another,
    and the run says so. A load of a gold that has them is exact.
    """
    pair = Pair(client)
    pair.load([at(0)], BEGIN + 0.999)
    for number in range(1, 501):
        pair.event(at(number))
    for gold in (100, 101, 150):
        replies = pair.load([at(number) for number in range(gold)], BEGIN + (gold - 1) * 1000 + 0.999)
        assert replies == [1 | 2, 1 | 2]
        assert_same(pair.state(), entity(map(at, range(501)), 10))
        assert [seed["left"] for seed in pair.seeds()] == [str(251 - gold)] * 2
    pair.load([at(number) for number in range(400)], BEGIN + 399_000.999)
    assert_same(pair.state(), entity(map(at, range(501)), 10))


def test_a_first_load_after_many_events(client: redis.Redis) -> None:
    """Before: more events of a new entity than are recorded. It becomes gold and those that are, until gold has all."""
    pair = Pair(client)
    for number in range(1, 501):
        pair.event(at(number))
    assert pair.load([at(0), at(1)], BEGIN + 1000.999) == [1 | 2, 1 | 2]
    assert_same(pair.state(), entity(map(at, [0, 1, *range(251, 501)]), 10))
    pair.load([at(number) for number in range(490)], BEGIN + 489_000.999)
    assert_same(pair.state(), entity(map(at, range(501)), 10))


def test_the_seed_stays_small(client: redis.Redis) -> None:
    """At most 190 bytes with ids of 36 characters and no live event, also after days with many of them."""
    card = "".join(f"{number:09}" for number in range(4))
    pair = Pair(client)
    for number in range(300):
        pair.event(at(number))
    pair.load([at(number) for number in range(300)], BEGIN + 299_000.999)
    for key, name in ((pair.key("seed"), f"card:{card}:seed"), (pair.key("k-seed"), f"cust:{card}:seed")):
        client.rename(key, name)
        assert (client.memory_usage(name) or 0) <= 190


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_list_that_nobody_trims(client: redis.Redis, newest_first: bool) -> None:
    """Before: 50,000 elements, fifteen of them after the watermark. A load counts these, and reads hardly more."""
    pair = Pair(client, newest_first=newest_first)
    gold = [at(number) for number in range(20)]
    pair.load(gold, BEGIN + 19_000.999)
    push = client.lpush if newest_first else client.rpush
    for first in range(0, 50_000, 10_000):
        push(pair.key("history"), *[at(number, 18).element for number in range(first, first + 10_000)])
    live = [at(number, number) for number in range(30, 45)]
    push(pair.key("history"), *[event.element for event in live])
    client.config_resetstat()
    pair.load([*gold, at(21, 20)], BEGIN + 20_000.999)
    read: Any = client.info("commandstats")
    assert_same(replace(pair.state(), count=0, mean=0.0, m2=0.0), card_of([*gold, at(21, 20), *live]))
    assert client.llen(pair.key("history")) == 10
    assert read["cmdstat_lrange"]["calls"] <= 3


def card_of(events: list[Event]) -> Entity:
    return replace(entity(events, 10), count=0, mean=0.0, m2=0.0)


@pytest.mark.parametrize("tags", [False, True])
def test_all_keys_end_together(client: redis.Redis, online: redis.Redis, tags: bool) -> None:
    """Before: loaded, with an end 50 days after the newest row. A later event renews it, of all keys; one that comes
    late does not, also where it makes a key; a load again leaves it. A load of another end sets that, one of none takes
    it away. What events made before any load has none either.
    """
    pair, day = Pair(client, tags=tags, expire=50 * 86_400), 86_400_000
    gold = [replace(at(number), place=None) for number in range(3)]

    def assert_end(of: Event, days: int, keys: int = 7) -> None:
        found = ends(online)
        assert len(found) == keys
        assert all(one is not None and abs(one - of.millis - days * day) <= 3 for one in found.values()), found

    pair.event(at(2))
    assert set(ends(online).values()) == {None}
    assert pair.changed(gold, BEGIN + 2000.999) == ["seed", "k-seed"]
    pair.load(gold, BEGIN + 2000.999)
    assert_end(at(2), 50, keys=6)
    pair.event(replace(at(9), place=None))
    assert_end(at(9), 50, keys=6)
    pair.event(at(5))
    assert_end(at(9), 50)
    pair.load(gold, BEGIN + 2000.999)
    assert_end(at(9), 50)
    pair.load([*gold, at(5), at(9)], BEGIN + 9000.999)
    assert_end(at(9), 50)
    assert pair.changed([*gold, at(5), at(9)], BEGIN + 9000.999) == []
    for days, expire in ((60, 60 * 86_400), (None, 0)):
        pair = replace(pair, expire=expire)
        assert pair.changed([*gold, at(5), at(9)], BEGIN + 9000.999) == ["seed", "k-seed"]
        pair.load([*gold, at(5), at(9)], BEGIN + 9000.999)
        if days:
            assert_end(at(9), days)
    assert set(ends(online).values()) == {None}
    # An end that has passed by the clock of Redis: nothing is left, and nothing has to be sent.
    pair = replace(pair, expire=3600)
    pair.load([*gold, at(5), at(9)], BEGIN + 9000.999)
    assert (ends(online), pair.changed([*gold, at(5), at(9)], BEGIN + 9000.999)) == ({}, [])


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


SPELLINGS: dict[str, Callable[[datetime], str]] = {
    "contract": iso,
    "Z": lambda moment: iso(moment).replace("+00:00", "Z"),
    "without offset": lambda moment: iso(moment.replace(tzinfo=None)),
    "space": lambda moment: iso(moment).replace("T", " "),
    "east": lambda moment: iso(moment.astimezone(timezone(timedelta(hours=5, minutes=30)))),
    "west": lambda moment: iso(moment.astimezone(timezone(-timedelta(hours=8)))),
    "basic offset": lambda moment: iso(moment.astimezone(timezone(timedelta(hours=2)))).replace("+02:00", "+0200"),
    "short offset": lambda moment: iso(moment.astimezone(timezone(-timedelta(hours=3)))).replace("-03:00", "-03"),
    "microseconds": lambda moment: moment.isoformat(timespec="microseconds"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("day", ["1969-12-31", "2000-02-29", "2024-03-01", "2026-01-01"])
def test_times_as_scorers_spell_them(client: redis.Redis, spelling: str, day: str) -> None:
    """An element that nobody recorded stays when it is a millisecond after the watermark, and goes when it is not."""
    noon = datetime.fromisoformat(f"{day}T23:59:59.000+00:00")
    watermark = noon.timestamp() * 1000 + 0.999
    gold = Event("t1", round(noon.timestamp() * 1000), 1.0)
    pair = Pair(client)
    for number, moment, stays in (("t0", noon, False), ("t8", noon + timedelta(milliseconds=1), True)):
        client.flushall()
        pair.load([gold], watermark)
        client.rpush(
            pair.key("history"), json.dumps({"transaction_id": number, "timestamp": SPELLINGS[spelling](moment)})
        )
        pair.load([gold], watermark)
        assert pair.state().history == (("t1", number) if stays else ("t1",))


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("number", ["7", "-7", "9007199254740993", "184467440737095516159"])
def test_ids_that_a_scorer_writes_as_numbers(client: redis.Redis, number: str, array: bool) -> None:
    """Whatever its size, an element of such an id is a live event, until gold has the id."""
    pair = Pair(client)
    pair.load([at(0)], BEGIN + 0.999)
    element = replace(at(3), id=number, array=array).element.replace(f'"{number}"', number)
    client.rpush(pair.key("history"), element)
    for gold in ([at(0)], [at(0), replace(at(3), id=number, millis=BEGIN + 1000)]):
        pair.load(gold, BEGIN + (len(gold) - 1) * 1000 + 0.999)
        assert len(pair.listed()) == 2 and pair.state().seq == 2


def test_a_scorer_that_changes_from_plain_to_recording(client: redis.Redis) -> None:
    """Before: loaded, and a plain scorer's events. It is restarted with EVENT: the next load but one is exact."""
    pair = Pair(client)
    pair.load([at(0)], BEGIN + 0.999)
    for number in range(1, 6):
        pair.pay(at(number))
    for number in range(6, 9):
        pair.event(at(number))
    pair.load([at(number) for number in range(4)], BEGIN + 3000.999)
    assert_same(pair.state(), entity(map(at, range(9)), 10))
    pair.event(at(9))
    pair.load([at(number) for number in range(9)], BEGIN + 8000.999)
    assert_same(pair.state(), entity(map(at, range(10)), 10))
    assert all("left" not in seed for seed in pair.seeds())


def test_all_that_a_scorer_needs_in_one_round_trip(online: redis.Redis) -> None:
    assert read_state(online, "b", "a") == State(None, None, None)
    apply_event(online, "a", "b", paid(1))
    online.hset(READY.pattern, mapping=Ready("ready", watermark="2026-01-01T00:00:34.999999+00:00").encode())
    before: Any = online.info("stats")
    state = read_state(online, "b", "a")
    after: Any = online.info("stats")
    assert state == State(read_card(online, "b"), read_customer(online, "a"), read_ready(online))
    assert state.ready.unix == 1767225634.999999
    assert after["total_commands_processed"] - before["total_commands_processed"] <= 10


@pytest.mark.parametrize("decode_responses", [False, True])
@pytest.mark.parametrize("tags", [False, True])
def test_an_asynchronous_client(redis_port: int, online: redis.Redis, decode_responses: bool, tags: bool) -> None:
    """Every function of the contract gives the same, awaited."""

    async def score() -> None:
        client = redis.asyncio.Redis(port=redis_port, password=PASSWORD, decode_responses=decode_responses)
        assert await read_state(client, "b", "a", tags=tags) == State(None, None, None)
        assert await apply_event(client, "a", "b", paid(1), tags=tags) == Applied("applied", "applied")
        assert await apply_event(client, "a", "b", paid(1), tags=tags) == Applied("duplicate", "duplicate")
        pipeline = client.pipeline(transaction=False)
        for number in (1, 2):
            await apply_event(pipeline, "a", "b", paid(number), tags=tags)
        assert len(await pipeline.execute()) == (4 if tags else 2)
        with pytest.raises(redis.ResponseError, match="REFUSED"):
            await apply_event(client, "a", "b", replace(paid(3), amount=math.nan), tags=tags)
        state = await read_state(client, "b", "a", tags=tags)
        assert state.card == await read_card(client, "b", tags=tags) == read_card(online, "b", tags=tags)
        assert state.customer == await read_customer(client, "a", tags=tags) == read_customer(online, "a", tags=tags)
        assert state.card.seq == state.customer.count == 2
        assert await read_ready(client) is None
        await client.aclose()

    asyncio.run(score())
