"""The private names of Dagster that we use, each with the reason and with what would replace it.

The names are the same in Dagster 1.11, 1.12 and 1.13. test_dagster_private.py names one that a release takes away.
"""

import logging
from collections.abc import Mapping, Sequence, Set
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent
from dagster._core.execution import context_creation_job
from dagster._core.storage.tags import POOL_TAG_PREFIX
from dagster_shared.error import SerializableErrorInfo as ErrorInfo


def pool_tag(pool: str) -> str:
    """The tag by which Dagster marks the runs that need a pool: of jobs, asset pages and backfills alike.

    `run_op_concurrency` of a run says the same, but runs cannot be filtered by it. A public filter by pool would do.
    """
    return f"{POOL_TAG_PREFIX}{pool}"


def previous_attempts(context: dg.OutputContext) -> int:
    """How often the step was tried before. Assets have `retry_number`, an IO manager has nothing like it."""
    return context.step_context.previous_attempt_count


def run_of(context: dg.OutputContext) -> dg.DagsterRun:
    """The run, for its tags: an IO manager is told its id alone, and may not ask the instance."""
    return context.step_context.dagster_run


def add_shard_metadata(context: dg.OutputContext, shard: str, metadata: Mapping[str, Any]) -> None:
    """Metadata of one partition's materialisation.

    Assets have `add_asset_metadata`. An IO manager's metadata go to all partitions of a run.
    """
    context.step_context.add_asset_metadata(metadata, context.asset_key, shard)


def steps_have_processes(context: dg.OutputContext) -> bool:
    """Whether the executor gives every step a process of its own: no step may free then what all share."""
    return context.step_context.retry_mode.deferred


def selected_assets(context: dg.OutputContext) -> Set[dg.AssetKey]:
    """The assets that the run materialises. `DagsterRun.asset_selection` is None where a job selects them."""
    return context.step_context.job_def.asset_layer.selected_asset_keys


def waits_for_retry(run: dg.DagsterRun) -> bool:
    """Whether Dagster will launch a failed run again. Tags say so too, but their names are not public either."""
    return run.is_complete_and_waiting_to_retry


def check_evaluations(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, limit: int
) -> Sequence[dg.AssetCheckEvaluation]:
    """The latest evaluations of a check, newest first. Public methods give only materialisations and observations."""
    history = instance.event_log_storage.get_asset_check_execution_history(check, limit=limit)
    evaluations = (record.evaluation for record in history)
    return [one for one in evaluations if isinstance(one, dg.AssetCheckEvaluation)]  # others were only planned


def run_error(event: DagsterEvent) -> ErrorInfo | None:
    """What kept a run from its steps. A sensor's context knows only the failures of steps."""
    return event.job_failure_data.error


def told(record: logging.LogRecord) -> tuple[DagsterEvent | None, str, str]:
    """The event, the text and the step of a line of a run's log, from where Dagster's own loggers take them.

    `record.msg` has job, run and process before the text.
    """
    logged: dict[str, Any] = getattr(record, "dagster_meta", {})
    message = logged.get("orig_message") or record.getMessage()
    return logged.get("dagster_event"), message, logged.get("step_key") or ""


def log_runs_to(console: dg.LoggerDefinition) -> None:
    """Have `console` print what every run of this process logs, unless the run's config names another logger.

    `loggers` of Definitions are used only by runs whose config names them. A job can have such a config by default.
    Asset pages, backfills and `dg launch --assets` run without a job of ours. A public default logger would do.
    """
    context_creation_job.default_system_loggers = lambda _: [(console, {})]  # type: ignore[assignment]
