"""The status: what the store says of itself, who writes to it, and what Dagster last heard of gold."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import redis

from feature_seed.contract import CARD_SEED, CARD_SEQ, Ready, read_ready
from feature_seed.errors import StoreError
from feature_seed.graph.alert import run_page
from feature_seed.graph.assets import gold_transactions
from feature_seed.store.cluster import primaries
from feature_seed.store.commands import spared
from feature_seed.store.lock import KEY as LOCK
from feature_seed.store.online_store import OnlineStore

# Keys of the store that are looked at for live events: a large store is sampled, within some 0.1 s.
_SCAN_CALLS, _SCAN_COUNT = 30, 1000

_NO_HOME = "unknown: set DAGSTER_HOME to that of the daemon"


@dataclass(frozen=True)
class Status:
    """Everything that `status` tells.

    Attributes:
        state: `ready`, `seeding`, `empty` or `unreachable`.
        since: when the store became ready.
        live_events: of cards, since gold; estimated where `sampled`.
        loading: the gold and the watermark of a load that is under way, or was broken off.
        lock: who writes to the store, None if nobody does.
        last_report: when gold was reported last to the Dagster of DAGSTER_HOME.
        error: why nothing is known.
    """

    store: str
    state: str
    since: str | None = None
    gold_version: str | None = None
    watermark: str | None = None
    cards: int = 0
    customers: int = 0
    run_id: str | None = None
    live_events: int | None = None
    sampled: bool = False
    loading: str | None = None
    lock: str | None = None
    last_report: str | None = None
    error: str | None = None

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"


def status_of(store: OnlineStore, *, tags: bool) -> Status:
    """Some HGETALL, GET and SCAN; nothing is written."""
    report = last_report()
    try:
        with store.client() as client:
            ready = read_ready(client)
            holder: Any = client.get(LOCK)
            status = Status(
                store.address, "empty", lock=holder.decode(errors="replace") if holder else None, last_report=report
            )
            return _of_ready(status, ready, client, tags=tags) if ready else status
    except StoreError as e:
        return Status(store.address, "unreachable", last_report=report, error=str(e))


def _of_ready(status: Status, ready: Ready, client: redis.Redis, *, tags: bool) -> Status:
    live, sampled = live_events(client, ready.cards, tags=tags)
    told = {name: value or None for name, value in asdict(ready).items() if name in Status.__dataclass_fields__}
    since = ready.finished_at or None
    counts = {"cards": ready.cards, "customers": ready.customers, "live_events": live, "sampled": sampled}
    known = {field.name: getattr(status, field.name) for field in fields(status)}
    return Status(**{**known, **told, **counts, "since": since})


def live_events(client: redis.Redis, cards: int, *, tags: bool) -> tuple[int | None, bool]:
    """How many transactions of cards the scorer has added since they were loaded, and whether that is an estimate.

    None where a store runs no SCAN.
    """
    found = spared(lambda: _some_cards(client), None)
    if found is None:
        return None, False
    names, whole = found
    with client.pipeline(transaction=False) as pipeline:
        for card_id in names:
            pipeline.get(CARD_SEQ.of(card_id, tags=tags))
            pipeline.hmget(CARD_SEED.of(card_id, tags=tags), "count")
        replies = pipeline.execute()
    counts = zip(replies[::2], replies[1::2], strict=True)
    live = sum(max(int(seq or 0) - int(loaded or 0), 0) for seq, (loaded,) in counts)
    return (live, False) if whole or not names else (round(live * cards / len(names)), True)


def _some_cards(client: redis.Redis) -> tuple[set[bytes], bool]:
    """Ids of cards, and whether they are all that there are."""
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


def last_report() -> str | None:
    """When gold was last reported to the instance of DAGSTER_HOME, and of which version if the report names it."""
    if not os.environ.get("DAGSTER_HOME"):
        return _NO_HOME
    try:
        with dg.DagsterInstance.get() as instance:
            event = instance.get_latest_materialization_event(gold_transactions.key)
    except dg.DagsterError as e:  # a home that is none, or storage that does not answer
        return f"unknown: {e}"
    if event is None or event.asset_materialization is None:
        return None
    version = event.asset_materialization.metadata.get("gold_version")
    return f"{_when(event.timestamp)}{f', version {version.value}' if version else ''}"


def in_words(ready: Ready) -> str:
    """What is in a store that is ready."""
    counts = f"{ready.cards:,} cards, {ready.customers:,} customers"
    return f"ready: {counts} of gold {ready.gold_version} up to {_utc(ready.watermark)}"


def as_text(status: Status) -> Iterator[str]:
    """A line for each thing that is known."""
    about = "about " if status.sampled else ""
    lines: Mapping[str, str | None] = {
        "store": status.store,
        "state": status.state + (f" since {_utc(status.since)}" if status.since else ""),
        "error": status.error,
        "gold": f"{status.gold_version}, up to {_utc(status.watermark)}" if status.watermark else None,
        "cards": f"{status.cards:,}" if status.is_ready else None,
        "customers": f"{status.customers:,}" if status.is_ready else None,
        "live events": None if status.live_events is None else f"{about}{status.live_events:,} of cards",
        "run": status.run_id and (run_page(status.run_id) or status.run_id),
        "lock": (status.error and "unknown") or status.lock or "free",
        "last report of gold": status.last_report or "none: no report has come to this Dagster",
    }
    width = max(map(len, lines))
    yield from (f"{name:{width}}  {text}" for name, text in lines.items() if text)


def as_prometheus(status: Status) -> Iterator[str]:
    """Gauges in Prometheus' text format, for a textfile collector."""
    times = {"since": status.since, "watermark": status.watermark}
    gauges: dict[str, tuple[str, float | None]] = {
        "up": ("1 if the store answers", float(status.error is None)),
        "ready": ("1 if the store is ready for a scorer", float(status.is_ready)),
        "locked": ("1 if a run is writing to the store", float(status.lock is not None)),
        "cards": ("cards of the last run", status.cards),
        "customers": ("customers of the last run", status.customers),
        "live_events": ("transactions of cards since the last run", status.live_events),
        **{
            f"{name}_seconds": (f"{name}, in Unix seconds", datetime.fromisoformat(time).timestamp() if time else None)
            for name, time in times.items()
        },
    }
    for name, (meaning, value) in gauges.items():
        if value is not None:
            yield f"# HELP feature_seed_{name} {meaning}"
            yield f"# TYPE feature_seed_{name} gauge"
            yield f"feature_seed_{name} {value:.15g}"


def _utc(time: str | None) -> str:
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M:%S} UTC" if time else "unknown"


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
