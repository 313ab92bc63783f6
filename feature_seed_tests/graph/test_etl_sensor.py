"""The sensor etl_completed: each report of gold is answered by one run that loads it, and by no other."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
from dagster import DagsterRunStatus

from feature_seed.contract import read_ready
from feature_seed.graph import sensors
from feature_seed.graph.sensors import VERSION_TAG, etl_completed
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.run import QUIET
from feature_seed_tests.support.sensing import CLOSED_STORE, Deployment, Meanwhile


def test_a_report_launches_one_run(deployment: Deployment) -> None:
    """Nothing before the report; one run for it, of every shard, which is retried by Dagster; nothing after it."""
    assert deployment.launched() is None
    deployment.report(rows=1)
    request = deployment.launched()
    assert request and request.tags["dagster/max_retries"] == "2"
    assert deployment.launched() is None
    run = deployment.run(request)
    assert run.success
    tags = run.dagster_run.tags  # the request's in addition to the job's, which hold the range
    assert (tags["dagster/asset_partition_range_start"], tags["dagster/asset_partition_range_end"]) == ("00", "01")
    assert tags[VERSION_TAG] == deployment.version()
    assert deployment.launched() is None


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
        pytest.param("seed_shard", DagsterRunStatus.STARTING, marks=pytest.mark.slow),
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


@pytest.mark.parametrize("job", ["seed_all", pytest.param("seed_shard", marks=pytest.mark.slow)])
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
    for _ in range(2):
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
