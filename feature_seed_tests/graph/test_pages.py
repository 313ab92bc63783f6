"""What the pages of the assets show in Dagster: what they are, what they are made of, and numbers to chart."""

import re
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed import contract
from feature_seed.features.feature import FEATURES, Feature
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.gold import GOLD_COLUMNS
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.documents import ROOT, table
from feature_seed_tests.support.gold import START, transaction
from feature_seed_tests.support.run import materialised, metadata, seed

Pages = dict[str, dg.AssetSpec]

WRITTEN = {
    "card_history": ["card:{card_id}:history", "card:{card_id}:seq", "card:{card_id}:seed"],
    "card_location": ["card:{card_id}:loc", "card:{card_id}:last_ts"],
    "customer_stats": ["cust:{customer_id}:stats", "cust:{customer_id}:seed"],
}

# Values whose keys are STRINGs: what they are called on the page is the end of the key.
STRINGS = {"card_history": {"seq"}, "card_location": {"last_ts"}, "customer_stats": set()}


def documented(header: str) -> set[str]:
    """The metadata that a table of the documents lists."""
    return {name for names, _ in table(header) for name in re.findall(r"`(.*?)`", names)}


DOCUMENTED = documented("| metadata of a shard | meaning |")
TOTALS = documented("| metadata of `warm_start` | meaning |")


@pytest.fixture
def defs() -> dg.Definitions:
    """As they are shipped; made here, since they are of the environment."""
    from feature_seed.definitions import defs

    return defs


@pytest.fixture
def pages(defs: dg.Definitions) -> Pages:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def columns(page: dg.AssetSpec) -> dict[str, dg.TableColumn]:
    return {column.name: column for column in page.metadata["dagster/column_schema"].columns}


@pytest.mark.parametrize(
    ("asset", "kinds", "owner"),
    [
        ("gold_transactions", {"clickhouse"}, "team:data-platform"),
        *((feature, {"clickhouse", "redis"}, "team:fraud") for feature in WRITTEN),
        ("warm_start", {"redis"}, "team:fraud"),
        ("departed", {"clickhouse", "redis"}, "team:fraud"),
    ],
)
def test_what_an_asset_is(pages: Pages, asset: str, kinds: set[str], owner: str) -> None:
    node = pages[asset]
    assert node.group_name == "feature_seed", "one group for all, so that its page opens with the whole graph"
    assert node.kinds == kinds
    assert list(node.owners) == [owner]


def test_every_asset_has_its_page(pages: Pages) -> None:
    assert set(pages) == {"gold_transactions", *WRITTEN, "warm_start", "departed"}


def test_every_page_says_what_it_is_and_where_to_read_on(defs: dg.Definitions) -> None:
    """Of each asset, check, job, sensor, schedule and resource: the document that is named is there."""
    checks = [spec for one in defs.asset_checks or () for spec in one.check_specs]
    assert len(checks) == 9 + 3 * len(WRITTEN) + 1
    named = [
        *checks,
        *defs.resolve_all_asset_specs(),
        *(defs.jobs or ()),
        *(defs.sensors or ()),
        *(defs.schedules or ()),
    ]
    texts = {getattr(one, "key", None) or one.name: one.description for one in named}
    texts |= {name: type(one).__doc__ for name, one in (defs.resources or {}).items()}
    assert len(texts) == len(named) + 5
    for name, text in texts.items():
        documents = re.findall(r"feature_seed/\w+/README\.md", text or "")
        assert documents, name
        assert all((ROOT / one).is_file() for one in documents), name


@pytest.mark.parametrize("asset", ["gold_transactions", "warm_start"])
def test_staleness_shows(pages: Pages, asset: str) -> None:
    """A warning, and then a failure, when a nightly rebuild or the load after it stays away."""
    policy: Any = pages[asset].freshness_policy
    assert policy.warn_window.to_timedelta() == timedelta(hours=26)
    assert policy.fail_window.to_timedelta() == timedelta(hours=36)


def test_the_columns_of_gold(pages: Pages) -> None:
    shown = columns(pages["gold_transactions"])
    assert {name: column.type for name, column in shown.items()} == {
        name: column.type for name, column in GOLD_COLUMNS.items()
    }
    assert all(column.description for column in shown.values())


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_the_keys_of_a_feature(pages: Pages, feature: Feature) -> None:
    """As the contract has them, with their types and fields."""
    keys = {key.pattern: key for key in contract.KEYS}
    shown = [record.data for record in pages[feature.name].metadata["keys"].records]
    assert [one["key"] for one in shown] == WRITTEN[feature.name]
    for one in shown:
        assert one["type"] == keys[one["key"]].type
        assert one["fields"] == ", ".join(keys[one["key"]].fields)


@pytest.mark.parametrize("feature", WRITTEN)
def test_the_columns_of_a_feature_come_from_gold(pages: Pages, feature: str) -> None:
    """One for every field and value that a scorer reads; each is made of a column that gold has."""
    patterns = {key.pattern: key for key in contract.KEYS}
    keys = (patterns[pattern] for pattern in WRITTEN[feature] if not pattern.endswith(":seed"))  # ours alone
    fields = {field for key in keys for field in key.fields}
    shown = columns(pages[feature])
    assert set(shown) == fields | STRINGS[feature]
    assert all(column.description and column.type in ("string", "double", "int") for column in shown.values())
    lineage = pages[feature].metadata["dagster/column_lineage"].deps_by_column
    assert set(lineage) == set(shown)
    for made_of in lineage.values():
        assert {one.asset_key for one in made_of} == {dg.AssetKey("gold_transactions")}
        assert {one.column_name for one in made_of} <= set(GOLD_COLUMNS)


@pytest.mark.parametrize("feature", WRITTEN)
def test_the_code_of_a_feature(pages: Pages, feature: str) -> None:
    """Its SELECT, its commands in both modes and its script: files that are there."""
    references = pages[feature].metadata["dagster/code_references"].code_references
    paths = [Path(one.file_path) for one in references]
    assert all(path.is_file() for path in paths), paths
    assert {"select.sql", "overwrite.sql", "keep_newer.sql", "keep_newer.lua"} <= {path.name for path in paths}
    assert {path.parent.name for path in paths} == {"customers" if feature == "customer_stats" else "cards", "events"}


def test_the_metadata_of_a_shard_are_that_shards(chdb: Client, make_parquet: MakeWarehouse, store: OnlineStore) -> None:
    """Before: 9 cards in gold, one of them of a row that is rejected. Dagster plots the numbers of each shard."""
    rows = [transaction(i, f"c{i % 8}", seconds=i) for i in range(40)]
    result = seed(make_parquet([*rows, transaction(99, "c8", amount=None)]), store, verify=True)
    for feature in WRITTEN:
        shards = {str(one.partition): one.metadata for one in materialised(result, feature)}
        ids = [f"c{i}" if feature.startswith("card") else f"of c{i}" for i in range(8)]
        hashes = chdb.query("SELECT sipHash64(arrayJoin({ids:Array(String)})) % 2", {"ids": ids}).result_columns[0]
        per_shard = Counter(f"{shard:02x}" for shard in hashes)
        assert {shard: one["dagster/row_count"].value for shard, one in shards.items()} == {
            shard: per_shard[shard] for shard in shards
        }
        for shard, shown in shards.items():
            assert shown["entities_by_shard"].value == {shard: per_shard[shard]}
            assert (shown["entities_written"].value, shown["kept_newer"].value) == (per_shard[shard], 0)
            load: Any = shown["load"].value
            assert (load["entities"], load["shards"], load["rejected_rows"], load["gold_rows"]) == (8, 2, 1, 41)
            documented = {name.removeprefix("load.") for name in DOCUMENTED}
            assert documented - {*shown, *load} == {"replication", "probe_p99_ms"}, "of clusters and throttled loads"
            assert {*shown, *(f"load.{name}" for name in load)} <= DOCUMENTED


def test_warm_start_has_the_totals(make_parquet: MakeWarehouse, store: OnlineStore, online: redis.Redis) -> None:
    """Before: nothing, and then a run. After a second run over a gold that grew: numbers in all, which Dagster plots,
    and in the report how they differ from the first run's."""
    rows = [transaction(i, f"c{i % 8}", seconds=i) for i in range(40)]
    with dg.DagsterInstance.ephemeral() as instance:
        seed(make_parquet(rows), store, job="seed_all", instance=instance)
        grown = [*rows, transaction(98, "c9", seconds=50), transaction(99, "c8", seconds=60)]
        result = seed(make_parquet(grown), store, job="seed_all", instance=instance)
    (page,) = materialised(result, "warm_start")
    shown: dict[str, Any] = {name: one.value for name, one in page.metadata.items()}
    loads = [metadata(result, feature)["load"] for feature in ("card_history", "customer_stats")]
    assert (shown["cards"], shown["customers"], shown["entities"]) == (10, 10, 20)
    assert (shown["gold_rows"], shown["rejected_rows"], shown["kept_newer"]) == (42, 0, 0)
    assert shown["seconds"] == pytest.approx(sum(load["seconds"] for load in loads))
    assert shown["bytes"] == sum(load["bytes"] for load in loads)
    assert shown["entities_per_second"] == pytest.approx(20 / shown["seconds"], rel=0.01)
    hours = (datetime.now(timezone.utc) - START - timedelta(seconds=60)) / timedelta(hours=1)
    assert shown["gold_age_hours"] == pytest.approx(hours, abs=0.2)
    assert shown["store_keys"] == online.dbsize()
    assert 0 < shown["features_memory_bytes"] < shown["store_memory_bytes"]
    table = {one.data["figure"]: one.data for one in page.metadata["report"].value.records}  # type: ignore[union-attr]
    assert (table["entities"]["now"], table["entities"]["change"]) == ("20", "+4")
    assert (table["gold rows"]["now"], table["gold rows"]["change"]) == ("42", "+2")
    assert shown["checks"] == "18 of 18 passed"
    assert isinstance(page.metadata["watermark"], dg.TimestampMetadataValue)
    assert isinstance(page.metadata["run_id"], dg.DagsterRunMetadataValue)
    assert isinstance(page.metadata["pictures"], dg.MarkdownMetadataValue)
    assert set(shown) <= TOTALS
    assert TOTALS - set(shown) == {"unrecorded_examples", "probe_p99_ms"}, "where there are any"
