"""The assets: gold, one for each feature, and `warm_start`, which says that the store is ready."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from feature_seed.contract import READY, Ready, read_ready
from feature_seed.environment import shard_count, shards_per_run
from feature_seed.errors import ConfigurationError, ReadinessError
from feature_seed.features.declared.declared import Declared
from feature_seed.features.declared.entity import DeclaredEntity
from feature_seed.features.entity import CARDS, CUSTOMERS, ENTITIES, Entity
from feature_seed.features.feature import FEATURES, Feature
from feature_seed.graph.checks import GOLD, WARM_START
from feature_seed.graph.readiness import latest_loads, ready_when_whole, require_kept, require_verified
from feature_seed.graph.report.report import report
from feature_seed.graph.retries import retried
from feature_seed.loading.declared import DeclaredStream
from feature_seed.loading.departed import Departed
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.gold import GOLD_COLUMNS
from feature_seed.warehouse.limits import GoldLimits

# Beta in name only, and without a stable twin. A warning for each of them in every command would be noise.
warnings.filterwarnings("ignore", r"(Parameter `backfill_policy`|Class `(Local|Code).*Reference)", dg.BetaWarning)

# One group, so that its page opens with the whole graph.
GROUP = "feature_seed"

# With a limit of 1 in dagster.yaml, one run at a time seeds the store.
POOL = "online_store"

# Gold is rebuilt nightly; half a day's delay is a reason to look.
_DAILY = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36), warn_window=timedelta(hours=26))

# None is a single run: fewer scans of gold, and one start. Several runs are for launchers that spread them over
# machines.
_BACKFILL = dg.BackfillPolicy(max_partitions_per_run=shards_per_run())

_LOADED = (
    "A partition is a shard of the {0}, and its metadata are of that shard. Loading one feature of the {0} loads all. "
    "See feature_seed/features/README.md."
)

SHARDS = dg.StaticPartitionsDefinition(shard_names(shard_count()))

gold_transactions = dg.AssetSpec(
    GOLD,
    description="The gold table of card transactions, which the ETL builds. feature_seed only reads it. When the "
    "ETL is done, have it report a materialisation of this asset: the sensor etl_completed then seeds the store. "
    "See feature_seed/warehouse/README.md, and feature_seed/graph/README.md for the report.",
    group_name=GROUP,
    kinds={"clickhouse"},
    owners=["team:data-platform"],
    freshness_policy=_DAILY,
    metadata={
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, column.type, column.description) for name, column in GOLD_COLUMNS.items()]
        )
    },
)


def _page(feature: Feature) -> dict[str, Any]:
    """What a feature's page shows beside its runs: keys, columns with their lineage, and the SQL behind them."""
    lineage = {
        name: [dg.TableColumnDep(gold_transactions.key, value.column)]
        for name, value in feature.values.items()
        if value.column
    }
    return {
        "keys": dg.TableMetadataValue(
            [
                dg.TableRecord({"key": key.pattern, "type": key.type, "fields": ", ".join(key.fields)})
                for key in feature.keys
            ],
            dg.TableSchema([dg.TableColumn("key"), dg.TableColumn("type"), dg.TableColumn("fields")]),
        ),
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, value.type, value.meaning) for name, value in feature.values.items()]
        ),
        "dagster/column_lineage": dg.TableColumnLineage(lineage),
        "dagster/code_references": dg.CodeReferencesMetadataValue(
            code_references=[
                dg.LocalFileCodeReference(file_path=str(path), line_number=1, label=path.name)
                for path in feature.entity.sources
            ]
        ),
    }


def _out(feature: Feature) -> dg.AssetOut:
    return dg.AssetOut(
        description=f"{feature.description} {_LOADED.format(feature.entity.name)}",
        is_required=False,
        io_manager_key="redis_io_manager",
        group_name=GROUP,
        kinds={"clickhouse", "redis"},
        owners=["team:fraud"],
        metadata=_page(feature),
    )


def feature_assets(
    entity: Entity, features: Sequence[Feature], stream_of: Callable[..., FeatureStream] = FeatureStream
) -> dg.AssetsDefinition:
    """The assets of an entity. Whichever of them is selected, the entity is loaded whole, and once."""

    @dg.multi_asset(
        name=entity.name,
        outs={feature.name: _out(feature) for feature in features},
        can_subset=True,
        deps=[gold_transactions],
        partitions_def=SHARDS,
        backfill_policy=_BACKFILL,
        pool=POOL,
    )
    def stream(
        context: dg.AssetExecutionContext, warehouse: Warehouse, layout: Layout, limits: GoldLimits
    ) -> Iterator[dg.Output[FeatureStream]]:
        with retried(context.retry_number):
            limits.require(warehouse)
        one = stream_of(warehouse, layout, entity, _shards(context), max_loss=limits.max_loss)
        for feature in features:
            if dg.AssetKey(feature.name) in context.selected_asset_keys:
                yield dg.Output(one, feature.name)

    return stream


def _shards(context: dg.AssetExecutionContext) -> tuple[str, ...]:
    if not (context.has_partition_key or context.has_partition_key_range):
        raise ConfigurationError(
            f"{context.job_name} seeds the shard that its run names, and this run names none: add --partition 05, or "
            """--tags '{"dagster/partition": "05"}' to dagster job execute, or run seed_all for every shard"""
        )
    return tuple(context.partition_keys)


cards = feature_assets(CARDS, [feature for feature in FEATURES if feature.entity is CARDS])
customers = feature_assets(CUSTOMERS, [feature for feature in FEATURES if feature.entity is CUSTOMERS])


def declared_assets(declared: Sequence[Declared]) -> list[dg.AssetsDefinition]:
    """An asset for each declared feature. The features of one entity are loaded together."""
    entities = DeclaredEntity.all_of(declared)
    return [feature_assets(one, [*map(one.feature, one.features)], DeclaredStream) for one in entities]


def warm_start_after(loaded: Sequence[dg.AssetsDefinition]) -> dg.AssetsDefinition:
    """`warm_start` of a graph that loads these assets."""
    names = [spec.key.to_user_string() for assets in loaded for spec in assets.specs]

    @dg.asset(
        deps=loaded,
        io_manager_key="redis_io_manager",
        pool=POOL,
        group_name=GROUP,
        kinds={"redis"},
        owners=["team:fraud"],
        freshness_policy=_DAILY,
        # warm_start has no partitions, so this has one effect: the CLI takes it into a range of the features'
        # partitions.
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={"key": READY.pattern},
    )
    def warm_start(
        context: dg.AssetExecutionContext, warehouse: Warehouse, store: OnlineStore, layout: Layout
    ) -> dg.MaterializeResult[Ready]:
        """Tells the scorer that it may start: every shard of every feature is in the store, and was compared with gold.

        Its metadata are of all loads together: the report, pictures of the store, and numbers to plot over the runs.
        Its check store_kept says later on whether the store is still what the run left. See
        feature_seed/graph/README.md.
        """
        shards = shard_names(layout.shard_count)
        loads = {name: latest_loads(context.instance, name, shards) for name in names}
        ready = ready_when_whole(loads, shards, context.run.run_id)
        require_verified(context.instance, loads)
        with retried(context.retry_number), store.client() as client:
            require_kept(client, store.address, loads)
            page = report(context, client, warehouse, layout, loads)
        return dg.MaterializeResult(value=ready, metadata={**page, **_ready(ready)})

    return warm_start


@dg.asset(
    deps=[WARM_START],
    io_manager_key="redis_io_manager",
    pool=POOL,
    group_name=GROUP,
    kinds={"clickhouse", "redis"},
    owners=["team:fraud"],
    backfill_policy=dg.BackfillPolicy.single_run(),  # as that of warm_start
)
def departed(
    context: dg.AssetExecutionContext, warehouse: Warehouse, store: OnlineStore, layout: Layout, limits: GoldLimits
) -> dg.MaterializeResult[list[Departed]]:
    """Finds the cards and customers that the store has from a load and that gold has no more.

    With FEATURE_SEED_PRUNE=1 it is part of seed_all, and removes those that have no live events. Without the variable
    it only lists them, and writes nothing. See feature_seed/graph/README.md.
    """
    with retried(context.retry_number):
        version = warehouse.profile().version
        with store.client() as client:
            ready: Ready | None = read_ready(client)
        if not ready or (ready.state, ready.gold_version, ready.loading) != ("ready", version, ""):
            raise ReadinessError(f"Redis at {store.address} does not hold gold {version} whole: run seed_all")
        found = [Departed(warehouse, layout, one, (), before=ready, max_loss=limits.max_loss) for one in ENTITIES]
        for one in found:
            one.find(store)
    return dg.MaterializeResult(value=found)


def _ready(ready: Ready) -> dict[str, Any]:
    """The metadata of `warm_start`: times in the time zone of the reader, and the run as a link."""
    return {
        **asdict(ready),
        "watermark": dg.MetadataValue.timestamp(datetime.fromisoformat(ready.watermark)),
        "finished_at": dg.MetadataValue.timestamp(datetime.fromisoformat(ready.finished_at)),
        "run_id": dg.MetadataValue.dagster_run(ready.run_id),
    }
