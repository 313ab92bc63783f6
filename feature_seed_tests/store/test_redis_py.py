"""What redis-py may take away with any release: a private name, and a public one that is not in its documentation."""

import re
import socket
from pathlib import Path

import pytest
import redis

import feature_seed
from feature_seed.store import client
from feature_seed.store.online_store import OnlineStore
from feature_seed.store.redis_py import opened_socket
from feature_seed.store.url import StoreUrl
from feature_seed_tests.support.patience import HANG_SECONDS
from feature_seed_tests.support.redis_server import redis_server

PACKAGE = Path(feature_seed.__file__).parent


def test_the_socket_of_a_connection(store: OnlineStore) -> None:
    """What is sent through the connection is answered on the socket, and closing the socket ends the connection."""
    with store.client() as opened:
        connection = opened.connection_pool.get_connection()
        found = opened_socket(connection)
        assert isinstance(found, socket.socket)
        connection.send_command("PING")
        assert found.recv(100) == b"+PONG\r\n"
        connection.disconnect()
        opened.connection_pool.release(connection)


def test_no_other_private_name_is_used() -> None:
    """Of any object but the package's own, in the files that know redis-py."""
    files = [file for file in PACKAGE.rglob("*.py") if re.search(r"^(import|from) redis\b", file.read_text(), re.M)]
    assert len(files) > 5
    of_others = re.compile(r"(?<!self)(?<!super\(\))\.(?!_replace\b)(_[a-z]\w*)")  # a named tuple's is public
    private = {(file.name, name) for file in files for name in of_others.findall(file.read_text())}
    assert private == {("redis_py.py", "_get_socket"), ("local.py", "_binary")}


def test_a_login_is_waited_for_less_long_than_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may take longer than the login, which is bounded as the connecting is; both limits hold."""
    with redis_server("--enable-debug-command", "yes") as port:
        url = StoreUrl.of(f"redis://127.0.0.1:{port}")
        monkeypatch.setattr(client, "CONNECT_SECONDS", 2)
        for seconds, answers in ((HANG_SECONDS, True), (1, False)):
            monkeypatch.setattr(client, "ANSWER_SECONDS", seconds)
            with client.client_of(url, None, None, None) as patient:
                assert _answers(patient, seconds=2.5) is answers


def _answers(patient: redis.Redis, *, seconds: float) -> bool:
    try:
        return bool(patient.ping() and patient.execute_command("DEBUG", "SLEEP", seconds))
    except redis.TimeoutError:
        return False
