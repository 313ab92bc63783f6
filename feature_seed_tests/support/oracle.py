"""What a load must leave of one card and one customer, worked out in plain Python from the contract's words.

Nothing here is shared with the code under test: not its Lua, its SQL or its types.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

HOUR = 3600

# Of the members of an element, in their order.
NAMES = ("transaction_id", "merchant_category", "amount", "timestamp", "location_lat", "location_long")


@dataclass(frozen=True)
class Event:
    """A transaction as gold or a stream has it. `millis` is Unix time, `place` latitude and longitude, if known.

    Its element is an object, or an `array`.
    """

    id: str
    millis: int
    amount: float
    place: tuple[float, float] | None = None
    array: bool = field(default=False, compare=False)

    @property
    def order(self) -> tuple[float, bytes]:
        return self.millis, self.id.encode()

    @property
    def timestamp(self) -> str:
        time = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=self.millis)
        return time.isoformat(timespec="milliseconds")

    @property
    def element(self) -> str:
        lat, lon = self.place or (None, None)
        time = self.millis / 1000 if self.array else self.timestamp
        members = dict(zip(NAMES, (self.id, "food", self.amount, time, lat, lon), strict=True))
        return json.dumps([*members.values()] if self.array else members, separators=(",", ":"))


@dataclass(frozen=True)
class Entity:
    """What the store says of a card and its customer. `history` has ids, oldest first."""

    history: tuple[str, ...] = ()
    place: tuple[float, float] | None = None
    last_ts: float | None = None
    seq: int = 0
    count: int = 0
    mean: float = 0.0
    m2: float = 0.0


def entity(events: Iterable[Event], length: int) -> Entity:
    """The state that these transactions make, each of them once, in exact arithmetic."""
    ordered = sorted({one.id: one for one in events}.values(), key=lambda one: one.order)
    if not ordered:
        return Entity()
    places = [one.place for one in ordered if one.place]
    count, mean, m2 = moments([one.amount for one in ordered])
    return Entity(
        history=tuple(one.id for one in ordered[-length:]),
        place=places[-1] if places else None,
        last_ts=ordered[-1].millis / 1000,
        seq=len(ordered),
        count=count,
        mean=mean,
        m2=m2,
    )


def moments(amounts: Sequence[float]) -> tuple[int, float, float]:
    exact = [Fraction(amount) for amount in amounts]
    mean = sum(exact, Fraction(0)) / max(len(exact), 1)
    return len(exact), float(mean), float(sum((one - mean) ** 2 for one in exact))


@dataclass
class Recorded:
    """A card and its customer with scorers that record: gold of the last load, and the events after its watermark."""

    gold: tuple[Event, ...] = ()
    watermark: float = float("-inf")  # in milliseconds
    later: dict[str, Event] = field(default_factory=dict)

    def deliver(self, event: Event, reader: float) -> str:
        """What EVENT answers. `reader` is the watermark that the stream began at."""
        if event.millis <= max(self.watermark, reader):
            return "in gold"
        if event.id in self.later:
            return "duplicate"
        self.later[event.id] = event
        return "applied"

    def load(self, gold: Iterable[Event], watermark: float) -> None:
        """Load these transactions. A load without transactions does not touch the entity."""
        if mine := tuple(one for one in gold if one.millis <= watermark):
            self.gold, self.watermark = mine, watermark
            self.later = {id_: one for id_, one in self.later.items() if one.millis > watermark}

    def overwrite(self, gold: Iterable[Event], watermark: float) -> None:
        if mine := tuple(one for one in gold if one.millis <= watermark):
            self.gold, self.watermark, self.later = mine, watermark, {}

    def state(self, length: int) -> Entity:
        return entity([*self.gold, *self.later.values()], length)


@dataclass(frozen=True)
class Stored:
    """What a load finds of a customer beside its state: its seed. `seeded` is gold's count by the version before."""

    count: int | None = None
    watermark: float | None = None
    left: int = 0
    forgot: float | None = None
    records: tuple[Event, ...] = ()
    seeded: int | None = None
    same_gold: bool = False  # the version before had loaded this gold


@dataclass(frozen=True)
class Kept:
    """What a load makes of a customer with unrecorded events: its state stays, or becomes gold's."""

    stays: bool
    left: int


def customer_rule(live: int, found: Stored, gold: int, watermark: float) -> Kept:
    """The rule for events that nobody recorded, by counts alone."""
    after = [one for one in found.records if one.millis > watermark]
    known = found.count if found.count is not None else found.seeded
    exact = found.forgot is not None and found.forgot <= watermark
    # Events that were dropped from the records are waited for, however many loads later they come.
    left = 0 if found.forgot is not None else found.left
    unrecorded = 0 if known is None or exact else max(0, live - (known + left + len(found.records)))
    surplus = live - (gold + len(after))
    before = found.watermark if found.watermark is not None else (watermark if found.same_gold else None)
    if known == gold and before == watermark:
        return Kept(surplus > 0, found.left if surplus > 0 else 0)
    stays = 0 < surplus <= unrecorded
    return Kept(stays, surplus if stays else 0)


def card_rule(
    listed: Sequence[str],
    records: Iterable[Event],
    gold: Sequence[Event],
    watermarks: tuple[float, float],
    now: float,
) -> tuple[list[Event], int]:
    """The events of a card after a load, without gold's, and how many of them nobody recorded.

    `listed` are the elements of its list as they are, of whatever kind; `watermarks` those of this load and of the one
    before.
    """
    watermark = watermarks[0]
    after = {one.id: one for one in records if one.millis > watermark}
    in_gold = {one.id for one in gold}
    unrecorded: dict[str, Event] = {}
    for element in listed:
        event = read_element(element)
        if (
            event
            and max(watermarks) < event.millis <= now + HOUR * 1000
            and event.id not in {*after, *in_gold, *unrecorded}
        ):
            unrecorded[event.id] = event
    return [*after.values(), *unrecorded.values()], len(unrecorded)


def card_count(
    live: int, found: Stored, gold: int, watermark: float, after: int, unrecorded: int, length: int
) -> tuple[int, int]:
    """How many transactions a card has made after a load, and how many of them nobody recorded.

    By the list, unless it is full of events after the watermark: then there may be more, as of a customer.
    """
    again = (found.count == gold and found.watermark == watermark) or (
        found.count is None and found.seeded == gold and found.same_gold
    )
    count = gold + after
    if unrecorded and after >= length and live > count:
        recorded = found.left + len(found.records)
        known = found.count if found.count is not None else found.seeded
        stays = again or (known is not None and live - count <= live - (known + recorded))
        count = live if stays else count
    return count, found.left if again else count - gold - (after - unrecorded)


def read_element(element: str) -> Event | None:
    """An element as an event; None if it has no id or no time."""
    try:
        members: Any = json.loads(element, parse_int=str)
        if isinstance(members, list):
            members = dict(zip(NAMES, members, strict=True))
            time = datetime.fromtimestamp(float(members["timestamp"]), timezone.utc)
        else:
            time = datetime.fromisoformat(members["timestamp"].replace("Z", "+00:00"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not isinstance(members.get("transaction_id"), str):
        return None
    time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    lat, lon = members.get("location_lat"), members.get("location_long")
    place = (float(lat), float(lon)) if lat is not None and lon is not None else None
    if place and not (abs(place[0]) <= 90 and abs(place[1]) <= 180):
        place = None
    amount = float(members.get("amount") or 0)
    return Event(members["transaction_id"], round(time.timestamp() * 1000), amount, place)


def without_place(event: Event) -> Event:
    return replace(event, place=None)
