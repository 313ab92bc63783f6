"""The variables: half a configuration and unknown values are refused, with the variable's name."""

import subprocess
import sys
from importlib import import_module

import pytest

from feature_seed import environment
from feature_seed.errors import ConfigurationError


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CLICKHOUSE_HOST": "h"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://h"}, "CLICKHOUSE_HOST, or FEATURE_SEED_GOLD_PARQUET"),
        ({"CLICKHOUSE_PASSWORD": "p"}, "CLICKHOUSE_PASSWORD is set and CLICKHOUSE_HOST is not"),
        ({"CLICKHOUSE_USER": "u", "REDIS_URL": "redis://h"}, "CLICKHOUSE_USER is set and CLICKHOUSE_HOST is not"),
        ({"REDIS_PASSWORD": "p"}, "REDIS_PASSWORD is set and REDIS_URL is not"),
        ({"REDIS_CLUSTER": "1"}, "REDIS_CLUSTER is set and REDIS_URL is not"),
        ({"FEATURE_SEED_WAIT_REPLICAS": "1"}, "FEATURE_SEED_WAIT_REPLICAS is set and REDIS_URL is not"),
        (
            {"FEATURE_SEED_GOLD_PARQUET": "p", "REDIS_URL": "redis://h", "REDIS_CLUSTER": "1"},
            "FEATURE_SEED_KEY_TAGS=1, here and for every reader",
        ),
        (
            {"CLICKHOUSE_HOST": "h", "FEATURE_SEED_GOLD_PARQUET": "p", "REDIS_URL": "redis://h"},
            "both name a gold table",
        ),
    ],
)
def test_half_a_configuration(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=message):
        environment.require_whole()


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"CLICKHOUSE_HOST": "", "REDIS_URL": ""},
        {"FEATURE_SEED_GOLD_PARQUET": "p"},
        {"FEATURE_SEED_GOLD_PARQUET": "p", "REDIS_URL": "redis://h", "REDIS_PASSWORD": "p"},
        {"CLICKHOUSE_HOST": "h", "CLICKHOUSE_PASSWORD": "p", "REDIS_URL": "redis://h"},
        {"CLICKHOUSE_HOST": "h", "REDIS_URL": "redis://h", "REDIS_CLUSTER": "1", "FEATURE_SEED_KEY_TAGS": "1"},
        {"CLICKHOUSE_HOST": "h", "REDIS_URL": "redis://h", "REDIS_CLUSTER": "0"},
    ],
)
def test_whole_configurations(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    environment.require_whole()


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("FEATURE_SEED_ON_CONFLICT", "newest", "keep_newer or overwrite"),
        ("FEATURE_SEED_HISTORY_ORDER", "newest", "oldest_first or newest_first"),
        ("FEATURE_SEED_SHARDS", "0", "from 1 to 256"),
        ("FEATURE_SEED_SHARDS", "many", "from 1 to 256"),
        ("FEATURE_SEED_HISTORY_LENGTH", "-1", "from 1 to 1000"),
        ("FEATURE_SEED_PASS_MB", "0", "from 1 to 1000000"),
        ("FEATURE_SEED_KEY_TAGS", "yes", "0 or 1"),
        ("CLICKHOUSE_SECURE", "yes", "0 or 1"),
        ("CLICKHOUSE_PORT", "http", "from 0 to 65535"),
    ],
)
def test_unknown_values(monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str) -> None:
    """Loading the definitions, as every use does, names the variable, its value and what it takes."""
    if name.startswith("CLICKHOUSE"):
        monkeypatch.setenv("CLICKHOUSE_HOST", "h")
        monkeypatch.setenv("REDIS_URL", "redis://h")
    monkeypatch.setenv(name, value)
    loaded = subprocess.run(
        [sys.executable, "-c", "import feature_seed; feature_seed.defs"], capture_output=True, text=True
    )
    assert loaded.returncode != 0
    assert f"ConfigurationError: {name} is {value!r}" in loaded.stderr
    assert advice in loaded.stderr


@pytest.mark.parametrize(("value", "size"), [("", 1000), ("20", 20), ("all", None)])
def test_the_sample(monkeypatch: pytest.MonkeyPatch, value: str, size: int | None) -> None:
    """What is set is what the checks are given."""
    monkeypatch.setenv("FEATURE_SEED_SAMPLE", value)
    monkeypatch.delitem(sys.modules, "feature_seed.definitions", raising=False)
    assert import_module("feature_seed.definitions").defs.resources["limits"].sample_size == size


def test_a_sample_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATURE_SEED_SAMPLE", "0")
    with pytest.raises(
        ConfigurationError, match=r"FEATURE_SEED_SAMPLE is '0': give a whole number from 1 to .* or all"
    ):
        environment.sample_size()
