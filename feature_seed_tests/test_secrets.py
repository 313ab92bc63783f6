"""Secrets: with a marked one in every variable that holds one, no run leaves a trace of it anywhere."""

import json
import os
import sqlite3
import sys
import zlib
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.support.clickhouse_http import clickhouse_server
from feature_seed_tests.support.gold import create_table, transaction, write_parquet
from feature_seed_tests.support.processes import arguments, watched
from feature_seed_tests.support.redis_server import free_port, redis_server
from feature_seed_tests.support.s3_server import s3_server

MARKS = {name: f"marked-{name}-0f1e2d3c" for name in ("clickhouse", "redis", "webhook")}

ROWS = [transaction(i, f"c{i % 9}", seconds=i) for i in range(60)]

# One process for all ways, since each takes seconds to start: the definitions are made once, as secrets are read at the
# start of every run.
RUNS = """
import json, os, sys
import dagster as dg
from feature_seed import defs
from feature_seed.graph import retries
from feature_seed.graph.report import report
from feature_seed.warehouse import failures
from feature_seed.graph.sensors import run_failed

retries.DELAYS_SECONDS, failures.RETRY_DELAYS = (0.1,), (0.1,)  # tried again, since that is logged too
report.find_spec = lambda _: None  # no pictures

ways, whole = json.load(sys.stdin)
with dg.DagsterInstance.get() as instance:
    for name, variables in ways.items():
        os.environ.update(variables)
        result = defs.resolve_job_def("seed_all").execute_in_process(instance=instance, raise_on_error=False)
        print("RESULT", name, result.success)
        if not result.success:
            context = dg.build_run_status_sensor_context(
                "run_failed", result.get_run_failure_event(), instance, result.dagster_run
            ).for_run_failure()
            try:
                run_failed(context)
            except Exception as e:
                print("ALERT", e)
        for variable in variables:
            os.environ[variable] = whole[variable]
"""


@pytest.fixture
def whole(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which a run succeeds, with a mark in every secret; a webhook that answers with an error."""
    hook = HTTPServer(("127.0.0.1", 0), _Refusing)
    Thread(target=hook.serve_forever, daemon=True).start()
    with clickhouse_server("seeder", MARKS["clickhouse"]) as clickhouse, redis_server(password=MARKS["redis"]) as port:
        warehouse = Warehouse(
            host=clickhouse.host, port=clickhouse.port, user=clickhouse.user, password=clickhouse.password
        )
        with warehouse.client() as client:
            create_table(client, "fact_transactions_gold", ROWS)
        home = tmp_path / "dagster"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        yield {
            "CLICKHOUSE_HOST": clickhouse.host,
            "CLICKHOUSE_PORT": str(clickhouse.port),
            "CLICKHOUSE_USER": clickhouse.user,
            "CLICKHOUSE_PASSWORD": MARKS["clickhouse"],
            "REDIS_URL": f"redis://:{MARKS['redis']}@127.0.0.1:{port}/0",
            "REDIS_PASSWORD": MARKS["redis"],
            "FEATURE_SEED_ALERT_WEBHOOK": f"http://127.0.0.1:{hook.server_port}/{MARKS['webhook']}",
            "DAGSTER_HOME": str(home),
        }
    hook.shutdown()


class _Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(500)

    def log_message(self, *_: Any, **__: Any) -> None:
        """Nothing: the test's output is searched."""


@pytest.mark.slow
def test_a_run_that_succeeds(whole: dict[str, str]) -> None:
    """Neither its output, nor Dagster's storage, nor the arguments of its processes while it runs."""
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "feature_seed", "-j", "seed_all"]
    run = watched(command, arguments, env={**os.environ, **whole})
    assert run.code == 0, run.output
    seen = b"".join(run.seen)
    assert b"seed_all" in seen
    assert not marks(run.output + seen + stored(Path(whole["DAGSTER_HOME"])))


@pytest.mark.slow
def test_runs_that_fail(whole: dict[str, str]) -> None:
    """In each way that a variable can be wrong, or a server out of reach: said clearly, and no mark anywhere."""
    nowhere, url = str(free_port()), whole["REDIS_URL"]
    ways: dict[str, Mapping[str, str]] = {
        "wrong password of ClickHouse": {"CLICKHOUSE_PASSWORD": MARKS["clickhouse"] + "-wrong"},
        "no ClickHouse": {"CLICKHOUSE_HOST": "127.0.0.2"},
        "wrong password of Redis": {
            "REDIS_URL": url.replace(MARKS["redis"], MARKS["redis"] + "-wrong"),
            "REDIS_PASSWORD": MARKS["redis"] + "-wrong",
        },
        "no Redis": {"REDIS_URL": f"redis://:{MARKS['redis']}@127.0.0.1:{nowhere}/0"},
        "a URL that is none": {"REDIS_URL": f"redis://:{MARKS['redis']}/x@127.0.0.1/0"},
        "a key that is something else's": {"REDIS_URL": url.replace("/0", "/1")},
        "succeeds": {},
    }
    with redis.Redis.from_url(ways["a key that is something else's"]["REDIS_URL"]) as client:
        client.set("card:c1:history", "something else's")
    command = [sys.executable, "-c", RUNS]
    run = watched(command, arguments, env={**os.environ, **whole}, stdin=json.dumps([ways, whole]).encode())
    output, seen = run.output.decode(), b"".join(run.seen)
    assert run.code == 0, output[-3000:]
    assert b"run_failed" in seen
    for name in ways:
        assert f"RESULT {name} {name == 'succeeds'}" in output
    assert output.count("ALERT The alert could not be sent to FEATURE_SEED_ALERT_WEBHOOK: HTTP status 500") == 6
    for said in ("refuses user 'seeder'", "refuses the login", "cannot be reached", "URL cannot be read", "WRONGTYPE"):
        assert said in output
    assert not marks(run.output + seen + stored(Path(whole["DAGSTER_HOME"])))


@pytest.mark.slow
def test_runs_over_s3(chdb: Client, tmp_path: Path) -> None:
    """ClickHouse takes the key from the environment: neither a run that succeeds nor one that S3 refuses shows it."""
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    gold = write_parquet(chdb, tmp_path / "gold.parquet", ROWS).read_bytes()
    with s3_server("gold") as s3, redis_server() as port:
        s3.put("daily/a.parquet", gold)
        whole = {
            **s3.variables,
            "AWS_ENDPOINT_URL": s3.endpoint,
            "FEATURE_SEED_GOLD_PARQUET": "s3://gold/daily",
            "REDIS_URL": f"redis://127.0.0.1:{port}",
            "DAGSTER_HOME": str(home),
        }
        ways = {"succeeds": {}, "wrong secret": {"AWS_SECRET_ACCESS_KEY": f"{s3.secret}-wrong"}}
        command = [sys.executable, "-c", RUNS]
        run = watched(command, arguments, env={**os.environ, **whole}, stdin=json.dumps([ways, whole]).encode())
    output = run.output.decode()
    assert "RESULT succeeds True" in output, output[-3000:]
    assert "RESULT wrong secret False" in output
    assert "that AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN may list and read it" in output
    seen = run.output + b"".join(run.seen) + stored(home)
    assert s3.secret.encode() not in seen
    assert s3.key.encode() not in seen


def test_representations() -> None:
    """Neither text of the resources, nor their configuration as Dagster shows it."""
    warehouse = Warehouse(host="h", password=MARKS["clickhouse"])
    store = OnlineStore(url=f"redis://:{MARKS['redis']}@h:1/0", password=MARKS["redis"])
    assert not marks(f"{warehouse!r} {warehouse} {store!r} {store} {store.address}".encode())


def stored(home: Path) -> bytes:
    """Everything that an instance keeps: its files, and the rows of its databases, unpacked."""
    kept = b""
    for path in home.rglob("*"):
        if path.suffix == ".db":
            with sqlite3.connect(path) as database:
                kept += b"".join(_rows(database))
        elif path.is_file():
            kept += path.read_bytes()
    assert b"seed_all" in kept and b"card_history" in kept
    return kept


def _rows(database: sqlite3.Connection) -> Iterator[bytes]:
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in database.execute(f'SELECT * FROM "{table}"'):
            for value in row:
                yield _unpacked(value) if isinstance(value, bytes) else str(value).encode()


def _unpacked(value: bytes) -> bytes:
    """Snapshots are stored compressed."""
    try:
        return zlib.decompress(value)
    except zlib.error:
        return value


def marks(text: bytes) -> list[str]:
    """Which marks a text bears, with a little of what surrounds the first of each."""
    return [
        f"{name}: {text[max(text.index(mark.encode()) - 200, 0) :][:400]!r}"
        for name, mark in MARKS.items()
        if mark.encode() in text
    ]
