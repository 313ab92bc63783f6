"""A live scorer in a process of its own: events of cards that gold knows and does not know, hot and cold."""

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.synchronize import Event

import redis

from feature_seed.contract import (
    CARD_HISTORY,
    CARD_LAST_TS,
    CARD_LOCATION,
    CARD_SEQ,
    CUSTOMER_STATS,
    Transaction,
    Welford,
    apply_event,
    read_ready,
)
from feature_seed.loading.layout import Layout
from feature_seed_tests.support.expected import listed
from feature_seed_tests.support.gold import START, Row
from feature_seed_tests.support.patience import patient
from feature_seed_tests.support.scorer import pay

# So many hot cards that no card has more events before its first load than are recorded.
HOT_CARDS, CARDS = 100, 2_000

# Forked from a process that has loaded only this file: the parent has threads of ClickHouse and Dagster.
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])

# Events of one time, and events that are sent together.
_TIED, _BATCH = 8, 16

# How often a batch comes again, how long a stall is, and how many events a restart repeats.
_AGAIN, _STALL, _REPLAYED = 0.1, 0.05, 2_000

# How long a reader waits between two cards.
_BLINK = 0.001


@dataclass(frozen=True)
class Style:
    """How a scorer applies an event, and in which order it keeps a card's list.

    `atomic`: through `apply_event`. If not, the scorer reads, computes and writes back in separate commands. `pause` is
    how long it waits after each batch, in seconds: 0.002 makes some 2,500 events a second.
    """

    newest_first: bool = False
    atomic: bool = True
    pause: float = 0.002

    @property
    def scorers(self) -> int:
        """Only one scorer if two would overwrite each other's customers, even without loads."""
        return 2 if self.atomic else 1


ATOMIC = Style()


def row(number: int, name: str, card: int, seconds: float, draw: random.Random) -> Row:
    """A transaction; every tenth is without coordinates. Two cards share a customer."""
    place = (None, None) if number % 10 == 3 else (draw.uniform(-60, 60), draw.uniform(-180, 180))
    at = START + timedelta(seconds=seconds)
    return Row(name, f"c{card}", f"k{card // 2}", "food", round(draw.lognormvariate(3, 1), 2), at, *place)


def history_of_gold() -> list[Row]:
    """The first gold: two of three cards, up to thirty transactions each, all before the first event."""
    draw = random.Random(1)
    known = [card for card in range(CARDS) if card % 3]
    cards = [card for card in known for _ in range(draw.choice((1, 3, 9, 10, 11, 30)))]
    return [row(i, f"g{i:06}", card, i // 4, draw) for i, card in enumerate(draw.sample(cards, len(cards)))]


def events(scorer: int, scorers: int) -> Iterator[Row]:
    """The events of one scorer, always the same. Half of them are of hot cards. Every customer has one scorer."""
    draw, number = random.Random(100 + scorer), 0
    while True:
        among = HOT_CARDS if draw.random() < 0.5 else CARDS
        customer = draw.randrange(scorer, among // 2, scorers)
        card = 2 * customer + draw.randrange(2)
        yield row(number, f"l{scorer}-{number:07}", card, 86_400 + number // _TIED / 100, draw)
        number += 1


def score(port: int, style: Style, scorer: int, applied: "Counter", stop: Event) -> None:
    """Apply events until told to stop. `applied` is how many different events Redis has acknowledged."""
    source, layout = events(scorer, style.scorers), Layout(newest_first=style.newest_first)
    with patient(port=port) as client:
        stream = Stream(client, style, random.Random(scorer))
        while not stop.is_set():
            if style.atomic:
                stream.deliver([next(source) for _ in range(_BATCH)])
                applied.value += _BATCH
                time.sleep(style.pause)
            else:
                pay(client, next(source), layout)
                applied.value += 1


@dataclass
class Stream:
    """What brings a scorer its events at least once: a batch comes again at random, whole, from its middle, after a
    stall, or, when the scorer is restarted, with what came before it, back to before the watermark.

    `watermark` is the store's watermark when the stream began.
    """

    client: redis.Redis
    style: Style
    chance: random.Random
    watermark: float | None = None
    delivered: list[Row] = field(default_factory=list)

    def deliver(self, batch: list[Row]) -> None:
        self.delivered.extend(batch)
        self._apply(batch)
        drawn = self.chance.random()
        if drawn < _AGAIN:
            self._apply(batch)
        elif drawn < 2 * _AGAIN:
            self._apply(batch[len(batch) // 2 :])
        elif drawn < 2.2 * _AGAIN:
            time.sleep(_STALL)
            self._apply(batch)
        elif drawn < 2.3 * _AGAIN:
            self._restart()

    def _restart(self) -> None:
        ready = read_ready(self.client)
        self.watermark = ready.unix if ready else None
        for first in range(max(len(self.delivered) - _REPLAYED, 0), len(self.delivered), _BATCH):
            self._apply(self.delivered[first : first + _BATCH])

    def _apply(self, rows: list[Row]) -> None:
        with self.client.pipeline(transaction=False) as pipeline:
            for one in rows:
                apply_event(
                    pipeline,
                    one.customer_id,
                    one.card_id,
                    listed(one),
                    watermark=self.watermark,
                    newest_first=self.style.newest_first,
                )
            pipeline.execute()


class Counter:
    """A number of another process."""

    def __init__(self) -> None:
        self._value = CONTEXT.Value("q", 0, lock=False)

    @property
    def value(self) -> int:
        return self._value.value

    @value.setter
    def value(self, value: int) -> None:
        self._value.value = value


def read(port: int, newest_first: bool, reads: Counter, violations: Counter, stop: Event) -> None:
    """Look at cards and customers until told to stop. Count what no reader must see."""
    draw, seen = random.Random(3), {}
    with patient(port=port) as client:
        while not stop.is_set():
            card = draw.randrange(HOT_CARDS if draw.random() < 0.5 else CARDS)
            found = _look(client, f"c{card}", f"k{card // 2}", newest_first)
            violations.value += found.wrong + any(
                a < b for a, b in zip(found.counts, seen.get(card, (0, 0)), strict=True)
            )
            seen[card] = found.counts
            reads.value += 1
            time.sleep(_BLINK)


@dataclass(frozen=True)
class Sight:
    """A card and its customer at one moment: whether they are whole, and their counts."""

    wrong: bool
    counts: tuple[int, int]


def _look(client: redis.Redis, card_id: str, customer_id: str, newest_first: bool) -> Sight:
    with client.pipeline(transaction=True) as pipeline:
        pipeline.lrange(CARD_HISTORY.of(card_id), 0, -1)
        pipeline.hgetall(CARD_LOCATION.of(card_id))
        pipeline.get(CARD_LAST_TS.of(card_id))
        pipeline.get(CARD_SEQ.of(card_id))
        pipeline.hgetall(CUSTOMER_STATS.of(customer_id))
        history, location, last_ts, seq, stats = pipeline.execute()
    times = [Transaction.decode(one).time.timestamp() for one in history]
    customer = Welford.decode(stats) if stats else Welford()
    whole = (
        bool(history) == bool(seq) == (last_ts is not None)
        and len(history) <= min(10, int(seq or 0))
        and times == sorted(times, reverse=newest_first)
        and (not location or set(location) == {b"lat", b"lon"})
        and (not times or float(last_ts) >= max(times))
        and math.isfinite(customer.mean)
        and customer.m2 >= 0
    )
    return Sight(not whole, (int(seq or 0), customer.count))
