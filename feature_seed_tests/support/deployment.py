"""A real deployment of Dagster: webserver and daemon, as processes, on an instance of their own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from feature_seed_tests.support.patience import HANG_SECONDS, wait_for
from feature_seed_tests.support.redis_server import free_port

ROOT = Path(__file__).parents[2]

_open = build_opener(ProxyHandler({})).open


@contextmanager
def deployment(home: Path, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """Start webserver and daemon with DAGSTER_HOME `home`. Gives the webserver's port on loopback."""
    with webserver(home, env) as port, daemon(home, env):
        yield port


@contextmanager
def webserver(home: Path, env: Mapping[str, str] | None = None) -> Iterator[int]:
    """The webserver alone, once it answers."""
    port = free_port()
    command = ["dagster_webserver", "--host", "127.0.0.1", "--port", str(port), "-m", "feature_seed"]
    with _process(home, env, *command) as process:
        wait_for(lambda: _answers(process, port), "the webserver answers")
        yield port


@contextmanager
def daemon(home: Path, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """The daemon alone; its runs end with it."""
    with _process(home, env, "dagster._daemon", "run", "-m", "feature_seed"):
        yield


@contextmanager
def dagster_dev(home: Path, env: Mapping[str, str] | None = None, program: str = "dagster") -> Iterator[int]:
    """`dagster dev` in the checkout, or that of another program, webserver and daemon in one; gives their port."""
    port = free_port()
    with _process(home, env, program, "dev", "-h", "127.0.0.1", "-p", str(port)) as process:
        wait_for(lambda: _answers(process, port), "dagster dev answers")
        yield port


def query(port: int, graphql: str, **variables: Any) -> dict[str, Any]:
    """The data of the webserver's answer to a GraphQL query."""
    answer = json.loads(post(port, "graphql", {"query": graphql, "variables": variables}))
    assert "errors" not in answer, answer
    return answer["data"]


def post(port: int, path: str, body: Any) -> bytes:
    """Post JSON to the webserver. Returns the answer."""
    headers = {"Content-Type": "application/json"}  # exactly: with a charset, Dagster refuses reports
    request = Request(f"http://127.0.0.1:{port}/{path}", json.dumps(body).encode(), headers)
    with _open(request, timeout=HANG_SECONDS) as response:
        return response.read()


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "the webserver has ended"
    try:
        with _open(f"http://127.0.0.1:{port}/server_info", timeout=10):
            return True
    except OSError:
        return False


@contextmanager
def _process(home: Path, env: Mapping[str, str] | None, *module: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own with what it starts, gone afterwards; its log is printed when the body fails."""
    _instance(home)
    log = home / f"{module[0]}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=ROOT,
            env={**os.environ, "FEATURE_SEED_SHARDS": "16", **(env or {}), "DAGSTER_HOME": str(home)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    except BaseException:
        print(f"---- {log}\n{log.read_text(errors='replace')}")
        raise
    finally:
        _stop(process)


def _instance(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\nnux:\n  enabled: false\n")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the group politely, so that code servers end with their parent. Then end by force what is left of it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=15)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
