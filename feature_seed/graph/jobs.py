"""The jobs."""

import dagster as dg

from feature_seed.environment import flag
from feature_seed.graph.assets import SHARDS
from feature_seed.graph.checks import DEPARTED, WARM_START
from feature_seed.graph.gold_checks import gold_checks
from feature_seed.graph.store_check import store_check

# With the checks of gold, which gate the run, and those of the features, which gate warm_start.
_features = dg.AssetSelection.assets(WARM_START).upstream(depth=1, include_self=False) | dg.AssetSelection.checks(
    gold_checks
)
_last = [WARM_START, DEPARTED] if flag("FEATURE_SEED_PRUNE") else [WARM_START]
_shards = SHARDS.get_partition_keys()

# The range is part of the job, so that the CLI, the UI and sensors all seed every shard in one run.
seed_all = dg.define_asset_job(
    "seed_all",
    _features | dg.AssetSelection.assets(*_last),
    description="Seeds every feature of every shard, and then says that the store is ready. Click *Materialize all*, "
    "*All*, *Launch backfill*. In the launchpad, leave *Partition* empty though it is framed in red: the job itself "
    "names the range of all shards. Click *Launch Run* and *Confirm*. See feature_seed/graph/README.md.",
    tags={"dagster/asset_partition_range_start": _shards[0], "dagster/asset_partition_range_end": _shards[-1]},
)

seed_shard = dg.define_asset_job(
    "seed_shard",
    _features,
    description="Seeds every feature of one shard, which is the partition of the run. The store is ready when every "
    "shard is there and warm_start is materialised. See feature_seed/graph/README.md.",
)

check_store = dg.define_asset_job(
    "check_store",
    dg.AssetSelection.checks(store_check),
    description="Says whether the store still is what the last run left. Reads some keys and writes none. The schedule "
    "check_on_schedule launches it every hour, once you start it. See feature_seed/graph/README.md.",
)
