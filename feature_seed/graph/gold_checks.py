"""The checks of gold, which run before anything is written."""

import random
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from math import ceil
from typing import Any

import dagster as dg
from clickhouse_connect.driver.client import Client

from feature_seed.errors import GoldError
from feature_seed.graph.blocking import blocking
from feature_seed.graph.checks import GOLD, WARM_START, asked, check_result, check_specs
from feature_seed.graph.retries import retried
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.gold import keeps_versions, over_gold
from feature_seed.warehouse.limits import FUTURE, GoldLimits

# Of more rows than this a part is searched for repeated ids: grouping them takes 27 bytes of memory a row.
_SEARCHED_ROWS = 10_000_000

Scan = dict[str, dict[str, Any]]

_NO_ROWS = {"rows": 0, "newest": None, "out_of_range": 0}


@dg.multi_asset_check(name="gold_checks", specs=check_specs(GOLD), can_subset=True)
def gold_checks(
    context: dg.AssetCheckExecutionContext, warehouse: Warehouse, limits: GoldLimits
) -> Iterable[dg.AssetCheckResult]:
    """Two scans of gold for all of them, before anything is written."""
    yield from blocking(_untouched(context, asked(context, _evaluated(context, warehouse, limits))))


def _evaluated(
    context: dg.AssetCheckExecutionContext, warehouse: Warehouse, limits: GoldLimits
) -> Iterator[dg.AssetCheckResult]:
    """The outcome of each check. A check that cannot be evaluated, because another has failed, has none."""
    try:
        with retried(context.retry_number):
            scan, duplicates, shared = _scan(warehouse)
    except GoldError as e:
        yield check_result("schema", False, str(e))
        return
    unread, usable = scan.pop("unread", _NO_ROWS), scan.get("", _NO_ROWS)
    newest = max(filter(None, (unread["newest"], usable["newest"])), default=None)
    for warning in warehouse.warnings:
        context.log.warning(warning)
    yield check_result("schema", True, "; ".join(["every column can be read", *warehouse.warnings]))
    yield _not_empty(usable["rows"], sum(found["rows"] for found in scan.values()), unread["rows"])
    yield _rejected_rows(scan, limits.max_rejected)
    if newest:
        yield _freshness(newest, limits.max_age_hours)
    yield _coordinates(usable["out_of_range"])
    yield _zeros(scan, warehouse.zero_is_unknown)
    yield _duplicates(duplicates)
    yield _shared_cards(shared)


def _untouched(
    context: dg.AssetCheckExecutionContext, results: Iterable[dg.AssetCheckResult]
) -> Iterator[dg.AssetCheckResult]:
    """The same outcomes. One that blocks says what the store holds, since the graph is red after it."""
    said = ""
    for one in results:
        if one.passed or one.severity == dg.AssetCheckSeverity.WARN:
            yield one
            continue
        said = said or _left_alone(context.instance)
        yield one._replace(metadata={**one.metadata, "store": said})
    if said:
        context.log.warning(said)


def _left_alone(instance: dg.DagsterInstance) -> str:
    """What a run that is blocked before its first write has left in the store."""
    text = "Nothing was written. Dagster shows features and warm_start as failed because this run did not reach them. "
    seeded = instance.get_latest_materialization_event(WARM_START)
    if not seeded or not seeded.asset_materialization:
        return f"{text}No run has made the store ready so far."
    gold = seeded.asset_materialization.metadata["gold_version"].value
    return (
        f"{text}The store is as run {seeded.run_id} left it, with gold {gold}: execute the check store_kept of "
        "warm_start to see that it still is."
    )


def _scan(warehouse: Warehouse) -> tuple[Scan, Mapping[str, Any], Mapping[str, Any]]:
    """What is known of gold's rows, by the reason that they are rejected for; '' for those that can be used.

    Usable rows after the watermark are `unread`.

    And what is known of transactions that are there more than once, and of cards with several customers.

    Raises:
        GoldError: there is no such table, or a column is missing or mistyped.
    """
    with warehouse.client() as client, warehouse.errors():
        warehouse.require_columns(client)
        scan = {row.pop("reason"): row for row in _rows(client, warehouse, "gold_rows")}
        slices = max(1, ceil(sum(found["rows"] for found in scan.values()) / _SEARCHED_ROWS))
        search = {"slices": slices, "slice": random.randrange(slices)}
        duplicates = {
            **search,
            "read": _read(client, warehouse),
            **next(_rows(client, warehouse, "duplicates", **search)),
        }
        if duplicates["duplicates"]:
            duplicates |= next(_rows(client, warehouse, "duplicate", hash=duplicates["hash"]))
        shared: dict[str, Any] = {"cards": 0}
        # The profile is what the loads go by: one look at gold for all of them.
        if "" in scan and warehouse.profile().pairs > warehouse.profile().cards:
            shared = next(_rows(client, warehouse, "shared_cards"))
            shared |= next(_rows(client, warehouse, "shared_card", hash=shared["hash"]))
    return scan, duplicates, shared


def _read(client: Client, warehouse: Warehouse) -> str:
    """How a table is read that keeps versions of a row."""
    engine = warehouse.engine(client)
    if not keeps_versions(engine):
        return ""
    if warehouse.gold_final:
        return f"; the table is a {engine}, read with FINAL"
    return (
        f"; the table is a {engine}, read without FINAL since FEATURE_SEED_GOLD_FINAL is 0: rows that others replace "
        "count as well, until ClickHouse merges them"
    )


def _rows(client: Client, warehouse: Warehouse, check: str, **parameters: Any) -> Iterator[dict[str, Any]]:
    rows = client.query(
        warehouse.mapping.over(over_gold(f"graph/{check}")),
        parameters={**warehouse.table, "latest": warehouse.latest, **parameters},
        query_tz="UTC",
        tz_mode="aware",
    )
    return iter(rows.named_results())


def _not_empty(usable: int, rows: int, unread: int) -> dg.AssetCheckResult:
    text = f"{usable:,} of {rows:,} rows can be used"
    if unread:
        text += f"; {unread:,} more are after the watermark and were not read"
    return check_result("not_empty", usable > 0, text, {"unread_rows": unread})


def _rejected_rows(scan: Scan, limit: float) -> dg.AssetCheckResult:
    rows = sum(found["rows"] for found in scan.values())
    reasons = {reason: found for reason, found in scan.items() if reason}
    rejected = sum(found["rows"] for found in reasons.values())
    share = rejected / max(rows, 1)
    text = f"{rejected:,} of {rows:,} rows ({share:.2%}) are rejected, and {limit:.2%} may be"
    for reason, found in reasons.items():
        text += f"; {reason}: {found['rows']:,}, for example {found['example']}"
    counts = {reason: found["rows"] for reason, found in reasons.items()}
    return check_result("rejected_rows", share <= limit, text, {"rejected": rejected, "share": share, **counts})


def _freshness(newest: datetime, limit: float | None) -> dg.AssetCheckResult:
    age = datetime.now(timezone.utc) - newest
    hours = age / timedelta(hours=1)
    metadata = {"newest": dg.MetadataValue.timestamp(newest), "age_hours": round(hours, 2)}
    text = f"the newest transaction is of {newest:%Y-%m-%d %H:%M:%S} UTC, "
    if age < -FUTURE:
        return check_result("freshness", False, f"{text}{-hours:,.1f} hours in the future", metadata)
    text += f"{hours:,.1f} hours ago" + (f", and {limit:g} are allowed" if limit is not None else "")
    return check_result("freshness", limit is None or hours <= limit, text, metadata)


def _coordinates(out_of_range: int) -> dg.AssetCheckResult:
    text = f"{out_of_range:,} rows have a latitude beyond 90 degrees or a longitude beyond 180: the store has null"
    return check_result("coordinates", not out_of_range, text, {"out_of_range": out_of_range})


def _zeros(scan: Scan, unknown: bool) -> dg.AssetCheckResult:
    places, times = (sum(found[zeros] for found in scan.values()) for zeros in ("zero_places", "zero_times"))
    text = (
        f"{places:,} rows are at (0, 0) and {times:,} of 1970-01-01 00:00:00, as a join leaves them that finds nothing"
    )
    if unknown:
        text += ": such places are unknown to the store, and such rows are rejected"
    elif places or times:
        text += ". Set FEATURE_SEED_ZERO_IS_UNKNOWN=1 if they are not real"
    return check_result("zeros", unknown or not places + times, text, {"zero_places": places, "zero_times": times})


def _shared_cards(found: Mapping[str, Any]) -> dg.AssetCheckResult:
    text = f"{found['cards']:,} cards have several customers"
    if found["cards"]:
        customers = ", ".join(map(repr, found["customers"]))
        text += (
            f", for example {found['example']!r} of {customers}: their transactions are loaded as those of one card. "
            "Where card numbers repeat between customers, put the customer's id into card_id"
        )
    return check_result("shared_cards", not found["cards"], text, {"cards": found["cards"]})


def _duplicates(found: Mapping[str, Any]) -> dg.AssetCheckResult:
    duplicates, looked_at = found["duplicates"], found["looked_at"]
    text = f"{duplicates:,} duplicate rows"
    if found["slices"] > 1:
        text += f" among the {looked_at:,} rows that this run looked at, one in {found['slices']} ids"
    if duplicates:
        text += ", for example {example!r}, {times} times".format(**found)
    text += found["read"]
    return check_result(
        "duplicate_transactions", not duplicates, text, {"duplicates": duplicates, "looked_at": looked_at}
    )
