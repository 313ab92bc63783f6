"""Nights of an ETL beside a stream: what each load leaves, compared with what gold and the deliveries make of it.

Every day brings events. The stream delivers them at least once, some late or twice; the ETL leaves out declined ones.
Every night gold is rebuilt, complete up to midnight, and loaded while the stream goes on. Rows are deleted and
corrected. Scorers that record are exact after every load. For scorers that write keys themselves, the wrong share is
counted.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import isclose
from pathlib import Path

import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import apply_event, read_card, read_customer, read_ready
from feature_seed.loading.layout import Layout
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.faults.outcome import Outcome
from feature_seed_tests.faults.race import call_ready
from feature_seed_tests.support.expected import Expected, expect, listed
from feature_seed_tests.support.gold import START, Row, transaction, write_parquet
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.scorer import pay

DAY = timedelta(days=1)

# Chances of an event.
LATE, TWICE, DECLINED, MISSED, CORRECTED, DELETED = 0.01, 0.01, 0.01, 0.002, 0.003, 0.003


@dataclass(frozen=True)
class Event:
    """A transaction, and what becomes of it. `arrives` is when the stream delivers it; None if it never does."""

    row: Row
    arrives: timedelta | None
    twice: bool
    declined: bool


@dataclass
class Ledger:
    """What a card or a customer was given: gold of the last load, and the recorded events after its watermark.

    It is independent of the code under test: rows by id, and the two sentences of the contract.
    """

    gold: dict[str, Row] = field(default_factory=dict)
    until: timedelta | None = None
    later: dict[str, Row] = field(default_factory=dict)

    def deliver(self, row: Row) -> None:
        if self.until is None or _since(row) > self.until:
            self.later[row.transaction_id] = row

    def load(self, rows: list[Row], until: timedelta) -> None:
        self.gold, self.until = {row.transaction_id: row for row in rows}, until
        self.later = {id_: row for id_, row in self.later.items() if _since(row) > until}

    def rows(self) -> list[Row]:
        return [*self.gold.values(), *self.later.values()]


def _since(row: Row) -> timedelta:
    assert row.timestamp
    return row.timestamp - START


@dataclass(frozen=True)
class Nights:
    """A number of nights.

    Attributes:
        tried: its name in the table.
        nights, cards, customers, daily: how many, and events a day.
        plain: of ten cards and customers, those whose scorers record nothing.
        converted: the night on which such a scorer begins to record.
        outages: nights on which no load comes.
        emptied: the store loses everything at noon of this day.
        newest_first: how lists are kept.
    """

    tried: str
    nights: int
    cards: int
    customers: int
    daily: int
    plain: int = 0
    converted: int | None = None
    outages: frozenset[int] = frozenset()
    emptied: int | None = None
    newest_first: bool = False

    def run(self, client: Client, directory: Path) -> Iterator[Outcome]:
        """One outcome of the recording scorers. Others have one after the first, 7th, 30th and last night."""
        with redis_server() as port, redis.Redis(port=port) as online:
            play = _Play(self, client, directory / "gold.parquet", port, online)
            for night in range(self.nights):
                play.day(night)
                if night not in self.outages:
                    play.night(night)
                if self.plain and night + 1 in {1, 7, 30, self.nights}:
                    yield play.outcome(f"{self.tried}, after {night + 1}", plain=True)
        yield play.outcome(self.tried, plain=False)


@dataclass
class _Play:
    nights: Nights
    client: Client
    gold: Path
    port: int
    online: redis.Redis
    chance: random.Random = field(default_factory=lambda: random.Random(17))
    rows: dict[str, Row] = field(default_factory=dict)  # of gold, without declined ones
    pending: list[Event] = field(default_factory=list)
    cards: dict[str, Ledger] = field(default_factory=lambda: defaultdict(Ledger))
    customers: dict[str, Ledger] = field(default_factory=lambda: defaultdict(Ledger))
    loads: int = 0
    delivered: int = 0
    lost: int = 0
    twice: int = 0
    different: int = 0
    watermark: float | None = None

    def day(self, day: int) -> None:
        """The events of a day, and the stream up to three in the morning after it."""
        self.pending += [self._event(day, number) for number in range(self.nights.daily)]
        if day == self.nights.emptied:
            self._stream(day * DAY + timedelta(hours=12))
            self.online.flushall()
            self.cards.clear()
            self.customers.clear()
            self.watermark = None
        self._refuse_the_future()
        self._stream((day + 1) * DAY)
        # Those after midnight are live when the load comes.
        self.pending += [self._event(day + 1, -number) for number in range(1, self.nights.daily // 20)]
        self._stream((day + 1) * DAY + timedelta(hours=3))

    def _event(self, day: int, number: int) -> Event:
        draw = self.chance
        hours = draw.uniform(0, 3) if number < 0 else draw.uniform(0, 24)
        card, customer = draw.randrange(self.nights.cards), draw.randrange(self.nights.customers)
        if self._is_plain(card) != self._is_plain(customer):
            customer = customer - customer % 10 + card % 10
        at = day * DAY + timedelta(seconds=round(hours * 3600, 3))
        row = transaction(0, seconds=at.total_seconds(), amount=round(draw.lognormvariate(3, 1), 2))
        names = {"transaction_id": f"{day}-{number}", "card_id": f"c{card}", "customer_id": f"k{customer}"}
        row = replace(row, **names, location_lat=None if draw.random() < 0.1 else round(draw.uniform(-60, 60), 4))
        late = at + timedelta(hours=draw.uniform(0, 40)) if draw.random() < LATE else at
        declined = draw.random() < DECLINED
        if not declined:
            self.rows[row.transaction_id] = row
        missed = not declined and draw.random() < MISSED
        return Event(row, None if missed else late, draw.random() < TWICE, declined)

    def _is_plain(self, number: int) -> bool:
        return number % 10 < self.nights.plain

    def _stream(self, until: timedelta) -> None:
        """Deliver what arrives up to a time, in the order of arrival."""
        due = sorted((one for one in self.pending if one.arrives is not None and one.arrives <= until), key=_arrival)
        self.pending = [one for one in self.pending if one.arrives is not None and one.arrives > until]
        for event in due:
            for _ in range(1 + event.twice):
                self._deliver(event.row)
        if due and self.chance.random() < 0.3:  # the scorer is restarted, and its stream begins before the watermark
            ready = read_ready(self.online)
            self.watermark = ready.unix if ready else None
            for event in due[-500:]:
                if not self._is_plain(int(event.row.card_id[1:])):
                    self._deliver(event.row)

    def _deliver(self, row: Row) -> None:
        self.delivered += 1
        layout = Layout(newest_first=self.nights.newest_first)
        converted = self.nights.converted is not None and self.loads >= self.nights.converted
        plain = self._is_plain(int(row.card_id[1:])) and not converted
        if plain:
            pay(self.online, row, layout)
        else:
            options = {"watermark": self.watermark, "newest_first": layout.newest_first}
            apply_event(self.online, row.customer_id, row.card_id, listed(row), **options)
        if plain or self.watermark is None or _since(row).total_seconds() > self.watermark - START.timestamp():
            self.cards[row.card_id].deliver(row)
            self.customers[row.customer_id].deliver(row)

    def _refuse_the_future(self) -> None:
        """Deliver a poison event, which the scorer skips."""
        row = transaction(0, seconds=DAY.total_seconds() * 5000, card_id="c9", customer_id="k9")
        try:
            apply_event(self.online, row.customer_id, row.card_id, listed(row))
        except redis.ResponseError as e:
            assert str(e).startswith("REFUSED ")
        else:
            raise AssertionError("an event of the future was applied")

    def night(self, night: int) -> None:
        """Gold up to midnight, corrected, is loaded while live events of the new day are there, and compared."""
        until = (night + 1) * DAY
        for id_, row in list(self.rows.items()):
            if self.chance.random() < CORRECTED / 10:
                self.rows[id_] = replace(row, amount=round(row.amount * 1.1, 2))
            elif self.chance.random() < DELETED / 10:
                del self.rows[id_]
        rows = [row for row in self.rows.values() if _since(row) <= until]
        write_parquet(self.client, self.gold, rows)
        warehouse, store = Warehouse(gold_parquet=str(self.gold)), OnlineStore(url=f"redis://127.0.0.1:{self.port}")
        verified = night % 10 == 9
        seed(warehouse, store, verify=verified, newest_first=self.nights.newest_first)
        if not verified:
            call_ready(store, warehouse)
        self.loads += 1
        self._load_ledgers(rows, max(map(_since, rows)))
        self._compare()

    def _load_ledgers(self, rows: list[Row], until: timedelta) -> None:
        for ledgers, name in ((self.cards, "card_id"), (self.customers, "customer_id")):
            by_id: dict[str, list[Row]] = defaultdict(list)
            for row in rows:
                by_id[getattr(row, name)].append(row)
            for id_, mine in by_id.items():
                ledgers[id_].load(mine, until)

    def _expected(self, plain: bool) -> Expected:
        cards = expect(self._rows(self.cards, plain), newest_first=self.nights.newest_first).cards
        customers = expect(self._rows(self.customers, plain)).customers
        return Expected(cards, customers)

    def _rows(self, ledgers: dict[str, Ledger], plain: bool) -> Iterable[Row]:
        return (row for id_, one in ledgers.items() if self._is_plain(int(id_[1:])) == plain for row in one.rows())

    def _compare(self) -> None:
        """Compare every entity of the scorers that record."""
        expected = self._expected(plain=False)
        for id_, card in expected.cards.items():
            found = read_card(self.online, id_)
            self._count(card.seq, found.seq if found else 0, found == card)
        for id_, customer in expected.customers.items():
            state = read_customer(self.online, id_)
            same = (
                state
                and isclose(state.mean, customer.mean, rel_tol=1e-9)
                and isclose(state.m2, customer.m2, rel_tol=1e-9)
            )
            self._count(customer.count, state.count if state else 0, bool(same))

    def _count(self, expected: int, found: int, same: bool) -> None:
        self.lost += max(expected - found, 0)
        self.twice += max(found - expected, 0)
        self.different += expected == found and not same

    def outcome(self, tried: str, *, plain: bool) -> Outcome:
        if not plain:
            return Outcome(tried, self.loads, self.delivered, self.lost, self.twice, 0, self.different)
        customers = self._expected(plain=True).customers
        found = [(one.count, read_customer(self.online, id_)) for id_, one in customers.items()]
        wrong = sum(not state or state.count != count for count, state in found)
        return Outcome(f"{tried}, {wrong / len(found):.0%}", self.loads, self.delivered, 0, 0, 0, wrong, flawless=False)


def _arrival(event: Event) -> timedelta:
    assert event.arrives is not None
    return event.arrives
