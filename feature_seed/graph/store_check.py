"""Whether the store still is what the last run left: the check `store_kept`, and the command `check`, which asks more.

Both read and write nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import dagster as dg
import redis

from feature_seed.contract import Ready, read_ready
from feature_seed.errors import ReadinessError
from feature_seed.features.declared.declared import Declared
from feature_seed.features.feature import FEATURES
from feature_seed.graph.checks import DEPARTED, WARM_START, blocking, check_name, check_result, check_specs
from feature_seed.graph.feature_checks import checked, compared
from feature_seed.graph.readiness import Loads, all_loads, latest_loads, recorded, require_kept
from feature_seed.graph.retries import retried
from feature_seed.graph.status import in_words
from feature_seed.loading.comparison.comparison import Comparison
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.store.online_store import OnlineStore
from feature_seed.store.size import Size
from feature_seed.warehouse.clickhouse import Warehouse

# What warm_start records of the ready key, as it is in the key.
_RECORDED = ("state", "run_id", "gold_version", "cards", "customers")


@dg.multi_asset_check(name="store_check", specs=check_specs(WARM_START))
def store_check(
    context: dg.AssetCheckExecutionContext, store: OnlineStore, layout: Layout
) -> Iterator[dg.AssetCheckResult]:
    """The check blocks, so that a scheduled run fails and is reported like any failed run."""
    loads = all_loads(context.instance, shard_names(layout.shard_count))
    with retried(context.retry_number), store.client() as client:
        yield from blocking([_kept(context.instance, client, store.address, layout, loads)])


def _kept(
    instance: dg.DagsterInstance, client: redis.Redis, address: str, layout: Layout, loads: Loads
) -> dg.AssetCheckResult:
    """Compare a few keys of the store with what `warm_start` and the loads have recorded."""
    seeded = instance.get_latest_materialization_event(WARM_START)
    if not seeded or not seeded.asset_materialization:
        return _result(False, "No run has made the store ready so far: run seed_all")
    try:
        require_kept(client, address, loads)
    except ReadinessError as e:
        return _result(False, str(e))
    recorded: Mapping[str, Any] = seeded.asset_materialization.metadata
    ready: Ready = read_ready(client) or Ready("empty")
    wrong = [
        f"{name} is {found!r} and not {recorded[name].value!r}"
        for name in _RECORDED
        if (found := getattr(ready, name)) != recorded[name].value
    ]
    run = f"run {seeded.run_id}"
    if wrong:
        text = f"feature_seed:ready in Redis at {address} is not as {run} set it: {', '.join(wrong)}. Run seed_all"
        return _result(False, text)
    keys, then = Size.of(client).keys, _keys_left(instance, seeded)
    if keys is not None and keys < then and not layout.expire:  # in a shared database, maybe another program's
        text = (
            f"Redis at {address} has {keys:,} keys, {then - keys:,} fewer than after {run}. Find out whether Redis "
            "evicts keys or somebody deletes them, and run seed_all with FEATURE_SEED_FULL=1"
        )
        return _result(False, text, keys=keys, keys_then=then)._replace(severity=dg.AssetCheckSeverity.WARN)
    loading = f". A load of gold {ready.loading} over it is under way, or has failed" if ready.loading else ""
    text = f"Redis at {address} has gold {ready.gold_version} up to {ready.watermark}, of {run}{loading}"
    return _result(True, text, **({} if keys is None else {"keys": keys, "keys_then": then}))


def _keys_left(instance: dg.DagsterInstance, seeded: dg.EventLogEntry) -> int:
    """How many keys the store had after the run, or after a later removal of what gold has no more."""
    since = dg.AssetRecordsFilter(DEPARTED, after_timestamp=seeded.timestamp)
    removals = [one.event_log_entry for one in instance.fetch_materializations(since, limit=10).records]
    pages: Any = [one.asset_materialization and one.asset_materialization.metadata for one in (*removals, seeded)]
    return next((page["store_keys"].value for page in pages if "store_keys" in page), 0) or 0


def _result(passed: bool, text: str, **metadata: int) -> dg.AssetCheckResult:
    return check_result("store_kept", passed, text, metadata, WARM_START)


def require_unchanged(
    warehouse: Warehouse, store: OnlineStore, layout: Layout, size: int | None, declared: Sequence[Declared] = ()
) -> Iterator[str]:
    """A line for each thing that holds: of the store, of gold, and of `size` entities of each feature.

    Raises:
        ReadinessError, CheckFailedError: with the first thing that does not.
    """
    shards = shard_names(layout.shard_count)
    with recorded() as instance, store.client() as client:
        ready: Ready = read_ready(client) or Ready("empty")
        if ready.state != "ready":
            raise ReadinessError(f"{store.address} is not ready, {in_words(ready)}: run seed_all")
        yield f"{store.address} is ready, by run {ready.run_id}"
        loads = all_loads(instance, shards)
        if any(loads.values()):
            yield from _told([_kept(instance, client, store.address, layout, loads)])
        else:
            yield "Whether Redis was restarted since is unknown: set DAGSTER_HOME to the one that has the run"
        with warehouse.client() as gold, warehouse.errors():
            version = warehouse.version(gold)
        if version != ready.gold_version:
            raise ReadinessError(
                f"Gold was rebuilt since: the store holds version {ready.gold_version}, and gold is {version}. "
                "Run seed_all"
            )
        for features, comparison in [(FEATURES, Comparison), *(([one], of) for one, of in compared(declared))]:
            own = {one.name: latest_loads(instance, one.name, shards) for one in features}
            results = checked(features, own, warehouse, layout, store, shards, uuid4().hex, size, comparison)
            # Counts and digests need the watermark of the loads: only where that is known.
            known = {dg.AssetKey(name) for name, seeded in own.items() if seeded}
            yield from _told(one for one in results if one.asset_key in known or one.check_name != "entity_count")


def _told(results: Iterable[dg.AssetCheckResult]) -> Iterator[str]:
    for one in blocking(results):
        yield f"{check_name(one)}: {one.description}"
