"""The sensors and schedules: they seed the store when the ETL is done or by the clock, and tell of failed runs.

`etl_completed` reacts to reports of gold's materialisation. The ETL makes them, or `gold_watcher` does for an ETL that
cannot. It does not matter how often a rebuild is reported: what counts is the version of gold in the warehouse.
"""

import json
import os
from datetime import datetime, timedelta, timezone

import dagster as dg

from feature_seed.errors import ConfigurationError
from feature_seed.graph.assets import POOL
from feature_seed.graph.checks import GOLD, WARM_START
from feature_seed.graph.dagster_private import pool_tag, waits_for_retry
from feature_seed.graph.failure import VERSION_TAG, WEBHOOK, alert_of, run_cause, send
from feature_seed.graph.jobs import check_store, seed_all
from feature_seed.warehouse.clickhouse import Warehouse

_POLL_SECONDS = 30

# A run is tried again after a failed step too, whatever the instance says of other runs: nobody looks at these runs. It
# starts from the beginning: gold may have been rebuilt, and shards of two versions of gold are never declared ready.
RETRIES = {
    "dagster/max_retries": "2",
    "dagster/retry_on_asset_or_op_failure": "true",
    "dagster/retry_strategy": "ALL_STEPS",
}

# Shown on the page of the schedule when it is off.
_EXAMPLE = "0 5 * * *"

# How Dagster marks the runs that need the pool, and so write to the store: runs of our jobs, asset pages and backfills.
_SEEDING = {pool_tag(POOL): "true"}

# The sensor does not wait for a run that was created and never queued: the run may never start.
_ACTIVE = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED)

# A run that died with its machine may stay STARTED for good. The store's lock keeps longer runs apart.
_LONGEST_WAIT = timedelta(hours=1)


@dg.sensor(
    job=seed_all,
    minimum_interval_seconds=_POLL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches seed_all once for every version of gold that is reported. Reports of gold_transactions come "
    "from the ETL or from gold_watcher. See feature_seed/graph/README.md.",
)
def etl_completed(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.SensorResult | dg.SkipReason:
    """The cursor is the storage id of the last report that was handled, as in an asset sensor.

    An asset sensor moves its cursor past each report that it sees. This one leaves reports to a later tick while a run
    seeds the store, and after an error.
    """
    if run := _seeding_run(context.instance):
        return dg.SkipReason(
            f"Run {run.run_id} is seeding the store: this sensor looks at reports of gold when it has ended"
        )
    handled = int(context.cursor) if context.cursor else None
    reports = dg.AssetRecordsFilter(GOLD, after_storage_id=handled)
    if not (newest := context.instance.fetch_materializations(reports, limit=1).records):
        return dg.SkipReason("Gold has not been reported since")
    report, cursor = newest[0].event_log_entry, str(newest[0].storage_id)
    # The very first tick gets the latest report in history. Later ticks do not compare times: clocks may differ.
    if context.cursor is None and _already_handled(context.instance, report):
        reason = "The latest report of gold is older than the run that seeded the store last"
        return dg.SensorResult(skip_reason=reason, cursor=cursor)
    version = _gold_version(warehouse)
    if version == _stored_version(context.instance):
        return dg.SensorResult(skip_reason=f"The store holds gold {version} already", cursor=cursor)
    # With the time, a report after a failed run makes another run. The failed run's key would block the version alone.
    request = dg.RunRequest(run_key=f"{version}@{report.timestamp}", tags={VERSION_TAG: version, **RETRIES})
    return dg.SensorResult([request], cursor=cursor)


@dg.sensor(
    minimum_interval_seconds=_POLL_SECONDS,
    description="Looks at gold every 30 seconds. Reports gold when it has changed, and has then stayed the same for "
    "one more look. Start this sensor if the ETL cannot report gold by itself. See feature_seed/graph/README.md.",
)
def gold_watcher(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.SensorResult:
    """The cursor is the version that was reported last. While gold changes, the version seen last follows it.

    Without a cursor, a version that no report names is new: a fresh deployment seeds the gold that it finds.
    """
    version = _gold_version(warehouse)
    cursor = context.cursor
    if cursor is None:  # the ETL's own reports need not name any
        cursor = _named_version(context.instance.get_latest_materialization_event(GOLD))
    reported, _, seen = cursor.partition(" ")
    if version == reported:
        return dg.SensorResult(skip_reason=f"Gold is still {version}", cursor=version)
    if version != seen:  # an ETL that inserts in steps is not done at the first of them
        reason = f"Gold has changed to {version}: it is reported if the next look finds the same version"
        return dg.SensorResult(skip_reason=reason, cursor=f"{reported} {version}")
    report = dg.AssetMaterialization(GOLD, metadata={"gold_version": version})
    return dg.SensorResult(asset_events=[report], skip_reason=f"Reported gold {version}", cursor=version)


# Without monitored_jobs: runs of asset pages and backfills belong to none of the jobs here.
@dg.run_failure_sensor(
    minimum_interval_seconds=_POLL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Logs a failed run as a line of JSON, and posts it to FEATURE_SEED_ALERT_WEBHOOK if that is set. "
    "See feature_seed/graph/README.md.",
)
def run_failed(context: dg.RunFailureSensorContext) -> None:
    run = context.dagster_run
    alert = alert_of(run, run_cause(context))
    context.log.error(json.dumps(alert, ensure_ascii=False))
    again = " (Dagster tries again)" if alert["will_retry"] else ""
    if os.environ.get(WEBHOOK):
        send(alert, f"{run.job_name} failed in run {run.run_id}{again}")


SENSORS = [etl_completed, gold_watcher, run_failed]


def seed_on_schedule() -> dg.ScheduleDefinition:
    """The schedule runs by itself if FEATURE_SEED_SCHEDULE has a cron line. If not, it is off and can be looked at.

    Raises:
        ConfigurationError: the variable is no cron line.
    """
    set_line = os.environ.get("FEATURE_SEED_SCHEDULE")
    try:
        return dg.schedule(
            name="seed_on_schedule",
            job=seed_all,
            cron_schedule=set_line or _EXAMPLE,
            default_status=dg.DefaultScheduleStatus.RUNNING if set_line else dg.DefaultScheduleStatus.STOPPED,
            description="Launches seed_all by the clock, for an ETL that gives no signal. Off unless "
            "FEATURE_SEED_SCHEDULE has a cron line, in UTC. See feature_seed/graph/README.md.",
        )(_tick)
    except dg.DagsterInvalidDefinitionError as e:
        raise ConfigurationError(
            f"FEATURE_SEED_SCHEDULE is {set_line!r}: give a cron line of five fields, such as {_EXAMPLE}"
        ) from e


def _tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    if run := _seeding_run(context.instance):
        return dg.SkipReason(f"Run {run.run_id} is seeding the store")
    return dg.RunRequest(tags=RETRIES)


check_on_schedule = dg.ScheduleDefinition(
    name="check_on_schedule",
    job=check_store,
    cron_schedule="0 * * * *",
    description="Launches check_store every hour: a store that was emptied, restarted or changed fails a run, and "
    "run_failed tells of it. Off until you start it. See feature_seed/graph/README.md.",
)


def _gold_version(warehouse: Warehouse) -> str:
    with warehouse.client(view=False) as client, warehouse.errors():
        return warehouse.version(client)


def _named_version(event: dg.EventLogEntry | None) -> str:
    materialised = event and event.asset_materialization
    version = materialised.metadata.get("gold_version") if materialised else None
    return str(version.value) if version else ""


def _seeding_run(instance: dg.DagsterInstance) -> dg.DagsterRun | None:
    """A run that writes to the store or is about to, whoever launched it. A retry that is yet to come counts too."""
    changed = datetime.now(timezone.utc) - _LONGEST_WAIT
    statuses = [*_ACTIVE, dg.DagsterRunStatus.FAILURE]
    runs = instance.get_runs(dg.RunsFilter(tags=_SEEDING, statuses=statuses, updated_after=changed))
    return next((run for run in runs if run.status in _ACTIVE or waits_for_retry(run)), None)


def _stored_version(instance: dg.DagsterInstance) -> str | None:
    """The version of everything in the store. None if a later run, failed or of a shard, may have left another."""
    seeded = instance.get_latest_materialization_event(WARM_START)
    newest = instance.get_runs(dg.RunsFilter(tags=_SEEDING), limit=1)
    return _named_version(seeded) if seeded and [run.run_id for run in newest] == [seeded.run_id] else None


def _already_handled(instance: dg.DagsterInstance, report: dg.EventLogEntry) -> bool:
    """Whether the store was seeded by a run that started after the report."""
    seeded = instance.get_latest_materialization_event(WARM_START)
    if seeded is None:
        return False
    run = instance.get_run_record_by_id(seeded.run_id)
    return report.timestamp < (run.start_time if run and run.start_time else seeded.timestamp)
