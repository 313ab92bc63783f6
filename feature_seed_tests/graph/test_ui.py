"""Dagster's own UI, as a user meets it after `dagster dev`: Materialize all, and the report that it leads to."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import read_card, read_ready
from feature_seed.store import lock
from feature_seed.store.local import LocalRedis
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.browser import INSTALLED, chromium
from feature_seed_tests.support.deployment import dagster_dev, deployment, query
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.patience import wait_for
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import features

PROGRESS = """{
  runsOrError { ... on Runs { results { status jobName } } }
  assetOrError(assetKey: {path: ["warm_start"]}) { ... on Asset { assetMaterializations(limit: 1) { runId } } }
}"""


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where pictures of the pages are kept."""
    directory = Path(os.environ.get("FEATURE_SEED_SCREENSHOTS") or tmp_path)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def seeded(port: int) -> bool:
    """Whether warm_start is there; a run that fails ends the waiting."""
    progress = query(port, PROGRESS)
    runs = progress["runsOrError"]["results"]
    assert all(run["status"] not in ("FAILURE", "CANCELED") for run in runs), runs
    return bool(progress["assetOrError"].get("assetMaterializations"))


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs a browser: apt-get install -y chromium chromium-driver")
def test_materialize_all(tmp_path: Path, home: Path, screenshots: Path) -> None:
    """Before: an empty instance, no store. After three clicks: every key, a green graph, and the report's pictures."""
    with dagster_dev(tmp_path / "instance") as port, chromium(tmp_path / "profile") as browser:
        ui = f"http://127.0.0.1:{port}"
        browser.open(f"{ui}/asset-groups")
        browser.click("Materialize all")
        browser.click("All")
        browser.click("Launch backfill")
        wait_for(lambda: seeded(port), "warm_start is materialised")

        client = redis.Redis(unix_socket_path=str(LocalRedis(home).socket))
        ready, card = read_ready(client), read_card(client, "card-0042")
        assert ready
        assert (ready.state, ready.cards, ready.customers) == ("ready", 5000, 2500)
        assert len(features(client)) == 5 * 5000 - 10 + 2 * 2500  # ten cards of the sample never have coordinates
        assert card
        assert len(card.history) == 10

        browser.open(f"{ui}/locations/feature_seed/asset-groups/feature_seed")
        browser.see("100% filled")
        browser.screenshot(screenshots / "graph.png")

        browser.open(f"{ui}/assets/warm_start")
        browser.see("Show Markdown")
        browser.screenshot(screenshots / "warm_start.png")
        browser.click("[Show Markdown]")
        images = browser.images(4)
        browser.screenshot(screenshots / "report.png")
        assert "98 % of the cards hold a full history of 10" in [image.get_attribute("alt") for image in images]
        assert all(image.is_displayed() for image in images)


LAUNCH = """mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { id } } ... on Error { message } }
}"""

RESUME = """mutation ($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename ... on LaunchRunSuccess { run { id } } ... on Error { message }
  }
}"""

BACKFILL = """mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message }
  }
}"""

STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"

BACKFILLED = """query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status runs(limit: 9) { status startTime endTime } }
  }
}"""

LOCATION = {"repositoryLocationName": "feature_seed", "repositoryName": "__repository__"}


TWO_AT_A_TIME = """
telemetry:
  enabled: false
concurrency:
  pools:
    granularity: run
    default_limit: 2
"""

LOCK = (lock.KEY.encode(),)  # which stays for a while, where every step is a process

FEATURES = ("card_history", "card_location", "customer_stats")


def environment(warehouse: Warehouse, redis_port: int) -> dict[str, str]:
    """What a deployment needs to seed this store from this warehouse."""
    return {
        "CLICKHOUSE_HOST": str(warehouse.host),
        "CLICKHOUSE_PORT": str(warehouse.port),
        "CLICKHOUSE_USER": str(warehouse.user),
        "CLICKHOUSE_PASSWORD": str(warehouse.password),
        "FEATURE_SEED_GOLD_TABLE": warehouse.gold_table,
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}",
        "REDIS_PASSWORD": PASSWORD,
    }


def ended(port: int, run_id: str) -> str | None:
    status = query(port, STATUS, id=run_id)["runOrError"]["status"]
    return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None


def launch(port: int, mutation: str, **params: Any) -> str:
    """Launch a run as a page does; gives its id."""
    (launched,) = query(port, mutation, params=params).values()
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return launched["run"]["id"]


@pytest.mark.slow
def test_parts_and_failures(
    chdb: Client, tmp_path: Path, make_table: MakeWarehouse, redis_port: int, online: redis.Redis
) -> None:
    """Against servers, with what the pages send. Before: a key of another type, so that a run fails half-way.

    After a re-execution from failure: ready, as a single run leaves it. Then histories are deleted, and one shard and a
    range of shards bring back theirs, byte for byte.
    """
    rows = [transaction(i, f"c{i % 90}", seconds=i) for i in range(500)]
    warehouse = make_table(rows)
    shards = chdb.query("SELECT 'c' || toString(number), sipHash64('c' || toString(number)) % 16 FROM numbers(90)")
    shard_of = dict(zip(*shards.result_columns, strict=True))
    online.set("card:c7:loc", "not a hash")
    with deployment(tmp_path / "instance", environment(warehouse, redis_port)) as port:
        failed = launch(port, LAUNCH, selector={**LOCATION, "jobName": "seed_all"})
        assert wait_for(lambda: ended(port, failed), "the run ends") == "FAILURE"
        ready = read_ready(online)
        assert ready and ready.state == "seeding"
        online.delete("card:c7:loc")
        resumed = launch(port, RESUME, parentRunId=failed, strategy="FROM_FAILURE")
        assert wait_for(lambda: ended(port, resumed), "the run ends") == "SUCCESS"
        ready = read_ready(online)
        assert ready and (ready.state, ready.cards, ready.run_id) == ("ready", 90, resumed)

        whole = features(online)
        histories: dict[bytes, int] = {
            f"card:{card}:{key}".encode(): shard for card, shard in shard_of.items() for key in ("history", "seq")
        }
        online.delete(*histories)
        history = [{"path": ["card_history"]}]
        one = launch(
            port,
            LAUNCH,
            selector={**LOCATION, "jobName": "__ASSET_JOB", "assetSelection": history, "assetCheckSelection": []},
            executionMetadata={"tags": [{"key": "dagster/partition", "value": "03"}]},
        )
        assert wait_for(lambda: ended(port, one), "the run ends") == "SUCCESS"
        assert features(online) == {key: value for key, value in whole.items() if histories.get(key, 3) == 3}

        params = {"assetSelection": history, "partitionNames": ["05", "06", "07"]}
        backfill = query(port, BACKFILL, params=params)["launchPartitionBackfill"]["backfillId"]
        wait_for(lambda: backfilled(port, backfill), "the backfill is done")
        kept = {key: value for key, value in whole.items() if histories.get(key, 3) in (3, 5, 6, 7)}
        assert features(online) == kept


def backfilled(port: int, backfill: str, runs: int = 1) -> list[dict[str, Any]] | None:
    """Its runs, once it is done in so many."""
    found = query(port, BACKFILLED, id=backfill)["partitionBackfillOrError"]
    assert found["status"] in ("REQUESTED", "COMPLETED_SUCCESS"), found
    if found["status"] == "REQUESTED":
        return None
    assert [run["status"] for run in found["runs"]] == ["SUCCESS"] * runs
    return found["runs"]


@pytest.mark.slow
def test_a_backfill_of_many_runs(
    tmp_path: Path, make_table: MakeWarehouse, redis_port: int, online: redis.Redis, store: OnlineStore
) -> None:
    """Before: a store as a single run leaves it, then emptied. Four shards a run, two runs at a time, on machines that
    share nothing but Dagster's instance: the same bytes, ready, and runs that went on at the same time.
    """
    warehouse = make_table([transaction(i, f"c{i % 90}", seconds=i) for i in range(500)])
    seed(warehouse, store)
    whole = features(online)
    online.flushall()
    home = tmp_path / "instance"
    home.mkdir()
    (home / "dagster.yaml").write_text(TWO_AT_A_TIME)
    # So slow that a run is not over before the next is launched, 1.3 s later.
    slowly = {"FEATURE_SEED_SHARDS_PER_RUN": "4", "FEATURE_SEED_MAX_RATE": "10"}
    with deployment(home, {**environment(warehouse, redis_port), **slowly}) as port:
        params = {"assetSelection": [{"path": [name]} for name in (*FEATURES, "warm_start")], "allPartitions": True}
        backfill = query(port, BACKFILL, params=params)["launchPartitionBackfill"]["backfillId"]
        runs = wait_for(lambda: backfilled(port, backfill, runs=5), "the backfill is done")
    assert features(online) == whole
    ready = read_ready(online)
    assert ready and (ready.state, ready.cards, ready.customers) == ("ready", 90, 90)
    seeding = sorted((run["startTime"], run["endTime"]) for run in runs)
    together = [later[0] < one[1] for one, later in pairwise(seeding)]
    assert any(together), seeding
