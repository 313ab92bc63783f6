"""Dagster's private names do what dagster_private.py says: a release that takes one away fails here, by its name."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from feature_seed.graph import dagster_private

POOL = "a_pool"


class Asked(dg.ConfigurableIOManager):
    """Answers one question about each output, and fails the first attempt of a step."""

    def handle_output(self, context: dg.OutputContext, obj: Callable[[dg.OutputContext], Any]) -> None:
        context.add_output_metadata({"answer": repr(obj(context))})
        if not dagster_private.previous_attempts(context):
            raise dg.RetryRequested(1)

    def load_input(self, context: dg.InputContext) -> None: ...


def answer(question: Callable[[dg.OutputContext], Any]) -> str:
    """What the second attempt of a step of a run with a tag finds."""

    @dg.asset(pool=POOL)
    def one() -> Any:
        return question

    @dg.asset
    def another() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [one, another], selection=["one"], resources={"io_manager": Asked()}, instance=instance, tags={"a": "b"}
        )
        (materialised,) = result.asset_materializations_for_node("one")
        assert instance.get_runs(dg.RunsFilter(tags={dagster_private.pool_tag(POOL): "true"}))
    return str(materialised.metadata["answer"].value)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (dagster_private.previous_attempts, "1"),
        (lambda context: dagster_private.run_of(context).tags["a"], "'b'"),
        (dagster_private.steps_have_processes, "False"),
        (lambda context: sorted(dagster_private.selected_assets(context)), "[AssetKey(['one'])]"),
    ],
)
def test_an_output_knows_its_step(question: Callable[[dg.OutputContext], Any], says: str) -> None:
    """Before: two assets, one of which is selected. Its step fails once; the second attempt answers."""
    assert answer(question) == says


def test_evaluations_of_a_check(tmp_path: Path) -> None:
    """Before: no evaluation. After three, the latest two are given, newest first."""
    key, numbers = dg.AssetCheckKey(dg.AssetKey("one"), "check"), iter(range(3))

    @dg.asset_check(asset="one", name="check")
    def check() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True, metadata={"number": next(numbers)})

    job = dg.Definitions(asset_checks=[check]).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral(str(tmp_path)) as instance:
        assert dagster_private.check_evaluations(instance, key, 2) == []
        for _ in range(3):
            job.execute_in_process(instance=instance)
        found = dagster_private.check_evaluations(instance, key, 2)
    assert [one.metadata["number"].value for one in found] == [2, 1]


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS])
def test_only_a_failed_run_waits_for_its_retry(status: dg.DagsterRunStatus) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(jobs=[_nothing]).resolve_job_def("_nothing")
        run = instance.create_run_for_job(job, status=status, tags={"dagster/will_retry": "true"})
    assert dagster_private.waits_for_retry(run) is (status == dg.DagsterRunStatus.FAILURE)


def test_lines_of_a_run_go_to_one_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: a job without loggers in its config. The console gets what its step says and every event, of run and
    step; a run that has not come to its steps says why.
    """
    module: Any = dagster_private.context_creation_job
    monkeypatch.setattr(module, "default_system_loggers", module.default_system_loggers)  # put back afterwards
    records: list[logging.LogRecord] = []

    @dg.logger
    def console(_: dg.InitLoggerContext) -> logging.Logger:
        handler, logger = logging.Handler(), logging.Logger("a console")
        handler.emit = records.append  # type: ignore[method-assign]
        logger.addHandler(handler)
        return logger

    dagster_private.log_runs_to(console)
    _nothing.execute_in_process()
    told = [dagster_private.told(record) for record in records]
    assert (None, "said by a step", "_says") in told
    kinds = [event.event_type for event, *_ in told if event]
    assert {dg.DagsterEventType.RUN_START, dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.RUN_SUCCESS} < set(
        kinds
    )
    result = _without_resource.execute_in_process(raise_on_error=False)
    error = dagster_private.run_error(result.get_run_failure_event())
    assert error and "no such thing" in error.to_string()


@dg.op
def _says(context: dg.OpExecutionContext) -> None:
    context.log.info("said by a step")


@dg.resource
def _broken() -> None:
    raise ValueError("no such thing")


@dg.op(required_resource_keys={"broken"})
def _needs() -> None: ...


@dg.job(resource_defs={"broken": _broken})
def _without_resource() -> None:
    _needs()


@dg.job
def _nothing() -> None:
    _says()
