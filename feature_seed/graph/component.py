"""The component: the whole graph, by a configuration and the environment."""

import os

import dagster as dg
from pydantic import BaseModel

from feature_seed import environment
from feature_seed.environment import choice, decimal, flag, number, secret
from feature_seed.errors import ConfigurationError
from feature_seed.features.entity import CARDS, CUSTOMERS
from feature_seed.graph.assets import cards, customers, declared_assets, departed, gold_transactions, warm_start_after
from feature_seed.graph.configuration import Configuration
from feature_seed.graph.dagster_private import log_runs_to
from feature_seed.graph.feature_checks import STANDARD_CHECKS, declared_checks
from feature_seed.graph.gold_checks import gold_checks
from feature_seed.graph.io_manager import RedisIOManager
from feature_seed.graph.jobs import check_store, seed_all, seed_shard
from feature_seed.graph.sensors import SENSORS, check_on_schedule, seed_on_schedule
from feature_seed.graph.store_check import store_check
from feature_seed.graph.terminal import terminal
from feature_seed.loading.layout import Layout
from feature_seed.store.cluster import store_from_environment
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.limits import GoldLimits


class WarmStart(dg.Component, dg.Resolvable, Configuration):
    """Seeds the features of a fraud scorer from ClickHouse into Redis, and says when the store is ready.

    The attributes say what the environment cannot: what gold's columns are made of, and what is seeded beside the
    standard features. Where ClickHouse and Redis are is in the environment. See feature_seed/features/README.md.
    """

    @classmethod
    def model(cls) -> type[Configuration]:
        """The file's model. In a model that Dagster derives, an entry may be text too, and a mistake has two errors."""
        return Configuration

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> "WarmStart":
        return cls(**dict(model))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return self.definitions()

    def warehouse(self) -> Warehouse:
        return Warehouse(
            host=secret("CLICKHOUSE_HOST"),
            port=number("CLICKHOUSE_PORT", 0, 0, 65535),
            user=secret("CLICKHOUSE_USER"),
            password=secret("CLICKHOUSE_PASSWORD"),
            database=os.environ.get("CLICKHOUSE_DATABASE") or "default",
            secure=flag("CLICKHOUSE_SECURE"),
            verify=choice("CLICKHOUSE_VERIFY", ("1", "0")) == "1",
            ca=os.environ.get("CLICKHOUSE_CA") or None,
            gold_table=_one("FEATURE_SEED_GOLD_TABLE", "gold.table", self.gold.table) or "fact_transactions_gold",
            gold_final=choice("FEATURE_SEED_GOLD_FINAL", ("1", "0")) == "1",
            gold_parquet=os.environ.get("FEATURE_SEED_GOLD_PARQUET") or None,
            s3_endpoint=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None,
            s3_region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None,
            zero_is_unknown=flag("FEATURE_SEED_ZERO_IS_UNKNOWN"),
            mapping=self.mapping,
            home=environment.home(),
            pass_bytes=1_000_000 * number("FEATURE_SEED_PASS_MB", 540, 1, 1_000_000),
            watermark_lag=decimal("FEATURE_SEED_WATERMARK_LAG", 0, 1e8) or 0,
        )

    def layout(self) -> Layout:
        standard = self.standard
        _one("FEATURE_SEED_HISTORY_ORDER", "standard.card_history.order", standard.card_history.order)
        order = choice("FEATURE_SEED_HISTORY_ORDER", ("oldest_first", "newest_first"))
        ends = {
            CARDS.name: standard.card_history.expire or standard.card_location.expire,
            CUSTOMERS.name: standard.customer_stats.expire,
        }
        return Layout(
            shard_count=environment.shard_count(),
            history_length=number("FEATURE_SEED_HISTORY_LENGTH", 10, 1, 1000),
            newest_first=(standard.card_history.order or order) == "newest_first",
            element=choice("FEATURE_SEED_ELEMENT", ("object", "array")),
            key_tags=flag("FEATURE_SEED_KEY_TAGS"),
            on_conflict=choice("FEATURE_SEED_ON_CONFLICT", ("keep_newer", "overwrite")),
            full=flag("FEATURE_SEED_FULL"),
            expire={name: seconds for name, seconds in ends.items() if seconds},
        )

    def limits(self) -> GoldLimits:
        return GoldLimits(
            max_rejected=decimal("FEATURE_SEED_MAX_REJECTED", 0, 1) or 0,
            max_age_hours=decimal("FEATURE_SEED_MAX_AGE_HOURS", 0, 1e6),
            max_loss=environment.max_loss(),
            sample_size=environment.sample_size(),
        )

    def definitions(self) -> dg.Definitions:
        """The graph on one screen: assets, jobs, and the resources that the environment asks for.

        Raises:
            ConfigurationError: a variable is missing or cannot be used.
        """
        environment.require_whole()
        log_runs_to(terminal)
        store = store_from_environment()
        loaded = [cards, customers, *declared_assets(self.declared)]
        return dg.Definitions(
            assets=[gold_transactions, *loaded, warm_start_after(loaded), departed],
            asset_checks=[gold_checks, STANDARD_CHECKS, *declared_checks(self.declared), store_check],
            jobs=[seed_all, seed_shard, check_store],
            sensors=SENSORS,
            schedules=[seed_on_schedule(), check_on_schedule],
            resources={
                "warehouse": self.warehouse(),
                "layout": self.layout(),
                "store": store,
                "limits": self.limits(),
                "redis_io_manager": RedisIOManager(
                    store=store,
                    memory_check=choice("FEATURE_SEED_MEMORY_CHECK", ("refuse", "warn")),
                    max_rate=decimal("FEATURE_SEED_MAX_RATE", 1, 1e9),
                    max_latency_ms=decimal("FEATURE_SEED_MAX_LATENCY_MS", 0.1, 10_000),
                    prune=flag("FEATURE_SEED_PRUNE"),
                    declared_keys=[one.key for one in self.declared],
                ),
            },
            executor=dg.in_process_executor,  # of Materialize all, as of the jobs: one lock for the whole run
        )


def _one(variable: str, entry: str, value: str | None) -> str | None:
    """The value of an entry, or of the variable with the same meaning."""
    named = os.environ.get(variable) or None
    if named and value:
        raise ConfigurationError(f"{variable} is set, and the configuration has {entry}: leave out one of them")
    return value or named
