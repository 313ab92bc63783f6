"""REDIS_URL: every part is understood, or refused by name before anything is connected to, and no secret is told."""

import inspect
import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import redis
from redis.cluster import REDIS_ALLOWED_KEYS

from feature_seed.errors import ConfigurationError
from feature_seed.store.client import client_of
from feature_seed.store.cluster import store_from_environment
from feature_seed.store.url import StoreUrl

# What connections and pools of redis-py take that is no option: their own parts, and where the URL's other parts go.
NO_OPTIONS = {"self", "kwargs", "host", "port", "path", "connection_class"}

# What has to be read alike by redis-py: the option's text, and what the connection holds then.
UNDERSTOOD: list[tuple[str, str, str, Any]] = [
    ("db", "3", "db", 3),
    ("health_check_interval", "9", "health_check_interval", 9),
    ("password", "a%2Fb", "password", "a/b"),
    ("socket_connect_timeout", "2.5", "socket_connect_timeout", 2.5),
    ("socket_keepalive", "no", "socket_keepalive", False),
    ("username", "seeder", "username", "seeder"),
    ("ssl_cert_reqs", "none", "cert_reqs", ssl.CERT_NONE),
    ("ssl_cert_reqs", "CERT_NONE", "cert_reqs", ssl.CERT_NONE),
    ("ssl_cert_reqs", "CERT_REQUIRED", "cert_reqs", ssl.CERT_REQUIRED),
    ("ssl_check_hostname", "false", "check_hostname", False),
    ("ssl_ciphers", "ECDHE%2BAESGCM", "ssl_ciphers", "ECDHE+AESGCM"),
    ("ssl_exclude_verify_flags", "VERIFY_X509_STRICT", "ssl_exclude_verify_flags", [ssl.VERIFY_X509_STRICT]),
    ("ssl_include_verify_flags", "VERIFY_X509_STRICT", "ssl_include_verify_flags", [ssl.VERIFY_X509_STRICT]),
    ("ssl_min_version", "772", "ssl_min_version", ssl.TLSVersion.TLSv1_3),
    ("ssl_min_version", "TLSv1.3", "ssl_min_version", ssl.TLSVersion.TLSv1_3),
    ("ssl_min_version", "TLSv1_2", "ssl_min_version", ssl.TLSVersion.TLSv1_2),
    ("ssl_password", "secret", "certificate_password", "secret"),
]

# Those that name a file, or concern the pool or the timeouts of a connection that is set up, are tried elsewhere.
ELSEWHERE = {
    *("ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"),
    *("max_connections", "socket_read_size", "socket_timeout"),
}


@pytest.mark.parametrize(("name", "text", "attribute", "value"), UNDERSTOOD)
def test_what_is_understood_reaches_the_connection(name: str, text: str, attribute: str, value: Any) -> None:
    url = StoreUrl.of(f"rediss://h?{name}={text}")
    with client_of(url, None, None, None) as client:
        assert getattr(client.connection_pool.make_connection(), attribute) == value


def test_an_option_is_stronger_than_what_is_set_beside_the_url() -> None:
    """A password in the URL, over REDIS_PASSWORD."""
    with client_of(StoreUrl.of("redis://:one@h"), "two", None, None) as client:
        assert client.connection_pool.connection_kwargs["password"] == "one"


def test_every_option_of_redis_py_is_sorted() -> None:
    """Each parameter of its connections and pools is either understood, and tried here, or refused by name."""
    kinds = (redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection, redis.ConnectionPool)
    pools = (*kinds, redis.BlockingConnectionPool, *redis.Connection.__mro__)
    names = {name for kind in pools for name in inspect.signature(kind.__init__).parameters} - NO_OPTIONS - {"args"}
    refused = {name for name in names if _refused(f"rediss://h?{name}=1")}
    tried = {name for name, *_ in UNDERSTOOD} | ELSEWHERE
    assert {"decode_responses", "retry_on_error", "client_name", "ssl_validate_ocsp"} < refused
    assert names - refused <= tried


def _refused(url: str) -> bool:
    name = url.partition("?")[2].partition("=")[0]
    try:
        StoreUrl.of(url)
    except ConfigurationError as e:
        assert f" {name}" in str(e)
        return "option" in str(e)
    return False


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://h?decode_responses=true", "the option decode_responses: .* bytes"),
        ("redis://h?protocol=3", "the option protocol: .* RESP2"),
        ("redis://h?retry_on_timeout=true", "the option retry_on_timeout: .* no command twice"),
        ("redis://h?client_name=mine", "the option client_name: "),
        ("redis://h?ssl_cert_reqs=none", "the option ssl_cert_reqs: it is of TLS, which rediss:// asks for"),
        ("redis://h?ssl=true", "the option ssl: rediss:// asks for TLS"),
        ("rediss://h?ssl_validate_ocsp=true", "the option ssl_validate_ocsp"),
        ("redis://h?soket_timeout=3", "the option soket_timeout: feature_seed takes no such option"),
        ("redis://h?socket_timeout=0.1", "socket_timeout .* seconds, 1 to 3600"),
        ("redis://h?socket_timeout=", "socket_timeout .* seconds"),
        ("redis://h?max_connections=0", "max_connections .* a number"),
        ("redis://h?db=first", "db .* a number"),
        ("rediss://h?ssl_check_hostname=", "ssl_check_hostname .* true or false"),
        ("redis://h/1?db=2", "db twice"),
        ("redis://h?db=1&db=2", "db twice"),
        ("redis://:s3cret@h?password=other", "password twice"),
        ("rediss://h?ssl_cert_reqs=maybe", "ssl_cert_reqs .* none, optional or required"),
        ("rediss://h?ssl_min_version=SSLv9", "ssl_min_version .* TLSv1.2"),
        ("rediss://h?ssl_include_verify_flags=ALL", "ssl_include_verify_flags"),
        ("rediss://h?ssl_keyfile=/s3cret", "ssl_keyfile and no ssl_certfile"),
        ("redis+sentinel://h:26379", "names sentinels and no primary"),
        ("redis+sentinel://h:26379/", "names sentinels and no primary"),
        ("redis+sentinel://:s3cret@h,h2:x/mymaster", "cannot be read"),
        ("redis+sentinel://:s3cret/x@h/mymaster/0", "cannot be read"),
        ("redis+sentinel://:s3cret@h/mymaster/s3cret", "cannot be read"),
    ],
)
def test_what_is_refused(url: str, says: str) -> None:
    """By name, and without a word of what was given."""
    with pytest.raises(ConfigurationError, match=says) as refused:
        StoreUrl.of(url)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "hosts", "primary", "options"),
    [
        ("redis+sentinel://h/p", (("h", 26379),), "p", {}),
        ("redis+sentinel://h:1,[::1]:2,i/p/3", (("h", 1), ("::1", 2), ("i", 26379)), "p", {"db": 3}),
        (
            "redis+sentinel://u:a%2Fb@h/my%20primary/",
            (("h", 26379),),
            "my primary",
            {"username": "u", "password": "a/b"},
        ),
        (
            "rediss://u@[::1]/2?socket_timeout=3",
            (("::1", 6379),),
            "",
            {"username": "u", "db": 2, "socket_timeout": 3.0},
        ),
        ("unix:///run/redis%201.sock?db=2", (), "", {"db": 2}),
    ],
)
def test_the_parts(url: str, hosts: tuple[Any, ...], primary: str, options: Mapping[str, Any]) -> None:
    read = StoreUrl.of(url)
    assert (read.hosts, read.primary, read.options) == (hosts, primary, options)


def test_the_start_refuses() -> None:
    """Loading the definitions is enough: nothing is connected to, and no gold is read."""
    environment = {
        **os.environ,
        "REDIS_URL": "redis://:s3cret@192.0.2.1/0?decode_responses=true",
        "CLICKHOUSE_HOST": "192.0.2.1",
    }
    loaded = subprocess.run(
        [sys.executable, "-c", "import feature_seed; feature_seed.defs"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert "ConfigurationError: REDIS_URL has the option decode_responses" in loaded.stderr
    assert "s3cret" not in loaded.stderr


def test_a_cluster_obeys_all_that_it_is_given() -> None:
    """redis-py's client of a cluster passes some options over. They are refused, but for one that changes nothing."""
    texts = {name: text for name, text, *_ in UNDERSTOOD}
    refused = {name for name, text in texts.items() if _refused_in_clusters(f"rediss://h?{name}={text}", name)}
    understood = {name for name, *_ in UNDERSTOOD} | ELSEWHERE
    assert refused == {"db"} | understood - set(REDIS_ALLOWED_KEYS) - {"health_check_interval"}


def _refused_in_clusters(url: str, name: str) -> bool:
    try:
        StoreUrl.of(url).require_node()
    except ConfigurationError as e:
        assert f"the option {name}" in str(e)
        return True
    return False


def test_a_password_of_sentinels_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://h")
    monkeypatch.setenv("REDIS_SENTINEL_PASSWORD", "x")
    with pytest.raises(ConfigurationError, match="REDIS_URL names no sentinels"):
        store_from_environment()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://h/p", "REDIS_CLUSTER=1 and REDIS_URL names sentinels"),
        ("unix:///run/redis.sock", "REDIS_CLUSTER=1 and REDIS_URL is a unix socket"),
        ("redis://h/1", "REDIS_CLUSTER=1 and REDIS_URL has the option db"),
    ],
)
def test_what_names_no_node_of_a_cluster(monkeypatch: pytest.MonkeyPatch, url: str, says: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("REDIS_CLUSTER", "1")
    with pytest.raises(ConfigurationError, match=says):
        store_from_environment()
