"""The status: what the store says of itself, who writes to it, and what Dagster last heard of gold."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from json import dumps
from typing import Any

import dagster as dg
import redis

from feature_seed.contract import CARD_SEED, CARD_SEQ, Ready, read_ready
from feature_seed.errors import StoreError
from feature_seed.graph.checks import GOLD
from feature_seed.graph.failure import run_page
from feature_seed.store.cluster import primaries
from feature_seed.store.commands import spared
from feature_seed.store.lock import KEY as LOCK
from feature_seed.store.online_store import OnlineStore

# The calls of SCAN for live events on each node, and the keys of a call. A large store is sampled, in some 0.1 s.
_SCAN_CALLS, _SCAN_COUNT = 30, 1000


@dataclass(frozen=True)
class Status:
    """Everything that `status` tells.

    Attributes:
        ready: what the store says. Its state is `empty` or `unreachable` if the store says nothing.
        live_events: of cards, since gold; an estimate if `sampled`; None in a store that runs no SCAN.
        lock: who writes to the store, None if nobody does.
        last_report: when gold was reported last to the Dagster of DAGSTER_HOME.
        error: why nothing is known.
    """

    store: str
    ready: Ready
    last_report: str
    live_events: int | None = None
    sampled: bool = False
    lock: str | None = None
    error: str | None = None

    @property
    def is_ready(self) -> bool:
        return self.ready.state == "ready"


def status_of(store: OnlineStore, *, tags: bool) -> Status:
    """Some HGETALL, GET and SCAN; nothing is written."""
    try:
        with store.client() as client:
            ready: Ready = read_ready(client) or Ready("empty")
            holder: Any = client.get(LOCK)
            live, sampled = live_events(client, ready.cards, tags=tags)
    except StoreError as e:
        return Status(store.address, Ready("unreachable"), last_report(), error=str(e))
    lock = holder.decode(errors="replace") if holder else None
    return Status(store.address, ready, last_report(), live, sampled, lock)


def live_events(client: redis.Redis, cards: int, *, tags: bool) -> tuple[int | None, bool]:
    """How many transactions of cards the scorer has added since they were loaded, and whether that is an estimate."""
    if not (found := spared(lambda: _some_cards(client), None)):
        return None, False
    ids, whole = found
    with client.pipeline(transaction=False) as pipeline:
        for card_id in ids:
            pipeline.get(CARD_SEQ.of(card_id, tags=tags))
            pipeline.hmget(CARD_SEED.of(card_id, tags=tags), "count")
        replies = pipeline.execute()
    counts = zip(replies[::2], replies[1::2], strict=True)
    live = sum(max(int(seq or 0) - int(loaded or 0), 0) for seq, (loaded,) in counts)
    return (live, False) if whole or not ids else (round(live * cards / len(ids)), True)


def _some_cards(client: redis.Redis) -> tuple[set[bytes], bool]:
    """Ids of cards, and whether these are all cards."""
    before, _, after = CARD_SEQ.template.encode().partition(b"{}")
    found: set[bytes] = set()
    whole = True
    for node in primaries(client):
        cursor = 0
        for _ in range(_SCAN_CALLS):
            page: Any = node.scan(cursor, match=before + b"*" + after, count=_SCAN_COUNT)
            cursor, names = page
            found.update(name[len(before) : -len(after)].strip(b"{}") for name in names)
            if not cursor:
                break
        whole = whole and not cursor
    return found, whole


def last_report() -> str:
    """When gold was last reported to the instance of DAGSTER_HOME, and of which version if the report names it."""
    if not os.environ.get("DAGSTER_HOME"):
        return "unknown: set DAGSTER_HOME to that of the daemon"
    try:
        with dg.DagsterInstance.get() as instance:
            event = instance.get_latest_materialization_event(GOLD)
    except dg.DagsterError as e:  # DAGSTER_HOME is no home, or its storage does not answer
        return f"unknown: {e}"
    if event is None or event.asset_materialization is None:
        return "none: no report has come to this Dagster"
    version = event.asset_materialization.metadata.get("gold_version")
    time = datetime.fromtimestamp(event.timestamp, timezone.utc).isoformat()
    return f"{_utc(time)}{f', version {version.value}' if version else ''}"


def in_words(ready: Ready) -> str:
    """What is in a store that is ready, or else the state of the store."""
    if ready.state != "ready":
        return f"its state is {ready.state!r}"
    counts = f"{ready.cards:,} cards, {ready.customers:,} customers"
    return f"ready: {counts} of gold {ready.gold_version} up to {_utc(ready.watermark)}"


def as_json(status: Status) -> Iterator[str]:
    """One object of all of it."""
    fields = asdict(status)
    yield dumps({"store": fields.pop("store"), **fields.pop("ready"), **fields}, indent=2)


def as_text(status: Status) -> Iterator[str]:
    """A line for each thing that is known."""
    ready = status.ready
    about = "about " if status.sampled else ""
    lines = {
        "store": status.store,
        "state": ready.state + (f" since {_utc(ready.finished_at)}" if ready.finished_at else ""),
        "error": status.error,
        "gold": f"{ready.gold_version}, up to {_utc(ready.watermark)}" if ready.watermark else None,
        "cards": f"{ready.cards:,}" if status.is_ready else None,
        "customers": f"{ready.customers:,}" if status.is_ready else None,
        "live events": None if status.live_events is None else f"{about}{status.live_events:,} of cards",
        "run": ready.run_id and (run_page(ready.run_id) or ready.run_id),
        "lock": "unknown" if status.error else status.lock or "free",
        "last report of gold": status.last_report,
    }
    width = max(map(len, lines))
    yield from (f"{name:{width}}  {text}" for name, text in lines.items() if text)


def as_prometheus(status: Status) -> Iterator[str]:
    """Gauges in Prometheus' text format, for a textfile collector."""
    ready = status.ready
    gauges = (
        ("up", "1 if the store answers", status.error is None),
        ("ready", "1 if the store is ready for a scorer", status.is_ready),
        ("locked", "1 if a run is writing to the store", status.lock is not None),
        ("cards", "cards of the last run", ready.cards),
        ("customers", "customers of the last run", ready.customers),
        ("live_events", "transactions of cards since the last run", status.live_events),
        ("since_seconds", "when the store became ready, in Unix seconds", _unix(ready.finished_at)),
        ("watermark_seconds", "the time up to which gold is in the store, in Unix seconds", _unix(ready.watermark)),
    )
    for name, meaning, value in gauges:
        if value is not None:
            yield f"# HELP feature_seed_{name} {meaning}"
            yield f"# TYPE feature_seed_{name} gauge"
            yield f"feature_seed_{name} {float(value):.15g}"


def _unix(time: str) -> float | None:
    return datetime.fromisoformat(time).timestamp() if time else None


def _utc(time: str) -> str:
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M:%S} UTC" if time else "unknown"
