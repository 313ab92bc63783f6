"""Redis Cluster: a job leaves the same keys as on a single node, each on the node that owns it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from feature_seed.__main__ import main
from feature_seed.contract import Transaction, apply_event
from feature_seed.errors import StoreError
from feature_seed.features.entity import CARDS, OnConflict
from feature_seed.features.feature import FEATURES
from feature_seed.loading.comparison.digests import compare
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.acl import acl
from feature_seed.store.cluster import ClusterStore
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support import declared
from feature_seed_tests.support.blocks import block_of
from feature_seed_tests.support.cluster_load import load, small_blocks
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.patience import eventually
from feature_seed_tests.support.redis_cluster import Cluster, Node
from feature_seed_tests.support.run import checks, metadata, seed
from feature_seed_tests.support.store import assert_holds, features

ROWS = [transaction(i, f"c{i % 100}", seconds=i, location_lat=None if i % 100 == 7 else 1.5) for i in range(400)]


@pytest.fixture
def warehouse(make_parquet: MakeWarehouse) -> Warehouse:
    return make_parquet(ROWS)


def pay(client: redis.Redis) -> None:
    """A scorer applies one live event of the card c1."""
    event = Transaction("live", "fuel", 2.5, "2026-01-02T00:00:00.000+00:00", None, None)
    apply_event(client, "of c1", "c1", event, tags=True)


@pytest.mark.parametrize("on_conflict", ["keep_newer", "overwrite"])
def test_every_key_as_on_a_single_node(
    warehouse: Warehouse, cluster: Cluster, store: OnlineStore, online: redis.Redis, on_conflict: OnConflict
) -> None:
    """Before: cluster and single node are empty. After the job with all its checks: the same keys, bytes and counts."""
    result = seed(warehouse, cluster.store(), job="seed_all", key_tags=True, on_conflict=on_conflict)
    assert all(check.passed for check in checks(result).values())
    assert checks(result)["customer_stats.unknown_entities"].metadata["looked_at"].value == 200
    cluster.assert_placed()
    assert cluster.client().hget("feature_seed:ready", "state") == b"ready"
    alone = seed(warehouse, store, key_tags=True, on_conflict=on_conflict)
    assert features(cluster.client()) == features(online)
    for feature in FEATURES:
        ours, theirs = metadata(result, feature.name), metadata(alone, feature.name)
        for name in ("dagster/row_count", "entities_by_shard", "kept_newer", "commands", "bytes"):
            assert ours[name] == theirs[name], (feature.name, name)


def test_what_is_kept_is_counted(warehouse: Warehouse, cluster: Cluster) -> None:
    """Before: a card has a live event. The next load keeps the event, and counts the card once."""
    client = cluster.client()
    seed(warehouse, cluster.store(), key_tags=True)
    pay(client)
    live = features(client)
    result = seed(warehouse, cluster.store(), key_tags=True)
    assert features(client) == live
    assert metadata(result, "card_history")["kept_newer"] == 1


def test_what_has_departed(
    make_parquet: MakeWarehouse, warehouse: Warehouse, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: gold has lost ten cards, on all nodes. One of them has a live event.

    The other nine go with every key. The tenth goes as soon as somebody asks for it.
    """
    client = cluster.client()
    seed(warehouse, cluster.store(), verify=True, key_tags=True)
    pay(client)
    before: dict[bytes, object] = features(client)
    gold = make_parquet([row for row in ROWS if len(row.card_id) > 2])
    found = metadata(seed(gold, cluster.store(), job="load_and_prune", prune=True, key_tags=True), "departed")
    assert (found["cards_departed"], found["cards_live"], found["customers_removed"]) == (10, 1, 9)
    gone = tuple(f"{{{of}c{n}}}".encode() for n in range(10) if n != 1 for of in ("", "of "))
    assert features(client) == {name: value for name, value in before.items() if not any(one in name for one in gone)}
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    assert main(["forget", "card", "c1"]) == 0
    assert not client.exists(*(name for name in before if name.startswith(b"card:{c1}")))


def test_declared_features(warehouse: Warehouse, cluster: Cluster) -> None:
    """Keys of several columns are each in a slot of their own. All are there, are equal to gold, and stay so."""
    client = cluster.client()
    entries = {
        "spent": {"key": "velocity:{card_id}:{customer_id}", "string": "count()"},
        "seen": {"key": "card:{card_id}:seen", "set": "transaction_id"},
    }
    ours = declared.declare(entries)
    for _ in range(2):
        assert declared.load(warehouse, cluster.store(), ours, key_tags=True) == 200
        assert client.get("velocity:{c7}:{of c7}") == b"4" and client.scard("card:{c7}:seen") == 4
        assert [declared.differences(warehouse, client, one, key_tags=True) for one in ours] == [[], []]


def test_an_id_that_has_no_slot(make_parquet: MakeWarehouse, cluster: Cluster) -> None:
    """Redis takes no empty tag, so an id that begins with } scatters its keys. Other braces do no harm."""
    rows = [transaction(i, card) for i, card in enumerate(["a}b", "{x", "a{}b"])]
    load(cluster.store(), make_parquet(rows), "overwrite")
    assert_holds(cluster.client(), expect(rows), tags=True)
    with pytest.raises(StoreError, match=r"refused card:\{\}x\}:.*an id that begins with '}'"):
        load(cluster.store(), make_parquet([transaction(1, "}x")]), "overwrite")
    layout = Layout(key_tags=True)
    stream = FeatureStream(make_parquet([transaction(1, "}x")]), layout, CARDS, tuple(shard_names(layout.shard_count)))
    with pytest.raises(StoreError, match=r"refused card:\{\}x\}:seed.*an id that begins with '}'"):
        compare(stream, cluster.store())


def test_nodes_that_close_idle_connections(warehouse: Warehouse, cluster: Cluster) -> None:
    """Before: nodes close what is idle for a second. While a load waits for a block, none of its connections closes."""
    *first, last = small_blocks(warehouse, CARDS)
    with cluster.store().bulk([CARDS.guard]) as loading, timeout_of_a_second(cluster):
        for block in first:
            loading.write(block)
        with redis.Redis(port=cluster.primaries[0].port, password=PASSWORD, client_name="idle") as idle:
            idle.ping()
            eventually(lambda: loading.keep_alive() or not has_client(cluster.primaries[0], "idle"))
        loading.write(last)
        loading.drain()
        assert loading.entities == warehouse.profile().cards


@contextmanager
def timeout_of_a_second(cluster: Cluster) -> Iterator[None]:
    for seconds in (1, 0):
        for node in cluster.primaries:
            node.client.config_set("timeout", seconds)
        if seconds:
            yield


def has_client(node: Node, name: str) -> bool:
    clients: Any = node.client.client_list()
    return any(one["name"] == name for one in clients)


def test_the_rights_that_a_cluster_takes(warehouse: Warehouse, cluster: Cluster) -> None:
    """The printed rules let the whole job run. Without a rule for clusters, the run names the rule, or its list."""
    rules = acl(cluster.store(), [])[0].removeprefix("ACL SETUSER seeder ").replace("…", PASSWORD).split()
    limited = ClusterStore(url=cluster.url.replace("//", "//seeder@"), password=PASSWORD)

    def grant(lacking: str = "") -> None:
        for node in cluster.primaries:
            node.ask("ACL", "DELUSER", "seeder")
            node.ask("ACL", "SETUSER", "seeder", *(rule for rule in rules if rule != lacking))

    grant()
    assert seed(warehouse, limited, job="seed_all", key_tags=True, on_conflict="overwrite").success
    for lacking in ("+asking", "+cluster|slots", "+command"):
        assert lacking in rules
        grant(lacking)
        with pytest.raises(StoreError, match=rf"{re.escape(lacking)}|feature_seed/store/README.md lists them"):
            seed(warehouse, limited, key_tags=True)


def test_a_single_node_is_no_cluster(warehouse: Warehouse, store: OnlineStore) -> None:
    """REDIS_CLUSTER=1 is set for a single Redis: the error says to unset it."""
    with pytest.raises(StoreError, match="is not a node of a Redis Cluster: unset REDIS_CLUSTER"):
        seed(warehouse, ClusterStore(url=store.url, password=PASSWORD), key_tags=True)


def test_a_cluster_is_no_single_node(warehouse: Warehouse, cluster: Cluster) -> None:
    """Preflight names what to set, and so does the first command that a node refuses. Nothing was written."""
    for node in cluster.primaries:
        alone = OnlineStore(url=f"redis://127.0.0.1:{node.port}", password=PASSWORD)
        with pytest.raises(StoreError, match="REDIS_CLUSTER=1 and FEATURE_SEED_KEY_TAGS=1"):
            seed(warehouse, alone)
        with alone.bulk() as connection, pytest.raises(StoreError, match="REDIS_CLUSTER=1 and FEATURE_SEED_KEY_TAGS=1"):
            connection.write(block_of(*(f"GET x{i}" for i in range(30))))
            connection.drain()
    assert cluster.client().dbsize() == 0
