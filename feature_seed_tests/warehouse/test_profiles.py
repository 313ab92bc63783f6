"""Profiles of ClickHouse users: for each setting that restricts, a load does without or is refused unwritten.

The endpoint gives its user the settings of a profile, which the engine then keeps to.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
import redis

from feature_seed.errors import WarehouseError, WarehouseUnavailableError
from feature_seed.features.entity import ENTITIES
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse import clickhouse
from feature_seed.warehouse.access import LIMITS, MEANING, NAMES, Setting, require_version, restrictions
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.source import GoldSource
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import create_table, transaction
from feature_seed_tests.support.run import checks, seed
from feature_seed_tests.support.store import assert_holds, dump

# Deep, and with a slash, which JSON may escape.
ROWS = [transaction(i, f"c{i % 12}", seconds=i * 7 % 300, merchant_category="a/b") for i in range(600)]

TABLE = "fact_transactions_gold"

READONLY = {"readonly": "1"}

HIDES_A_CARD = {"additional_table_filters": "{'default.fact_transactions_gold': 'card_id != \\'c1\\''}"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[ClickHouseServer]:
    with clickhouse_server("seeder", PASSWORD) as server:
        with at(server).client() as client:
            create_table(client, TABLE, ROWS)
        yield server


@pytest.fixture(scope="module")
def commands(endpoint: ClickHouseServer) -> list[bytes]:
    """What is loaded where the profile has no settings."""
    endpoint.set_profile()
    return loaded(at(endpoint))


# Settings that are tried at once.
_PACK = 6


def at(server: ClickHouseServer) -> Warehouse:
    return Warehouse(host=server.host, port=server.port, user=server.user, password=server.password)


def loaded(warehouse: Warehouse) -> list[bytes]:
    """Every command of a load."""
    streams = (FeatureStream(warehouse, Layout(), entity, tuple(shard_names(16))) for entity in ENTITIES)
    found: list[bytes] = []
    for stream in streams:
        stream.rehearse()
        found += (part for block in stream for part in block.payload.split(b"*") if part)
    return sorted(found)


# Profiles under which a load is what it is without, though its user may change no setting.
HARMLESS: list[dict[str, str]] = [
    {},
    {"allow_hyperscan": "0"},
    {"cast_keep_nullable": "1"},
    {"compatibility": "21.8"},
    {"data_type_default_nullable": "1"},
    {"date_time_output_format": "iso"},
    {"date_time_output_format": "unix_timestamp"},
    {"distributed_product_mode": "deny"},
    {"enable_http_compression": "0"},
    {"enable_named_columns_in_function_tuple": "1"},
    {"enable_positional_arguments": "0"},
    {"final": "1"},
    {"group_by_use_nulls": "1"},
    {"input_format_null_as_default": "0"},
    {"join_default_strictness": ""},
    {"join_default_strictness": "ANY"},
    {"join_use_nulls": "1"},
    {"limit": "3"},
    {"max_block_size": "7"},
    {"max_execution_time": "3600"},
    {"max_memory_usage": "300000000"},
    {"max_result_rows": "2000000", "max_rows_to_read": "2000000"},
    {"max_threads": "1"},
    {"output_format_decimal_trailing_zeros": "1"},
    {"output_format_json_escape_forward_slashes": "0"},
    {"output_format_json_escape_forward_slashes": "1"},
    {"output_format_json_quote_64bit_integers": "1"},
    {"output_format_json_quote_denormals": "1"},
    {"send_progress_in_http_headers": "0"},
    {"session_timezone": "Asia/Tokyo"},
    {"short_circuit_function_evaluation": "disable"},
    {"transform_null_in": "1"},
]

# Profiles that are lifted where the user may change settings, and else refused by the setting's name.
LIFTED: list[tuple[dict[str, str], str]] = [
    ({"additional_table_filters": "{'default.fact_transactions_gold': 'amount < 0'}"}, "additional_table_filters"),
    (HIDES_A_CARD, "additional_table_filters"),
    ({"aggregate_functions_null_for_empty": "1"}, "aggregate_functions_null_for_empty = 1"),
    ({"date_time_overflow_behavior": "throw"}, "date_time_overflow_behavior = throw"),
    ({"empty_result_for_aggregation_by_empty_set": "1"}, "empty_result_for_aggregation_by_empty_set = 1"),
    ({"extremes": "1"}, "extremes = 1"),
    ({"enable_global_with_statement": "0"}, "enable_global_with_statement = 0"),
    ({"force_primary_key": "1"}, "force_primary_key = 1"),
    ({"max_execution_time": "1"}, "max_execution_time = 1"),
    ({"max_execution_time": "3600", "timeout_overflow_mode": "break"}, "max_execution_time = 3600"),
    ({"max_result_bytes": "200000"}, "max_result_bytes = 200000"),
    ({"max_result_bytes": "100", "result_overflow_mode": "break"}, "max_result_bytes = 100"),
    ({"max_result_rows": "2000"}, "max_result_rows = 2000"),
    ({"max_result_rows": "3", "result_overflow_mode": "break"}, "max_result_rows = 3"),
    ({"max_rows_to_group_by": "3", "group_by_overflow_mode": "any"}, "max_rows_to_group_by = 3"),
    ({"max_rows_to_read": "1000"}, "max_rows_to_read"),
    ({"max_rows_to_read": "10", "read_overflow_mode": "break"}, "max_rows_to_read = 10"),
    ({"min_execution_speed": "1000000000"}, "min_execution_speed = 1000000000"),
    ({"prefer_column_name_to_alias": "1"}, "prefer_column_name_to_alias = 1"),
    ({"single_join_prefer_left_table": "0"}, "single_join_prefer_left_table = 0"),
]

# Profiles that are refused whether or not the user may change settings: no query of any client gets through.
REFUSED: list[tuple[dict[str, str], str]] = [
    ({"additional_result_filter": "1 = 0"}, "additional_result_filter"),
    ({"dialect": "kusto"}, "dialect"),
    ({"max_ast_elements": "60"}, "max_ast_elements"),
    ({"max_columns_to_read": "5"}, "max_columns_to_read"),
    ({"max_memory_usage": "1000000"}, "max_memory_usage"),
    ({"max_memory_usage_for_user": "100000000"}, "max_memory_usage_for_user = 100000000"),
    ({"max_query_size": "300"}, "max_query_size"),
    ({"max_result_rows": "3"}, "max_result_rows"),
    ({"max_subquery_depth": "2"}, "max_subquery_depth"),
    ({"max_temporary_columns": "3"}, "max_temporary_columns"),
    ({"offset": "1"}, "offset"),
    ({"output_format_native_encode_types_in_binary_format": "1"}, "output_format_native_encode_types_in_binary"),
    ({"use_query_cache": "1"}, "use_query_cache"),
]


def packed(profiles: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """All of these settings in fewer profiles, none of which has a setting twice."""
    packs: list[dict[str, str]] = []
    for profile in profiles:
        pack = next((one for one in packs if len(one) < _PACK and not one.keys() & profile.keys()), {})
        if not pack:
            packs.append(pack)
        pack.update(profile)
    return packs


def said(profile: Mapping[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in profile.items()) or "none"


def said_or_nothing(value: object) -> str:
    return said(value) if isinstance(value, dict) else ""


@pytest.mark.parametrize("profile", packed(HARMLESS), ids=said)
def test_done_without(endpoint: ClickHouseServer, commands: list[bytes], profile: dict[str, str]) -> None:
    """A load is byte for byte what it is without the profile, though its user may change no setting."""
    endpoint.set_profile(**profile, **READONLY)
    assert loaded(at(endpoint)) == commands


@pytest.mark.parametrize("profile", packed(profile for profile, _ in LIFTED), ids=said)
def test_lifted(endpoint: ClickHouseServer, commands: list[bytes], profile: dict[str, str]) -> None:
    """Where the user may change the setting, a load is byte for byte what it is without the profile."""
    endpoint.set_profile(**profile)
    assert loaded(at(endpoint)) == commands


@pytest.mark.parametrize(
    ("profile", "name"), [*(({**profile, **READONLY}, name) for profile, name in LIFTED), *REFUSED], ids=said_or_nothing
)
def test_refused_before_the_first_write(endpoint: ClickHouseServer, profile: dict[str, str], name: str) -> None:
    """No command is made. The error names the setting and the user, and is none that another attempt may mend."""
    endpoint.set_profile(**profile)
    with pytest.raises(WarehouseError, match=name) as raised:
        loaded(at(endpoint))
    assert "'seeder'" in str(raised.value)
    assert "cannot be reached" not in str(raised.value)
    assert not isinstance(raised.value, WarehouseUnavailableError)  # or the step would be tried again


@pytest.mark.parametrize("profile", [{"extremes": "1", **READONLY}, {"max_ast_elements": "400"}], ids=said)
def test_a_refusal_leaves_the_store_as_it_is(
    endpoint: ClickHouseServer, store: OnlineStore, online: redis.Redis, profile: dict[str, str]
) -> None:
    """The run fails, of a setting that is looked for and of one that only the load's own query meets."""
    endpoint.set_profile(**profile)
    online.set("card:c1:seq", 4)
    before = dump(online)
    with pytest.raises(WarehouseError, match=next(iter(profile))):
        seed(at(endpoint), store)
    assert dump(online) == before


@pytest.mark.parametrize(
    "profile",
    [
        READONLY,
        {"readonly": "2"},
        {**READONLY, "limit": "3"},
        {"max_result_rows": "5", "result_overflow_mode": "break"},
    ],
    ids=said,
)
def test_the_whole_job(
    endpoint: ClickHouseServer, store: OnlineStore, online: redis.Redis, profile: dict[str, str]
) -> None:
    """Its checks and its comparison live with the profile as well, and the store holds gold."""
    endpoint.set_profile(**profile)
    evaluated = checks(seed(at(endpoint), store, job="seed_all"))
    assert [name for name, one in evaluated.items() if not one.passed] == []
    assert_holds(online, expect(ROWS))
    schema = str(evaluated["gold_transactions.schema"].description)
    assert ("ALTER USER seeder SETTINGS readonly = 2" in schema) == (profile.get("readonly") == "1")


def test_less_memory_means_more_passes(endpoint: ClickHouseServer) -> None:
    """A pass collects no more than a part of what a query of the user may take."""
    endpoint.set_profile(max_memory_usage="300000000")
    warehouse = at(endpoint)
    warehouse.profile()
    assert warehouse.pass_memory == 75_000_000
    endpoint.set_profile()
    free = at(endpoint)
    free.profile()
    assert free.pass_memory == free.pass_bytes


def test_memory_that_one_shard_needs_more_of(endpoint: ClickHouseServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even a shard by itself fits, the load is refused before it begins."""
    monkeypatch.setattr(clickhouse, "MEMORY_OF_PASS", 600_000)
    endpoint.set_profile(max_memory_usage="300000000")
    with pytest.raises(WarehouseError, match=r"max_memory_usage .* leaves 500 bytes .* one shard of cards needs"):
        loaded(at(endpoint))


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_cannot_be_lifted(limit: str) -> None:
    """It is kept to where a query fails at it and gold is far from it; refused where it cuts answers, or is near."""
    held = {**harmless(), limit: Setting("10", fixed=True)}
    assert restrictions({**held, "read_overflow_mode": Setting("break", fixed=True)}).refused == {limit: "10"}
    near = restrictions(held)
    if limit.startswith("max"):
        assert near.too_small(rows=1000) == {limit: "10"}
        far = restrictions({**harmless(), limit: Setting("10000000", fixed=True)})
        assert (far.refused, far.too_small(rows=1000)) == ({}, {})
    else:
        assert near.refused == {limit: "10"}
    lifted = restrictions({**harmless(), limit: Setting("10", fixed=False)})
    assert (lifted.refused, lifted.kept, lifted.changed[limit]) == ({}, {}, "0")


def harmless() -> dict[str, Setting]:
    """Every setting that is looked at, as ClickHouse has it by default."""
    values: dict[str, Any] = {**dict.fromkeys(NAMES, "0"), **MEANING, "read_overflow_mode": "throw"}
    return {name: Setting(value, fixed=False) for name, value in values.items()}


def test_a_profile_without_restrictions() -> None:
    """Nothing is refused or kept, and only what no table shows is sent."""
    free = restrictions(harmless())
    assert (free.changed, free.kept, free.refused, free.memory) == ({"limit": "0", "offset": "0"}, {}, {}, None)


@pytest.mark.parametrize("version", ["24.7.9.1", "23.8.2.7", "22.3.20.29-lts", "9.1"])
def test_a_server_that_is_too_old(version: str) -> None:
    """It is refused by its version, and the oldest one that can be used is named."""
    source = GoldSource(host="ch", port=8123, user="seeder")
    with pytest.raises(WarehouseError, match=rf"{version}, and 24\.8 is the oldest"):
        require_version(version, source)


@pytest.mark.parametrize("version", ["24.8.1.1", "24.12.6.70", "25.8.2.29.altinitystable", "26.9.2.1", "100.1"])
def test_a_server_that_is_new_enough(version: str) -> None:
    """No version from the oldest on is refused, whoever built it."""
    require_version(version, GoldSource(host="ch", port=8123, user="seeder"))
