"""The README is tested against the code."""

import re
from pathlib import Path

import pytest
import redis
import yaml

from feature_seed.contract import KEYS, read_card, read_customer
from feature_seed.environment import VARIABLES
from feature_seed.warehouse import GOLD_COLUMNS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def table(header: str) -> list[list[str]]:
    """The rows below a table's header line."""
    lines = README.split(f"{header}\n")[1].splitlines()[1:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_key_table_is_the_contract() -> None:
    rows = table("| key | type | content |")
    assert [(pattern.strip("`"), type_) for pattern, type_, _ in rows] == [(key.pattern, key.type) for key in KEYS]
    for key, (_, _, content) in zip(KEYS, rows, strict=True):
        assert all(f"`{field}`" in content for field in key.fields), key


def test_the_variables_table_is_the_code() -> None:
    rows = table("| variable | meaning | when unset |")
    assert {name.strip("`"): (meaning, unset) for name, meaning, unset in rows} == VARIABLES


def test_every_variable_that_the_code_reads_is_listed() -> None:
    read = set()
    for source in (ROOT / "feature_seed").glob("*.py"):
        read |= set(re.findall(r'"((?:CLICKHOUSE|REDIS|FEATURE_SEED)_[A-Z_]+)"', source.read_text()))
    assert read == set(VARIABLES)


def test_the_gold_columns_are_the_code() -> None:
    listed = [column for row in table("| column | type |") for column in re.findall(r"`(\w+)`", row[0])]
    assert listed == list(GOLD_COLUMNS)


def test_the_test_command_is_what_ci_runs() -> None:
    """`.ci/run` and the README do not drift apart."""
    tests = re.search(r"&& (\.venv/bin/python -m pytest[^\n]*)\n```", README)
    assert tests
    assert f"\n{tests[1]}\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("name", re.findall(r"-j (\w+)", README))
def test_the_jobs_exist(name: str) -> None:
    from feature_seed.definitions import defs

    assert defs.resolve_job_def(name).name == name


def test_the_example_of_an_event_works(online: redis.Redis) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(example, {"redis": online})
    card, customer = read_card(online, "card-0042"), read_customer(online, "cust-0021")
    assert card and customer and card.seq == customer.count == 1


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_instance_configuration_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster itself accepts the dagster.yaml that the README gives."""
    from dagster._config import process_config, resolve_to_config_type
    from dagster._core.instance.config import dagster_instance_config_schema

    instance, values = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
    for name in re.findall(r"env: (\w+)", README):
        monkeypatch.setenv(name, "x")
    checked = process_config(resolve_to_config_type(dagster_instance_config_schema()), instance)
    assert checked.success, checked.errors
    assert not process_config(
        resolve_to_config_type(dagster_instance_config_schema()), {**instance, "pools": 1}
    ).success
    assert instance["concurrency"]["pools"]["default_limit"] == 1
    assert values["runLauncher"]["type"] == "K8sRunLauncher"
