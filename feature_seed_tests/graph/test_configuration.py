"""The configuration: every mistake in it is refused when the definitions load, with its line and the right form."""

import os
import re
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from textwrap import dedent

import dagster as dg
import pytest
import yaml
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing.utils import DefsFolderSandbox, create_defs_folder_sandbox

import feature_seed
from feature_seed.errors import ConfigurationError
from feature_seed.graph.component import WarmStart
from feature_seed.graph.configuration import Configuration, configured, read
from feature_seed_tests.support.documents import code

# What a file says, the line of the mistake, and what to write.
WRONG = [
    # Not YAML, or not a configuration.
    ("gold: {table: payments", 1, "expected ',' or '}'"),
    ("gold:\n\ttable: payments", 2, "found character '\\t'"),
    ("features:\n  a: {key: card:{card_id}:a, set: amount}", 2, "Quote what has braces"),
    ("- gold", 1, "write gold: {table: fact_transactions}"),
    ("payments", 1, "write gold: {table: fact_transactions}"),
    ("gold: {}\ngoald: {}", 2, "goald is unknown: choose from gold, standard, features"),
    ("gold: {}\nstandard: {}\ngold: {}", 3, "gold is there twice: name it once"),
    # Gold.
    ("gold: payments", 1, "write gold: {table: fact_transactions, columns: {card_id: cc_num}}"),
    ("gold:", 1, "write gold: {table: fact_transactions, columns: {card_id: cc_num}}"),
    ("gold:\n  tabel: payments", 2, "tabel is unknown: choose from table, where, columns"),
    ("gold:\n  table: ''", 2, "write table: fact_transactions"),
    ("gold:\n  table: [a, b]", 2, "write table: fact_transactions"),
    ("gold:\n  where: 5", 2, "write where: status = 'settled'"),
    ("gold:\n  where: (amount > 0", 2, "a parenthesis, a bracket or a quote is open in (amount > 0: close it"),
    ("gold:\n  where: status = 'settled", 2, "a parenthesis, a bracket or a quote is open"),
    ("gold:\n  columns: cc_num", 2, "write columns: {card_id: cc_num,"),
    ("gold:\n  columns: [cc_num]", 2, "write columns: {card_id: cc_num,"),
    ("gold:\n  columns:\n    card: cc_num", 3, "choose from transaction_id, card_id, customer_id"),
    (
        "gold:\n  columns:\n    card_id: 5",
        3,
        "card_id cannot be read: write columns: {card_id: cc_num, customer_id: {of:",
    ),
    ("gold:\n  columns:\n    card_id: ''", 3, "write columns: {card_id: cc_num, customer_id: {of:"),
    ("gold:\n  columns:\n    amount: amt\n    amount: amount", 4, "amount is there twice: name it once"),
    (
        "gold:\n  columns:\n    amount: NULL",
        3,
        "only merchant_category, location_lat, location_long can: write amount:",
    ),
    ("gold:\n  columns:\n    card_id: 'null'", 3, "card_id cannot be NULL"),
    (
        "gold:\n  columns:\n    timestamp: fromUnixTimestamp(unix_time",
        3,
        "is open in fromUnixTimestamp(unix_time: close it",
    ),
    ("gold:\n  columns:\n    amount: amt)", 3, "is open in amt): close it"),
    ("gold:\n  columns:\n    card_id: {of: a, hash: md5, salt: {env: S}}", 3, "write hash: sha256"),
    ("gold:\n  columns:\n    card_id: {of: a, hash: sha256}", 3, "hash and salt need each other: write {of: cc_num,"),
    ("gold:\n  columns:\n    card_id: {hash: sha256, salt: {env: S}}", 3, "of is missing: write of: cc_num"),
    (
        "gold:\n  columns:\n    card_id:\n      of: a\n      hash: sha256\n      salt: hunter2",
        6,
        "write salt: {env: CARD_SALT}",
    ),
    ("gold:\n  columns:\n    card_id: {of: a, hash: sha256, salt: {env: '1-2'}}", 3, "write env: CARD_SALT"),
    (
        "gold:\n  columns:\n    card_id: {of: a, hash: sha256, salt: {value: hunter2}}",
        3,
        "value is unknown: choose from env",
    ),
    (
        "gold:\n  columns:\n    card_id:\n      of: a\n      hsh: sha256\n      salt: {env: S}",
        5,
        "hsh is unknown: choose from of,",
    ),
    ("gold:\n  columns:\n    amount: {of: a, hash: sha256, salt: {env: S}}", 3, "only an id can: write amount: a"),
    (
        "gold:\n  columns:\n    card_id: {of: cc_num, hash: sha256, salt: {env: S}}\n"
        "features:\n  a: {key: 'a:{cc_num}', set: amount}",
        5,
        "cc_num is hashed in gold.columns: name the contract's column here",
    ),
    # The standard features.
    ("standard: [card_history]", 1, "write standard: {card_history: {order: newest_first}}"),
    ("standard:\n  card_histories: {}", 2, "choose from card_history, card_location, customer_stats"),
    ("standard:\n  card_history: newest_first", 2, "write card_history: {order: newest_first}"),
    ("standard:\n  card_history: {order: newest}", 2, "write order: newest_first, or order: oldest_first"),
    ("standard:\n  card_location:\n    order: newest_first", 3, "order is unknown: choose from expire"),
    ("standard:\n  card_history: {ordr: newest_first}", 2, "ordr is unknown: choose from expire, order"),
    ("standard:\n  card_history:\n    expire: 30", 3, "30 is no duration: give a whole number with s, m, h, d or w"),
    ("standard:\n  customer_stats: {expire: 1 month}", 2, "'1 month' is no duration"),
    (
        "standard:\n  card_history: {expire: 30d}\n  card_location: {expire: 10d}",
        3,
        "the keys of a card expire together: write expire once, as in card_history: {expire: 30d}",
    ),
    # Declared features.
    ("features: [a]", 1, "write features: {card_amount_1h: {key: 'velocity:{card_id}:1h'"),
    ("features:\n  a: sum(amount)", 2, "a cannot be read: write features: {card_amount_1h: {key:"),
    ("features:\n  a:", 2, "a cannot be read: write features: {card_amount_1h: {key:"),
    ("features:\n  card_history: {key: 'a:{card_id}', set: amount}", 2, "card_history is the name of another asset"),
    ("features:\n  a-b: {key: 'a:{card_id}', set: amount}", 2, "no name of a feature: give letters, digits and _"),
    ("features:\n  a: {set: amount}", 2, "key is missing: write key: 'merch:{merchant_id}:agg'"),
    ("features:\n  a: {key: 'a:{card_id}'}", 2, "a feature needs one of hash, string, list, zset, set"),
    (
        "features:\n  a: {key: 'a:{card_id}', set: amount, string: sum(amount)}",
        2,
        "a feature needs one of hash, string",
    ),
    (
        "features:\n  a: {key: 'a:{card_id}', stream: amount}",
        2,
        "stream is unknown: choose from key, hash, string, list, zset, set",
    ),
    ("features:\n  a: {key: 'a:{card_id}', set: amount, ttl: 1h}", 2, "ttl is unknown: choose from key, hash,"),
    ("features:\n  a: {key: 'a:{card_id', set: amount}", 2, "write key: 'merch:{merchant_id}:agg', with columns"),
    ("features:\n  a: {key: 'a:card_id}', set: amount}", 2, "write key: 'merch:{merchant_id}:agg', with columns"),
    ("features:\n  a: {key: 'a:card', set: amount}", 2, "write key: 'merch:{merchant_id}:agg', with columns"),
    ("features:\n  a: {key: 5, set: amount}", 2, "write key: 'merch:{merchant_id}:agg', with columns"),
    (
        "features:\n  a: {key: 'a:{card_id}', set: amount, window: 60}",
        2,
        "60 is no duration: give a whole number with s",
    ),
    ("features:\n  a: {key: 'a:{card_id}', set: amount, expire: 1 h}", 2, "'1 h' is no duration"),
    ("features:\n  a: {key: 'a:{card_id}', string: sum(amount}", 2, "is open in sum(amount: close it"),
    ("features:\n  a: {key: 'a:{card_id}', set: amount, where: \"x = 'y\"}", 2, "is open in x = 'y: close it"),
    (
        "features:\n  a: {key: 'a:{card_id}', hash: {}}",
        2,
        "hash cannot be read: write hash: {count: count(), mean: avg(amount)}",
    ),
    ("features:\n  a: {key: 'a:{card_id}', hash: count()}", 2, "hash: {count: count()"),
    ("features:\n  a: {key: 'a:{card_id}', hash: {n: 5}}", 2, "n cannot be read: write hash: {count: count()"),
    ("features:\n  a: {key: 'a:{card_id}', string: {value: 1}}", 2, "write string:"),
    ("features:\n  a: {key: 'a:{card_id}', set: [amount]}", 2, "set: merchant_id"),
    ("features:\n  a: {key: 'a:{card_id}', zset: {member: amount}}", 2, "score is missing: write score:"),
    (
        "features:\n  a: {key: 'a:{card_id}', list: {member: amount, order: newest}}",
        2,
        "write order: newest_first, or order: oldest_first",
    ),
    ("features:\n  a: {key: 'a:{card_id}', list: {member: amount, length: 0}}", 2, "a whole number from 1 to 1000"),
    ("features:\n  a: {key: 'a:{card_id}', list: {member: amount, length: ten}}", 2, "a whole number from 1 to 1000"),
    (
        "features:\n  a: {key: 'a:{card_id}', list: {members: amount}}",
        2,
        "members is unknown: choose from member, length, order",
    ),
    (
        "features:\n  a: {key: 'a:{card_id}', set: amount, on_conflict: merge}",
        2,
        "write on_conflict: keep, or on_conflict: load",
    ),
    (
        "features:\n  a: {key: 'a:{card_id}', set: amount, select: none.sql}",
        2,
        "write select: device.sql, a file that is there",
    ),
    (
        "features:\n  a: {key: 'a:{card_id}', set: amount}\n  b: {key: 'a:{customer_id}', set: amount}",
        3,
        "a has the key a:{card_id}: give b a key of its own",
    ),
    (
        "features:\n  a: {key: 'card:{card_id}:history', set: amount}",
        2,
        "the standard features write card:{card_id}:history",
    ),
    (
        "features:\n  a: {key: 'a:{card_id}', set: x}\n  a: {key: 'b:{card_id}', set: x}",
        3,
        "a is there twice: name it once",
    ),
]


@pytest.mark.parametrize(("text", "line", "says"), WRONG)
def test_a_mistake(tmp_path: Path, text: str, line: int, says: str) -> None:
    """It has a line of its own, with file, line and the right form; what may be a secret is not told."""
    path = tmp_path / "seed.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        read(path)
    told = str(raised.value)
    assert [one for one in told.splitlines() if one.startswith(f"{path}, line {line}: ") and says in one], told
    assert "hunter2" not in told


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "seed.yaml"
    path.write_text("gold:\n  tabel: a\nfeatures:\n  a: {set: x}\nstandard:\n  card_histories: {}\n")
    with pytest.raises(ConfigurationError) as raised:
        read(path)
    assert re.findall(r"line (\d+): (\w+)", str(raised.value)) == [
        ("2", "tabel"),
        ("4", "key"),
        ("6", "card_histories"),
    ]


def test_the_configurations_of_the_documents() -> None:
    found = [text for block in code("yaml") if (text := dedent(block)).startswith("gold:")]
    assert len(found) >= 2
    for text in found:
        assert Configuration.model_validate(yaml.safe_load(text)).mapping.columns


def test_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEATURE_SEED_CONFIG", str(tmp_path / "gone.yaml"))
    with pytest.raises(ConfigurationError, match=r"FEATURE_SEED_CONFIG names .*gone\.yaml, which cannot be read"):
        configured()
    monkeypatch.setenv("FEATURE_SEED_CONFIG", "")
    assert configured() == Configuration()


@pytest.mark.parametrize(
    ("variable", "value", "entry"),
    [
        ("FEATURE_SEED_GOLD_TABLE", "payments", {"gold": {"table": "payments"}}),
        ("FEATURE_SEED_HISTORY_ORDER", "newest_first", {"standard": {"card_history": {"order": "newest_first"}}}),
    ],
)
def test_a_variable_and_an_entry_for_the_same(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, entry: dict[str, object]
) -> None:
    """Either is taken, both are refused."""
    monkeypatch.setenv(variable, value)
    by_variable = WarmStart().definitions().resources or {}
    with pytest.raises(ConfigurationError, match=f"{variable} is set, and the configuration has .*: leave out one"):
        WarmStart(**dict(Configuration.model_validate(entry))).definitions()
    monkeypatch.delenv(variable)
    by_entry = WarmStart(**dict(Configuration.model_validate(entry))).definitions().resources or {}
    assert [by_entry[name] for name in ("warehouse", "layout")] == [
        by_variable[name] for name in ("warehouse", "layout")
    ]


def test_standard_features_that_expire() -> None:
    """A card has one end, wherever it is written."""

    def start(**standard: dict[str, str]) -> WarmStart:
        return WarmStart(**dict(Configuration.model_validate({"standard": standard})))

    assert start(card_history={"order": "newest_first"}, card_location={}).layout().expire == {}
    ends = start(card_history={"expire": "30d"}, customer_stats={"expire": "2h"}).layout().expire
    assert ends == {"cards": 30 * 86_400, "customers": 7200}
    for twice in ({"expire": "30d"}, {}):
        assert start(card_history=twice, card_location={"expire": "30d"}).layout().expire == {"cards": 30 * 86_400}


def test_the_component_in_another_project() -> None:
    """Scaffolded, it is the graph of the environment; its attributes are those of the file, with the same refusals."""
    right = {
        "gold": {"columns": {"card_id": "cc_num", "location_lat": None}},
        "features": {"a": {"key": "a:{merchant_id}", "set": "card_id"}},
    }
    wrong = {"gold": {"colums": {}}}
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(WarmStart)
        with sandbox.load_component_and_build_defs(path) as (component, defs):
            assert isinstance(component, WarmStart)
            assert _assets(defs) == _assets(feature_seed.defs)
        with _attributes(sandbox, path, None), sandbox.load_component_and_build_defs(path) as (component, _):
            assert component == WarmStart()
        with _attributes(sandbox, path, right), sandbox.load_component_and_build_defs(path) as (_, defs):
            assert (defs.resources or {})["warehouse"].mapping.columns == {"card_id": "cc_num", "location_lat": "NULL"}
            assert _assets(defs) == _assets(feature_seed.defs) | {"a"}
        says = r"defs\.yaml:\d+\W+Value error, colums is unknown: choose from table, where, columns"
        with (
            _attributes(sandbox, path, wrong),
            pytest.raises(ComponentTreeException) as raised,
            sandbox.load_component_and_build_defs(path),
        ):
            pass
        assert re.search(says, str(raised.value.__cause__))


def _assets(defs: dg.Definitions) -> set[str]:
    return {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}


def _attributes(sandbox: DefsFolderSandbox, path: Path, attributes: object) -> AbstractContextManager[None]:
    return sandbox.swap_defs_file(path / "defs.yaml", {"type": "feature_seed.WarmStart", "attributes": attributes})


def test_dg_lists_the_component_in_any_project(tmp_path: Path) -> None:
    """Whatever the environment lacks: the definitions are not made for that. A scorer needs no Dagster."""
    tool = Path(sys.executable).with_name("dg")
    half = {**os.environ, "CLICKHOUSE_HOST": "clickhouse.internal"}
    listed = subprocess.run(
        [tool, "list", "components"], cwd=tmp_path, env=half, capture_output=True, text=True, check=True
    )
    assert "feature_seed.WarmStart" in listed.stdout
    code = "import sys, feature_seed.contract; sys.exit('dagster' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
