"""The Redis contract: every key that feature_seed writes and a scorer reads, and how values are encoded and updated.

A scorer can import this file without Dagster or ClickHouse, or copy it with `features/events`: it needs the standard
library alone. Every function takes a `redis.Redis`, decoding or not. With one of `redis.asyncio`, await the result.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from inspect import isawaitable
from pathlib import Path
from typing import Any, AnyStr, Literal

HISTORY_LENGTH = 10
Element = Literal["object", "array"]  # how a load writes one; both forms are read, and a list may have both


@dataclass(frozen=True)
class Key:
    """A family of Redis keys, one per entity.

    `pattern` names the entity in braces; with key tags the braces are written too (`card:{42}:history`), so that
    Redis Cluster hashes all keys of an entity to one slot.
    """

    name: str
    pattern: str
    type: str
    fields: tuple[str, ...] = ()

    @property
    def template(self) -> str:
        """The pattern with `{}` for the id, as `str.format` and ClickHouse's `format()` both read it."""
        return re.sub(r"{\w+}", "{}", self.pattern)

    def of(self, entity_id: AnyStr, *, tags: bool = False) -> AnyStr:
        """The key of an entity. It is bytes if the id is bytes, which need not be text."""
        if isinstance(entity_id, bytes):
            return self.of(entity_id.decode("latin-1"), tags=tags).encode("latin-1")
        return self.template.format(f"{{{entity_id}}}" if tags else entity_id)


_ELEMENT = "transaction_id merchant_category amount timestamp location_lat location_long"
CARD_HISTORY = Key("card_history", "card:{card_id}:history", "LIST", tuple(_ELEMENT.split()))
CARD_LOCATION = Key("card_location", "card:{card_id}:loc", "HASH", ("lat", "lon"))
CARD_LAST_TS = Key("card_last_ts", "card:{card_id}:last_ts", "STRING")
CARD_SEQ = Key("card_seq", "card:{card_id}:seq", "STRING")
CUSTOMER_STATS = Key("customer_stats", "cust:{customer_id}:stats", "HASH", ("count", "mean", "M2"))
# feature_seed's own: what an entity was last loaded from, and the live events since. A scorer leaves them to EVENT.
_SEED = ("watermark", "count", "digest", "left", "forgot", "e:{transaction_id}")
CARD_SEED = Key("card_seed", "card:{card_id}:seed", "HASH", _SEED)
CUSTOMER_SEED = Key("customer_seed", "cust:{customer_id}:seed", "HASH", _SEED)
# The last, `store_id`, is feature_seed's own: every store has another, and so has a store that was emptied.
_READY = "state gold_version watermark cards customers finished_at run_id loading rows store_id"
READY = Key("ready", "feature_seed:ready", "HASH", tuple(_READY.split()))

KEYS = (CARD_HISTORY, CARD_LOCATION, CARD_LAST_TS, CARD_SEQ, CARD_SEED, CUSTOMER_STATS, CUSTOMER_SEED, READY)

# One event, applied to a card, a customer or both in one step, and to each of them once.
_LUA = Path(__file__).parent / "features" / "events"
EVENT = "\n".join((_LUA / name).read_text() for name in ("elements.lua", "event.lua"))


@dataclass(frozen=True)
class Transaction:
    """One element of a card's history. `timestamp` is ISO 8601 in UTC; coordinates are degrees, None when unknown."""

    transaction_id: str
    merchant_category: str | None
    amount: float
    timestamp: str
    location_lat: float | None
    location_long: float | None

    @classmethod
    def decode(cls, element: str | bytes) -> "Transaction":
        """Parse one element, in either form. Members that a scorer added are ignored. An array has Unix seconds."""
        members = json.loads(element)
        if isinstance(members, list):
            id_, category, amount, seconds, lat, lon, *_ = members
            moment = datetime.fromtimestamp(0, timezone.utc) + timedelta(milliseconds=round(1000 * seconds))
            return cls(id_, category, float(amount), moment.isoformat(timespec="milliseconds"), lat, lon)
        values = {name: members[name] for name in CARD_HISTORY.fields}
        return cls(**{**values, "amount": float(values["amount"])})  # a double above 2**53 is written like an integer

    def encode(self, element: Element = "object") -> str:
        members = asdict(self)
        written = [*(members | {"timestamp": self.time.timestamp()}).values()] if element == "array" else members
        return json.dumps(written, ensure_ascii=False, separators=(",", ":"))

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.timestamp)


@dataclass(frozen=True)
class Welford:
    """Running mean and variance of a customer's amounts; `m2` is the sum of squared deviations from the mean."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def update(self, amount: float) -> "Welford":
        """The state after one more amount (Welford 1962)."""
        count = self.count + 1
        delta = amount - self.mean
        mean = self.mean + delta / count
        return Welford(count, mean, self.m2 + delta * (amount - mean))

    @property
    def variance(self) -> float:
        """Population variance, 0.0 without amounts."""
        return self.m2 / self.count if self.count else 0.0

    @classmethod
    def decode(cls, fields: Mapping[Any, Any]) -> "Welford":
        values = {_text(name): value for name, value in fields.items()}
        return cls(int(values["count"]), float(values["mean"]), float(values["M2"]))

    def encode(self) -> dict[Any, Any]:
        """The fields for HSET; `repr` of a float parses back to the same double."""
        return {"count": str(self.count), "mean": repr(self.mean), "M2": repr(self.m2)}


@dataclass(frozen=True)
class Card:
    """The state of a card: `history` in stored order, `location` as (lat, lon), `last_ts` in Unix seconds."""

    history: tuple[Transaction, ...]
    location: tuple[float, float] | None
    last_ts: float
    seq: int


@dataclass(frozen=True)
class Ready:
    """What a scorer waits for. Times are ISO 8601 in UTC.

    `state` is `seeding` from the first write of the first load until all of it is verified, then `ready`. Gold's `rows`
    are in it up to `watermark`: a stream that starts there or before misses nothing, and EVENT repeats nothing.
    `loading` names the gold and the watermark of a load that is under way or was broken off.
    """

    state: str
    gold_version: str = ""
    watermark: str = ""
    cards: int = 0
    customers: int = 0
    finished_at: str = ""
    run_id: str = ""
    loading: str = ""
    rows: int = 0

    @property
    def unix(self) -> float | None:  # as EVENT takes the watermark
        return datetime.fromisoformat(self.watermark).timestamp() if self.watermark else None

    @classmethod
    def decode(cls, fields: Mapping[Any, Any]) -> "Ready":
        texts = {_text(name): _text(value) for name, value in fields.items()}
        values = {name: text for name, text in texts.items() if name in cls.__dataclass_fields__}
        counts = {name: int(values[name]) for name in ("cards", "customers", "rows") if name in values}
        return cls(**{**values, **counts})

    def encode(self) -> dict[Any, Any]:
        return {name: str(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class State:
    """All that a scorer needs for an event."""

    card: Card | None
    customer: Welford | None
    ready: Ready | None


@dataclass(frozen=True)
class Applied:
    """What EVENT did to card and customer: `applied`, `duplicate` or `in gold`."""

    card: str
    customer: str


def read_ready(redis: Any) -> Any:
    """Whether the store is ready: a Ready, or None before the first load."""
    return _then(lambda found: _hash(found, Ready), redis.hgetall(READY.pattern))


def read_card(redis: Any, card_id: AnyStr, *, tags: bool = False) -> Any:
    """A Card, in one round trip and one transaction; None when the store does not know it."""
    pipeline = redis.pipeline(transaction=True)
    _queue_card(pipeline, card_id, tags)
    return _then(_card, pipeline.execute())


def read_customer(redis: Any, customer_id: AnyStr, *, tags: bool = False) -> Any:
    """A customer's Welford state; None when the store does not know it."""
    return _then(lambda found: _hash(found, Welford), redis.hgetall(CUSTOMER_STATS.of(customer_id, tags=tags)))


def read_state(redis: Any, card_id: AnyStr, customer_id: AnyStr, *, tags: bool = False) -> Any:
    """A State, in one round trip. With `tags` card and customer may be on different nodes, and are read one by one."""
    pipeline = redis.pipeline(transaction=not tags)
    _queue_card(pipeline, card_id, tags)
    pipeline.hgetall(CUSTOMER_STATS.of(customer_id, tags=tags))
    pipeline.hgetall(READY.pattern)
    return _then(
        lambda found: State(_card(found[:4]), _hash(found[4], Welford), _hash(found[5], Ready)), pipeline.execute()
    )


def apply_event(
    redis: Any,
    customer_id: str,
    card_id: str,
    transaction: Transaction,
    *,
    watermark: float | None = None,
    history_length: int = HISTORY_LENGTH,
    newest_first: bool = False,
    element: Element = "object",
    tags: bool = False,
    record: bool = True,
) -> Any:
    """Apply a transaction to a card and its customer, once however often it is sent. Returns what was Applied.

    `redis` may be a pipeline: `execute` has the answers. `watermark` is `Ready.unix`, as the stream's reader read it
    when the stream began. With `tags`, as Redis Cluster needs them, card and customer are one step each. An event that
    is not recorded is applied each time it is sent. What cannot be an event is a redis.ResponseError: nothing changes.
    """
    card = [key.of(card_id, tags=tags) for key in (CARD_HISTORY, CARD_LOCATION, CARD_LAST_TS, CARD_SEQ, CARD_SEED)]
    customer = [key.of(customer_id, tags=tags) for key in (CUSTOMER_STATS, CUSTOMER_SEED)]
    degrees = (transaction.location_lat, transaction.location_long)
    place = [repr(float(one)) for one in degrees if one is not None]
    event = [
        transaction.encode(element),
        repr(transaction.time.timestamp()),
        repr(float(transaction.amount)),  # numpy's doubles have a repr of their own
        history_length,
        int(newest_first),
        transaction.transaction_id,
        "" if watermark is None else repr(watermark),
        int(record),
        *(place if len(place) == 2 else ()),
    ]
    script = redis.register_script(EVENT)
    steps = (card, customer) if tags else (card + customer,)
    return _then(_applied, *(script(keys=keys, args=event) for keys in steps))


def _applied(*answers: Any) -> Any:  # None of a pipeline, which answers when it is executed
    texts = [_text(one) for answer in answers if isinstance(answer, list) for one in answer]
    return Applied(*texts) if texts else None


def _then(decode: Callable[..., Any], *replies: Any) -> Any:
    """The decoded replies; with an asynchronous client, an awaitable of them."""

    async def awaited() -> Any:
        return decode(*[await reply for reply in replies])

    return awaited() if isawaitable(replies[0]) else decode(*replies)


def _queue_card(pipeline: Any, card_id: AnyStr, tags: bool) -> None:
    pipeline.lrange(CARD_HISTORY.of(card_id, tags=tags), 0, -1)
    pipeline.hgetall(CARD_LOCATION.of(card_id, tags=tags))
    pipeline.get(CARD_LAST_TS.of(card_id, tags=tags))
    pipeline.get(CARD_SEQ.of(card_id, tags=tags))


def _card(replies: Sequence[Any]) -> Card | None:
    history, location, last_ts, seq = replies
    if last_ts is None:
        return None
    coordinates = {_text(name): float(value) for name, value in _fields(location).items()}
    return Card(
        history=tuple(Transaction.decode(element) for element in history),
        location=(coordinates["lat"], coordinates["lon"]) if coordinates else None,
        last_ts=float(last_ts),
        seq=int(seq or 0),
    )


def _hash(reply: Any, kind: Any) -> Any:
    return kind.decode(_fields(reply)) if reply else None


def _fields(reply: Any) -> Mapping[Any, Any]:
    """A hash. In a transaction, Redis Cluster's client leaves it as a list."""
    return dict(zip(reply[::2], reply[1::2], strict=True)) if isinstance(reply, list) else reply


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
