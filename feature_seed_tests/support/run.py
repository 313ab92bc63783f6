"""Running the real assets and jobs in this process, against any warehouse and store."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import dagster as dg

from feature_seed.environment import shard_count
from feature_seed.features.declared.declared import Declared
from feature_seed.features.entity import ENTITIES
from feature_seed.graph.assets import cards, customers, declared_assets, departed, gold_transactions, warm_start_after
from feature_seed.graph.checks import CHECKS, DEPARTED, WARM_START
from feature_seed.graph.feature_checks import STANDARD_CHECKS, declared_checks
from feature_seed.graph.gold_checks import gold_checks
from feature_seed.graph.io_manager import MemoryCheck, RedisIOManager
from feature_seed.graph.jobs import check_store, seed_all, seed_shard
from feature_seed.graph.readiness import LOAD
from feature_seed.graph.store_check import store_check
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.limits import GoldLimits

QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}

_features = dg.AssetSelection.assets(cards, customers)
_checks = dg.AssetSelection.checks(gold_checks, STANDARD_CHECKS)

# Parts of the jobs: the features alone, and everything that makes the store ready except the checks of gold.
_JOBS = [
    seed_all,
    seed_shard,
    check_store,
    dg.define_asset_job("load", _features.without_checks(), tags=seed_all.tags, executor_def=dg.in_process_executor),
    dg.define_asset_job(
        "load_and_verify",
        _features | dg.AssetSelection.assets(WARM_START),
        tags=seed_all.tags,
        executor_def=dg.in_process_executor,
    ),
    dg.define_asset_job("load_shard", _features.without_checks(), executor_def=dg.in_process_executor),
    *(
        dg.define_asset_job(f"{key.to_user_string()}_{name}", dg.AssetSelection.checks(dg.AssetCheckKey(key, name)))
        for key, names in CHECKS.items()
        for name in names
    ),
    dg.define_asset_job("departed", dg.AssetSelection.assets(DEPARTED)),
    dg.define_asset_job(
        "load_and_prune",
        _features | dg.AssetSelection.assets(WARM_START, DEPARTED),
        tags=seed_all.tags,
        executor_def=dg.in_process_executor,
    ),
    dg.define_asset_job("warm_start", dg.AssetSelection.assets(WARM_START).without_checks()),
    dg.define_asset_job("checks_alone", _checks, tags=seed_all.tags, executor_def=dg.in_process_executor),
    dg.define_asset_job("checks_without_a_range", _checks, executor_def=dg.in_process_executor),
]


def definitions(
    warehouse: Warehouse,
    store: OnlineStore,
    io_manager: RedisIOManager | None = None,
    limits: GoldLimits | None = None,
    sensors: Sequence[dg.SensorDefinition] = (),
    declared: Sequence[Declared] = (),
    **layout: Any,
) -> dg.Definitions:
    """Our definitions, and the parts of the jobs."""
    loaded = [cards, customers, *declared_assets(declared)]
    return dg.Definitions(
        assets=[gold_transactions, *loaded, warm_start_after(loaded), departed],
        asset_checks=[gold_checks, STANDARD_CHECKS, *declared_checks(declared), store_check],
        jobs=_JOBS,
        sensors=sensors,
        resources={
            "warehouse": warehouse,
            "layout": Layout(**{"shard_count": shard_count(), **layout}),
            "store": store,
            "limits": limits or GoldLimits(),
            "redis_io_manager": io_manager or RedisIOManager(store=store),
        },
    )


def seed(
    warehouse: Warehouse,
    store: OnlineStore,
    *,
    shard: str | None = None,
    verify: bool = False,
    job: str | None = None,
    instance: dg.DagsterInstance | None = None,
    raise_on_error: bool = True,
    limits: GoldLimits | None = None,
    memory_check: MemoryCheck = "refuse",
    max_rate: float | None = None,
    max_latency_ms: float | None = None,
    prune: bool = False,
    config: dict[str, Any] = QUIET,
    declared: Sequence[Declared] = (),
    **layout: Any,
) -> dg.ExecuteInProcessResult:
    """Load every shard or one, with any rejected rows. `verify` it and call it ready. Or run a `job` as it is."""
    io_manager = RedisIOManager(
        store=store,
        memory_check=memory_check,
        max_rate=max_rate,
        max_latency_ms=max_latency_ms,
        prune=prune,
        declared_keys=[one.key for one in declared],
    )
    limits = limits or GoldLimits(max_rejected=0 if job else 1)
    if not instance:
        instance = _instance()
        instance.wipe()
    name = job or ("load_shard" if shard else "load_and_verify" if verify else "load")
    found = definitions(warehouse, store, io_manager, limits, declared=declared, **layout).resolve_job_def(name)
    return found.execute_in_process(
        run_config=config, partition_key=shard, instance=instance, raise_on_error=raise_on_error
    )


def fill(warehouse: Warehouse, store: OnlineStore, *shards: str, **layout: Any) -> None:
    """Send every entity of these shards or of all, without a run of Dagster and its lock: a third of a run's cost."""
    laid_out = Layout(**{"shard_count": shard_count(), **layout})
    for entity in ENTITIES:
        stream = FeatureStream(warehouse, laid_out, entity, shards or tuple(shard_names(laid_out.shard_count)))
        with store.bulk([entity.guard]) as redis:
            for block in stream:
                redis.write(block)
            redis.drain()


@cache
def _instance() -> dg.DagsterInstance:
    """The instance of runs that know no other: to make an instance takes 50 ms, to empty one 5."""
    return dg.DagsterInstance.ephemeral()


def materialised(result: dg.ExecuteInProcessResult, asset: str) -> list[dg.AssetMaterialization]:
    """An asset's materialisations, one for each shard."""
    events = result.get_asset_materialization_events()
    return [one.materialization for one in events if one.asset_key == dg.AssetKey(asset)]


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """The metadata of an asset. A feature has the figures of the load, and the counts of all its shards together."""
    each = materialised(result, asset)
    shards: list[dict[str, Any]] = [{name: value.value for name, value in one.metadata.items()} for one in each]
    if LOAD not in shards[0]:
        return shards[0]
    counts = {name: sum(one[name] for one in shards) for name, value in shards[0].items() if isinstance(value, int)}
    lists = {"unrecorded_examples": [key for one in shards for key in one["unrecorded_examples"]]}
    by_shard = {shard: count for one in shards for shard, count in one["entities_by_shard"].items()}
    return {**shards[0], **counts, **lists, "entities_by_shard": by_shard, **shards[0][LOAD]}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """Every evaluated check, as `asset.check`."""
    evaluations = result.get_asset_check_evaluations()
    return {f"{one.asset_key.to_user_string()}.{one.check_name}": one for one in evaluations}


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """The description of every check that did not pass."""
    return {name: str(one.description) for name, one in checks(result).items() if not one.passed}


def numbers(result: dg.ExecuteInProcessResult, check: str) -> dict[str, Any]:
    """The metadata of a check."""
    return {name: value.value for name, value in checks(result)[check].metadata.items()}
