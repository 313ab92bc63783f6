"""One card and its customer in a real Redis, moved on by EVENT, by a scorer that writes keys itself, and by the guards.

Without ClickHouse: gold comes as Python has it, so that thousands of sequences take seconds.
"""

import math
import zlib
from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from feature_seed.contract import EVENT
from feature_seed.features.entity import CARDS, CUSTOMERS
from feature_seed.loading.changes import Changes
from feature_seed.store.block import Block
from feature_seed_tests.support.oracle import Entity, Event, entity, moments, read_element


def unix(millis: float) -> str:
    """Unix seconds with six decimals; '' for no time at all."""
    return "" if millis == -math.inf else f"{millis / 1000:.6f}"


def digest(rows: Iterable[Event]) -> str:
    """A digest that differs for other rows, whatever their order."""
    return str(sum(zlib.crc32(repr(one).encode()) for one in rows))


@dataclass(frozen=True)
class Pair:
    """Card `c` and customer `k`. `client` decodes its responses. They expire after so many seconds; 0 is never."""

    client: redis.Redis
    length: int = 10
    newest_first: bool = False
    tags: bool = False
    expire: int = 0

    def key(self, name: str) -> str:
        """The card's key of this name, or the customer's `stats` and `k-seed`."""
        if name in ("stats", "k-seed"):
            return f"cust:{'{k}' if self.tags else 'k'}:{name.removeprefix('k-')}"
        return f"card:{'{c}' if self.tags else 'c'}:{name}"

    @property
    def card_keys(self) -> list[str]:
        return [self.key(name) for name in ("history", "loc", "last_ts", "seq", "seed")]

    @property
    def customer_keys(self) -> list[str]:
        return [self.key("stats"), self.key("k-seed")]

    def event(self, event: Event, reader: float = -math.inf, record: bool = True, **changes: Any) -> list[str]:
        """What EVENT answers for both."""
        place = [repr(one) for one in event.place] if event.place else []
        arguments = {
            "element": event.element,
            "time": repr(event.millis / 1000),
            "amount": repr(event.amount),
            "length": self.length,
            "newest_first": int(self.newest_first),
            "id": event.id,
            "watermark": unix(reader),
            "record": int(record),
        } | changes
        script = self.client.register_script(EVENT)
        steps = (self.card_keys, self.customer_keys) if self.tags else (self.card_keys + self.customer_keys,)
        return [answer for keys in steps for answer in script(keys=keys, args=[*arguments.values(), *place])]

    def pay(self, event: Event, element: str | None = None) -> None:
        """Apply an event as a scorer that records nothing: it reads, computes and writes back."""
        history, loc, last_ts, seq, _ = self.card_keys
        push = self.client.lpush if self.newest_first else self.client.rpush
        push(history, element or event.element)
        self.client.ltrim(history, *((0, self.length - 1) if self.newest_first else (-self.length, -1)))
        self.client.incr(seq)
        late = float(self._get(last_ts) or "-inf") > event.millis / 1000
        if not late:
            self.client.set(last_ts, repr(event.millis / 1000))
        if event.place and not late:
            self.client.hset(loc, mapping={"lat": repr(event.place[0]), "lon": repr(event.place[1])})
        stats = self.hash(self.key("stats"))
        count, mean, m2 = int(stats.get("count", 0)) + 1, float(stats.get("mean", 0)), float(stats.get("M2", 0))
        delta = event.amount - mean
        mean += delta / count
        state: dict[Any, Any] = {"count": count, "mean": repr(mean), "M2": repr(m2 + delta * (event.amount - mean))}
        self.client.hset(self.key("stats"), mapping=state)

    def load(
        self,
        gold: Iterable[Event],
        watermark: float,
        seeded_watermark: float = -math.inf,
        only: Collection[str] = ("seed", "k-seed"),
    ) -> list[int]:
        """Load by the guards, and return their replies. Without transactions up to the watermark there is no load.

        `only` the card or the customer is sent, by the key of its seed.
        """
        rows = [one for one in gold if one.millis <= watermark]
        if not rows:
            return []
        send = {"seed": self._card, "k-seed": self._customer}
        return [send[seed](rows, watermark, seeded_watermark) for seed in send if seed in only]

    def changed(self, gold: Iterable[Event], watermark: float) -> list[str]:
        """Which of the two a load has to send, by what the loads make of seed and count."""
        rows = [one for one in gold if one.millis <= watermark]
        seconds, micros = self.client.time()  # type: ignore[misc]
        sent = []
        for seed, count in {
            "seed": self._get(self.key("seq")),
            "k-seed": self.hash(self.key("stats")).get("count"),
        }.items():
            fields = [text.encode() for field in self.hash(self.key(seed)).items() for text in field]
            of_gold = [self.digest(rows).encode()], [b"%d" % len(rows)], [7]
            found = Changes(float(unix(watermark)), lambda: seconds + micros / 1e6)
            found.look(
                Block([0], [seed.encode()], b"", [0], 2, False, columns=of_gold), [count and count.encode(), fields]
            )
            sent += [seed] * (found.hashes == {0: array("I", [7])})
        return sent

    def _card(self, rows: Sequence[Event], watermark: float, seeded_watermark: float) -> int:
        elements = {one.id: one.element for one in rows}
        state = entity(rows, self.length)
        history = [elements[id_] for id_ in state.history]
        lat, lon = map(repr, state.place) if state.place else ("", "")
        history_key, loc, last_ts, seq, seed = self.card_keys
        return self.client.register_script(CARDS.guard)(
            keys=[history_key, seq, seed, loc, last_ts, self.key("seeded")],
            args=[
                *(self.length, int(self.newest_first), unix(watermark), state.seq, f"{state.last_ts:.3f}", lat, lon),
                unix(seeded_watermark),
                self.digest(rows),
                *(history[::-1] if self.newest_first else history),
            ],
        )

    def _customer(self, rows: Sequence[Event], watermark: float, seeded_watermark: float) -> int:
        count, mean, m2 = moments([one.amount for one in rows])
        gold = [unix(watermark), count, repr(mean), repr(m2), unix(seeded_watermark), self.digest(rows)]
        return self.client.register_script(CUSTOMERS.guard)(keys=self.customer_keys, args=gold)

    def digest(self, rows: Sequence[Event]) -> str:
        """The digest as gold's SQL writes it, with the end if there is one."""
        return digest(rows) + (f":{self.expire}:{max(one.millis for one in rows) / 1000}" if self.expire else "")

    def state(self) -> Entity:
        """What the store says of both."""
        _, loc, last_ts, seq, _ = self.card_keys
        place, stats = self.hash(loc), self.hash(self.key("stats"))
        events = [read_element(element) for element in self.listed()]
        return Entity(
            history=tuple(event.id for event in events if event),
            place=(float(place["lat"]), float(place["lon"])) if place else None,
            last_ts=float(time) if (time := self._get(last_ts)) else None,
            seq=int(self._get(seq) or 0),
            count=int(stats.get("count", 0)),
            mean=float(stats.get("mean", 0)),
            m2=float(stats.get("M2", 0)),
        )

    def listed(self) -> list[str]:
        """The elements of the list, oldest first."""
        found: Any = self.client.lrange(self.key("history"), 0, -1)
        return found[::-1] if self.newest_first else found

    def seeds(self) -> tuple[dict[str, str], dict[str, str]]:
        return self.hash(self.key("seed")), self.hash(self.key("k-seed"))

    def hash(self, key: str) -> dict[str, str]:
        found: Any = self.client.hgetall(key)
        return found

    def contents(self) -> dict[str, object]:
        """Every key, and what it holds."""
        read = {"list": lambda key: self.client.lrange(key, 0, -1), "hash": self.hash, "string": self._get}
        return {key: read[str(self.client.type(key))](key) for key in self.client.scan_iter()}

    def _get(self, key: str) -> str | None:
        found: Any = self.client.get(key)
        return found


def records(seed: dict[str, str]) -> list[Event]:
    """The events that a seed records."""
    return [_record(name[2:], value) for name, value in seed.items() if name.startswith("e:")]


def _record(id_: str, value: str) -> Event:
    time, amount, lat, lon = value.split(",")
    return Event(id_, round(float(time) * 1000), float(amount), None if lat == "-" else (float(lat), float(lon)))


def assert_same(found: Entity, expected: Entity, what: object = "") -> None:
    """Require the same, except for rounding."""
    for name in ("history", "place", "last_ts", "seq", "count"):
        assert getattr(found, name) == getattr(expected, name), (what, name, found, expected)
    assert math.isclose(found.mean, expected.mean, rel_tol=1e-9, abs_tol=1e-9), (what, found, expected)
    assert math.isclose(found.m2, expected.m2, rel_tol=1e-7, abs_tol=1e-7), (what, found, expected)
