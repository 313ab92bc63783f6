"""TLS: to Redis and to ClickHouse, with an authority of one's own."""

import re
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
import redis

from feature_seed import tls
from feature_seed.errors import StoreError
from feature_seed.store import client
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.store.test_stores import OUTCOMES
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.patience import HANG_SECONDS
from feature_seed_tests.support.redis_server import free_port, redis_server
from feature_seed_tests.support.run import fill, seed
from feature_seed_tests.support.sentinels import NAME, sentinel_of
from feature_seed_tests.support.store import assert_holds

pytestmark = pytest.mark.usefixtures("second_attempts")

ROWS = [transaction(i, f"c{i % 9}", seconds=i) for i in range(60)]


@dataclass(frozen=True)
class Certificates:
    """Files of an authority, and of a server's certificate that it signed for 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    home = tmp_path_factory.mktemp("tls")
    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    signed = ("x509", "-req", "-in", "server.csr", "-out", "server.pem")
    (home / "names").write_text("subjectAltName=IP:127.0.0.1")
    for command in (
        (*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=an authority of tests"),
        (*new, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1"),
        (*signed, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"),
    ):
        subprocess.run(["openssl", *command], cwd=home, check=True, capture_output=True)
    return Certificates(home / "ca.pem", home / "server.pem", home / "server.key")


def tls_options(certificates: Certificates) -> dict[str, str]:
    return {
        "tls-cert-file": str(certificates.certificate),
        "tls-key-file": str(certificates.key),
        "tls-ca-cert-file": str(certificates.ca),
        "tls-auth-clients": "no",
    }


@pytest.fixture
def tls_port(certificates: Certificates) -> Iterator[int]:
    """A Redis server that speaks TLS on this port."""
    port = free_port()
    options = {"tls-port": str(port), **tls_options(certificates)}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with redis_server(*words, password=PASSWORD):
        yield port


def test_redis(make_parquet: MakeWarehouse, certificates: Certificates, tls_port: int) -> None:
    """Before: an empty store behind TLS. After a run that knows the authority: every key."""
    url = f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificates.ca}"
    seed(make_parquet(ROWS), OnlineStore(url=url, password=PASSWORD), job="seed_all")
    assert OUTCOMES["TLS"] == "seeded"
    with redis.Redis.from_url(url, password=PASSWORD) as client:
        assert_holds(client, expect(ROWS))
    for query in (f"ssl_ca_data={quote(certificates.ca.read_text())}", "ssl_cert_reqs=CERT_NONE"):
        with OnlineStore(url=f"rediss://127.0.0.1:{tls_port}/0?{query}", password=PASSWORD).client() as opened:
            assert opened.ping()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "CERTIFICATE_VERIFY_FAILED"),
        ("?ssl_ca_certs=/none.pem", "REDIS_URL names a file that does not exist: /none.pem"),
        ("?ssl_ca_data=none", "A certificate or key of REDIS_URL cannot be used"),
    ],
)
def test_a_redis_that_nobody_vouches_for(make_parquet: MakeWarehouse, tls_port: int, query: str, says: str) -> None:
    """Its certificate is checked before a password is sent, and the message says what was wrong."""
    store = OnlineStore(url=f"rediss://127.0.0.1:{tls_port}/0{query}", password=PASSWORD)
    fails_at_once(make_parquet(ROWS), store, says)


def test_sentinels(certificates: Certificates, tls_port: int) -> None:
    """Before: a sentinel that speaks TLS, and watches a primary over it. Both are trusted by the URL's authority."""
    port, config = free_port(), [f"{name} {value}" for name, value in tls_options(certificates).items()]
    with sentinel_of(tls_port, PASSWORD, PASSWORD, f"tls-port {port}", "tls-replication yes", *config):
        url = f"rediss+sentinel://:{PASSWORD}@127.0.0.1:{port}/{NAME}"
        trusting = OnlineStore(url=f"{url}?ssl_ca_certs={certificates.ca}", sentinel_password=PASSWORD)
        with trusting.client() as opened:
            assert opened.connection_pool.connection_kwargs["port"] == tls_port
        wary = OnlineStore(url=url, sentinel_password=PASSWORD)
        with pytest.raises(StoreError, match="CERTIFICATE_VERIFY_FAILED") as refused, wary.client():
            pass
        assert type(refused.value) is StoreError


@pytest.mark.parametrize("password", ["", "&ssl_password=wrong"])
def test_a_key_that_is_encrypted(
    make_parquet: MakeWarehouse, certificates: Certificates, tls_port: int, password: str
) -> None:
    """With its password it is read. Without, nobody is asked for it at a terminal, and nothing is tried again."""
    key = certificates.key.with_name("encrypted.key")
    command = ["openssl", "pkey", "-in", certificates.key, "-aes256", "-passout", "pass:right", "-out", key]
    subprocess.run(command, check=True, capture_output=True)
    query = f"ssl_ca_certs={certificates.ca}&ssl_certfile={certificates.certificate}&ssl_keyfile={key}"
    url = f"rediss://127.0.0.1:{tls_port}/0?{query}"
    with OnlineStore(url=f"{url}&ssl_password=right", password=PASSWORD).client() as opened:
        assert opened.ping()
    fails_at_once(make_parquet(ROWS), OnlineStore(url=f"{url}{password}", password=PASSWORD), "ssl_password")


@pytest.fixture(autouse=True)
def patient_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a server speaks TLS is found out however long it takes to say so."""
    monkeypatch.setattr(tls, "_PROBE_SECONDS", HANG_SECONDS)


@pytest.fixture
def tls_clickhouse(server: Warehouse, certificates: Certificates) -> Iterator[int]:
    """The same ClickHouse behind TLS."""

    class Forward(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._forward(body)

        def do_GET(self) -> None:
            self._forward(None)

        def _forward(self, body: bytes | None) -> None:
            request = Request(f"http://{server.host}:{server.port}{self.path}", body, dict(self.headers))
            with urlopen(request) as answer:
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any, **__: Any) -> None:
            """Quietly."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Forward) as proxy:
        proxy.socket = context.wrap_socket(proxy.socket, server_side=True)
        thread = Thread(target=proxy.serve_forever)
        thread.start()
        yield proxy.server_port
        proxy.shutdown()
        thread.join()


def over_tls(gold: Warehouse, port: int, **settings: Any) -> Warehouse:
    login: dict[str, Any] = {"user": gold.user, "password": gold.password, "gold_table": gold.gold_table}
    return Warehouse(**{"host": "127.0.0.1", "port": port, "secure": True, **login, **settings})


def test_clickhouse(
    make_table: MakeWarehouse, certificates: Certificates, tls_clickhouse: int, online: redis.Redis, store: OnlineStore
) -> None:
    """With the authority it is read; without verification too; else the certificate is refused."""
    gold = make_table(ROWS)
    for settings in ({"ca": str(certificates.ca)}, {"verify": False}):
        online.flushall()
        fill(over_tls(gold, tls_clickhouse, **settings), store)
        assert_holds(online, expect(ROWS))
    online.flushall()
    for settings, says in (({}, "certificate verify failed"), ({"ca": "/there/is/none.pem"}, "there is no such file")):
        fails_at_once(over_tls(gold, tls_clickhouse, **settings), store, says)
    assert online.dbsize() == 0


def test_a_certificate_of_another_host(
    make_parquet: MakeWarehouse,
    make_table: MakeWarehouse,
    certificates: Certificates,
    tls_port: int,
    tls_clickhouse: int,
    store: OnlineStore,
) -> None:
    """An authority's word for 127.0.0.1 is none for localhost."""
    elsewhere = OnlineStore(url=f"rediss://localhost:{tls_port}/0?ssl_ca_certs={certificates.ca}", password=PASSWORD)
    fails_at_once(make_parquet(ROWS), elsewhere, "Hostname mismatch")
    gold = over_tls(make_table(ROWS), tls_clickhouse, host="localhost", ca=str(certificates.ca))
    fails_at_once(gold, store, "Hostname mismatch")


def test_tls_mistaken(make_table: MakeWarehouse, store: OnlineStore, tls_clickhouse: int) -> None:
    """TLS where there is none and none where there is: the variable to look at is named, and nothing is tried again."""
    gold = make_table(ROWS)
    for warehouse in (over_tls(gold, int(gold.port or 0)), Warehouse(host="127.0.0.1", port=tls_clickhouse)):
        fails_at_once(warehouse, store, "CLICKHOUSE_SECURE")


def test_tls_mistaken_for_redis(
    make_parquet: MakeWarehouse, redis_port: int, tls_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of the store. A Redis without TLS waits for the rest of what it takes for a command; not we for it."""
    monkeypatch.setattr(client, "CONNECT_SECONDS", 1)
    gold = make_parquet(ROWS)
    for url, says in (
        (f"rediss://127.0.0.1:{redis_port}", "begin REDIS_URL with redis://"),
        (f"redis://127.0.0.1:{tls_port}", "begin REDIS_URL with rediss://"),
    ):
        fails_at_once(gold, OnlineStore(url=url, password=PASSWORD), says)


def fails_at_once(warehouse: Warehouse, store: OnlineStore, says: str) -> None:
    """A run of one step, at its first attempt."""
    result = seed(warehouse, store, job="load_shard", shard="00", raise_on_error=False)
    failed = result.failure_data_for_node("cards")
    assert failed and failed.error and re.search(says, failed.error.to_string())
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
