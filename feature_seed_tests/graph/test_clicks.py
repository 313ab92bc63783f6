"""Everything that can be clicked on Dagster's pages is clicked, in a browser, and does what the documents say."""

import os
from pathlib import Path
from typing import Any

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import read_ready
from feature_seed.graph.checks import CHECKS
from feature_seed.store.local import LocalRedis
from feature_seed_tests.support.browser import INSTALLED, Browser, chromium
from feature_seed_tests.support.deployment import dagster_dev, query
from feature_seed_tests.support.gold import transaction, write_parquet
from feature_seed_tests.support.patience import HANG_SECONDS, wait_for
from feature_seed_tests.support.store import features

RUNS = "{ runsOrError(limit: 99) { ... on Runs { results { runId status } } } }"

READY = """{
  assetOrError(assetKey: {path: ["warm_start"]}) { ... on Asset { assetMaterializations(limit: 1) { runId } } }
}"""

EVALUATION = """query ($asset: [String!]!, $check: String!) {
  assetCheckExecutions(assetKey: {path: $asset}, checkName: $check, limit: 1) { runId status }
}"""

WINDOWS = ((1280, 900), (1920, 1080))


class Pages:
    """The pages of a deployment in a browser, and where their pictures go."""

    def __init__(self, port: int, browser: Browser, pictures: Path) -> None:
        self.port, self.browser, self.pictures = port, browser, pictures

    def open(self, path: str) -> None:
        self.browser.open(f"http://127.0.0.1:{self.port}{path}")

    def shoot(self, name: str, path: str, see: str, *clicks: str) -> None:
        """Pictures of a page at both widths, once this is to be seen and these were clicked."""
        for width, height in WINDOWS:
            self.browser.resize(width, height)
            self.open(path)
            self.browser.see(see)
            for text in clicks:
                self.browser.click(text)
            self.browser.screenshot(self.pictures / f"{name}-{width}.png")

    def ended(self, before: set[str], runs: int = 1) -> list[tuple[str, str]]:
        """The runs that were launched since, and how they ended, once so many have."""

        def all_ended() -> list[tuple[str, str]] | None:
            found = query(self.port, RUNS)["runsOrError"]["results"]
            new = [(one["runId"], one["status"]) for one in found if one["runId"] not in before]
            done = [one for one in new if one[1] in ("SUCCESS", "FAILURE", "CANCELED")]
            return done if len(done) == len(new) >= runs else None

        return wait_for(all_ended, f"{runs} runs end", 4 * HANG_SECONDS)

    def runs(self) -> set[str]:
        return {one["runId"] for one in query(self.port, RUNS)["runsOrError"]["results"]}

    def evaluation(self, asset: str, check: str) -> dict[str, Any] | None:
        found = query(self.port, EVALUATION, asset=[asset], check=check)["assetCheckExecutions"]
        return found[0] if found else None


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    directory = Path(os.environ.get("FEATURE_SEED_SCREENSHOTS") or tmp_path)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs a browser: apt-get install -y chromium chromium-driver")
def test_clicks(chdb: Client, tmp_path: Path, home: Path, pictures: Path) -> None:
    """Before: an empty instance, no store. seed_all from its page, each check, a shard, a range, the launchpad, and a
    gold that is blocked: after each the store is what it should be, and the pages are photographed.
    """
    rows = [transaction(i, f"c{i % 300}", seconds=i) for i in range(1500)]
    gold = write_parquet(chdb, tmp_path / "gold.parquet", rows)
    env = {"FEATURE_SEED_GOLD_PARQUET": str(gold)}
    with dagster_dev(tmp_path / "instance", env) as port, chromium(tmp_path / "profile") as browser:
        pages = Pages(port, browser, pictures)
        whole = seed_all_from_its_page(pages, home)
        store = redis.Redis(unix_socket_path=str(LocalRedis(home).socket))
        each_check(pages, store)
        a_shard_and_a_range(pages, store)
        the_launchpad(pages)
        assert features(store) == whole
        photographs(pages)
        write_parquet(chdb, gold, [*rows, transaction(9999, amount=None)])
        a_blocked_run(pages, store)
        assert features(store) == whole


def seed_all_from_its_page(pages: Pages, home: Path) -> dict[bytes, object]:
    """Three clicks, as the description of the job says; what is in the store then."""
    pages.shoot("job", "/locations/feature_seed/jobs/seed_all", "Seeds every feature of every shard")
    for text in ("Materialize all", "All", "Launch backfill"):
        pages.browser.click(text)
    wait_for(
        lambda: query(pages.port, READY)["assetOrError"].get("assetMaterializations"), "it is ready", 4 * HANG_SECONDS
    )
    store = redis.Redis(unix_socket_path=str(LocalRedis(home).socket))
    ready = read_ready(store)
    assert ready and (ready.state, ready.cards) == ("ready", 300)
    return features(store)


def each_check(pages: Pages, store: redis.Redis) -> None:
    """The button of each is there, evaluates it alone, and writes nothing."""
    before = features(store)
    for key, names in CHECKS.items():
        for name in names:
            asset, known = key.to_user_string(), pages.runs()
            pages.open(f"/assets/{asset}?view=checks&checkDetail={name}")
            pages.browser.click("Execute", exactly=True)
            ((run, status),) = pages.ended(known)
            assert status == "SUCCESS", (asset, name)
            assert pages.evaluation(asset, name) == {"runId": run, "status": "SUCCEEDED"}
    assert features(store) == before


def a_shard_and_a_range(pages: Pages, store: redis.Redis) -> None:
    """Histories that were deleted come back, of those shards that were chosen in the dialog."""
    for shards in (["05"], ["06", "07", "08"]):
        known = pages.runs()
        pages.open("/assets/card_history")
        for text in ("Materialize", "All"):
            pages.browser.click(text)
        for text in ("16 partitions selected", "Select all (16)", *shards, "Partition selection"):
            pages.browser.press(text)
        pages.browser.click("Launch")
        ((_, status),) = pages.ended(known)
        assert status == "SUCCESS", shards


def the_launchpad(pages: Pages) -> None:
    """Its field for a partition stays empty, as the description of the job says, and the run seeds every shard."""
    known = pages.runs()
    pages.open("/locations/feature_seed/jobs/seed_all/playground")
    pages.browser.click("Launch Run")
    pages.browser.click("Confirm")
    ((run, status),) = pages.ended(known)
    assert status == "SUCCESS"
    pages.shoot("run", f"/runs/{run}", "RUN_SUCCESS")


def photographs(pages: Pages) -> None:
    pages.shoot("graph", "/locations/feature_seed/asset-groups/feature_seed", "100% filled")
    pages.shoot("warm_start", "/assets/warm_start", "taken over")
    pages.shoot("plots", "/assets/warm_start", "taken over", "Plots")
    pages.shoot("pictures", "/assets/warm_start", "taken over", "[Show Markdown]")
    pages.shoot("check", "/assets/card_history?view=checks&checkDetail=parity", "differ from gold")
    pages.shoot("store", "/assets/warm_start?view=checks&checkDetail=store_kept", "has gold")
    pages.shoot("shard", "/assets/card_history?view=partitions&partition=05", "entities_by_shard")
    pages.shoot("sensors", "/automation", "gold_watcher")


def a_blocked_run(pages: Pages, store: redis.Redis) -> None:
    """The run fails, the store stays ready, and the pages of the run and of the check say so."""
    ready, known = read_ready(store), pages.runs()
    pages.open("/locations/feature_seed/jobs/seed_all/playground")
    pages.browser.click("Launch Run")
    pages.browser.click("Confirm")
    ((run, status),) = pages.ended(known)
    assert status == "FAILURE"
    assert read_ready(store) == ready
    pages.shoot("blocked-run", f"/runs/{run}", "Nothing was written")
    pages.shoot(
        "blocked-check", "/assets/gold_transactions?view=checks&checkDetail=rejected_rows", "Nothing was written"
    )
    pages.shoot("blocked-graph", "/locations/feature_seed/asset-groups/feature_seed", "16 failed")
