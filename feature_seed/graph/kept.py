"""Whether the store is still what the last run left, without writing to it."""

import os
from collections.abc import Iterator, Mapping
from uuid import uuid4

import dagster as dg
import redis

from feature_seed.contract import Ready, read_ready
from feature_seed.errors import ReadinessError
from feature_seed.features.feature import FEATURES
from feature_seed.graph.feature_checks import compared, untils_of
from feature_seed.graph.readiness import Loads, ShardLoad, latest_loads, require_kept
from feature_seed.loading.comparison.comparison import Comparison
from feature_seed.loading.stream import Layout, shard_names
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse

_NO_LOADS: Mapping[str, ShardLoad] = {}


def require_unchanged(warehouse: Warehouse, store: OnlineStore, layout: Layout, size: int | None) -> Iterator[str]:
    """A line for each thing that holds.

    Raises:
        ReadinessError: with the first thing that does not.
    """
    with store.client() as client, warehouse.client() as gold, warehouse.errors():
        ready = _require_ready(client, store.address)
        yield f"{store.address} is ready, by run {ready.run_id}"
        loads = _loads(layout)
        if any(loads.values()):
            require_kept(client, store.address, loads)
            yield "Redis was neither emptied nor restarted since"
        else:
            yield "Whether Redis was restarted since is unknown: set DAGSTER_HOME to the one that has the run"
        if (version := warehouse.version(gold)) != ready.gold_version:
            raise ReadinessError(
                f"Gold was rebuilt since: the store holds version {ready.gold_version}, and gold is {version}. "
                "Run seed_all"
            )
        for feature in FEATURES:
            untils = untils_of(loads[feature.name], layout, warehouse)
            table, shards = {**warehouse.table, "untils": untils}, shard_names(layout.shard_count)
            comparison = Comparison(feature, gold, client, table, layout, shards, frozenset(untils), warehouse.mapping)
            results = compared(comparison, uuid4().hex, size, loads[feature.name])
            yield from _passed(feature.name, results, counted=bool(loads[feature.name]))


def _require_ready(client: redis.Redis, address: str) -> Ready:
    ready = read_ready(client)
    if ready is None or ready.state != "ready":
        state = f"{address} is in state {ready.state!r}" if ready else f"Nothing has been seeded into {address}"
        raise ReadinessError(f"{state}: run seed_all")
    return ready


def _loads(layout: Layout) -> Loads:
    """What the Dagster of DAGSTER_HOME knows to have loaded."""
    if not os.environ.get("DAGSTER_HOME"):
        return {feature.name: _NO_LOADS for feature in FEATURES}
    with dg.DagsterInstance.get() as instance:
        shards = shard_names(layout.shard_count)
        return {feature.name: latest_loads(instance, feature.name, shards) for feature in FEATURES}


def _passed(feature: str, results: Iterator[dg.AssetCheckResult], *, counted: bool) -> Iterator[str]:
    """What each check says. Counts are compared with what the loads recorded, where that is known."""
    for result in results:
        if result.check_name == "entity_count" and not counted:
            continue
        text = f"{feature}, {result.check_name}: {result.description}"
        if not result.passed and result.severity == dg.AssetCheckSeverity.ERROR:
            raise ReadinessError(f"{text}. Run seed_all, and find out who else writes these keys")
        yield text
