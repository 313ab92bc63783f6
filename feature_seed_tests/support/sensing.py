"""The sensors tick by tick, as the daemon evaluates them: a real instance, real gold, real runs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from feature_seed.graph.jobs import seed_all, seed_shard
from feature_seed.graph.sensors import SENSORS, VERSION_TAG, etl_completed, gold_watcher
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.support.redis_server import free_port
from feature_seed_tests.support.run import QUIET, definitions

Meanwhile = Callable[[Callable[[], None]], None]

UNREACHABLE = Warehouse(host="127.0.0.1", port=free_port())
CLOSED_STORE = OnlineStore(url=f"redis://127.0.0.1:{free_port()}")


@dataclass
class Deployment:
    """Stands in for the daemon: evaluates ticks, keeps cursors, stores reported events and makes runs.

    Nothing but the instance and the cursors outlives a tick, so every tick is also one after a restart.
    """

    instance: dg.DagsterInstance
    warehouse: Warehouse
    store: OnlineStore
    cursors: dict[str, str | None] = field(default_factory=dict)

    def tick(self, sensor: dg.SensorDefinition, warehouse: Warehouse | None = None) -> Any:
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor.name),
            definitions=self.definitions(self.store),
            resources={"warehouse": warehouse or self.warehouse},
        )
        outcome = sensor.evaluate_tick(context)
        for event in outcome.asset_events:
            self.instance.report_runless_asset_event(event)  # type: ignore[arg-type]
        self.cursors[sensor.name] = outcome.cursor
        return outcome

    def launched(self) -> dg.RunRequest | None:
        """What a tick of `etl_completed` asks for; its run key was never used before."""
        requests = self.tick(etl_completed).run_requests or []
        assert len(requests) <= 1
        for request in requests:
            assert not self.instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": request.run_key}))
            assert request.tags[VERSION_TAG] == self.version()
        return requests[0] if requests else None

    def watched(self) -> bool:
        """Whether a tick of `gold_watcher` reports gold."""
        return bool(self.tick(gold_watcher).asset_events)

    def report(self, **metadata: Any) -> None:
        """What the ETL's curl does."""
        self.instance.report_runless_asset_event(dg.AssetMaterialization("gold_transactions", metadata=metadata))

    def version(self) -> str:
        with self.warehouse.client() as client:
            return self.warehouse.version(client)

    def definitions(self, store: OnlineStore) -> dg.Definitions:
        warehouse = Warehouse(gold_parquet=self.warehouse.gold_parquet)  # one run knows one profile of gold
        return definitions(warehouse, store, sensors=SENSORS)

    def run(self, request: dg.RunRequest | None, store: OnlineStore | None = None) -> dg.ExecuteInProcessResult:
        """Make the run of a request, as the daemon does, or a run that a person starts."""
        tags = {**request.tags, "dagster/run_key": request.run_key or ""} if request else {}
        job = self.job("seed_all", store)
        return job.execute_in_process(run_config=QUIET, instance=self.instance, tags=tags, raise_on_error=False)

    def under_way(
        self,
        request: dg.RunRequest | None = None,
        status: DagsterRunStatus = DagsterRunStatus.STARTED,
        job: str = "seed_all",
    ) -> dg.DagsterRun:
        """The same run before it has finished, or a run that a person launches."""
        tags = {**request.tags, "dagster/run_key": request.run_key or ""} if request else {}
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("feature_seed"), "__repository__")
        origin = RemoteJobOrigin(repository, job)  # runs in the queue must have one
        return self.instance.create_run_for_job(self.job(job), tags=tags, status=status, remote_job_origin=origin)

    def job(self, name: str, store: OnlineStore | None = None) -> dg.JobDefinition:
        """The job of this name. Every name except ours stands for asset pages and backfills."""
        found = self.definitions(store or self.store)
        ours = name in (seed_all.name, seed_shard.name)
        return found.resolve_job_def(name) if ours else found.resolve_implicit_global_asset_job_def()
