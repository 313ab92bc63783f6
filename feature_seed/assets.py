"""The assets: gold, and one per feature."""

import warnings
from dataclasses import asdict

import dagster as dg

from feature_seed.contract import READY
from feature_seed.environment import shard_count
from feature_seed.feature import FEATURES, HISTORY, LOCATION, STATS, Feature
from feature_seed.online_store import OnlineStore
from feature_seed.readiness import latest, ready_when_whole
from feature_seed.stream import FeatureStream, Layout, shard_names
from feature_seed.warehouse import Warehouse

# Beta in name only: one run over many partitions needs it, and a warning per asset is noise in every command.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)

SHARDS = dg.StaticPartitionsDefinition(shard_names(shard_count()))

gold_transactions = dg.AssetSpec(
    "gold_transactions",
    description="The warehouse's gold table of card transactions, rebuilt by the ETL.",
    group_name="warehouse",
    kinds={"clickhouse"},
)


def _feature_asset(feature: Feature) -> dg.AssetsDefinition:
    @dg.asset(
        name=feature.name,
        description=feature.description,
        deps=[gold_transactions],
        partitions_def=SHARDS,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="redis_io_manager",
        group_name="features",
        kinds={"clickhouse", "redis"},
        metadata={"keys": ", ".join(key.pattern for key in feature.keys)},
    )
    def stream(context: dg.AssetExecutionContext, warehouse: Warehouse, layout: Layout) -> FeatureStream:
        return FeatureStream(warehouse, layout, feature, tuple(context.partition_keys))

    return stream


card_history = _feature_asset(HISTORY)
card_location = _feature_asset(LOCATION)
customer_stats = _feature_asset(STATS)


@dg.asset(
    deps=[card_history, card_location, customer_stats],
    group_name="features",
    kinds={"redis"},
    metadata={"keys": READY.pattern},
)
def warm_start(
    context: dg.AssetExecutionContext, warehouse: Warehouse, store: OnlineStore, layout: Layout
) -> dg.MaterializeResult:
    """The word that a scorer waits for: every shard of every feature is in the store, and verified."""
    shards = shard_names(layout.shard_count)
    loads = {feature.name: latest(context.instance, feature.name, shards) for feature in FEATURES}
    ready = ready_when_whole(loads, shards, warehouse, context.run_id)
    with store.client() as client:
        client.hset(READY.pattern, mapping=ready.encode())
    return dg.MaterializeResult(metadata=asdict(ready))
