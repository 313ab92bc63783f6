"""What tests of broken, slow and changing answers share: a server with a small gold."""

from collections.abc import Iterator

import pytest

from feature_seed.warehouse import access, failures
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.bank import (
    at,
    make_gold,
)
from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server


@pytest.fixture(scope="session")
def bank() -> Iterator[ClickHouseServer]:
    with clickhouse_server("seeder", PASSWORD) as server:
        make_gold(server.port)
        yield server


@pytest.fixture
def gold(bank: ClickHouseServer, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A small gold whose answers come in hundreds of blocks, and no more patience than a test has."""
    monkeypatch.setitem(access.FASTER, "group_by_two_level_threshold", "10")
    monkeypatch.setattr(failures, "RETRY_DELAYS", (0.01, 0.1))
    bank.play("none")
    return at(bank.port)
