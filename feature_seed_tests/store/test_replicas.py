"""FEATURE_SEED_WAIT_REPLICAS: a load is done when so many replicas have it, or an error says how many do."""

from pathlib import Path
from typing import Any

import pytest

from feature_seed.errors import StoreError
from feature_seed.store import bulk
from feature_seed.store.bulk import BulkConnection
from feature_seed.store.online_store import OnlineStore
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.cluster_load import load
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.patience import HANG_SECONDS, eventually, patient
from feature_seed_tests.support.redis_cluster import Cluster, ids_in
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import seed


def test_a_primary_without_a_replica(
    make_parquet: MakeWarehouse, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: one of three primaries has a replica. A load of a card of another primary names that primary."""
    monkeypatch.setattr(bulk, "REPLICATION_SECONDS", 0.2)
    other = cluster.primaries[1]
    card = next(ids_in(min(other.owned())))
    warehouse = make_parquet([transaction(1, card, customer_id=card)])
    with pytest.raises(StoreError, match=rf"0 of 1 replicas of Redis at 127.0.0.1:{other.port} "):
        load(cluster.store(wait_replicas=1), warehouse)


def test_replicas_of_a_single_node(
    make_parquet: MakeWarehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: one replica. A load that waits for one leaves all keys there. A load that waits for two fails."""
    warehouse = make_parquet([transaction(i, f"c{i % 100}", seconds=i) for i in range(400)])
    ask = BulkConnection.ask

    def ask_when_one_has_it(self: BulkConnection, *command: str | int) -> Any:
        if command[0] == "WAIT":
            ask(self, "WAIT", 1, 1000 * HANG_SECONDS)
        return ask(self, *command)

    with (
        redis_server("--repl-diskless-sync-delay", "0", "--dir", str(tmp_path)) as port,
        redis_server("--replicaof", f"127.0.0.1 {port}", "--dir", str(tmp_path)) as replica,
        patient(port=replica) as client,
    ):
        url = f"redis://127.0.0.1:{port}"
        eventually(lambda: client.info("replication")["master_link_status"] == "up")  # type: ignore[index]
        seed(warehouse, OnlineStore(url=url, wait_replicas=1))
        assert client.dbsize() == 5 * 100 + 2 * 100 + 1
        monkeypatch.setattr(BulkConnection, "ask", ask_when_one_has_it)
        monkeypatch.setattr(bulk, "REPLICATION_SECONDS", 0.2)
        with pytest.raises(StoreError, match=f"1 of 2 replicas of Redis at 127.0.0.1:{port} "):
            seed(warehouse, OnlineStore(url=url, wait_replicas=2))
