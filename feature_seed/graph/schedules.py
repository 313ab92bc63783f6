"""The schedules: one seeds the store by the clock where nobody tells of rebuilds of gold, one checks the store."""

import os

import dagster as dg

from feature_seed.environment import is_set
from feature_seed.errors import ConfigurationError
from feature_seed.graph.jobs import check_store, seed_all
from feature_seed.graph.sensors import RETRIES, seeding_run

_VARIABLE = "FEATURE_SEED_SCHEDULE"

# Shown on the page of a schedule that is off.
_EXAMPLE = "0 5 * * *"


def seed_on_schedule() -> dg.ScheduleDefinition:
    """Runs by itself where the environment has its cron line; elsewhere it is off, and there to be looked at.

    Raises:
        ConfigurationError: the variable is no cron line.
    """
    line = os.environ.get(_VARIABLE) or _EXAMPLE
    status = dg.DefaultScheduleStatus.RUNNING if is_set(_VARIABLE) else dg.DefaultScheduleStatus.STOPPED
    try:
        return dg.schedule(
            name="seed_on_schedule",
            job=seed_all,
            cron_schedule=line,
            default_status=status,
            description="Launches seed_all by the clock, for an ETL that gives no signal. Off unless "
            "FEATURE_SEED_SCHEDULE has a cron line, in UTC. See feature_seed/graph/README.md.",
        )(_tick)
    except dg.DagsterInvalidDefinitionError as e:
        raise ConfigurationError(f"{_VARIABLE} is {line!r}: give a cron line of five fields, such as {_EXAMPLE}") from e


def _tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    if run := seeding_run(context.instance):
        return dg.SkipReason(f"Run {run.run_id} is seeding the store")
    return dg.RunRequest(tags=RETRIES)


check_on_schedule = dg.ScheduleDefinition(
    name="check_on_schedule",
    job=check_store,
    cron_schedule="0 * * * *",
    description="Launches check_store every hour: a store that was emptied, restarted or changed fails a run, and "
    "run_failed tells of it. Off until you start it. See feature_seed/graph/README.md.",
)
