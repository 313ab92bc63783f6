"""TLS: to Redis and to ClickHouse, with an authority of one's own."""

import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import pytest
import redis

from feature_seed.errors import FeatureSeedError, StoreError, WarehouseError
from feature_seed.online_store import OnlineStore
from feature_seed.warehouse import Warehouse
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.expected import expect
from feature_seed_tests.gold import transaction
from feature_seed_tests.redis_server import free_port, redis_server
from feature_seed_tests.run import seed
from feature_seed_tests.store import assert_holds

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


@pytest.fixture
def tls_port(certificates: Certificates) -> Iterator[int]:
    """A Redis server that speaks TLS on this port."""
    port = free_port()
    options = {
        "tls-port": str(port),
        "tls-cert-file": str(certificates.certificate),
        "tls-key-file": str(certificates.key),
        "tls-ca-cert-file": str(certificates.ca),
        "tls-auth-clients": "no",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with redis_server(*words, password=PASSWORD):
        yield port


def test_redis(make_parquet: MakeWarehouse, certificates: Certificates, tls_port: int) -> None:
    """Before: an empty store behind TLS. After a run that knows the authority: every key."""
    url = f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificates.ca}"
    seed(make_parquet(ROWS), OnlineStore(url=url, password=PASSWORD), job="seed_all")
    with redis.Redis.from_url(url, password=PASSWORD) as client:
        assert_holds(client, expect(ROWS))


@pytest.mark.parametrize("query", ["", "?ssl_ca_certs=/there/is/none.pem"])
def test_a_redis_that_nobody_vouches_for(make_parquet: MakeWarehouse, tls_port: int, query: str) -> None:
    """Its certificate is checked before a password is sent, and the message says what was wrong."""
    store = OnlineStore(url=f"rediss://127.0.0.1:{tls_port}/0{query}", password=PASSWORD)
    with pytest.raises(StoreError, match=r"CERTIFICATE_VERIFY_FAILED|No such file"):
        seed(make_parquet(ROWS), store)


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
    return Warehouse(host="127.0.0.1", port=port, secure=True, **login, **settings)


def test_clickhouse(
    make_table: MakeWarehouse, certificates: Certificates, tls_clickhouse: int, online: redis.Redis, store: OnlineStore
) -> None:
    """With the authority it is read; without verification too; else the certificate is refused."""
    gold = make_table(ROWS)
    for settings in ({"ca": str(certificates.ca)}, {"verify": False}):
        online.flushall()
        seed(over_tls(gold, tls_clickhouse, **settings), store)
        assert_holds(online, expect(ROWS))
    online.flushall()
    with pytest.raises(WarehouseError, match="certificate verify failed"):
        seed(over_tls(gold, tls_clickhouse), store)
    assert online.dbsize() == 0


def test_tls_mistaken(make_table: MakeWarehouse, store: OnlineStore, tls_clickhouse: int) -> None:
    """TLS where there is none and none where there is: the variable to look at is named."""
    gold = make_table(ROWS)
    for warehouse in (over_tls(gold, int(gold.port or 0)), Warehouse(host="127.0.0.1", port=tls_clickhouse)):
        with pytest.raises(FeatureSeedError, match="CLICKHOUSE_SECURE"):
            seed(warehouse, store)
