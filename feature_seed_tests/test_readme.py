"""The README is tested against the code."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
import yaml
from dagster._cli.asset import asset_cli
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema

from feature_seed.contract import KEYS, read_card, read_customer
from feature_seed.environment import VARIABLES
from feature_seed.graph.assets import gold_transactions
from feature_seed.warehouse.gold import GOLD_COLUMNS

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
    for source in (ROOT / "feature_seed").rglob("*.py"):
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


def misspelt(config: Any) -> Iterator[Any]:
    """The same configuration with one of its keys misspelt, each in turn."""
    for key, value in config.items() if isinstance(config, dict) else ():
        rest = {name: config[name] for name in config if name != key}
        yield {**rest, f"{key}_": value}
        yield from ({**rest, key: wrong} for wrong in misspelt(value))


def test_the_instance_configuration_is_one(monkeypatch: pytest.MonkeyPatch, instance_yaml: dict[str, Any]) -> None:
    """Dagster's own schema accepts the dagster.yaml that the README gives, and knows every key of it."""
    schema = resolve_to_config_type(dagster_instance_config_schema())
    for name in re.findall(r"env: (\w+)", README):
        monkeypatch.setenv(name, "x")
    checked = process_config(schema, instance_yaml)
    assert checked.success, checked.errors
    wrong = list(misspelt(instance_yaml))
    assert len(wrong) > 20
    for config in wrong:
        assert not process_config(schema, config).success, config
    assert instance_yaml["concurrency"]["pools"]["default_limit"] == 1


# What the chart's schema allows (K8sRunLauncherConfig and RunK8sConfig, which forbid anything else) in
# helm/dagster/schema/schema/charts/dagster/subschema/run_launcher.py of github.com/dagster-io/dagster.
K8S_RUN_LAUNCHER = {
    *("image", "imagePullPolicy", "jobNamespace", "loadInclusterConfig", "kubeconfigFile", "envConfigMaps"),
    *("envSecrets", "envVars", "volumeMounts", "volumes", "labels", "failPodOnRunFailure", "resources"),
    *("schedulerName", "securityContext", "runK8sConfig"),
}
RUN_K8S_CONFIG = {"containerConfig", "podSpecConfig", "podTemplateSpecMetadata", "jobSpecConfig", "jobMetadata"}


def test_the_helm_values_are_the_charts() -> None:
    """By the chart's schema, which Dagster's package does not have; resources as Kubernetes writes them."""
    (values,) = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(runLauncher.*?)```", README, re.DOTALL))
    assert (list(values), set(values["runLauncher"])) == (["runLauncher"], {"type", "config"})
    assert values["runLauncher"]["type"] == "K8sRunLauncher"
    assert list(values["runLauncher"]["config"]) == ["k8sRunLauncher"]
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    assert set(launcher) <= K8S_RUN_LAUNCHER
    assert all(set(secret) == {"name"} for secret in launcher["envSecrets"])
    assert set(launcher["runK8sConfig"]) <= RUN_K8S_CONFIG
    resources = launcher["runK8sConfig"]["containerConfig"]["resources"]
    assert set(resources) == {"requests", "limits"}
    for amounts in resources.values():
        assert all(re.fullmatch(r"\d+|\d+(Mi|Gi)", amount) for amount in amounts.values()), amounts


def test_the_python_line_reports_gold(tmp_path: Path) -> None:
    """Before: an instance of its own, in which nothing was reported. Afterwards gold is, once. The CLI cannot do it."""
    (line,) = re.findall(r"^ *(python -c .*report_runless_asset_event.*)$", README, re.MULTILINE)
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    _, *arguments = shlex.split(line)
    subprocess.run([sys.executable, *arguments], env={**os.environ, "DAGSTER_HOME": str(tmp_path)}, check=True)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        reports = instance.fetch_materializations(gold_transactions.key, limit=9).records
    assert [report.asset_key for report in reports] == [gold_transactions.key]
    assert not [name for name in asset_cli.commands if "report" in name]
