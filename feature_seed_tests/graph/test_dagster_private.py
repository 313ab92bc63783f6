"""Dagster's private names do what dagster_private.py says: a release that takes one away fails here, by its name."""

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


@dg.job
def _nothing() -> None: ...
