"""Rights in ClickHouse: the documented ones are enough, and what is missing is told before the first write.

The engine itself keeps to the grants, the row policies and the constraints of a users.xml.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest
import redis

from feature_seed.errors import WarehouseError, WarehouseUnavailableError
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.mapping import GoldMapping
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import TYPES, transaction
from feature_seed_tests.support.run import checks, seed
from feature_seed_tests.support.store import assert_holds, dump

README = Path(__file__).parents[2] / "feature_seed" / "warehouse" / "README.md"

ROWS = [transaction(i, f"c{i % 12}", seconds=i * 7 % 300) for i in range(200)]

USERS = """<clickhouse>
<profiles><default>{profile}<constraints>{constraints}</constraints></default></profiles>
<users><default>
  <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
  <databases>{policies}</databases>
  <grants>{grants}</grants>
</default></users>
<quotas><default/></quotas>
</clickhouse>"""


def documented() -> list[str]:
    """The grants that the README gives, without the user."""
    section = README.read_text().split("## Rights in ClickHouse\n")[1].split("\n## ")[0]
    statements = re.search(r"```sql\n(.*?)```", section, re.DOTALL)
    assert statements
    return [re.sub(r"\s+TO seeder$", "", one.strip()) for one in statements[1].split(";") if one.strip()]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gold, in a database that has UUIDs as those of a server."""
    columns = ", ".join(f"{name} {type_}" for name, type_ in TYPES.items())
    rows = ", ".join(
        f"('{row.transaction_id}', '{row.card_id}', '{row.customer_id}', '{row.merchant_category}', {row.amount}, "
        f"{row.timestamp.timestamp()}, {row.location_lat}, {row.location_long})"  # type: ignore[union-attr]
        for row in ROWS
    )
    setup = tmp_path_factory.mktemp("gold") / "setup.sql"
    setup.write_text(
        "CREATE DATABASE gold ENGINE = Atomic;"
        f"CREATE TABLE gold.fact_transactions_gold ({columns}, secret String DEFAULT 's') ENGINE = MergeTree "
        f"ORDER BY tuple(); INSERT INTO gold.fact_transactions_gold ({', '.join(TYPES)}) VALUES {rows}"
    )
    return setup


@contextmanager
def user(
    setup: Path, grants: Sequence[str], profile: str = "", constraints: str = "", row_filter: str = ""
) -> Iterator[tuple[ClickHouseServer, Warehouse]]:
    """A server whose user has these rights and no others."""
    users = setup.with_name("users.xml")
    policy = f"<gold><fact_transactions_gold><filter>{escape(row_filter)}</filter></fact_transactions_gold></gold>"
    queries = "".join(f"<query>{escape(grant)}</query>" for grant in grants)
    policies = policy if row_filter else ""
    users.write_text(USERS.format(profile=profile, constraints=constraints, policies=policies, grants=queries))
    with clickhouse_server("default", PASSWORD, setup, users=users, place=setup.parent) as server:
        yield (
            server,
            Warehouse(host=server.host, port=server.port, user="default", password=PASSWORD, database="gold"),
        )


def seeded(warehouse: Warehouse, store: OnlineStore, online: redis.Redis) -> str:
    """Run the whole job: it holds gold. What the check `schema` says."""
    evaluated = checks(seed(warehouse, store, job="seed_all"))
    assert [name for name, one in evaluated.items() if not one.passed] == []
    assert_holds(online, expect(ROWS))
    return str(evaluated["gold_transactions.schema"].description)


def test_the_documented_rights_are_enough(setup: Path, store: OnlineStore, online: redis.Redis) -> None:
    """A user with them and no others seeds the store, without a warning, and may not read a column beside."""
    with user(setup, documented()) as (_, warehouse):
        assert seeded(warehouse, store, online) == "every column can be read"
        with warehouse.client() as client, pytest.raises(WarehouseError, match="ACCESS_DENIED"), warehouse.errors():
            client.query("SELECT secret FROM gold.fact_transactions_gold")


def test_without_the_right_to_see_parts(setup: Path, store: OnlineStore, online: redis.Redis) -> None:
    """Gold is then known by its content: the store is seeded, and the grant that would make it cheap is named."""
    with user(setup, ["GRANT SELECT ON gold.fact_transactions_gold"]) as (_, warehouse):
        assert "GRANT SELECT ON system.parts TO default" in seeded(warehouse, store, online)
        with warehouse.client() as client:
            assert warehouse.version(client) == warehouse.profile().version
    with user(setup, documented()) as (_, other):
        assert other.profile().version != warehouse.profile().version


def test_a_mapping_needs_the_columns_that_it_names(setup: Path, store: OnlineStore, online: redis.Redis) -> None:
    """Without a right to the columns that it leaves out the store is seeded; a missing grant names the others."""
    mapping = GoldMapping(
        columns={"location_lat": "NULL", "location_long": "NULL", "amount": "abs(amount)"}, where="card_id != 'none'"
    )
    grants = [one.replace(", location_lat, location_long", "") for one in documented()]
    with user(setup, grants) as (_, warehouse):
        seed(mapped(warehouse, mapping), store)
    rows = [replace(row, location_lat=None, location_long=None, amount=row.amount and abs(row.amount)) for row in ROWS]
    assert_holds(online, expect(rows))
    with user(setup, []) as (_, warehouse), pytest.raises(WarehouseError) as raised:
        mapped(warehouse, mapping).profile()
    assert f"{grants[0]} TO default".replace("\n    ", " ") in str(raised.value)


def mapped(warehouse: Warehouse, mapping: GoldMapping) -> Warehouse:
    access = {name: getattr(warehouse, name) for name in ("host", "port", "user", "password", "database")}
    return Warehouse(**access, mapping=mapping)


@pytest.mark.parametrize(
    "grants",
    [
        [],
        ["GRANT SELECT ON gold.other"],
        [one.replace("merchant_category, ", "") for one in documented()],
        [re.sub(r",\s+SHOW COLUMNS", "", one) for one in documented()],
    ],
    ids=["none", "another table", "not the categories", "not the columns"],
)
def test_a_right_that_is_missing(setup: Path, store: OnlineStore, online: redis.Redis, grants: list[str]) -> None:
    """The run fails before the first write, names the grant word for word, and is not tried again."""
    online.set("card:c1:seq", 4)
    before = dump(online)
    with user(setup, grants) as (_, warehouse), pytest.raises(WarehouseError) as raised:
        seed(warehouse, store)
    needed = documented()[0].replace("\n    ", " ")
    assert f"{needed} TO default" in str(raised.value)
    assert not isinstance(raised.value, WarehouseUnavailableError)
    assert dump(online) == before


def test_rows_that_a_policy_hides(setup: Path, store: OnlineStore, online: redis.Redis) -> None:
    """What the user sees is seeded, and the filter is named: whether that is all of gold nobody can know from here."""
    with user(setup, documented(), row_filter="card_id = 'c1'") as (_, warehouse):
        evaluated = checks(seed(warehouse, store, job="seed_all"))
    said = str(evaluated["gold_transactions.schema"].description)
    assert re.search(r"row policy hides rows of gold from user 'default'.*card_id.*c1", said)
    assert_holds(online, expect([row for row in ROWS if row.card_id == "c1"]))


@pytest.mark.parametrize(
    ("profile", "constraints", "says"),
    [
        ("<max_result_rows>5</max_result_rows>", "<max_result_rows><const/></max_result_rows>", "max_result_rows = 5"),
        (
            "<max_execution_time>9</max_execution_time>",
            "<max_execution_time><min>1</min></max_execution_time>",
            "max_execution_time",
        ),
        ("<limit>3</limit>", "<limit><const/></limit>", "limit"),
        (
            "<prefer_column_name_to_alias>1</prefer_column_name_to_alias>",
            "<prefer_column_name_to_alias><readonly/></prefer_column_name_to_alias>",
            "prefer_column_name_to_alias = 1",
        ),
    ],
)
def test_a_setting_that_is_held_by_a_constraint(
    setup: Path, store: OnlineStore, online: redis.Redis, profile: str, constraints: str, says: str
) -> None:
    """A constraint on one setting is found, whatever its kind, and the setting is named before the first write."""
    profile = profile.replace(
        "<max_result_rows>", "<result_overflow_mode>break</result_overflow_mode><max_result_rows>"
    )
    name = says or "max_execution_time"
    with user(setup, documented(), profile, constraints) as (_, warehouse), pytest.raises(WarehouseError, match=name):
        seed(warehouse, store)
    assert dump(online) == {}


def test_constraints_on_what_only_makes_a_load_faster(setup: Path, store: OnlineStore, online: redis.Redis) -> None:
    """They are left as they are: the store is seeded without them."""
    held = "<group_by_two_level_threshold><const/></group_by_two_level_threshold>"
    held += "<optimize_move_to_prewhere><min>1</min></optimize_move_to_prewhere>"
    with user(setup, documented(), constraints=held) as (_, warehouse):
        seeded(warehouse, store, online)
