"""The sensors, tick by tick, as the daemon evaluates them: a real instance, real gold, real runs."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
from dagster import DagsterRunStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_seed.contract import read_ready
from feature_seed.errors import FeatureSeedError, GoldError, WarehouseError
from feature_seed.graph import retries, sensors
from feature_seed.graph.assets import cards, customers, gold_transactions, warm_start
from feature_seed.graph.feature_checks import FEATURE_CHECKS
from feature_seed.graph.gold_checks import gold_checks
from feature_seed.graph.io_manager import RedisIOManager
from feature_seed.graph.jobs import seed_all, seed_shard
from feature_seed.graph.sensors import SENSORS, VERSION_TAG, etl_completed, gold_watcher, run_failed
from feature_seed.loading.stream import FeatureStream, Layout
from feature_seed.store import online_store
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.limits import GoldLimits
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.redis_server import free_port
from feature_seed_tests.support.run import QUIET
from feature_seed_tests.support.webhook import webhook

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
        return dg.Definitions(
            assets=[gold_transactions, cards, customers, warm_start],
            asset_checks=[gold_checks, *FEATURE_CHECKS],
            jobs=[seed_all, seed_shard],
            sensors=SENSORS,
            resources={
                "warehouse": Warehouse(gold_parquet=self.warehouse.gold_parquet),  # one run knows one profile of gold
                "layout": Layout(),
                "store": store,
                "limits": GoldLimits(),
                "redis_io_manager": RedisIOManager(store=store),
            },
        )

    def run(self, request: dg.RunRequest | None, store: OnlineStore | None = None) -> dg.ExecuteInProcessResult:
        """The run that the daemon makes of a request, or one that a person starts."""
        tags = {**request.tags, "dagster/run_key": request.run_key or ""} if request else {}
        job = self.job("seed_all", store)
        return job.execute_in_process(run_config=QUIET, instance=self.instance, tags=tags, raise_on_error=False)

    def under_way(
        self,
        request: dg.RunRequest | None = None,
        status: DagsterRunStatus = DagsterRunStatus.STARTED,
        job: str = "seed_all",
    ) -> dg.DagsterRun:
        """The same run while it is not finished, or one that a person launches."""
        tags = {**request.tags, "dagster/run_key": request.run_key or ""} if request else {}
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("feature_seed"), "__repository__")
        origin = RemoteJobOrigin(repository, job)  # which runs in the queue must have
        return self.instance.create_run_for_job(self.job(job), tags=tags, status=status, remote_job_origin=origin)

    def job(self, name: str, store: OnlineStore | None = None) -> dg.JobDefinition:
        """A job; every name but those of ours is that of asset pages and backfills."""
        definitions = self.definitions(store or self.store)
        ours = name in (seed_all.name, seed_shard.name)
        return definitions.resolve_job_def(name) if ours else definitions.resolve_implicit_global_asset_job_def()


@pytest.fixture(autouse=True)
def no_second_attempt(quick_retries: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that are to fail do so at once."""
    monkeypatch.setattr(retries, "DELAYS_SECONDS", ())
    monkeypatch.setattr(online_store, "_CONNECT", Retry(NoBackoff(), 0))


@pytest.fixture
def deployment(tmp_path: Path, make_parquet: MakeWarehouse, store: OnlineStore) -> Iterator[Deployment]:
    with dg.DagsterInstance.ephemeral(str(tmp_path), settings={"telemetry": {"enabled": False}}) as instance:
        yield Deployment(instance, make_parquet([transaction(1)]), store)


@pytest.fixture
def rebuild(make_parquet: MakeWarehouse, tmp_path: Path) -> Callable[[], None]:
    """Writes gold anew, a row more every time; as if a minute after the last time."""
    rows = [transaction(1)]

    def build() -> None:
        rows.append(transaction(len(rows), seconds=len(rows)))
        make_parquet(rows)
        os.utime(tmp_path / "gold.parquet", (0, 60 * len(rows)))

    return build


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Has something happen once, in the midst of the next run: when its first feature is loaded."""

    def once(happen: Callable[[], None]) -> None:
        load = RedisIOManager.handle_output
        left = [happen]

        def load_and_happen(manager: RedisIOManager, context: dg.OutputContext, stream: FeatureStream) -> None:
            load(manager, context, stream)
            while left:
                left.pop()()

        monkeypatch.setattr(RedisIOManager, "handle_output", load_and_happen)

    return once


def test_a_report_launches_one_run(deployment: Deployment) -> None:
    """Nothing before the report; one run for it, which is retried by Dagster; nothing after it."""
    assert deployment.launched() is None
    deployment.report(rows=1)
    request = deployment.launched()
    assert request and request.tags["dagster/max_retries"] == "2"
    assert deployment.launched() is None
    run = deployment.run(request)
    assert run.success
    assert deployment.launched() is None


def test_the_run_covers_every_shard(deployment: Deployment) -> None:
    """Tags of the request are added to those of the job, which hold the range."""
    deployment.report()
    request = deployment.launched()
    assert request
    tags = deployment.run(request).dagster_run.tags
    assert (tags["dagster/asset_partition_range_start"], tags["dagster/asset_partition_range_end"]) == ("00", "0f")
    assert tags[VERSION_TAG] == deployment.version()


def test_reports_of_one_rebuild_launch_one_run(
    deployment: Deployment, rebuild: Callable[[], None], meanwhile: Meanwhile
) -> None:
    """By the ETL and by the watcher, in either order, before, during and after the run."""

    def report_again() -> None:
        deployment.report()
        assert deployment.launched() is None

    deployment.report()
    request = deployment.launched()
    assert request
    assert not deployment.watched() and deployment.watched()
    meanwhile(report_again)
    assert deployment.run(request).success
    assert deployment.launched() is None

    rebuild()
    assert not deployment.watched() and deployment.watched()
    deployment.report()
    request = deployment.launched()
    assert request
    assert deployment.run(request).success
    deployment.report()
    skipped = deployment.tick(etl_completed)
    assert not skipped.run_requests and deployment.version() in skipped.skip_message


@pytest.mark.parametrize(
    ("job", "status"),
    [
        ("seed_all", DagsterRunStatus.QUEUED),
        ("seed_shard", DagsterRunStatus.STARTING),
        ("Materialize", DagsterRunStatus.STARTED),
    ],
)
def test_a_report_during_a_run_waits_for_its_end(
    deployment: Deployment, rebuild: Callable[[], None], job: str, status: DagsterRunStatus
) -> None:
    """Before: a store with gold's last version, and a run of any job. Gold is rebuilt: it is seeded after that run."""
    deployment.report()
    assert deployment.run(deployment.launched()).success
    run = deployment.under_way(job=job, status=status)
    rebuild()
    deployment.report()
    seen = deployment.cursors["etl_completed"]
    for _ in range(2):
        waits = deployment.tick(etl_completed)
        assert not waits.run_requests and run.run_id in waits.skip_message
        assert deployment.cursors["etl_completed"] == seen
    deployment.instance.report_run_failed(run)
    assert deployment.launched()
    assert deployment.launched() is None


def test_gold_rebuilt_while_it_is_read_is_seeded(
    deployment: Deployment,
    rebuild: Callable[[], None],
    meanwhile: Meanwhile,
    online: redis.Redis,
) -> None:
    """The run that reads it fails, and another follows it. Nothing is launched beside the first."""

    def rebuild_and_report() -> None:
        rebuild()
        deployment.report()
        assert deployment.launched() is None

    deployment.report()
    first = deployment.launched()
    assert first
    meanwhile(rebuild_and_report)
    assert not deployment.run(first).success
    second = deployment.launched()
    assert second and second.tags[VERSION_TAG] != first.tags[VERSION_TAG]
    assert deployment.run(second).success
    ready = read_ready(online)
    assert ready and ready.gold_version == deployment.version()
    assert deployment.launched() is None


def test_the_first_report_of_all_waits_as_well(deployment: Deployment) -> None:
    """Before: no cursor, and a run under way since before the report, which does not answer it."""
    run = deployment.under_way()
    deployment.report()
    assert deployment.launched() is None
    assert deployment.cursors["etl_completed"] is None
    deployment.instance.report_run_failed(run)
    assert deployment.launched()


def test_a_run_that_died_unseen_is_not_waited_for_forever(
    deployment: Deployment, rebuild: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went down with its machine, and stays STARTED."""
    deployment.report()
    request = deployment.launched()
    assert request
    deployment.under_way(request)
    rebuild()
    deployment.report()
    assert deployment.launched() is None
    monkeypatch.setattr(sensors, "_LONGEST_WAIT", timedelta(0))
    assert deployment.launched()


def test_a_version_is_not_launched_beside_itself(deployment: Deployment) -> None:
    """Before: the sensor's run waits in the queue, and a person has launched another since. One more report."""
    deployment.report()
    request = deployment.launched()
    assert request
    queued = deployment.under_way(request, DagsterRunStatus.QUEUED)
    deployment.under_way(status=DagsterRunStatus.QUEUED)
    deployment.report()
    assert deployment.launched() is None
    deployment.instance.report_run_canceled(queued)
    assert deployment.launched() is None


def test_reports_between_two_ticks_are_one(deployment: Deployment, rebuild: Callable[[], None]) -> None:
    """After the daemon was down for two rebuilds, the store only needs the latest."""
    deployment.report()
    deployment.run(deployment.launched())
    for _ in range(2):
        rebuild()
        deployment.report()
    assert deployment.launched()
    assert deployment.launched() is None


def test_gold_rolled_back_is_seeded_again(deployment: Deployment, rebuild: Callable[[], None]) -> None:
    """A version that was seeded once is not in the store any more when another was seeded since."""
    assert deployment.warehouse.gold_parquet
    gold, aside = Path(deployment.warehouse.gold_parquet), Path(deployment.warehouse.gold_parquet + ".aside")
    deployment.report()
    deployment.run(deployment.launched())
    version = deployment.version()
    gold.rename(aside)
    rebuild()
    deployment.report()
    deployment.run(deployment.launched())
    aside.rename(gold)
    assert deployment.version() == version
    deployment.report()
    assert deployment.launched()


@pytest.mark.parametrize("job", ["seed_all", "seed_shard"])
def test_gold_rolled_back_after_another_run_is_seeded_again(
    deployment: Deployment, rebuild: Callable[[], None], job: str
) -> None:
    """Before: a version in the store, then a run of another that failed or loaded one shard, so that the store may hold
    some of either. Gold is the first again: all of it is seeded once.
    """
    assert deployment.warehouse.gold_parquet
    gold, aside = Path(deployment.warehouse.gold_parquet), Path(deployment.warehouse.gold_parquet + ".aside")
    deployment.report()
    assert deployment.run(deployment.launched()).success
    gold.rename(aside)
    rebuild()
    if job == "seed_all":
        assert not deployment.run(None, CLOSED_STORE).success
    else:
        shard = deployment.job(job).execute_in_process(QUIET, instance=deployment.instance, partition_key="00")
        assert shard.success
    aside.rename(gold)
    deployment.report()
    request = deployment.launched()
    assert request
    assert deployment.run(request).success
    deployment.report()
    assert deployment.launched() is None


def test_a_run_that_a_person_started_counts(deployment: Deployment) -> None:
    """What was seeded by hand between the rebuild and the report is not seeded again."""
    deployment.launched()
    deployment.run(None)
    deployment.report()
    assert deployment.launched() is None


def test_a_failed_run_blocks_nothing(deployment: Deployment) -> None:
    """Before: the store was away. A further report of the same gold launches again, and again until one succeeds."""
    for _ in range(3):
        deployment.report()
        request = deployment.launched()
        assert request
        assert not deployment.run(request, CLOSED_STORE).success
        assert deployment.launched() is None
    deployment.report()
    assert deployment.run(deployment.launched()).success
    deployment.report()
    assert deployment.launched() is None


def test_a_run_that_is_about_to_be_retried_counts(deployment: Deployment) -> None:
    """Between a failure and its retry some seconds pass: a report in them launches no run beside the retry."""
    deployment.report()
    request = deployment.launched()
    assert request
    failed = deployment.under_way(request, DagsterRunStatus.FAILURE)
    deployment.instance.add_run_tags(failed.run_id, {"dagster/will_retry": "true"})
    deployment.report()
    assert deployment.launched() is None
    deployment.instance.add_run_tags(failed.run_id, {"dagster/auto_retry_run_id": "of a retry that failed as well"})
    deployment.report()
    assert deployment.launched()


def test_a_failed_run_is_retried_by_dagster(
    tmp_path: Path, make_parquet: MakeWarehouse, store: OnlineStore, instance_yaml: dict[str, Any]
) -> None:
    """With our settings, under which a failed step alone is no reason: the sensor's run, and no one else's."""
    settings = {"telemetry": {"enabled": False}, "run_retries": instance_yaml["run_retries"]}
    with dg.DagsterInstance.ephemeral(str(tmp_path), settings=settings) as instance:
        deployment = Deployment(instance, make_parquet([transaction(1)]), store)
        deployment.report()
        runs = [deployment.run(request, CLOSED_STORE).run_id for request in (deployment.launched(), None)]
        decided = [instance.get_run_by_id(run).tags["dagster/will_retry"] for run in runs]  # type: ignore[union-attr]
    assert decided == ["true", "false"]


@pytest.mark.parametrize("status", [DagsterRunStatus.CANCELED, DagsterRunStatus.CANCELING])
def test_a_run_that_was_stopped_blocks_nothing(deployment: Deployment, status: DagsterRunStatus) -> None:
    deployment.report()
    request = deployment.launched()
    assert request
    deployment.under_way(request, status)
    deployment.report()
    assert deployment.launched()


def test_a_report_before_the_first_tick_is_not_lost(deployment: Deployment) -> None:
    """A new deployment: the ETL was done before the daemon looked for the first time."""
    deployment.report()
    assert deployment.launched()


def test_the_first_tick_does_not_replay_history(deployment: Deployment, rebuild: Callable[[], None]) -> None:
    """An old instance: gold was reported and seeded long ago. That it is being rebuilt right now is no reason."""
    deployment.report()
    deployment.run(None)
    rebuild()
    skipped = deployment.tick(etl_completed)
    assert not skipped.run_requests and "older" in skipped.skip_message
    assert deployment.launched() is None
    deployment.report()
    assert deployment.launched()


def test_the_first_tick_heeds_a_report_during_the_last_run(
    deployment: Deployment, rebuild: Callable[[], None], meanwhile: Meanwhile
) -> None:
    """A run that had begun before the report does not answer it, although it ended after it."""
    meanwhile(deployment.report)
    assert deployment.run(None).success
    rebuild()
    assert deployment.launched()


def test_clocks_decide_nothing_after_the_first_tick(deployment: Deployment, rebuild: Callable[[], None]) -> None:
    """A report may bear a time before a run's start and yet be of a later rebuild, on a slow clock."""
    deployment.launched()
    deployment.report()
    deployment.launched()
    deployment.report()
    deployment.run(None)
    rebuild()
    assert deployment.launched()


def test_an_unreachable_warehouse_loses_nothing(deployment: Deployment, rebuild: Callable[[], None]) -> None:
    """The tick fails with our error, as often as it may; the first one that reaches the warehouse makes up for it."""
    deployment.report()
    for sensor in (etl_completed, gold_watcher, etl_completed, gold_watcher):
        with pytest.raises(WarehouseError, match="cannot be reached"):
            deployment.tick(sensor, UNREACHABLE)
        assert deployment.cursors.get(sensor.name) is None
    assert deployment.launched()
    assert not deployment.watched() and deployment.watched()

    rebuild()
    assert not deployment.watched()
    with pytest.raises(WarehouseError):
        deployment.tick(gold_watcher, UNREACHABLE)
    assert deployment.watched()
    with pytest.raises(WarehouseError):
        deployment.tick(etl_completed, UNREACHABLE)
    assert deployment.launched()


def test_the_watcher_reports_each_rebuild_once(deployment: Deployment, rebuild: Callable[[], None]) -> None:
    for _ in range(3):
        rebuild()
        assert not deployment.watched()
        assert deployment.watched()
        assert not deployment.watched()
        assert deployment.cursors["gold_watcher"] == deployment.version()
        assert deployment.launched()
    assert deployment.version() in deployment.tick(gold_watcher).skip_message


def test_the_watcher_waits_until_gold_rests(deployment: Deployment, rebuild: Callable[[], None]) -> None:
    """An ETL that inserts for minutes is reported once, when it is done."""
    for _ in range(4):
        rebuild()
        changing = deployment.tick(gold_watcher)
        assert not changing.asset_events and "if the next look finds the same" in changing.skip_message
    assert deployment.watched()
    assert not deployment.watched()


def test_the_watcher_on_a_fresh_deployment_seeds_what_is_there(deployment: Deployment) -> None:
    assert not deployment.watched() and deployment.watched()
    assert deployment.launched()


def test_the_watcher_without_a_cursor_knows_what_was_reported(
    deployment: Deployment, rebuild: Callable[[], None]
) -> None:
    """An old instance, the cursor reset: a version that a report names is not reported again."""
    deployment.report(gold_version=deployment.version())
    assert [deployment.watched() for _ in range(3)] == [False] * 3
    deployment.cursors.clear()
    rebuild()
    assert [deployment.watched() for _ in range(3)] == [False, True, False]


def test_the_watcher_does_not_report_a_missing_table(deployment: Deployment, server: Warehouse) -> None:
    """Between DROP and CREATE there is no version of gold."""
    address = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    with pytest.raises(GoldError, match="never_built"):
        deployment.tick(gold_watcher, Warehouse(**address, gold_table="never_built"))


def test_what_runs_by_itself() -> None:
    """The two that act on what others say; polling a warehouse is for those who ask for it."""
    running = {sensor.name for sensor in SENSORS if sensor.default_status == dg.DefaultSensorStatus.RUNNING}
    assert running == {"etl_completed", "run_failed"}


@pytest.fixture
def failed(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterRun:
    """A run of seed_all that failed after the sensor's first tick, and so is news to it."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("FEATURE_SEED_ALERT_WEBHOOK", raising=False)
    deployment.run(None, CLOSED_STORE)
    assert "Initiating" in deployment.tick(run_failed).skip_message
    deployment.report()
    result = deployment.run(deployment.launched(), CLOSED_STORE)
    assert not result.success
    return result.dagster_run


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What sensors log."""
    from dagster._core.definitions.instigation_logger import InstigationLogger

    lines: list[str] = []
    monkeypatch.setattr(InstigationLogger, "handle", lambda _, record: lines.append(record.getMessage()))
    return lines


def test_a_failed_run_is_one_line_of_json(deployment: Deployment, failed: dg.DagsterRun, log: list[str]) -> None:
    """Once, with what failed in our words; and no webhook is needed."""
    (reaction,) = deployment.tick(run_failed).dagster_run_reactions
    assert reaction.error is None
    (line,) = log
    alert = json.loads(line[line.index("{") :])
    assert alert == {
        "run_id": failed.run_id,
        "job": "seed_all",
        "error": alert["error"],
        "gold_version": deployment.version(),
        "will_retry": False,
        "url": None,
    }
    assert alert["error"].startswith("Redis at ") and "check REDIS_URL" in alert["error"]
    assert not deployment.tick(run_failed).dagster_run_reactions
    assert len(log) == 1


def test_a_failed_run_is_posted(
    deployment: Deployment, failed: dg.DagsterRun, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with webhook(200) as hook:
        monkeypatch.setenv("FEATURE_SEED_ALERT_WEBHOOK", hook.url)
        monkeypatch.setenv("FEATURE_SEED_DAGSTER_URL", "https://dagster.internal/")
        (reaction,) = deployment.tick(run_failed).dagster_run_reactions
    assert reaction.error is None
    ((content_type, body),) = hook.received
    assert content_type == "application/json"
    assert body["run_id"] == failed.run_id and body["job"] == "seed_all"
    assert body["error"] in body["text"] and failed.run_id in body["text"]
    assert body["url"] == f"https://dagster.internal/runs/{failed.run_id}" and body["url"] in body["text"]
    assert "secret" not in "".join(log)


def test_a_failed_run_of_an_asset_page_is_told(deployment: Deployment, log: list[str]) -> None:
    """Materialize, backfills and `dagster asset materialize` run a job of Dagster's own. Before: nothing failed."""
    deployment.tick(run_failed)
    selected = deployment.job("Materialize", CLOSED_STORE).get_subset(asset_selection={dg.AssetKey("card_history")})
    failed = selected.execute_in_process(
        run_config=QUIET, instance=deployment.instance, partition_key="00", raise_on_error=False
    )
    assert not failed.success and failed.dagster_run.job_name not in (seed_all.name, seed_shard.name)
    (reaction,) = deployment.tick(run_failed).dagster_run_reactions
    assert reaction.error is None
    (line,) = log
    assert failed.run_id in line and "Redis at " in line


@pytest.mark.parametrize("fault", ["refuses", "closed", "no URL", "two words"])
def test_a_webhook_that_fails_keeps_its_secret(
    deployment: Deployment, failed: dg.DagsterRun, log: list[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The tick fails and says of what kind the fault is; the URL is in no error, cause or log; the line is logged."""
    urls = {
        "closed": f"http://127.0.0.1:{free_port()}/the-secret",
        "no URL": "the-secret",
        "two words": "http://127.0.0.1/the secret",
    }
    with webhook(403) as hook:
        monkeypatch.setenv("FEATURE_SEED_ALERT_WEBHOOK", urls.get(fault, hook.url))
        (reaction,) = deployment.tick(run_failed).dagster_run_reactions
    kinds = {"refuses": "HTTP status 403", "closed": "ConnectionRefusedError", "no URL": "ValueError"}
    assert reaction.error and reaction.error.cls_name == FeatureSeedError.__name__
    assert kinds.get(fault, "InvalidURL") in reaction.error.message
    assert "secret" not in reaction.error.to_string() + "".join(log)
    assert failed.run_id in log[0]
