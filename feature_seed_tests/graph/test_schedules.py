"""The schedule: off unless the environment has a cron line, and never beside another run."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from feature_seed.errors import ConfigurationError
from feature_seed.graph.assets import POOL
from feature_seed.graph.dagster_private import pool_tag
from feature_seed.graph.jobs import seed_all
from feature_seed.graph.sensors import seed_on_schedule


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.mark.parametrize(("line", "status"), [("", "STOPPED"), ("30 4 * * 1-5", "RUNNING")])
def test_it_runs_where_it_has_a_cron_line(monkeypatch: pytest.MonkeyPatch, line: str, status: str) -> None:
    monkeypatch.setenv("FEATURE_SEED_SCHEDULE", line)
    schedule = seed_on_schedule()
    assert (schedule.default_status.value, schedule.job_name) == (status, seed_all.name)
    assert schedule.cron_schedule == (line or "0 5 * * *")


@pytest.mark.parametrize("line", ["daily", "61 4 * * *", "0 5"])
def test_a_line_that_is_none(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setenv("FEATURE_SEED_SCHEDULE", line)
    with pytest.raises(ConfigurationError, match=f"FEATURE_SEED_SCHEDULE is '{line[:2]}.*five fields, such as 0 5"):
        seed_on_schedule()


def test_a_tick_launches_a_run_that_is_retried(instance: dg.DagsterInstance) -> None:
    """And none while a run is under way that writes to the store."""
    schedule = seed_on_schedule()
    context = dg.build_schedule_context(instance)
    (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.tags["dagster/max_retries"] == "2"
    job = dg.Definitions(jobs=[_seeding]).resolve_job_def("_seeding")
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags={pool_tag(POOL): "true"})
    skipped = schedule.evaluate_tick(context)
    assert not skipped.run_requests and run.run_id in str(skipped.skip_message)


@dg.job
def _seeding() -> None: ...
