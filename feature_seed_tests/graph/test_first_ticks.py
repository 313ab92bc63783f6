"""The sensors on a new or an old instance, without a cursor or a warehouse; and gold_watcher."""

from collections.abc import Callable

import dagster as dg
import pytest

from feature_seed.errors import GoldError, WarehouseError
from feature_seed.graph.sensors import SENSORS, etl_completed, gold_watcher
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.support.sensing import UNREACHABLE, Deployment, Meanwhile


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
