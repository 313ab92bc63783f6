"""Running the real jobs in this process, against any warehouse and store."""

from typing import Any

import dagster as dg

from feature_seed.assets import card_history, card_location, customer_stats, gold_transactions, warm_start
from feature_seed.automation import seed_all, seed_shard
from feature_seed.io_manager import RedisIOManager
from feature_seed.online_store import OnlineStore
from feature_seed.stream import Layout
from feature_seed.warehouse import Warehouse

QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


def seed(
    warehouse: Warehouse,
    store: OnlineStore,
    *,
    shard: str | None = None,
    job: str | None = None,
    instance: dg.DagsterInstance | None = None,
    **layout: Any,
) -> dg.ExecuteInProcessResult:
    """Run `seed_all`, `seed_shard` for one shard, or the job that is named; an error of a step is raised."""
    definitions = dg.Definitions(
        assets=[gold_transactions, card_history, card_location, customer_stats, warm_start],
        jobs=[seed_all, seed_shard, dg.define_asset_job("warm_start", [warm_start])],
        resources={
            "warehouse": warehouse,
            "layout": Layout(**layout),
            "store": store,
            "redis_io_manager": RedisIOManager(store=store),
        },
    )
    name = job or ("seed_shard" if shard else "seed_all")
    return definitions.resolve_job_def(name).execute_in_process(
        run_config=QUIET, partition_key=shard, instance=instance
    )


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """The metadata of an asset's materialisation."""
    materialised = result.asset_materializations_for_node(asset)[0]
    return {name: value.value for name, value in materialised.metadata.items()}
