"""The names of clickhouse-connect and urllib3 that sockets.py builds on: a release that takes one away fails here."""

import pytest
import urllib3
from clickhouse_connect.driver.httpclient import HttpClient

from feature_seed.errors import WarehouseError
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.sockets import Sockets


def test_an_interrupted_client_reads_nothing_more(server: Warehouse) -> None:
    """Before: a client that answers. Interrupted, its connection is closed, and it opens no other."""
    with server.client() as client:
        assert isinstance(client, HttpClient)
        assert isinstance(client.http, urllib3.PoolManager)
        sockets = Sockets(client)
        assert set(client.http.pool_classes_by_scheme) == {"http", "https"}
        assert client.command("SELECT 1") == 1
        sockets.interrupt()
        with pytest.raises(WarehouseError, match="Nobody waits"):
            client.command("SELECT 1")
