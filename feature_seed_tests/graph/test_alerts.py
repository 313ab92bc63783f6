"""The sensor run_failed: a failed run is told once, in the log and by webhook."""

import json

import dagster as dg
import pytest

from feature_seed.errors import FeatureSeedError
from feature_seed.graph.jobs import seed_all, seed_shard
from feature_seed.graph.sensors import run_failed
from feature_seed_tests.support.redis_server import free_port
from feature_seed_tests.support.run import QUIET
from feature_seed_tests.support.sensing import CLOSED_STORE, Deployment
from feature_seed_tests.support.webhook import webhook


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


def test_a_webhook_that_fails_keeps_its_secret(
    deployment: Deployment, failed: dg.DagsterRun, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick fails and says of what kind the fault is; the URL is in no error, cause or log; the line is logged."""
    cursor = deployment.cursors["run_failed"]
    with webhook(403) as hook:
        for url, kind in (
            (hook.url, "HTTP status 403"),
            (f"http://127.0.0.1:{free_port()}/the-secret", "ConnectionRefusedError"),
            ("the-secret", "ValueError"),
            ("http://127.0.0.1/the secret", "InvalidURL"),
        ):
            monkeypatch.setenv("FEATURE_SEED_ALERT_WEBHOOK", url)
            deployment.cursors["run_failed"] = cursor
            (reaction,) = deployment.tick(run_failed).dagster_run_reactions
            assert reaction.error and reaction.error.cls_name == FeatureSeedError.__name__
            assert kind in reaction.error.message
            assert "secret" not in reaction.error.to_string() + "".join(log)
            assert failed.run_id in log[-1]
    assert len(log) == 4
