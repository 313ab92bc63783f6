"""From the ETL's last step to the keys in Redis, through a real webserver and daemon."""

import os
import re
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import redis
import yaml
from clickhouse_connect.driver.client import Client

from feature_seed.contract import read_card, read_ready
from feature_seed.warehouse.embedded import sample_gold
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.deployment import daemon, query, webserver
from feature_seed_tests.support.documents import code
from feature_seed_tests.support.gold import transaction, write_parquet
from feature_seed_tests.support.patience import wait_for
from feature_seed_tests.support.store import features

RUNS = "{ runsOrError { ... on Runs { results { id status jobName startTime endTime tags { key value } } } } }"

TICKS = """
query ($sensor: SensorSelector!) {
  sensorOrError(sensorSelector: $sensor) {
    ... on Sensor { sensorState { ticks { status skipReason runIds error { message } } } }
  }
}"""

ETL_COMPLETED = {
    "repositoryLocationName": "feature_seed",
    "repositoryName": "__repository__",
    "sensorName": "etl_completed",
}


def report(port: int, asset: str = "gold_transactions") -> int:
    """The documents' lines, against this deployment; their exit code."""
    (lines,) = {dedent(block) for block in code("sh") if "/report_asset_materialization/" in block}
    assert "asset=gold_transactions dagster=http://dagster.internal:3000" in lines
    lines = lines.replace("dagster.internal:3000", f"127.0.0.1:{port}").replace("=gold_transactions", f"={asset}")
    env = {**os.environ, "no_proxy": "*"}
    return subprocess.run(["sh", "-c", lines], capture_output=True, text=True, env=env).returncode


def runs(port: int) -> list[dict[str, Any]]:
    return query(port, RUNS)["runsOrError"]["results"]


def finished(port: int) -> dict[str, Any] | None:
    """The only run, once it is through."""
    found = runs(port)
    assert len(found) <= 1, found
    assert all(run["status"] not in ("FAILURE", "CANCELED") for run in found), found
    return found[0] if found and found[0]["status"] == "SUCCESS" else None


def skipped(port: int, reason: str) -> bool:
    """Whether a tick of etl_completed saw a report and found a reason not to run."""
    ticks = query(port, TICKS, sensor=ETL_COMPLETED)["sensorOrError"]["sensorState"]["ticks"]
    assert all(tick["status"] != "FAILURE" for tick in ticks), ticks
    return any(re.search(reason, tick["skipReason"] or "") for tick in ticks)


@pytest.mark.slow
def test_the_etl_reports_and_the_store_is_seeded(
    chdb: Client, tmp_path: Path, redis_port: int, online: redis.Redis
) -> None:
    """Before: an empty store. A report, made while the daemon is down: one run, of every shard. A second report of the
    same gold, with the daemon restarted in between: no second run.
    """
    env = {
        "FEATURE_SEED_GOLD_PARQUET": str(sample_gold(chdb, tmp_path)),
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}",
        "REDIS_PASSWORD": PASSWORD,
    }
    home = tmp_path / "dagster"
    with webserver(home, env) as port:
        assert report(port, "gold_transaction") == 1, "nothing is called so"
        assert report(port) == 0
        with daemon(home, env):
            run = wait_for(lambda: finished(port), "the run succeeds")
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        ready, card = read_ready(online), read_card(online, "card-4987")
        assert run["jobName"] == "seed_all" and tags["dagster/sensor_name"] == "etl_completed"
        assert ready and (ready.state, ready.run_id, ready.cards, ready.customers) == ("ready", run["id"], 5000, 2500)
        assert ready.gold_version == tags["feature_seed/gold_version"]
        assert card and card.seq == 13 and len(card.history) == 10

        assert report(port) == 0
        with daemon(home, env):
            wait_for(lambda: skipped(port, "already"), "the second report is seen")
        assert [one["id"] for one in runs(port)] == [run["id"]]
    for log in home.glob("*.log"):
        assert PASSWORD not in log.read_text(errors="replace")


def attempts(port: int) -> list[dict[str, str]] | None:
    """The tags of all runs, oldest first, once the newest of them has failed for good."""
    found = [{tag["key"]: tag["value"] for tag in run["tags"]} for run in reversed(runs(port))]
    return found if found and found[-1].get("dagster/will_retry") == "false" else None


@pytest.mark.slow
def test_a_failed_run_is_retried_twice(
    tmp_path: Path, make_parquet: MakeWarehouse, redis_port: int, online: redis.Redis, instance_yaml: dict[str, Any]
) -> None:
    """Before: gold that its check refuses, and our dagster.yaml but for Postgres. After a report: the sensor's
    run and two retries of it, all of them failed, and nothing in the store.
    """
    env = {
        "FEATURE_SEED_GOLD_PARQUET": str(make_parquet([transaction(1), transaction(2, amount=None)]).gold_parquet),
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}",
        "REDIS_PASSWORD": PASSWORD,
    }
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(
        yaml.safe_dump({**instance_yaml, "storage": {"sqlite": {"base_dir": str(home)}}})
    )
    with webserver(home, env) as port:
        assert report(port) == 0
        with daemon(home, env):
            made = wait_for(lambda: attempts(port), "the last retry fails")
    assert [tags.get("dagster/retry_number") for tags in made] == [None, "1", "2"]
    assert [tags["dagster/will_retry"] for tags in made] == ["true", "true", "false"]
    assert all(tags["dagster/sensor_name"] == "etl_completed" for tags in made)
    assert not features(online)


def ran(port: int, status: str, count: int) -> list[dict[str, Any]] | None:
    """The runs, oldest first, once there are so many and the newest has this status."""
    found = runs(port)[::-1]
    assert len(found) <= count, found
    return found if len(found) == count and found[-1]["status"] == status else None


@pytest.mark.slow
def test_a_rebuild_during_a_run_is_seeded_after_it(
    chdb: Client, tmp_path: Path, redis_port: int, online: redis.Redis
) -> None:
    """Before: an instance without pools, and a run that takes a minute. Gold grows and is reported meanwhile: the next
    run begins when the first has ended, and brings the rest. Reported once more during that one: no third.
    """
    env = {
        "FEATURE_SEED_GOLD_PARQUET": str(tmp_path / "gold-*.parquet"),
        "FEATURE_SEED_MAX_RATE": "5",
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}",
        "REDIS_PASSWORD": PASSWORD,
    }
    write_parquet(chdb, tmp_path / "gold-1.parquet", [transaction(i, f"c{i % 100}") for i in range(200)])
    with webserver(tmp_path / "dagster", env) as port, daemon(tmp_path / "dagster", env):
        assert report(port) == 0
        wait_for(lambda: features(online), "the first run has read gold and writes")
        write_parquet(chdb, tmp_path / "gold-2.parquet", [transaction(200, "c7", seconds=1)])
        assert report(port) == 0
        wait_for(lambda: skipped(port, "is seeding the store"), "the second report waits")
        wait_for(lambda: ran(port, "STARTED", 2), "the next run begins")
        assert report(port) == 0
        first, second = wait_for(lambda: ran(port, "SUCCESS", 2), "the next run succeeds")
        wait_for(lambda: skipped(port, "already"), "the third report is seen")
        assert ran(port, "SUCCESS", 2)
    assert first["status"] == "SUCCESS" and first["endTime"] <= second["startTime"]
    card = read_card(online, "c7")
    assert card and card.history[-1].transaction_id == "t200"
