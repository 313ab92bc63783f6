"""The check of the store: whether it still is what the last run left. It reads a few keys and writes nothing."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import redis

from feature_seed.contract import Ready, read_ready
from feature_seed.errors import ReadinessError
from feature_seed.features.feature import FEATURES
from feature_seed.graph.blocking import blocking
from feature_seed.graph.checks import WARM_START, check_result, check_specs
from feature_seed.graph.readiness import latest_loads, require_kept
from feature_seed.graph.retries import retried
from feature_seed.loading.stream import Layout, shard_names
from feature_seed.store.online_store import OnlineStore
from feature_seed.store.size import Size

# What warm_start records of the ready key, as it is in the key.
_RECORDED = ("gold_version", "cards", "customers")


@dg.multi_asset_check(name="store_check", specs=check_specs(WARM_START))
def store_check(
    context: dg.AssetCheckExecutionContext, store: OnlineStore, layout: Layout
) -> Iterator[dg.AssetCheckResult]:
    """Blocking, so that a run by a schedule fails, and is told of as any failed run."""
    yield from blocking([_evaluated(context, store, layout)])


def _evaluated(context: dg.AssetCheckExecutionContext, store: OnlineStore, layout: Layout) -> dg.AssetCheckResult:
    seeded = context.instance.get_latest_materialization_event(WARM_START)
    if not seeded or not seeded.asset_materialization:
        return _result(False, "No run has made the store ready so far: run seed_all")
    recorded = {name: value.value for name, value in seeded.asset_materialization.metadata.items()}
    shards = shard_names(layout.shard_count)
    loads = {feature.name: latest_loads(context.instance, feature.name, shards) for feature in FEATURES}
    with retried(context.retry_number), store.client() as client:
        try:
            require_kept(client, store.address, loads)
        except ReadinessError as e:
            return _result(False, str(e))
        return _compared(client, store.address, recorded, seeded.run_id)


def _compared(client: redis.Redis, address: str, recorded: Mapping[str, Any], run_id: str) -> dg.AssetCheckResult:
    ready: Ready | None = read_ready(client)
    keys, then = Size.of(client).keys, recorded.get("store_keys", 0)
    metadata = {} if keys is None else {"keys": keys, "keys_then": then}
    expected = {"state": "ready", "run_id": run_id, **{name: recorded[name] for name in _RECORDED}}
    wrong = [
        f"{name} is {found!r} and not {value!r}"
        for name, value in expected.items()
        if (found := getattr(ready, name, None)) != value
    ]
    if not ready or wrong:
        text = (
            f"feature_seed:ready in Redis at {address} is not as run {run_id} set it: {', '.join(wrong)}. Run seed_all"
        )
        return _result(False, text, metadata)
    if keys is not None and keys < then:  # maybe another program's, of a database that is shared
        text = (
            f"Redis at {address} has {keys:,} keys, {then - keys:,} fewer than after run {run_id}. Find out whether "
            "Redis evicts keys or somebody deletes them, and run seed_all"
        )
        return _result(False, text, metadata)._replace(severity=dg.AssetCheckSeverity.WARN)
    loading = f". A load of gold {ready.loading} over it is under way, or has failed" if ready.loading else ""
    count = "" if keys is None else f", and {keys:,} keys"
    text = f"Redis at {address} has gold {ready.gold_version} up to {ready.watermark}, of run {run_id}{count}{loading}"
    return _result(True, text, metadata)


def _result(passed: bool, text: str, metadata: Mapping[str, Any] | None = None) -> dg.AssetCheckResult:
    return check_result("store_kept", passed, text, metadata, WARM_START)
