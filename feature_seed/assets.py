"""The assets: gold, and one per feature."""

import warnings
from typing import Any

import dagster as dg

from feature_seed.environment import shard_count
from feature_seed.feature import HISTORY, LOCATION, STATS, Feature
from feature_seed.warehouse import FeatureStream, Layout, Warehouse, shard_names

# Beta in name only: one run over many partitions needs it, and a warning per asset is noise in every command.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)

SHARDS = dg.StaticPartitionsDefinition(shard_names(shard_count()))

gold_transactions = dg.AssetSpec(
    "gold_transactions",
    description="The warehouse's gold table of card transactions, rebuilt by the ETL.",
    group_name="warehouse",
    kinds={"clickhouse"},
)


def _feature(feature: Feature) -> dict[str, Any]:
    """What all features' assets have in common."""
    return {
        "name": feature.name,
        "deps": [gold_transactions],
        "partitions_def": SHARDS,
        "backfill_policy": dg.BackfillPolicy.single_run(),
        "io_manager_key": "redis_io_manager",
        "group_name": "features",
        "kinds": {"clickhouse", "redis"},
        "metadata": {"keys": ", ".join(key.pattern for key in feature.keys)},
    }


@dg.asset(**_feature(HISTORY))
def card_history(context: dg.AssetExecutionContext, warehouse: Warehouse, layout: Layout) -> FeatureStream:
    """The latest transactions of every card, as a list."""
    return FeatureStream(warehouse, layout, HISTORY, tuple(context.partition_keys))


@dg.asset(**_feature(LOCATION))
def card_location(context: dg.AssetExecutionContext, warehouse: Warehouse, layout: Layout) -> FeatureStream:
    """Where and when every card was last used, and how many transactions it has made."""
    return FeatureStream(warehouse, layout, LOCATION, tuple(context.partition_keys))


@dg.asset(**_feature(STATS))
def customer_stats(context: dg.AssetExecutionContext, warehouse: Warehouse, layout: Layout) -> FeatureStream:
    """The running mean and variance of every customer's amounts, as Welford's algorithm continues them."""
    return FeatureStream(warehouse, layout, STATS, tuple(context.partition_keys))
