"""Gold up to its watermark, and the stream after it: one table of cases for events, loads and the comparison.

Every case is a card with a customer of its own, and all of them share two loads: of a first gold into an empty store,
and of a second gold. Events come before, between and after the steps of both. The Lua of events and guards, the SQL of
gold and the Python of the comparison have to agree on each of them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta, timezone

import pytest
import redis

from feature_seed.contract import Card, Welford, apply_event, read_card, read_customer
from feature_seed.features.entity import CARDS, CUSTOMERS, ENTITIES, Entity
from feature_seed.features.feature import FEATURES
from feature_seed.loading.comparison.comparison import Comparison, Verdict
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.expected import Expected, expect, listed
from feature_seed_tests.support.gold import START, Row, transaction
from feature_seed_tests.support.scorer import pay
from feature_seed_tests.support.store import assert_entities, features

# Seconds after the start.
FIRST_WATERMARK, SECOND_WATERMARK = 100, 200


def at(number: int, seconds: float | None = None, **changes: object) -> Row:
    """A transaction with a place and an amount of its own, `number` seconds after the start unless told."""
    row = transaction(number, seconds=number if seconds is None else seconds, amount=number * 1.37 + 0.1)
    return replace(row, **{"location_lat": number / 8, **changes})  # type: ignore[arg-type]


def every(start: int, stop: int, step: int = 1) -> list[Row]:
    return [at(number) for number in range(start, stop, step)]


def tied(seconds: float, *numbers: int) -> list[Row]:
    return [at(number, seconds) for number in numbers]


def nowhere(*rows: Row) -> list[Row]:
    return [replace(row, location_lat=None, location_long=None) for row in rows]


def zoned(row: Row, hours: float) -> Row:
    """The same moment as a scorer of that time zone has it."""
    return replace(row, timestamp=row.timestamp and row.timestamp.astimezone(timezone(timedelta(hours=hours))))


@dataclass(frozen=True)
class Case:
    """What happens to one card.

    Attributes:
        first, second: its rows in the two golds; `second` is the first when not given.
        before, between, after: events before the first load, between its steps, and between the loads.
        amid, later: events between the steps of the second load, and after it.
        twice: every event is delivered once more after each load, from before the watermark on.
        separate: of a scorer that writes keys itself, and records nothing. What must come out then is given.
        seq, count: of the card and the customer after the first load, the second, and the events after it.
    """

    name: str
    first: Sequence[Row] = ()
    second: Sequence[Row] | None = None
    before: Sequence[Row] = ()
    between: Sequence[Row] = ()
    after: Sequence[Row] = ()
    amid: Sequence[Row] = ()
    later: Sequence[Row] = ()
    twice: bool = False
    separate: bool = False
    seq: tuple[int, int, int] = (0, 0, 0)
    count: tuple[int, int, int] = (0, 0, 0)

    def own(self, rows: Iterable[Row]) -> list[Row]:
        """The rows as transactions of this card and its customer."""
        names = {"card_id": self.name, "customer_id": f"of {self.name}"}
        return [
            replace(row, **names, transaction_id=f"{self.name} {row.transaction_id}")  # type: ignore[arg-type]
            for row in rows
        ]


HOT = every(1, 31)  # thirty in gold
COLD = every(1, 40, 20)  # two

RECORDED = [
    Case("untouched", HOT),
    Case("untouched, gold grows", HOT, second=[*HOT, *every(101, 105)]),
    Case("untouched, corrected to fewer", HOT, second=HOT[:-3]),
    Case("untouched, corrected to fewer than the list is long", HOT[:8], second=HOT[:3]),
    Case("untouched, corrected amounts", COLD, second=[replace(row, amount=7.25) for row in COLD]),
    Case("untouched, one row lost and one come", HOT, second=[*HOT[1:], at(131, 30)]),
    Case("untouched, no longer anywhere", COLD, second=nowhere(*COLD)),
    Case("unknown to gold", before=every(101, 104), after=every(110, 113), later=[at(201)]),
    Case("unknown to gold, late events", before=every(90, 94), after=[at(110), at(105), at(205)], later=[at(201)]),
    Case("new to gold", COLD, before=every(101, 103), after=[at(110)], later=[at(201)]),
    Case("new to gold, hot", HOT, before=every(101, 140), after=[at(150)], later=every(201, 240)),
    Case("new to gold, live without places", COLD, before=nowhere(*every(101, 103))),
    Case("new to gold, gold without places", nowhere(*COLD), before=every(101, 103)),
    Case("no places at all", nowhere(*COLD), before=nowhere(at(101)), later=nowhere(at(202))),
    Case("a stream that begins before the watermark", [*COLD, *every(80, 95)], before=every(80, 103)),
    Case("an event that gold lacks, before the watermark", [*COLD, at(99)], before=[at(90)], later=[at(201)]),
    Case("tied with the watermark", [at(1), at(50, 100)], before=[at(40, 100), at(60, 100)], between=[at(70, 100)]),
    Case("a millisecond after the watermark", COLD, before=[at(40, 100.001)], after=[at(60, 100.001)]),
    Case("before and between the steps", COLD, before=[at(101)], between=every(102, 104)),
    Case("between the steps, hot", HOT, between=every(101, 140), after=[at(150)]),
    Case("between the steps, late", [*COLD, at(99)], between=[at(98), at(101)]),
    Case("live since, gold as it was", HOT, after=every(101, 104), amid=[at(160)], later=every(201, 203)),
    Case("live since, hot", HOT, after=every(101, 140), amid=every(160, 180), later=every(201, 230)),
    Case("all in gold", HOT, after=every(101, 104), second=[*HOT, *every(101, 104)], later=[at(201)]),
    Case("more in gold than the list is long", COLD, after=every(101, 150), second=[*COLD, *every(101, 150)]),
    Case("some after the watermark", HOT, after=[*every(101, 106), at(201)], second=[*HOT, *every(101, 106)]),
    Case("a declined payment", HOT, after=[at(101), at(102, amount=100_000.0)], second=[*HOT, at(101)]),
    Case("a row deleted from gold", HOT, after=[at(101)], second=[*HOT[:-2], at(101)], later=[at(201)]),
    Case("corrected while live", HOT, after=[at(101), at(201)], second=[*HOT[:-1], at(101, amount=3.5)]),
    Case("the stream missed some", COLD, after=[at(150)], second=[*COLD, *every(101, 105), at(150)]),
    Case("late among live events", COLD, after=[at(110), at(104), at(107), at(103), at(112)], amid=tied(205, 7, 5, 6)),
    Case("late, older than a full list", COLD, after=[*every(110, 130), at(105)], later=[*every(210, 225), at(203)]),
    Case("late, the only one with a place", COLD, after=[*nowhere(*every(110, 125)), at(105), at(104)]),
    Case("late, without a place", COLD, after=[at(110), *nowhere(at(105))], later=[*nowhere(at(210)), at(205)]),
    Case("tied live events", COLD, after=tied(110, 7, 5, 9, 6), later=tied(210, 3, 8, 1)),
    Case("ids in the order of bytes", COLD, after=[at(1, 110, transaction_id=id_) for id_ in "aZ10ä9éb"]),
    Case(
        "ids that are numbers", COLD, after=[at(1, 110, transaction_id=id_) for id_ in ("10", "9", "9007199254740993")]
    ),
    Case("quotes and line ends", COLD, after=[at(1, 110, transaction_id='a"\n\\'), at(1, 111, transaction_id="b c")]),
    Case(
        "of other time zones", COLD, before=[zoned(at(101), 5.5)], after=[zoned(at(110), -8)], later=[zoned(at(201), 1)]
    ),
    Case("delivered twice", HOT, before=every(95, 103), after=every(101, 106), later=every(201, 204), twice=True),
    Case(
        "delivered twice, hot", HOT, after=every(101, 140), second=[*HOT, *every(101, 138)], later=[at(210)], twice=True
    ),
    Case("delivered twice, unknown to gold", after=every(101, 106), later=every(201, 204), twice=True),
    Case("off the globe", COLD, after=[at(101, location_lat=91.0), at(102, location_long=None)], later=[at(201)]),
]

# Of a scorer that writes keys itself a card's events are known by its list, a customer's by their number alone.
_SEPARATE = [
    Case("separate, quiet", HOT, second=[*HOT, at(101)], seq=(30, 31, 31), count=(30, 31, 31)),
    Case(
        "separate, all in gold",
        *(HOT, [*HOT, *every(101, 104)]),
        after=every(101, 104),
        later=[at(201)],
        seq=(30, 33, 34),
        count=(30, 33, 34),
    ),
    Case(
        "separate, some after the watermark",
        *(HOT, [*HOT, at(150)]),
        after=[at(150), at(205)],
        later=[at(206)],
        seq=(30, 32, 33),
        count=(30, 32, 33),
    ),
    # The count is wrong until the first load after a quiet day.
    Case("separate, twice", *(COLD, [*COLD, at(150)]), after=[at(150), at(150)], seq=(2, 3, 3), count=(2, 4, 4)),
    Case("separate, a declined payment", COLD, after=[at(150)], seq=(2, 2, 2), count=(2, 3, 3)),
    Case(
        "separate, the stream missed some",
        *(COLD, [*COLD, at(150), at(151)]),
        after=[at(150)],
        seq=(2, 4, 4),
        count=(2, 4, 4),
    ),
    Case("separate, a row deleted from gold", *(HOT, HOT[:-2]), seq=(30, 28, 28), count=(30, 28, 28)),
    Case("separate, before the first load", COLD, before=every(99, 104), seq=(5, 2, 2), count=(2, 2, 2)),
    Case(
        "separate, more than the list is long",
        COLD,
        after=every(201, 216),
        seq=(2, 17, 17),
        count=(2, 17, 17),
    ),
    Case("separate, of the future", COLD, after=[at(1, 400 * 86_400)], seq=(2, 2, 2), count=(2, 3, 3)),
]

SEPARATE = [replace(case, separate=True) for case in _SEPARATE]
CASES = [*RECORDED, *SEPARATE]
PHASES = ("before", "between", "after", "amid", "later")


@dataclass
class Stage:
    """The store of all cases, and what has happened to it so far."""

    make: Callable[[Sequence[Row]], Warehouse]
    store: OnlineStore
    online: redis.Redis
    layout: Layout
    gold: list[Row] = field(default_factory=list)
    recorded: list[Row] = field(default_factory=list)
    watermark: float = 0
    source: Warehouse | None = None

    def rebuild(self, watermark: float, rows: Iterable[Row]) -> None:
        """Gold of these rows; the card `clock` sets its watermark."""
        self.watermark = watermark
        self.gold = [*rows, transaction(0, "clock", seconds=watermark)]
        self.source = self.make(self.gold)

    def load(self, *some: Entity) -> None:
        assert self.source
        for entity in some or ENTITIES:
            stream = FeatureStream(self.source, self.layout, entity, tuple(shard_names(self.layout.shard_count)))
            with self.store.bulk([entity.guard]) as connection:
                for block in stream:
                    connection.write(block)
                connection.drain()

    def play(self, *phases: str) -> None:
        """What the stream brings in these phases."""
        for case in CASES:
            rows = [row for phase in phases for row in case.own(getattr(case, phase))]
            for row in rows:
                if case.separate:
                    pay(self.online, row, self.layout)
                else:
                    self._apply(row)
                    self.recorded.append(row)

    def play_again(self, *phases: str) -> None:
        """A stream that starts anywhere before the watermark brings all of it again."""
        for case in CASES:
            for row in [row for phase in phases for row in case.own(getattr(case, phase))] if case.twice else ():
                self._apply(row)

    def _apply(self, row: Row) -> None:
        layout = self.layout
        options = {
            "history_length": layout.history_length,
            "newest_first": layout.newest_first,
            "tags": layout.key_tags,
            # In either form, whatever a load writes; an array has no time zone.
            "element": "array"
            if len(self.recorded) % 2 and not (row.timestamp and row.timestamp.utcoffset())
            else "object",
        }
        apply_event(self.online, row.customer_id, row.card_id, listed(row), **options)

    def expected(self) -> Expected:
        """Gold, and the recorded events after its watermark; of what gold does not know, all of them."""
        known = {row.card_id for row in self.gold}
        after = START + timedelta(seconds=self.watermark, milliseconds=1)
        overwritten = self.layout.on_conflict == "overwrite"
        live = {
            (row.card_id, row.transaction_id): row
            for row in self.recorded
            if row.card_id not in known or (row.timestamp and row.timestamp >= after and not overwritten)
        }
        return expect(
            [*self.gold, *live.values()],
            history_length=self.layout.history_length,
            newest_first=self.layout.newest_first,
        )

    def verdicts(self) -> Iterable[Verdict]:
        """What the comparison finds of every entity."""
        assert self.source
        until, shards = self.source.profile().until, shard_names(self.layout.shard_count)
        with self.source.client() as gold:
            comparison = Comparison(
                self.source, gold, self.layout, shards, [until], features=FEATURES, store=self.online
            )
            (found,) = comparison.scans("a run", None, {})
            for feature in FEATURES:
                yield from comparison.differences(feature, found[feature.entity.name].rows)


LAYOUTS = [
    Layout(),
    Layout(newest_first=True, key_tags=True, element="array"),
    Layout(on_conflict="overwrite"),
]


@pytest.fixture(params=LAYOUTS, ids=["oldest first", "newest first, with tags, arrays", "overwrite"])
def stage(
    request: pytest.FixtureRequest, make_parquet: MakeWarehouse, store: OnlineStore, online: redis.Redis
) -> Stage:
    return Stage(make_parquet, store, online, request.param)


def assert_holds(stage: Stage, checkpoint: int) -> None:
    expected = stage.expected()
    separate = [] if stage.layout.on_conflict == "overwrite" else SEPARATE
    for case in separate:
        card: Card | None = read_card(stage.online, case.name, tags=stage.layout.key_tags)
        customer: Welford | None = read_customer(stage.online, f"of {case.name}", tags=stage.layout.key_tags)
        assert card and customer
        found = (case.name, card.seq, customer.count)
        assert found == (case.name, case.seq[checkpoint], case.count[checkpoint])
        expected.cards.pop(case.name)
        expected.customers.pop(f"of {case.name}")
    assert_entities(stage.online, expected, tags=stage.layout.key_tags)


def assert_unchanged_by(stage: Stage, *some: Entity) -> None:
    before = features(stage.online)
    stage.load(*some)
    after = features(stage.online)
    assert {key: after.get(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == {}


def test_every_case(stage: Stage) -> None:
    """Through two loads, each cut off after its first step and started over, with live events at every point: gold up
    to its watermark, and the recorded events after it, each once. A load again changes not a byte, and the comparison
    finds nothing that the rule does not explain.
    """
    overwritten = stage.layout.on_conflict == "overwrite"
    stage.rebuild(FIRST_WATERMARK, [row for case in CASES for row in case.own(case.first)])
    stage.play("before")
    stage.load(CARDS)
    assert_unchanged_by(stage, CARDS)
    if not overwritten:  # which is for a scorer that is stopped
        stage.play("between")
    stage.load()
    assert_holds(stage, 0)
    if not overwritten:
        stage.play_again("before", "between")
        assert_holds(stage, 0)
    assert_unchanged_by(stage)
    assert [one.difference for one in stage.verdicts() if one.difference] == []

    stage.play("after")
    seconds = [row for case in CASES for row in case.own(case.first if case.second is None else case.second)]
    stage.rebuild(SECOND_WATERMARK, seconds)
    stage.load(CARDS)
    assert_unchanged_by(stage, CARDS)
    if not overwritten:
        stage.play("amid")
    stage.load(CUSTOMERS)
    stage.load(CARDS)
    if not overwritten:
        stage.play_again(*PHASES[:4])
    assert_holds(stage, 1)
    assert_unchanged_by(stage)
    assert [one.difference for one in stage.verdicts() if one.difference] == []

    if not overwritten:
        stage.play("later")
        stage.play_again(*PHASES)
        assert_unchanged_by(stage)
        assert_holds(stage, 2)
        assert [one.difference for one in stage.verdicts() if one.difference] == []
