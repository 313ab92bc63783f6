"""The check of warm_start: it says whether the store still is what the last run left."""

from collections.abc import Iterator

import dagster as dg
import pytest
import redis

from feature_seed.contract import read_ready
from feature_seed.graph.checks import CHECKS, GOLD
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.run import checks, seed
from feature_seed_tests.support.store import dump

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(200)]


class Shop:
    """A store and its Dagster instance."""

    def __init__(self, make: MakeWarehouse, store: OnlineStore, instance: dg.DagsterInstance) -> None:
        self.make, self.store, self.instance = make, store, instance
        self.warehouse = make(ROWS)

    def run(self, job: str) -> dg.ExecuteInProcessResult:
        return seed(self.warehouse, self.store, job=job, instance=self.instance, raise_on_error=False)

    def check(self) -> tuple[bool, str]:
        """Whether the check passed, and what it said; a run of it fails when it fails as an error."""
        result = self.run("check_store")
        found = checks(result)["warm_start.store_kept"]
        assert result.success == (found.passed or found.severity == dg.AssetCheckSeverity.WARN)
        return found.passed, found.description or ""


@pytest.fixture
def shop(make_parquet: MakeWarehouse, store: OnlineStore) -> Iterator[Shop]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Shop(make_parquet, store, instance)


def test_what_becomes_of_the_store(shop: Shop, online: redis.Redis) -> None:
    """Before any run the check fails. After one it passes, in the run and by itself, also once a scorer has added keys.
    What another Dagster, or a person, has written into the ready key is named. So is how many keys are gone, as a
    warning: the database may be shared with programs that delete their own. An emptied store is told as such.
    """
    passed, text = shop.check()
    assert (passed, text) == (False, "No run has made the store ready so far: run seed_all")
    seeded = shop.run("seed_all")
    assert checks(seeded)["warm_start.store_kept"].passed
    online.set("card:new:last_ts", 1)
    before = dump(online)
    passed, text = shop.check()
    assert passed
    assert seeded.run_id in text
    assert dump(online) == before
    for field, value in {"run_id": "another", "cards": "39", "state": "seeding"}.items():
        was = online.hget("feature_seed:ready", field)
        online.hset("feature_seed:ready", field, value)
        passed, text = shop.check()
        assert not passed
        assert f"{field} is" in text
        online.hset("feature_seed:ready", field, was or "")
    online.delete("card:new:last_ts", "card:c1:history", "card:c2:loc")
    passed, text = shop.check()
    assert not passed
    assert "2 fewer than after run" in text
    online.flushall()
    passed, text = shop.check()
    assert not passed
    assert "was emptied since it was seeded" in text
    assert not online.dbsize()


def test_a_load_that_was_broken_off_is_told(shop: Shop, online: redis.Redis) -> None:
    """The store stays ready, with what the last whole run left. A load over it has failed since."""
    shop.run("seed_all")
    online.delete("cust:of c1:stats")
    online.set("cust:of c1:stats", "something else's")
    shop.warehouse = shop.make([*ROWS, transaction(998, seconds=900)])
    assert not shop.run("load").success
    passed, text = shop.check()
    assert passed
    assert f"A load of gold {shop.warehouse.profile().version} " in text


@pytest.mark.parametrize("of_an_asset", [1, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"])
def test_each_check_by_itself(shop: Shop, online: redis.Redis, of_an_asset: int | None) -> None:
    """As its button on its page does: it alone is evaluated, and nothing is written."""
    assert shop.run("seed_all").success
    before = dump(online)
    for key, names in CHECKS.items():
        for name in list(names)[:of_an_asset]:
            check = f"{key.to_user_string()}.{name}"
            result = shop.run(check.replace(".", "_"))
            assert result.success, check
            assert {one: found.passed for one, found in checks(result).items()} == {check: True}
    assert dump(online) == before


def test_a_blocked_run_says_what_the_store_holds(shop: Shop, online: redis.Redis) -> None:
    """Before: a store that is ready. A gold that is blocked leaves it so, which the failed check says on its page."""
    seeded = shop.run("seed_all")
    before, ready = dump(online), read_ready(online)
    shop.warehouse = shop.make([*ROWS, transaction(999, amount=None)])
    blocked = shop.run("seed_all")
    assert not blocked.success
    said = checks(blocked)[f"{GOLD.to_user_string()}.rejected_rows"].metadata["store"].value
    assert ready and isinstance(said, str)
    assert said.startswith("Nothing was written. ")
    assert seeded.run_id in said
    assert ready.gold_version in said
    assert dump(online) == before
    assert shop.check()[0]
