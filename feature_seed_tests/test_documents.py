"""The documents are tested against the code."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
import yaml
from dagster._cli.asset import asset_cli
from dagster._config import process_config, resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config_schema

from feature_seed.contract import KEYS, Ready, Transaction, read_card, read_customer
from feature_seed.definitions import defs
from feature_seed.features.feature import FEATURES
from feature_seed.graph.assets import gold_transactions
from feature_seed.warehouse.gold import GOLD_COLUMNS
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.documents import (
    DOCUMENTS,
    LISTED,
    README,
    ROOT,
    VARIABLES,
    code,
    name,
    only,
    prose,
    rows,
    table,
)

EACH = pytest.mark.parametrize("path", DOCUMENTS, ids=name)

# Read by tests and benchmarks, or by Redis' own client and Dagster.
OTHER_VARIABLES = {"FEATURE_SEED_SCREENSHOTS", "FEATURE_SEED_TEST_SNAPSHOT", "FEATURE_SEED_TEST_FEAST"}

_VARIABLE = r"\b(?:AWS|CLICKHOUSE|REDIS|FEATURE_SEED)_[A-Z0-9_]*[A-Z0-9]\b"

# ClickHouse reads them from the environment by itself.
S3_KEY = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}


def test_the_readme_is_short() -> None:
    """What a new user reads in five minutes."""
    assert len(README.read_bytes()) <= 15_000


def test_the_key_table_is_the_contract() -> None:
    cells = table("| key | type | content |")
    assert [(pattern.strip("`"), type_) for pattern, type_, _ in cells] == [(key.pattern, key.type) for key in KEYS]
    for key, (_, _, content) in zip(KEYS, cells, strict=True):
        assert all(f"`{field}`" in content for field in key.fields), key


def test_the_assets_keys_are_the_features() -> None:
    cells = table("| asset | entity | keys |")
    assert [(asset, set(re.findall(r"`(.*?)`", keys))) for asset, _, keys in cells] == [
        (f"`{feature.name}`", {key.pattern for key in feature.keys}) for feature in FEATURES
    ]


def test_every_variable_that_the_code_reads_is_listed() -> None:
    read = set()
    for source in (ROOT / "feature_seed").rglob("*.py"):
        read |= set(re.findall(rf'"({_VARIABLE})"', source.read_text()))
    assert read | S3_KEY == VARIABLES


@EACH
def test_every_variable_that_a_document_names_exists(path: Path) -> None:
    assert set(re.findall(_VARIABLE, DOCUMENTS[path])) <= VARIABLES | OTHER_VARIABLES


def test_the_gold_columns_are_the_code() -> None:
    listed = [column for row in table("| column | type |") for column in re.findall(r"`(\w+)`", row[0])]
    assert listed == list(GOLD_COLUMNS)


def test_the_checks_table_is_the_code() -> None:
    """Each check, of what it is, and whether it blocks; those of a feature are the same for every feature."""
    specs = {
        (spec.asset_key.to_user_string(), spec.name): spec.blocking
        for checks in defs.asset_checks or []
        for spec in checks.check_specs
    }
    listed = {}
    for check, of, _, outcome in table("| check | of | what must hold | if it fails |"):
        for asset in [feature.name for feature in FEATURES] if of == "each feature" else [of.strip("`")]:
            listed[asset, check.strip("`")] = {"blocks": True, "warns": False}[outcome]
    assert listed == specs


def test_the_sensors_table_is_the_code() -> None:
    cells = table("| sensor | runs by itself | what it does |")
    listed = {sensor.strip("`"): unasked.startswith("yes") for sensor, unasked, _ in cells}
    running = dg.DefaultSensorStatus.RUNNING
    assert listed == {sensor.name: sensor.default_status == running for sensor in defs.sensors or []}  # type: ignore[union-attr]


def test_the_jobs_exist() -> None:
    named = {job for text in DOCUMENTS.values() for job in re.findall(r"-j (\w+)", text)}
    listed = {job.strip("`") for job, _ in table("| job | what it does |")}
    assert named == listed == {job.name for job in defs.jobs or []}


@EACH
def test_the_commands_exist(path: Path) -> None:
    """Modules that are run with `python -m`, and files of ours that a command names."""
    for module in re.findall(r"python -m (feature_seed[\w.]*)", DOCUMENTS[path]):
        assert find_spec(module), module
    for file in re.findall(r"pytest [^`\n]*?(feature_seed_tests/\S+\.py)", DOCUMENTS[path]):
        assert (ROOT / file).exists(), file


def test_the_test_command_is_what_ci_runs() -> None:
    """`.ci/run` and the README do not drift apart."""
    tests = only(r"&& (\.venv/bin/python -m pytest.*)$")
    assert f"\n{tests[1]}\n" in (ROOT / ".ci" / "run").read_text()


def test_the_scorer_of_the_documents_works(online: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Four features of each payment; a repeated one counts once, and one that is refused does not stop the others."""
    (example,) = code("python")
    assert len(example.splitlines()) <= 40
    scorer: dict[str, Any] = {}
    exec(example, scorer)
    online.hset("feature_seed:ready", mapping=Ready("ready", watermark="2026-01-01T00:00:00.999999+00:00").encode())

    def paid(number: int, minute: int, year: int = 2026) -> Transaction:
        return Transaction(f"t{number}", "fuel", 10.0 + number, f"{year}-04-01T09:{minute:02}:00.000+00:00", 52.1, 4.9)

    stream = [paid(0, 0), paid(1, 10), paid(1, 10), paid(9, 0, year=2250), paid(2, 50)]
    scored: list[dict[str, Any]] = []
    scorer["consume"](online, [("c", "k", one) for one in stream], lambda _, features: scored.append(features))
    card, customer = read_card(online, "c"), read_customer(online, "k")
    assert card.seq == customer.count == 3
    assert scored[0] == dict.fromkeys(scored[0], None) | {"payments_in_the_last_hour": 0}
    assert scored[-1] == {
        "payments_in_the_last_hour": 2,
        "z_score": pytest.approx((12.0 - 10.5) / 0.5),
        "seconds_since_the_last": 2400.0,
        "times_the_usual": pytest.approx(12.0 / 10.5),
    }
    assert "passed over t9: REFUSED" in caplog.text


def test_the_event_in_a_shell_works(online: redis.Redis, redis_port: int, tmp_path: Path) -> None:
    """As it stands, in plain redis-cli: the event is applied, and the second time it is a duplicate."""
    (example,) = [block for block in code("sh") if "EVALSHA" in block]
    online.hset("feature_seed:ready", "watermark", "2026-03-31T23:59:59.999999+00:00")
    if not shutil.which(
        "redis-cli"
    ):  # of wheels there are servers alone: a client that sends its arguments as they are
        client = tmp_path / "redis-cli"
        client.write_text(
            f"#!{sys.executable}\nimport os, sys, redis\n"
            "client = redis.Redis(port=int(sys.argv[2]), password=os.environ['REDISCLI_AUTH'], decode_responses=True)\n"
            "reply = client.execute_command(*sys.argv[3:])\n"
            "print(*(reply if isinstance(reply, list) else [reply]), sep='\\n')\n"
        )
        client.chmod(0o700)
    here = f'redis-cli() {{ command redis-cli -p {redis_port} "$@"; }}\n'
    path = f"{os.environ['PATH']}:{tmp_path}"
    environment = {**os.environ, "PATH": path, "REDISCLI_AUTH": PASSWORD}
    for answer in ("applied", "duplicate"):
        shell = ["bash", "-ec", here + example]
        done = subprocess.run(shell, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [answer, answer], done
    card, customer = read_card(online, "card-0042"), read_customer(online, "cust-0021")
    assert card.seq == customer.count == 1 and card.location == (52.1, 4.9)
    assert [one.transaction_id for one in card.history] == ["tx-1"]


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a document in links."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@EACH
def test_links_lead_somewhere(path: Path) -> None:
    """To a file of the repository, and to a heading of it where the link names one."""
    for target, _, anchor in re.findall(r"\]\(([^)#:]*)(#?)([^)#:]*)\)", prose(DOCUMENTS[path])):
        linked = (path.parent / target).resolve() if target else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text()), f"{target}#{anchor}"


def test_every_document_is_reached_from_the_readme() -> None:
    """A reader who begins at the README finds each of them."""
    reached, new = set(), {README}
    while new:
        reached |= new
        linked = {
            (path.parent / target).resolve()
            for path in new
            for target in re.findall(r"\]\(([^)#:]+\.md)", DOCUMENTS[path])
        }
        new = (linked & set(DOCUMENTS)) - reached
    assert reached == set(DOCUMENTS)


@pytest.mark.parametrize("folder", LISTED, ids=name)
def test_the_files_of_a_folder_are_listed(folder: Path) -> None:
    """Each file, with a word on what it holds; neither more nor fewer."""
    listed = rows((folder / "README.md").read_text(), "| file | what it holds |")
    assert all(what for _, what in listed)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    ours = {file for file in found if not re.search(r"__pycache__|(^|/)__init__\.py$|^README\.md$", file)}
    assert sorted(file.strip("`") for file, _ in listed) == sorted(ours)


def messages() -> set[str]:
    """Every text of the code, with … where a value is put in."""
    texts = set()
    for source in (ROOT / "feature_seed").rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.add("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    return texts


_SAYS = "| it says | do |"


def test_every_message_that_is_quoted_is_in_the_code() -> None:
    """Each fragment of the table, with … for what stands between its parts; checks and variables by their names."""
    known = messages()
    fragments = [one for says, _ in table_of_messages() for one in re.findall(r"`(.*?)`", says)]
    assert len(fragments) > 20
    for fragment in fragments:
        parts = [re.escape(part.strip()) for part in fragment.split("…") if part.strip()]
        assert any(re.search(".*".join(parts), text) for text in known), fragment


def test_the_readme_has_the_likeliest_messages() -> None:
    """Ten rows of the whole table, word for word."""
    likeliest = rows(README.read_text(), _SAYS)
    assert len(likeliest) == 10
    assert all(row in table_of_messages() for row in likeliest)


def table_of_messages() -> list[list[str]]:
    return rows(DOCUMENTS[ROOT / "feature_seed" / "graph" / "README.md"], _SAYS)


def misspelt(config: Any) -> Iterator[Any]:
    """The same configuration with one of its keys misspelt, each in turn."""
    for key, value in config.items() if isinstance(config, dict) else ():
        rest = {name: config[name] for name in config if name != key}
        yield {**rest, f"{key}_": value}
        yield from ({**rest, key: wrong} for wrong in misspelt(value))


def test_the_instance_configuration_is_one(monkeypatch: pytest.MonkeyPatch, instance_yaml: dict[str, Any]) -> None:
    """Dagster's own schema accepts the dagster.yaml of the documents, and knows every key of it."""
    schema = resolve_to_config_type(dagster_instance_config_schema())
    for variable in re.findall(r"env: (\w+)", "".join(code("yaml"))):
        monkeypatch.setenv(variable, "x")
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
    (values,) = (yaml.safe_load(block) for block in code("yaml") if block.startswith("runLauncher"))
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
    line = only(r"^ *(python -c .*report_runless_asset_event.*)$")[1]
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    _, *arguments = shlex.split(line)
    subprocess.run([sys.executable, *arguments], env={**os.environ, "DAGSTER_HOME": str(tmp_path)}, check=True)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        reports = instance.fetch_materializations(gold_transactions.key, limit=9).records
    assert [report.asset_key for report in reports] == [gold_transactions.key]
    assert not [command for command in asset_cli.commands if "report" in command]
