"""The Redis contract: every key that feature_seed writes and a scorer reads, and how values are encoded and updated.

Standard library alone, so that a scorer can import it without Dagster or ClickHouse.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, AnyStr

HISTORY_LENGTH = 10


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
        """The key of an entity; of bytes where its id is bytes, which need not be text."""
        if isinstance(entity_id, bytes):
            return self.of(entity_id.decode("latin-1"), tags=tags).encode("latin-1")
        return self.template.format(f"{{{entity_id}}}" if tags else entity_id)


CARD_HISTORY = Key(
    "card_history",
    "card:{card_id}:history",
    "LIST",
    ("transaction_id", "merchant_category", "amount", "timestamp", "location_lat", "location_long"),
)
CARD_LOCATION = Key("card_location", "card:{card_id}:loc", "HASH", ("lat", "lon"))
CARD_LAST_TS = Key("card_last_ts", "card:{card_id}:last_ts", "STRING")
CARD_SEQ = Key("card_seq", "card:{card_id}:seq", "STRING")
CUSTOMER_STATS = Key("customer_stats", "cust:{customer_id}:stats", "HASH", ("count", "mean", "M2", "seeded"))
# feature_seed's own, as the field `seeded` of customers is: gold's count of the entity when it was last loaded. A
# scorer neither reads nor writes them; by how far its counts are past them the next load knows what is live.
CARD_SEEDED = Key("card_seeded", "card:{card_id}:seeded", "STRING")
READY = Key(
    "ready",
    "feature_seed:ready",
    "HASH",
    # The last is feature_seed's own: another in every store, and once a store was emptied.
    ("state", "gold_version", "watermark", "cards", "customers", "finished_at", "run_id", "store_id"),
)

KEYS = (CARD_HISTORY, CARD_LOCATION, CARD_LAST_TS, CARD_SEQ, CUSTOMER_STATS, CARD_SEEDED, READY)

# One event, applied to a card, a customer or both in one step: a load finds all of it in the store, or nothing.
EVENT = """
-- KEYS: of the card history, loc, last_ts, seq; of the customer stats; the card's first when both are given
-- ARGV: element, Unix seconds, amount, history length, '1' for newest first, then lat and lon when known
-- All is read before the first write, and INCR comes first: what cannot be applied fails while nothing has changed.
local card, customer = #KEYS > 1, #KEYS ~= 4
local last_ts, placed, count, mean, m2
if card then
    redis.call('LRANGE', KEYS[1], 0, 0)
    last_ts = tonumber(redis.call('GET', KEYS[3]))
    placed = redis.call('HGET', KEYS[2], 'lat')
end
if customer then
    local stats = redis.call('HMGET', KEYS[#KEYS], 'count', 'mean', 'M2')
    local delta = ARGV[3] - (stats[2] or 0)
    count = (stats[1] or 0) + 1
    mean = (stats[2] or 0) + delta / count
    m2 = (stats[3] or 0) + delta * (ARGV[3] - mean)
end
if card then
    redis.call('INCR', KEYS[4])
    local newest_first = ARGV[5] == '1'
    redis.call(newest_first and 'LPUSH' or 'RPUSH', KEYS[1], ARGV[1])
    if newest_first then
        redis.call('LTRIM', KEYS[1], 0, ARGV[4] - 1)
    else
        redis.call('LTRIM', KEYS[1], -ARGV[4], -1)
    end
    -- An event that comes late takes back neither time nor place.
    local late = last_ts and last_ts > tonumber(ARGV[2])
    if not late then
        redis.call('SET', KEYS[3], ARGV[2])
    end
    if ARGV[6] and not (late and placed) then
        redis.call('HSET', KEYS[2], 'lat', ARGV[6], 'lon', ARGV[7])
    end
end
if customer then
    redis.call('HSET', KEYS[#KEYS], 'count', string.format('%.0f', count),
        'mean', string.format('%.17g', mean), 'M2', string.format('%.17g', m2))
end
"""


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
        """Parse one list element; fields that a scorer added are passed over."""
        members = json.loads(element)
        values = {name: members[name] for name in CARD_HISTORY.fields}
        return cls(**{**values, "amount": float(values["amount"])})  # a double above 2**53 is written like an integer

    def encode(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

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

    `state` is `seeding` from the first write of the first load until all of it is verified, then `ready`. `watermark`
    is the time of gold's newest transaction: a stream that starts after it misses nothing and repeats nothing.
    """

    state: str
    gold_version: str = ""
    watermark: str = ""
    cards: int = 0
    customers: int = 0
    finished_at: str = ""
    run_id: str = ""

    @classmethod
    def decode(cls, fields: Mapping[Any, Any]) -> "Ready":
        texts = {_text(name): _text(value) for name, value in fields.items()}
        values = {name: text for name, text in texts.items() if name in cls.__dataclass_fields__}
        counts = {name: int(values[name]) for name in ("cards", "customers") if name in values}
        return cls(**{**values, **counts})

    def encode(self) -> dict[Any, Any]:
        return {name: str(value) for name, value in asdict(self).items()}


def read_ready(redis: Any) -> Ready | None:
    """Whether the store is ready; None before the first load."""
    fields = redis.hgetall(READY.pattern)
    return Ready.decode(fields) if fields else None


def read_card(redis: Any, card_id: AnyStr, *, tags: bool = False) -> Card | None:
    """Read a card in one round trip and one transaction; None when the store does not know it.

    `redis` is a `redis.Redis`, decoding its responses or not.
    """
    with redis.pipeline(transaction=True) as pipeline:
        pipeline.lrange(CARD_HISTORY.of(card_id, tags=tags), 0, -1)
        pipeline.hgetall(CARD_LOCATION.of(card_id, tags=tags))
        pipeline.get(CARD_LAST_TS.of(card_id, tags=tags))
        pipeline.get(CARD_SEQ.of(card_id, tags=tags))
        history, location, last_ts, seq = pipeline.execute()
    if last_ts is None:
        return None
    if isinstance(location, list):  # as Redis Cluster's client leaves it in a transaction
        location = dict(zip(location[::2], location[1::2], strict=True))
    coordinates = {_text(name): float(value) for name, value in location.items()}
    return Card(
        history=tuple(Transaction.decode(element) for element in history),
        location=(coordinates["lat"], coordinates["lon"]) if coordinates else None,
        last_ts=float(last_ts),
        seq=int(seq or 0),
    )


def read_customer(redis: Any, customer_id: AnyStr, *, tags: bool = False) -> Welford | None:
    """Read a customer's Welford state; None when the store does not know it."""
    fields = redis.hgetall(CUSTOMER_STATS.of(customer_id, tags=tags))
    return Welford.decode(fields) if fields else None


def apply_event(
    redis: Any,
    customer_id: str,
    card_id: str,
    transaction: Transaction,
    *,
    history_length: int = HISTORY_LENGTH,
    newest_first: bool = False,
    tags: bool = False,
) -> None:
    """Move a card and its customer on by one transaction: one round trip, and all of it or nothing.

    `redis` is a `redis.Redis`, or a pipeline of one to send many events at a time. With `tags`, as Redis Cluster needs
    them, card and customer are in different slots: one step each.
    """
    card = [key.of(card_id, tags=tags) for key in (CARD_HISTORY, CARD_LOCATION, CARD_LAST_TS, CARD_SEQ)]
    customer = [CUSTOMER_STATS.of(customer_id, tags=tags)]
    degrees = (transaction.location_lat, transaction.location_long)
    place = [repr(float(one)) for one in degrees if one is not None]
    event = [
        transaction.encode(),
        repr(transaction.time.timestamp()),
        repr(float(transaction.amount)),  # numpy's doubles have a repr of their own
        history_length,
        int(newest_first),
        *(place if len(place) == 2 else ()),
    ]
    script = redis.register_script(EVENT)
    for keys in (card, customer) if tags else (card + customer,):
        script(keys=keys, args=event)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
