"""Random sequences of events and loads: after each load card and customer are what the contract's words make of them.

The world of a sequence is fifteen transactions on a grid of times, so that ties, doubles and late events abound.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.oracle import (
    Entity,
    Event,
    Recorded,
    Stored,
    card_count,
    card_rule,
    customer_rule,
    entity,
    moments,
    read_element,
)
from feature_seed_tests.support.pair import Pair, assert_same, records

IDS = ["7", "10", "Z", "a", "B", "ä", "aa", "9007199254740993", 'x"y', "t1", "t2", "t3", "t4", "t5", "é"]
BEGIN = int(time.time() - 40 * 86_400) * 1000
PLACES = st.tuples(st.sampled_from([0.1, -12.5, 90.0, 52.123456789]), st.sampled_from([-180.0, 4.9, 0.0]))
AMOUNTS = st.sampled_from([1.0, 2.5, -3.25, 100000.0, 0.1])

# A time of the grid, as a number of steps; a watermark is the last microsecond of its millisecond.
STEPS = st.integers(0, 24)


def millis(step: int) -> int:
    return BEGIN + 250 * step


def watermark(step: int | None) -> float:
    return -math.inf if step is None else millis(step) + 0.999


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Event]:
    details = st.tuples(STEPS, AMOUNTS, st.none() | PLACES, st.booleans())
    drawn = {id_: draw(details) for id_ in IDS}
    return {id_: Event(id_, millis(step), amount, place, array) for id_, (step, amount, place, array) in drawn.items()}


some = st.lists(st.sampled_from(IDS), min_size=1, max_size=6)
readers = st.none() | STEPS
deliver = st.tuples(st.just("deliver"), some, readers)
load = st.tuples(st.just("load"), st.sets(st.sampled_from(IDS), max_size=10), STEPS)
pay = st.tuples(st.just("pay"), some, st.booleans())
# Of an ordered world, whose events come at every other step: at the steps 6 and 7 gold has the same ones.
ORDERED = {
    id_: Event(id_, BEGIN + 500 * n, n / 8, (n, -n) if n % 3 else None, array=n % 2 == 1) for n, id_ in enumerate(IDS)
}
nightly = st.tuples(
    st.sampled_from(["load", "load", "broken"]), st.sampled_from([(), (), ("7",)]), st.sampled_from([6, 7, 7, 8])
)
JUNK = ["", "no json", "[1]", '{"transaction_id":null}', '["t",null,1,1767225600123,null,null]']
unusual = st.one_of(
    st.tuples(st.just("unrecorded"), some, readers),
    st.tuples(st.just("again"), st.none(), st.none()),
    st.tuples(st.just("version before"), st.sets(st.sampled_from(IDS), max_size=10), STEPS),
    st.tuples(
        st.just("lose"), st.sampled_from(["history", "loc", "last_ts", "seq", "stats", "seed", "k-seed"]), st.none()
    ),
    st.tuples(st.just("future"), st.sampled_from(IDS), st.none()),
    st.tuples(st.just("junk"), st.sampled_from(JUNK), st.none()),
    st.tuples(st.just("no time"), st.sampled_from(IDS), st.none()),
    st.tuples(st.just("no number"), st.none(), st.none()),
)
layouts = st.tuples(st.sampled_from([1, 2, 3, 10]), st.booleans(), st.booleans())

quick = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def client(redis_port: int) -> Iterator[redis.Redis]:
    with redis.Redis(port=redis_port, password=PASSWORD, decode_responses=True) as client:
        yield client


@quick
@given(worlds(), st.lists(st.one_of(deliver, deliver, load), max_size=14), layouts)
def test_scorers_that_record(
    client: redis.Redis, world: dict[str, Event], steps: list[tuple], layout: tuple[int, bool, bool]
) -> None:
    """Events in any order, as often as it may be, from any watermark on, beside golds that grow, shrink and go back:
    always gold of the last load and the events after its watermark, each once, and every answer says which it was.
    """
    client.flushall()
    pair, ledger = Pair(client, *layout), Recorded()
    for kind, ids, step in steps:
        if kind == "deliver":
            for id_ in ids:
                answer = ledger.deliver(world[id_], watermark(step))
                assert pair.event(world[id_], watermark(step)) == [answer, answer]
        else:
            gold = [event for id_, event in world.items() if id_ not in ids]
            pair.load(gold, watermark(step))
            ledger.load(gold, watermark(step))
            assert_rerun_changes_nothing(pair, gold, watermark(step))
        assert_same(pair.state(), ledger.state(pair.length))


def assert_rerun_changes_nothing(
    pair: Pair, gold: list[Event], until: float, seeded_watermark: float = -math.inf
) -> None:
    before = pair.contents()
    pair.load(gold, until, seeded_watermark)
    assert pair.contents() == before


@dataclass
class Mixture:
    """A store that scorers of both kinds use, and what was loaded into it last, by this version and the one before."""

    pair: Pair
    world: dict[str, Event]
    loaded: tuple[list[Event], float] | None = None
    seeded_watermark: float = -math.inf
    seen: list[str] = field(default_factory=list)

    def do(self, kind: str, what: object, step: object) -> None:
        self.seen.append(kind)
        if kind in ("load", "again"):
            self._load(kind, what, step)
        elif kind in ("deliver", "unrecorded"):
            for id_ in what:  # type: ignore[attr-defined]
                self.pair.event(self.world[id_], watermark(step), record=kind == "deliver")  # type: ignore[arg-type]
        else:
            self._spoil(kind, what, step)

    def _spoil(self, kind: str, what: object, step: object) -> None:
        pair, client = self.pair, self.pair.client
        push = client.lpush if pair.newest_first else client.rpush
        if kind == "pay":
            for event in (self.world[id_] for id_ in what):  # type: ignore[attr-defined]
                numeric = step and event.id.isdigit()
                pair.pay(event, event.element.replace(f'"{event.id}"', event.id) if numeric else None)
        elif kind == "lose":
            client.delete(pair.key(str(what)))
        elif kind == "future":
            pair.pay(replace(self.world[str(what)], id=f"future {what}", millis=int(time.time() + 4e7) * 1000))
        elif kind == "junk":
            push(pair.key("history"), str(what))
        elif kind == "no time":
            event = self.world[str(what)]
            moment, other = (f",{event.millis / 1000},", ',"no",') if event.array else (event.timestamp, "no")
            pair.pay(event, event.element.replace(moment, other))
        elif kind == "no number" and client.exists(pair.key("stats")):
            client.hset(pair.key("stats"), "mean", "nan")
        elif kind == "version before":
            self._load_with_the_version_before(what, step)

    def _load_with_the_version_before(self, missing: object, step: object) -> None:
        """It left a count in place of a seed."""
        pair, until = self.pair, watermark(step)  # type: ignore[arg-type]
        gold = [one for id_, one in self.world.items() if id_ not in missing and one.millis <= until]  # type: ignore[operator]
        if gold:
            pair.client.flushall()
            pair.load(gold, until)
            pair.client.delete(pair.key("seed"), pair.key("k-seed"))
            pair.client.set(pair.key("seeded"), len(gold))
            pair.client.hset(pair.key("stats"), "seeded", len(gold))
            self.loaded, self.seeded_watermark = None, until

    def _load(self, kind: str, missing: object, step: object) -> None:
        if kind == "load":
            gold = [event for id_, event in self.world.items() if id_ not in missing]  # type: ignore[operator]
            self.loaded = gold, watermark(step)  # type: ignore[arg-type]
        if not self.loaded:
            return
        gold, until = self.loaded
        expected = self._expected([one for one in gold if one.millis <= until], until)
        self.pair.load(gold, until, self.seeded_watermark)
        if expected:
            state, lefts = expected
            assert_same(self.pair.state(), state, self.seen)
            assert tuple(int(seed.get("left", 0)) for seed in self.pair.seeds()) == lefts, self.seen
            assert not self.pair.client.exists(self.pair.key("seeded"))
            assert not self.pair.client.hexists(self.pair.key("stats"), "seeded")
        assert_rerun_changes_nothing(self.pair, gold, until, self.seeded_watermark)

    def _expected(self, gold: list[Event], until: float) -> tuple[Entity, tuple[int, int]] | None:
        if not gold:
            return None
        state, left = self._expected_card(gold, until)
        stats, stays = self._expected_customer(gold, until)
        return replace(state, count=stats[0], mean=stats[1], m2=stats[2]), (left, stays)

    def _expected_card(self, gold: list[Event], until: float) -> tuple[Entity, int]:
        (seed, _), before, listed = self.pair.seeds(), self.pair.state(), self.pair.listed()
        seeded: Any = self.pair.client.get(self.pair.key("seeded"))
        last = _millis(seed.get("watermark"))
        if last is None:
            last = self.seeded_watermark if seeded else -math.inf
        after, unrecorded = card_rule(
            listed[-2 * self.pair.length :], records(seed), gold, (until, last), time.time() * 1000
        )
        # The element of a recorded event is known from the list alone.
        known = {event.id for event in (*map(read_element, listed), *gold) if event}
        ordered = sorted({one.id: one for one in [*gold, *after]}.values(), key=lambda one: one.order)
        history = tuple(one.id for one in ordered if one.id in known)[-self.pair.length :]
        found = Stored(
            count=int(seed["count"]) if "count" in seed else None,
            watermark=_millis(seed.get("watermark")),
            left=int(seed.get("left", 0)),
            records=tuple(records(seed)),
            seeded=int(seeded) if seeded else None,
            same_gold=self.seeded_watermark == until,
        )
        count, left = card_count(before.seq, found, len(gold), until, len(after), unrecorded, self.pair.length)
        state = entity([*gold, *after], self.pair.length)
        return replace(state, history=history, seq=count), left

    def _expected_customer(self, gold: list[Event], until: float) -> tuple[tuple[int, float, float], int]:
        stats, (_, seed) = self.pair.hash(self.pair.key("stats")), self.pair.seeds()
        numbers = [float(stats.get(name, "nan")) for name in ("count", "mean", "M2")]
        live = int(numbers[0]) if all(map(math.isfinite, numbers)) else 0
        found = Stored(
            count=int(seed["count"]) if "count" in seed else None,
            watermark=_millis(seed.get("watermark")),
            left=int(seed.get("left", 0)),
            forgot=_millis(seed.get("forgot")),
            records=tuple(records(seed)),
            seeded=int(stats["seeded"]) if "seeded" in stats else None,
            same_gold=self.seeded_watermark == until,
        )
        kept = customer_rule(live, found, len(gold), until)
        if kept.stays:
            return (live, numbers[1], numbers[2]), kept.left
        later = [one.amount for one in found.records if one.millis > until]
        return moments([*(one.amount for one in gold), *later]), kept.left


@quick
@given(st.lists(st.tuples(st.none() | deliver | pay, nightly), min_size=2, max_size=8), layouts)
@example(  # left out by a load, then paid with, and loaded to the same watermark
    [(None, ("load", (), 6)), (None, ("load", (), 7)), (("pay", ["é"], False), ("load", (), 7))], (10, False, False)
)
def test_only_what_has_changed_is_sent(
    client: redis.Redis, redis_port: int, nights: list[tuple[tuple, ...]], layout: tuple[int, bool, bool]
) -> None:
    """Two stores with the same events, of scorers of both kinds. One is sent all of gold, the other what has changed:
    rows that come, go or go back, and loads that broke off after the card. After every load the two
    have the same bytes, but for the watermarks of what was left out. Without events there is nothing to send then.
    """
    client.flushall()
    with redis.Redis(port=redis_port, password=PASSWORD, decode_responses=True, db=1) as second:
        full, changed, until, loaded = Pair(client, *layout), Pair(second, *layout), -math.inf, -math.inf
        for kind, what, step in filter(None, chain.from_iterable(nights)):
            if kind in ("deliver", "pay"):  # gold has everything up to its watermark: what comes is after it
                for event in (ORDERED[id_] for id_ in what if ORDERED[id_].millis > until):
                    for pair in (full, changed):
                        pair.event(event, until) if kind == "deliver" else pair.pay(event)
                continue
            until = watermark(step)
            gold = [event for id_, event in ORDERED.items() if id_ not in what]
            reached = ("seed",) if kind == "broken" else ("seed", "k-seed")
            send = [seed for seed in changed.changed(gold, until) if seed in reached]
            full.load(gold, until, loaded, reached)
            changed.load(gold, until, loaded, send)
            assert without_watermarks(changed) == without_watermarks(full)
            if any(one.millis <= until for one in gold):
                loaded = until if kind == "load" else loaded
                told = any(events for events, _ in nights)
                assert told or not {*changed.changed(gold, until)} & {*reached}


def without_watermarks(pair: Pair) -> dict[str, Any]:
    contents: dict[str, Any] = pair.contents()
    for seed in {pair.key("seed"), pair.key("k-seed")} & contents.keys():
        contents[seed].pop("watermark", None)
    return contents


def _millis(text: str | None) -> float | None:
    return None if text is None else float(text) * 1000


@quick
@given(worlds(), st.lists(st.one_of(deliver, pay, pay, load, load, unusual), max_size=14), layouts)
def test_scorers_of_both_kinds(
    client: redis.Redis, world: dict[str, Event], steps: list[tuple], layout: tuple[int, bool, bool]
) -> None:
    """The same beside scorers that write keys themselves, stores of the version before, lost keys, elements that nobody
    can read and events of the future: each load leaves what the rule says, and the same load again changes no byte.
    """
    client.flushall()
    mixture = Mixture(Pair(client, *layout), world)
    for step in steps:
        mixture.do(*step)
