"""How a load and live events meet: what is in the store is always gold and, after it, the live events that gold lacks.

Every case is a card with a customer of its own, and all of them share two loads: of a first gold into a store that was
never ready, and of a second gold. Live events come before, between and after the steps of both.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

import pytest
import redis

from feature_seed.contract import (
    CARD_HISTORY,
    CARD_SEEDED,
    CARD_SEQ,
    CUSTOMER_STATS,
    READY,
    Ready,
    apply_event,
    read_card,
    read_customer,
    read_ready,
)
from feature_seed.features.entity import CARDS, CUSTOMERS, ENTITIES, Entity
from feature_seed.loading.stream import FeatureStream, Layout, shard_names
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.expected import Expected, listed, replay
from feature_seed_tests.support.gold import START, Row, transaction
from feature_seed_tests.support.store import features

# Seconds after the start. Golds are complete up to their watermarks, except where a case says otherwise.
FIRST_WATERMARK, SECOND_WATERMARK = 100, 200


def at(number: int, seconds: float | None = None, **changes: object) -> Row:
    """A transaction with a place and an amount of its own, `number` seconds after the start unless told."""
    row = transaction(number, seconds=number if seconds is None else seconds, amount=number * 1.37 + 0.1)
    return replace(row, **{"location_lat": number / 8, **changes})  # type: ignore[arg-type]


def every(start: int, stop: int, step: int = 1) -> list[Row]:
    return [at(number) for number in range(start, stop, step)]


def tied(seconds: float, *numbers: int) -> list[Row]:
    return [at(number, seconds, location_lat=5.5) for number in numbers]


def nowhere(*rows: Row) -> list[Row]:
    return [replace(row, location_lat=None, location_long=None) for row in rows]


def own(card: str, rows: Iterable[Row]) -> list[Row]:
    """The rows as transactions of this card and its customer."""
    names = {"card_id": card, "customer_id": f"of {card}"}
    return [replace(row, **names, transaction_id=f"{card} {row.transaction_id}") for row in rows]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """What happens to one card.

    Attributes:
        first, second: its rows in the two golds; `second` is the first when not given.
        before, between, after: live events before the first load, between its steps, and between the loads.
        amid, later: live events between the steps of the second load, and after it.
        counts: the customer's count after the first load, the second and the rerun, where it cannot be the union's.
    """

    name: str
    first: Sequence[Row] = ()
    second: Sequence[Row] | None = None
    before: Sequence[Row] = ()
    between: Sequence[Row] = ()
    after: Sequence[Row] = ()
    amid: Sequence[Row] = ()
    later: Sequence[Row] = ()
    counts: tuple[int | None, int | None, int | None] = (None, None, None)

    def own(self, rows: Iterable[Row]) -> list[Row]:
        return own(self.name, rows)


HOT = every(1, 31)  # thirty in gold
COLD = every(1, 40, 20)  # two

CASES = [
    Case("untouched", HOT),
    Case("untouched, gold grows", HOT, second=[*HOT, *every(101, 105)]),
    Case("untouched, corrected to fewer", HOT, second=HOT[:-3]),
    Case("untouched, corrected to fewer than the list is long", HOT[:8], second=HOT[:3]),
    Case("untouched, corrected amounts", COLD, second=[replace(row, amount=7.25) for row in COLD]),
    Case("untouched, reissued under another id", HOT, second=[*HOT[:-1], at(131, 30)]),
    Case("untouched, no longer anywhere", COLD, second=nowhere(*COLD)),
    Case("unknown to gold", before=every(101, 104), after=every(110, 113), later=[at(201)]),
    Case("never seeded, cold", COLD, before=every(101, 103), after=[at(110)], later=[at(201)]),
    Case("never seeded, hot", HOT, before=every(101, 140), after=[at(150)], later=every(201, 240)),
    Case("never seeded, as many events as the list is long", HOT, before=every(101, 111)),
    Case("never seeded, one more than that", HOT, before=every(101, 112)),
    Case("never seeded, hot and cold in gold", COLD, before=every(101, 140)),
    Case("never seeded, live without places", COLD, before=nowhere(*every(101, 103))),
    Case("never seeded, gold without places", nowhere(*COLD), before=every(101, 103)),
    Case("never seeded, no places at all", nowhere(*COLD), before=nowhere(at(101)), later=nowhere(at(202))),
    Case("never seeded, live older than gold and not in it", [*COLD, at(99)], before=[at(90)], later=[at(201)]),
    Case("never seeded, live older than a gold without places", nowhere(*COLD, at(99)), before=[at(90)]),
    # A stream that began before the watermark: cards tell by the events in their list, customers cannot.
    Case(
        "never seeded, hot, some events in gold",
        [*HOT, *every(80, 95)],
        before=every(80, 103),
        counts=(68, 68, 68),
    ),
    Case("never seeded, tied with gold's newest", [at(1), at(50, 100)], before=[at(40, 100), at(60, 100)]),
    Case("never seeded, one event in gold already", [*COLD, at(99)], before=[at(99), at(101)], counts=(5, 5, 5)),
    Case("never seeded, before and between the steps", COLD, before=[at(101)], between=every(102, 104)),
    Case("between the steps", COLD, between=every(101, 103), after=[at(110)]),
    Case("between the steps, hot", HOT, between=every(101, 140), after=[at(150)]),
    Case("between the steps, late", [*COLD, at(99)], between=[at(98)]),
    Case("between the steps, tied with the watermark", [*COLD, at(50, 100)], between=[at(40, 100), at(60, 100)]),
    Case("live since, gold as it was", HOT, after=every(101, 104), amid=[at(160)], later=every(201, 203)),
    Case("live since, hot, gold as it was", HOT, after=every(101, 140), amid=every(160, 180), later=every(201, 230)),
    Case("all absorbed", HOT, after=every(101, 104), second=[*HOT, *every(101, 104)], later=[at(201)]),
    Case("some absorbed", HOT, after=every(101, 106), second=[*HOT, *every(101, 104)], amid=[at(205)]),
    Case("some absorbed, hot", HOT, after=every(101, 140), second=[*HOT, *every(101, 138)], later=[at(210)]),
    Case("more absorbed than the list is long", COLD, after=every(101, 150), second=[*COLD, *every(101, 130)]),
    # Of events that tie, gold lists the smaller id first and a scorer the earlier arrival: all are of one place.
    Case("some absorbed, all tied", COLD, after=tied(101, 105, 104, 103, 102, 101), second=[*COLD, *tied(101, 103)]),
    Case("absorbed while tied with the watermark", COLD, after=tied(200, 102, 101), second=[*COLD, *tied(200, 101)]),
    Case("new since, absorbed", after=every(101, 104), second=every(101, 104), later=[at(201)]),
    Case("new since, some absorbed", after=every(101, 106), second=every(101, 104), amid=[at(201)]),
    Case("new since, hot", after=every(101, 140), second=every(101, 130), later=[at(201)]),
    # Gold caught up by events that the scorer missed: of a customer's own, the ones that gold lacks are not told apart.
    Case("missed some", COLD, after=[at(150)], second=[*COLD, *every(101, 105), at(150)]),
    Case(
        "missed some, others not absorbed",
        COLD,
        after=[at(150), at(201)],
        second=[*COLD, *every(101, 105), at(150)],
        counts=(None, 7, 7),
    ),
    Case("missed more than the list is long", COLD, after=[at(101)], second=[*COLD, *every(101, 130)]),
    Case("new since, missed some", after=[at(101)], second=every(101, 105), later=[at(201)]),
    # Corrections: of a customer with live events they wait until gold has caught up, or for an overwrite.
    Case("live since, corrected", HOT, after=[at(101)], second=HOT[:-2], later=[at(201)], counts=(None, 31, 32)),
    Case("live since, hot, corrected", HOT, after=every(101, 140), second=HOT[:-2], counts=(None, 69, 69)),
    Case(
        "absorbed and corrected",
        HOT,
        after=every(101, 104),
        second=[*HOT[:-1], *every(101, 104)],
        counts=(None, 33, 33),
    ),
    Case(
        "live since, reissued under another id",
        COLD,
        after=[at(101)],
        second=[COLD[0], at(122, 21)],
        later=[at(201)],
        counts=(None, 3, 4),
    ),
    Case("corrected amounts of absorbed events", COLD, after=[at(101)], second=[*COLD, replace(at(101), amount=3.5)]),
    # Late: an event that gold lacks although it holds later ones.
    Case("late, gold as it was", HOT, after=[at(101, 29.5)], later=[at(201)]),
    Case("late and older than all of the list, gold as it was", HOT, after=[at(101, 1.5)]),
    Case("late, gold grows", COLD, after=[at(101), at(102, 0.5)], second=[*COLD, at(101)], later=[at(103, 31)]),
    Case("late, absorbed", HOT, after=[at(101, 29.5), at(102)], second=[*HOT, at(101, 29.5)]),
]


@dataclass
class Stage:
    """The store of all cases, and what has happened to it so far."""

    warehouse: Callable[[Sequence[Row]], Warehouse]
    store: OnlineStore
    online: redis.Redis
    layout: Layout
    gold: list[Row] = field(default_factory=list)
    live: list[Row] = field(default_factory=list)
    source: Warehouse | None = None

    def rebuild(self, watermark: float, rows: Iterable[Row]) -> None:
        """Gold of these rows; the card `clock` sets its watermark."""
        self.gold = [*rows, transaction(0, "clock", seconds=watermark)]
        self.source = self.warehouse(self.gold)

    def load(self, *some: Entity) -> None:
        assert self.source
        for entity in some or ENTITIES:
            shards = tuple(shard_names(self.layout.shard_count))
            stream = FeatureStream(self.source, self.layout, entity, shards, before=read_ready(self.online))
            with self.store.bulk([entity.guard]) as connection:
                for block in stream:
                    connection.write(block)
                connection.drain()

    def ready(self) -> None:
        assert self.source
        watermark = self.source.profile().watermark.isoformat(timespec="milliseconds")
        self.online.hset(READY.pattern, mapping=Ready("ready", watermark=watermark).encode())

    def score(self, rows: Iterable[Row]) -> None:
        for row in rows:
            newest_first, length = self.layout.newest_first, self.layout.history_length
            apply_event(
                self.online,
                row.customer_id,
                row.card_id,
                listed(row),
                history_length=length,
                newest_first=newest_first,
            )
            self.live.append(row)

    def play(self, phase: str) -> None:
        for case in CASES:
            self.score(case.own(getattr(case, phase)))

    def expected(self) -> Expected:
        return replay(
            self.gold,
            self.live,
            history_length=self.layout.history_length,
            newest_first=self.layout.newest_first,
        )


@pytest.fixture(params=[False, True], ids=["oldest_first", "newest_first"])
def stage(
    request: pytest.FixtureRequest, make_parquet: MakeWarehouse, store: OnlineStore, online: redis.Redis
) -> Stage:
    return Stage(make_parquet, store, online, Layout(newest_first=request.param))


def assert_cards(stage: Stage) -> None:
    for card_id, card in stage.expected().cards.items():
        found = read_card(stage.online, card_id)
        assert found, card_id
        assert [one.transaction_id for one in found.history] == [one.transaction_id for one in card.history], card_id
        assert found == card, card_id


def assert_customers(stage: Stage, checkpoint: int) -> None:
    expected = stage.expected().customers
    for case in CASES:
        found, union = read_customer(stage.online, f"of {case.name}"), expected.get(f"of {case.name}")
        if not union:
            assert found is None
            continue
        assert found, case.name
        assert found.count == (case.counts[checkpoint] or union.count), case.name
        if case.counts[checkpoint] is None:
            assert math.isclose(found.mean, union.mean, rel_tol=1e-12), case.name
            assert math.isclose(found.m2, union.m2, rel_tol=1e-11, abs_tol=1e-20), case.name


def assert_markers(stage: Stage) -> None:
    made = Counter(row.card_id for row in stage.gold)
    for card_id, count in made.items():
        assert stage.online.get(CARD_SEEDED.of(card_id)) == b"%d" % count, card_id
        if card_id != "clock":
            marker = stage.online.hget(CUSTOMER_STATS.of(f"of {card_id}"), "seeded")
            assert marker == b"%d" % count, card_id


def assert_holds(stage: Stage, checkpoint: int) -> None:
    assert_markers(stage)
    assert_cards(stage)
    assert_customers(stage, checkpoint)


def assert_unchanged_by(stage: Stage, *some: Entity) -> None:
    before = features(stage.online)
    stage.load(*some)
    after = features(stage.online)
    assert {key: after.get(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == {}


def test_every_case(stage: Stage) -> None:
    """Before: a scorer on an empty store. Through two loads, each cut off after its first step and started over, with
    live events at every point: gold and the live events that it lacks. A load again: not a byte changes.
    """
    stage.rebuild(FIRST_WATERMARK, [row for case in CASES for row in case.own(case.first)])
    stage.play("before")
    stage.load(CARDS)
    assert_unchanged_by(stage, CARDS)
    stage.play("between")
    stage.load()
    assert_holds(stage, 0)
    assert_unchanged_by(stage)
    stage.ready()
    assert_unchanged_by(stage)

    stage.play("after")
    seconds = [row for case in CASES for row in case.own(case.first if case.second is None else case.second)]
    stage.rebuild(SECOND_WATERMARK, seconds)
    stage.load(CARDS)
    assert_unchanged_by(stage, CARDS)
    stage.play("amid")
    stage.load(CUSTOMERS)
    assert_holds(stage, 1)
    assert_unchanged_by(stage)
    stage.ready()

    stage.play("later")
    assert_unchanged_by(stage)
    assert_holds(stage, 2)


# --- elements as a scorer may write them, straight through the script


def element(number: int, timestamp: str) -> str:
    return json.dumps({"transaction_id": f"t{number:03}", "timestamp": timestamp})


def merge(
    online: redis.Redis, gold: Sequence[str], stored: Sequence[str], *, seeded: int, seq: int, count: int
) -> list[str]:
    """The list after a load of two elements from a gold of `count` transactions."""
    keys = history, counter, marker, *_ = [key.of("c") for key in CARDS.keys]
    online.delete(history)
    online.rpush(history, *stored)
    online.mset({counter: seq, marker: seeded})
    online.eval(CARDS.guard, len(keys), *keys, len(gold), 0, 2**53, 0, count, 0, "", "", *gold)  # type: ignore[misc]
    return [one.decode() for one in online.lrange(history, 0, -1)]  # type: ignore[union-attr]


def iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


SPELLINGS: dict[str, Callable[[datetime], str]] = {
    "contract": iso,
    "Z": lambda time: iso(time).replace("+00:00", "Z"),
    "without offset": lambda time: iso(time.replace(tzinfo=None)),
    "space": lambda time: iso(time).replace("T", " "),
    "east": lambda time: iso(time.astimezone(timezone(timedelta(hours=5, minutes=30)))),
    "west": lambda time: iso(time.astimezone(timezone(-timedelta(hours=8)))),
    "basic offset": lambda time: iso(time.astimezone(timezone(timedelta(hours=2)))).replace("+02:00", "+0200"),
    "short offset": lambda time: iso(time.astimezone(timezone(-timedelta(hours=3)))).replace("-03:00", "-03"),
    "microseconds": lambda time: time.isoformat(timespec="microseconds"),
    "seconds": lambda time: time.isoformat(timespec="seconds"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("day", ["1969-12-31", "2000-02-29", "2024-03-01", "2026-01-01", "2100-02-28"])
def test_times_as_scorers_spell_them(online: redis.Redis, spelling: str, day: str) -> None:
    """A live event is kept when it is later than the oldest that gold lists, and taken to be in gold when earlier."""
    oldest = datetime.fromisoformat(f"{day}T23:59:59.000+00:00")
    apart = timedelta(seconds=1) if spelling == "seconds" else timedelta(milliseconds=1)
    gold = [element(1, iso(oldest)), element(2, iso(oldest + timedelta(days=400)))]
    for number, time, kept in [
        (8, oldest - apart, False),
        (8, oldest + apart, True),
        (0, oldest, False),
        (8, oldest, True),
    ]:
        live = element(number, SPELLINGS[spelling](time))
        merged = merge(online, gold, [live], seeded=4, seq=5, count=9)
        assert merged == ([gold[1], live] if kept else gold), (time, number)
        assert online.get(CARD_SEQ.of("c")) == (b"10" if kept else b"9")


@pytest.mark.parametrize("timestamp", ["yesterday", "2026-01-01", "2026-01-01T00:00:00+1", "1767225600", ""])
def test_a_time_that_cannot_be_read_is_as_new_as_its_place(online: redis.Redis, timestamp: str) -> None:
    gold = [element(1, iso(START)), element(2, iso(START))]
    live = element(8, timestamp)
    assert merge(online, gold, [live], seeded=4, seq=5, count=9) == [gold[1], live]
    assert merge(online, gold, [live], seeded=5, seq=5, count=9) == gold


@pytest.mark.parametrize(
    "text", ["", "no json", "[", "7", "null", '"t1"', "[1]", "{}", '{"transaction_id":null}', "\x00"]
)
def test_what_is_no_transaction_is_dropped(online: redis.Redis, text: str) -> None:
    """It neither blocks the load nor costs an event beside it its place or its count."""
    gold = [element(1, iso(START)), element(2, iso(START))]
    live = element(3, iso(START + timedelta(seconds=9)))
    assert merge(online, gold, [text, live], seeded=4, seq=6, count=4) == [gold[1], live]
    assert online.get(CARD_SEQ.of("c")) == b"6"
    assert merge(online, gold, [text], seeded=4, seq=4, count=4) == gold
    assert merge(online, gold, [text, live], seeded=5, seq=7, count=4) == [gold[1], live]
    assert online.get(CARD_SEQ.of("c")) == b"6"


def test_events_too_old_to_be_told_stay_counted(online: redis.Redis) -> None:
    """Gold may list newer ones only: that they are not in its list says nothing, so that nothing is taken back."""
    gold = [element(8, iso(START)), element(9, iso(START))]
    stored = [element(number, iso(START - timedelta(days=1))) for number in range(4)]
    assert merge(online, gold, stored, seeded=8, seq=12, count=9) == gold
    assert online.get(CARD_SEQ.of("c")) == b"12"


def test_ids_that_a_scorer_writes_as_numbers(online: redis.Redis) -> None:
    gold = [json.dumps({"transaction_id": number, "timestamp": iso(START)}) for number in ("7", "9007199254740991")]
    stored = [one.replace(': "7"', ": 7").replace('"9007199254740991"', "9007199254740991") for one in gold]
    assert stored != gold
    assert merge(online, gold, stored, seeded=0, seq=2, count=2) == gold


# --- stores that are not as a scorer of the contract leaves them


def seeded_card(stage: Stage, rows: Sequence[Row]) -> None:
    stage.rebuild(FIRST_WATERMARK, rows)
    stage.load()
    stage.ready()


def test_a_store_without_markers(stage: Stage) -> None:
    """Loaded by an earlier version, then live events: counts as large as gold's are gold's and live ones, not new."""
    seeded_card(stage, own("c", HOT))
    stage.score(own("c", every(101, 104)))
    stage.online.delete(CARD_SEEDED.of("c"))
    stage.online.hdel(CUSTOMER_STATS.of("of c"), "seeded")
    stage.load()
    assert_cards(stage)
    assert_unchanged_by(stage)
    customer = read_customer(stage.online, "of c")
    assert customer and customer.count == 33


def test_overwrite_leaves_markers_too(stage: Stage) -> None:
    """What `overwrite` put there is not taken for live state by the next load."""
    stage.layout = Layout(newest_first=stage.layout.newest_first, on_conflict="overwrite")
    seeded_card(stage, own("c", HOT))
    seeded = features(stage.online)
    stage.layout = Layout(newest_first=stage.layout.newest_first)
    stage.online.delete(READY.pattern)
    stage.load()
    assert features(stage.online) == seeded


@pytest.mark.parametrize("events", [104, 115], ids=["cold", "hot"])
def test_a_count_that_began_anew(stage: Stage, events: int) -> None:
    """Before: seeded, then the scorer's keys are lost, and events come. A load of the same gold: all are there."""
    seeded_card(stage, own("c", HOT))
    stage.online.delete(CARD_SEQ.of("c"), CARD_HISTORY.of("c"), "card:c:loc", "card:c:last_ts")
    stage.score(own("c", every(101, events)))
    stage.load()
    assert_cards(stage)
    assert_unchanged_by(stage)


def test_a_customer_that_was_written_back_without_the_seed(stage: Stage) -> None:
    """Before: a scorer read, the load came, the scorer wrote what it had computed. The next load mends it."""
    stage.score(own("c", every(101, 104)))
    before = read_customer(stage.online, "of c")
    assert before
    seeded_card(stage, own("c", HOT))
    event = own("c", [at(104)])[0]
    stage.online.hset(CUSTOMER_STATS.of("of c"), mapping=before.update(event.amount).encode())
    stage.live.append(event)
    stage.load(CUSTOMERS)
    found, union = read_customer(stage.online, "of c"), stage.expected().customers["of c"]
    assert found and found.count == union.count == 34
    assert math.isclose(found.mean, union.mean, rel_tol=1e-12)
    assert math.isclose(found.m2, union.m2, rel_tol=1e-12)
    assert_unchanged_by(stage)


def test_an_event_that_is_pushed_and_not_yet_counted(stage: Stage) -> None:
    """A scorer of separate commands is cut in two by a load of a new gold: an event after every gold stays listed."""
    seeded_card(stage, own("c", HOT))
    event = own("c", [at(201)])[0]
    push = stage.online.lpush if stage.layout.newest_first else stage.online.rpush
    push(CARD_HISTORY.of("c"), listed(event).encode())
    stage.rebuild(FIRST_WATERMARK + 1, own("c", [*HOT, at(32)]))
    stage.load()
    stage.online.incr(CARD_SEQ.of("c"))
    stage.live.append(event)
    card = read_card(stage.online, "c")
    expected = stage.expected().cards["c"]
    assert card and (card.history, card.seq) == (expected.history, expected.seq)


def test_a_gold_that_goes_back_in_time(stage: Stage) -> None:
    """Rebuilt without its latest days: what only the former gold had is gone, though it is after the new watermark."""
    seeded_card(stage, own("c", HOT))
    stage.rebuild(10, own("c", HOT[:9]))
    stage.load()
    assert_cards(stage)


@pytest.mark.parametrize("length", [3, 20])
def test_another_length(stage: Stage, length: int) -> None:
    """A longer list is filled up with gold's and a shorter one cut; live events stay at its end."""
    seeded_card(stage, own("c", HOT))
    stage.score(own("c", every(101, 105)))
    stage.layout = Layout(newest_first=stage.layout.newest_first, history_length=length)
    stage.load()
    assert_cards(stage)
    assert_unchanged_by(stage)
