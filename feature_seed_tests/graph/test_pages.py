"""What the pages of the assets show in Dagster: what they are, what they are made of, and numbers to chart."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from feature_seed import contract
from feature_seed.features.feature import FEATURES, Feature
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.gold import GOLD_COLUMNS
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.documents import table
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.run import materialised, seed

Pages = dict[str, dg.AssetSpec]

WRITTEN = {
    "card_history": ["card:{card_id}:history", "card:{card_id}:seq", "card:{card_id}:seed"],
    "card_location": ["card:{card_id}:loc", "card:{card_id}:last_ts"],
    "customer_stats": ["cust:{customer_id}:stats", "cust:{customer_id}:seed"],
}

# Values whose keys are STRINGs: what they are called on the page is the end of the key.
STRINGS = {"card_history": {"seq"}, "card_location": {"last_ts"}, "customer_stats": set()}


# The metadata of a load, as the documents list them.
DOCUMENTED = {name for names, _ in table("| metadata | meaning |") for name in re.findall(r"`(.*?)`", names)}


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
    ("asset", "group", "kinds", "owner"),
    [
        ("gold_transactions", "warehouse", {"clickhouse"}, "team:data-platform"),
        *((feature, "features", {"clickhouse", "redis"}, "team:fraud") for feature in WRITTEN),
        ("warm_start", "features", {"redis"}, "team:fraud"),
    ],
)
def test_what_an_asset_is(pages: Pages, asset: str, group: str, kinds: set[str], owner: str) -> None:
    node = pages[asset]
    assert node.description and node.description.endswith(".")
    assert node.group_name == group
    assert node.kinds == kinds
    assert list(node.owners) == [owner]


def test_every_asset_has_its_page(pages: Pages) -> None:
    assert set(pages) == {"gold_transactions", *WRITTEN, "warm_start"}


def test_every_check_says_what_it_is_for(defs: dg.Definitions) -> None:
    described = [check.description for checks in defs.asset_checks or () for check in checks.check_specs]
    assert len(described) == 8 + 3 * len(WRITTEN)
    assert all(text and text.endswith(".") for text in described)


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


def test_a_load_leaves_numbers_to_chart(make_parquet: MakeWarehouse, store: OnlineStore) -> None:
    """Before: 9 cards in gold, one of them of a row that is rejected. Dagster charts what is a number, over time."""
    rows = [transaction(i, f"c{i % 8}", seconds=i) for i in range(40)]
    result = seed(make_parquet([*rows, transaction(99, "c8", amount=None)]), store, verify=True)
    for feature in WRITTEN:
        shown = materialised(result, feature).metadata
        counts = {name: value.value for name, value in shown.items() if isinstance(value, dg.IntMetadataValue)}
        rates = {name: value.value for name, value in shown.items() if isinstance(value, dg.FloatMetadataValue)}
        assert {name: counts[name] for name in ("dagster/row_count", "entities_written", "kept_newer")} == {
            "dagster/row_count": 8,
            "entities_written": 8,
            "kept_newer": 0,
        }
        assert counts["rejected_rows"] == 1
        assert {"commands", "bytes"} < set(counts)
        assert {"seconds", "entities_per_second"} <= set(rates)
        assert DOCUMENTED - set(shown) == {"replication", "probe_p99_ms"}, "of clusters and of throttled loads alone"
        assert set(shown) <= DOCUMENTED
    ready = result.asset_materializations_for_node("warm_start")[0].metadata
    assert ready["cards"] == dg.MetadataValue.int(8) == ready["customers"]
    assert isinstance(ready["watermark"], dg.TimestampMetadataValue)
    assert isinstance(ready["run_id"], dg.DagsterRunMetadataValue)
    assert isinstance(ready["report"], dg.MarkdownMetadataValue)
