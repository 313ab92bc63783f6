"""The checks of gold, which run before anything is written."""

import random
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from math import ceil
from typing import Any

import dagster as dg
from clickhouse_connect.driver.client import Client

from feature_seed.errors import GoldError, StoreError, WarehouseUnavailableError
from feature_seed.graph.checks import GOLD, WARM_START, asked, blocking, blocks, check_result, check_specs, shards_of
from feature_seed.graph.plan import loss_result
from feature_seed.graph.retries import retried
from feature_seed.loading.layout import Layout
from feature_seed.loading.preflight import examine
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.gold import keeps_versions, over_gold
from feature_seed.warehouse.limits import FUTURE, GoldLimits
from feature_seed.warehouse.profile import Profile

# If gold has more rows, a part is searched for repeated ids: grouping them takes 27 bytes of memory a row.
_SEARCHED_ROWS = 10_000_000

Row = dict[str, Any]

# A function that answers a query of this folder, by its name and parameters.
Ask = Callable[..., list[Row]]


@dg.multi_asset_check(name="gold_checks", specs=check_specs(GOLD), can_subset=True)
def gold_checks(
    context: dg.AssetCheckExecutionContext,
    warehouse: Warehouse,
    limits: GoldLimits,
    layout: Layout,
    store: OnlineStore,
) -> Iterable[dg.AssetCheckResult]:
    """One scan of gold for all checks, one of its ids for duplicates, and one for each entity, which the loads use too.

    A check that blocks says what the store holds, since the graph is red after it.
    """
    results = list(asked(context, _evaluated(context, warehouse, limits)))
    if not any(map(blocks, results)):
        results += _loss(context, warehouse, store, layout, limits.max_loss)
    if any(map(blocks, results)):
        said = _left_alone(context.instance)
        context.log.warning(said)
        results = [one._replace(metadata={**one.metadata, "store": said}) if blocks(one) else one for one in results]
    yield from blocking(results)


def _loss(
    context: dg.AssetCheckExecutionContext, warehouse: Warehouse, store: OnlineStore, layout: Layout, limit: float
) -> Iterator[dg.AssetCheckResult]:
    """What the loads would do. If that cannot be seen, there is no outcome: a load looks again, and says why not."""
    if dg.AssetCheckKey(GOLD, "loss") not in context.selected_asset_check_keys:
        return
    try:
        with store.client() as client:
            examine(client, store)
        yield loss_result(warehouse, store, layout, shards_of(context, layout), limit, context.instance)
    except (StoreError, WarehouseUnavailableError) as e:
        context.log.info(f"The check loss has no outcome: {e}")


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


def _evaluated(
    context: dg.AssetCheckExecutionContext, warehouse: Warehouse, limits: GoldLimits
) -> list[dg.AssetCheckResult]:
    """The outcome of each check. A check that cannot be evaluated, because another has failed, has none."""
    try:
        with retried(context.retry_number):
            gold = warehouse.looked_at()
            with warehouse.client() as client, warehouse.errors():
                ask = partial(_ask, client, warehouse)
                duplicates = _duplicates(ask, gold, _read(client, warehouse))
                shared_cards = _shared_cards(ask, gold)
    except GoldError as e:
        return [check_result("schema", False, str(e))]
    for warning in warehouse.access.warnings:
        context.log.warning(warning)
    return [
        check_result("schema", True, "; ".join(["every column can be read", *warehouse.access.warnings])),
        _not_empty(gold),
        _rejected_rows(gold, limits.max_rejected),
        *([_freshness(gold.newest, limits.max_age_hours)] if gold.rows - gold.rejected + gold.unread else []),
        _coordinates(gold.out_of_range),
        _zeros(gold.zero_places, gold.zero_times, warehouse.zero_is_unknown),
        duplicates,
        shared_cards,
    ]


def _ask(client: Client, warehouse: Warehouse, check: str, **parameters: Any) -> list[Row]:
    found = client.query(
        warehouse.mapping.over(over_gold(f"graph/{check}")),
        parameters={**warehouse.table, "latest": warehouse.latest, **parameters},
        query_tz="UTC",
        tz_mode="aware",
    )
    return list(found.named_results())


def _read(client: Client, warehouse: Warehouse) -> str:
    """How a table is read that keeps several versions of a row."""
    engine = warehouse.engine(client)
    if not keeps_versions(engine):
        return ""
    if warehouse.gold_final:
        return f"; the table is a {engine}, read with FINAL"
    return (
        f"; the table is a {engine}, read without FINAL since FEATURE_SEED_GOLD_FINAL is 0: rows that others replace "
        "count as well, until ClickHouse merges them"
    )


def _not_empty(gold: Profile) -> dg.AssetCheckResult:
    usable = gold.rows - gold.rejected
    text = f"{usable:,} of {gold.rows:,} rows can be used"
    if gold.unread:
        text += f"; {gold.unread:,} more are after the watermark and were not read"
    return check_result("not_empty", usable > 0, text, {"unread_rows": gold.unread})


def _rejected_rows(gold: Profile, limit: float) -> dg.AssetCheckResult:
    share = gold.rejected / max(gold.rows, 1)
    text = f"{gold.rejected:,} of {gold.rows:,} rows ({share:.2%}) are rejected, and {limit:.2%} may be"
    for reason, rows, example in gold.reasons:
        text += f"; {reason}: {rows:,}, for example {example}"
    counts = {reason: rows for reason, rows, _ in gold.reasons}
    return check_result("rejected_rows", share <= limit, text, {"rejected": gold.rejected, "share": share, **counts})


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


def _zeros(places: int, times: int, unknown: bool) -> dg.AssetCheckResult:
    text = (
        f"{places:,} rows are at (0, 0) and {times:,} of 1970-01-01 00:00:00, as a join leaves them that finds nothing"
    )
    if unknown:
        text += ": such places are unknown to the store, and such rows are rejected"
    elif places or times:
        text += ". Set FEATURE_SEED_ZERO_IS_UNKNOWN=1 if they are not real"
    return check_result("zeros", unknown or not places + times, text, {"zero_places": places, "zero_times": times})


def _duplicates(ask: Ask, gold: Profile, read: str) -> dg.AssetCheckResult:
    """Transactions that are there more than once, in a slice of the ids that fits into memory."""
    slices = max(1, ceil((gold.rows + gold.unread) / _SEARCHED_ROWS))
    (found,) = ask("duplicates", slices=slices, slice=random.randrange(slices), all_read=not gold.unread)
    duplicates, looked_at = found["duplicates"], found["looked_at"]
    text = f"{duplicates:,} duplicate rows"
    if slices > 1:
        text += f" among the {looked_at:,} rows that this run looked at, one in {slices} ids"
    if duplicates:
        text += ", for example {example!r}, {times} times".format(**ask("duplicate", hash=found["hash"])[0])
    metadata = {"duplicates": duplicates, "looked_at": looked_at}
    return check_result("duplicate_transactions", not duplicates, text + read, metadata)


def _shared_cards(ask: Ask, gold: Profile) -> dg.AssetCheckResult:
    if gold.pairs <= gold.cards:
        return check_result("shared_cards", True, "0 cards have several customers", {"cards": 0})
    (found,) = ask("shared_cards")
    (one,) = ask("shared_card", hash=found["hash"])
    text = (
        f"{found['cards']:,} cards have several customers, for example {one['example']!r} of "
        f"{', '.join(map(repr, one['customers']))}: their transactions are loaded as those of one card. Where card "
        "numbers repeat between customers, put the customer's id into card_id"
    )
    return check_result("shared_cards", False, text, {"cards": found["cards"]})
