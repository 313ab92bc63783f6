"""The variables: half a configuration and unknown values are refused, with the variable's name."""

import sys
from importlib import import_module

import pytest

from feature_seed import environment
from feature_seed.errors import ConfigurationError
from feature_seed.store.online_store import OnlineStore


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
    "url",
    [
        "redis://:42/s3cret@h/0",
        "redis://user:42/s3cret@h/0",
        "redis://:42/s3cret",
        "redis://:42?s3cret@h/0",
        "redis://:42#s3cret@h/0",
        "redis://:s3cret/1@h/0",
        "redis://:s3cret#1@h/0",
        "redis://:s3cret?1@h/0",
        "redis://u:s3cret@1/s3cret@h/0",
        "rediss://h:s3cret",
        "unix://:42/s3cret@/run/redis.sock",
        "unix://u:s3cret@42/s3cret@/run/redis.sock",
        "unix:///run/redis.sock#s3cret",
        "s3cret",
    ],
)
def test_urls_that_would_be_misread(url: str) -> None:
    """A password that is not percent-encoded is refused rather than taken for host, port, database or options."""
    store = OnlineStore(url=url)
    with pytest.raises(ConfigurationError, match="REDIS_URL cannot be read") as refused:
        print(store.address)
    assert "s3cret" not in str(refused.value)
    assert "42" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", "redis://h"),
        ("redis://u:s3%2Fcret@h:1/2", "redis://h:1/2"),
        ("redis://u:s3@cret@h:1/2?socket_timeout=3", "redis://h:1/2"),
        ("rediss://:s3cret@[::1]:1/0?ssl_ca_certs=/a@b.pem", "rediss://[::1]:1/0"),
        ("unix://:s3cret@/run/redis@1.sock?db=2", "unix:///run/redis@1.sock"),
    ],
)
def test_addresses(url: str, address: str) -> None:
    assert OnlineStore(url=url).address == address


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("FEATURE_SEED_ON_CONFLICT", "newest", "keep_newer or overwrite"),
        ("FEATURE_SEED_HISTORY_ORDER", "newest", "oldest_first or newest_first"),
        ("FEATURE_SEED_ELEMENT", "list", "object or array"),
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
    monkeypatch.delitem(sys.modules, "feature_seed.definitions", raising=False)
    with pytest.raises(ConfigurationError, match=f"^{name} is {value!r}.*{advice}"):
        import_module("feature_seed.definitions")


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
