"""Redis Cluster: every key on its node and as on a single one, whatever becomes of slots and nodes in mid-load."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import redis
from clickhouse_connect.driver.client import Client
from dagster import DagsterInstance

from feature_seed.__main__ import main
from feature_seed.contract import Transaction, apply_event
from feature_seed.errors import ReadinessError, StoreError, StoreUnavailableError
from feature_seed.features.entity import ENTITIES, OnConflict
from feature_seed.features.feature import FEATURES
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store import bulk
from feature_seed.store import cluster as cluster_module
from feature_seed.store.acl import acl
from feature_seed.store.block import Block
from feature_seed.store.bulk import BulkConnection
from feature_seed.store.cluster import ClusterConnection, ClusterStore
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.declared import declare, differences
from feature_seed_tests.support.declared import load as load_declared
from feature_seed_tests.support.expected import Expected, expect
from feature_seed_tests.support.gold import transaction, write_parquet
from feature_seed_tests.support.patience import HANG_SECONDS, eventually, patient
from feature_seed_tests.support.redis_cluster import Cluster, Node, ids_in, redis_cluster
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.run import checks, metadata, seed
from feature_seed_tests.support.store import assert_holds, features

MODES = ["keep_newer", "overwrite"]

ROWS = [transaction(i, f"c{i % 100}", seconds=i, location_lat=None if i % 100 == 7 else 1.5) for i in range(400)]


@pytest.fixture(scope="module")
def started() -> Iterator[Cluster]:
    with redis_cluster(PASSWORD) as cluster:
        yield cluster


@pytest.fixture
def cluster(started: Cluster) -> Iterator[Cluster]:
    """Empty, and given back with every node in its first role."""
    for node in started.primaries:
        node.client.flushall()
    yield started
    started.restore()


@pytest.fixture
def client(cluster: Cluster) -> Any:
    return cluster.client()


@pytest.fixture
def store(cluster: Cluster) -> ClusterStore:
    return ClusterStore(url=cluster.url, password=PASSWORD)


@pytest.fixture
def warehouse(make_parquet: MakeWarehouse) -> Warehouse:
    return make_parquet(ROWS)


@pytest.fixture(scope="module")
def many(chdb: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, Expected]:
    """Cards enough for many blocks."""
    rows = [transaction(i, f"c{i}") for i in range(3_000)]
    path = write_parquet(chdb, tmp_path_factory.mktemp("many") / "gold.parquet", rows)
    return Warehouse(gold_parquet=str(path)), expect(rows)


def nothing(sent: int) -> None:
    """For a load during which nothing happens."""


def load(
    store: OnlineStore, warehouse: Warehouse, on_conflict: OnConflict, before: Callable[[int], None] = nothing
) -> int:
    """Every entity, in small blocks; how many entities were sent a second time.

    `before` is called before every block, with how many were sent.
    """
    layout = Layout(key_tags=True, on_conflict=on_conflict)
    sent = resent = 0
    for entity in ENTITIES:
        stream = FeatureStream(warehouse, layout, entity, tuple(shard_names(layout.shard_count)))
        with store.bulk([entity.guard]) as connection:
            for block in stream:
                for part in _parts(block):
                    before(sent)
                    connection.write(part)
                    sent += 1
            connection.drain()
        assert isinstance(connection, ClusterConnection)
        assert connection.entities == connection.shards.total() == warehouse.profile().entities(entity.id)
        resent += connection.resent
    return resent


def _parts(block: Block) -> Iterator[Block]:
    positions = range(len(block.keys))
    return (block.pick(positions[first : first + 50]) for first in range(0, len(block.keys), 50))


@contextmanager
def meanwhile(work: Callable[[Event], None]) -> Iterator[None]:
    """Another thread beside a load, which is told by the event that the load has ended; its errors count."""
    ended, errors = Event(), []

    def run() -> None:
        try:
            work(ended)
        except (redis.RedisError, AssertionError) as e:
            errors.append(e)

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not errors


@pytest.mark.parametrize("on_conflict", MODES)
def test_every_key_as_on_a_single_node(
    warehouse: Warehouse, cluster: Cluster, client: Any, store: ClusterStore, redis_port: int, on_conflict: OnConflict
) -> None:
    """Before: both empty. After the job with all its checks: the same keys and bytes, each on the node that owns it."""
    single = OnlineStore(url=f"redis://127.0.0.1:{redis_port}", password=PASSWORD)
    result = seed(warehouse, store, job="seed_all", key_tags=True, on_conflict=on_conflict)
    assert all(check.passed for check in checks(result).values())
    assert checks(result)["customer_stats.unknown_entities"].metadata["looked_at"].value == 200
    cluster.assert_placed()
    assert client.hget("feature_seed:ready", "state") == b"ready"
    with single.client() as other:
        other.flushall()
        alone = seed(warehouse, single, key_tags=True, on_conflict=on_conflict)
        assert features(client) == features(other)
    for feature in FEATURES:
        ours, theirs = metadata(result, feature.name), metadata(alone, feature.name)
        for name in ("dagster/row_count", "entities_by_shard", "kept_newer", "commands", "bytes"):
            assert ours[name] == theirs[name], (feature.name, name)


def test_what_is_kept_is_counted(warehouse: Warehouse, client: Any, store: ClusterStore) -> None:
    """A scorer was at work on one card: it is kept, and counted once, as on a single node."""
    seed(warehouse, store, key_tags=True)
    event = Transaction("live", "fuel", 2.5, "2026-01-02T00:00:00.000+00:00", None, None)
    apply_event(client, "of c1", "c1", event, tags=True)
    live = features(client)
    result = seed(warehouse, store, key_tags=True)
    assert features(client) == live
    assert metadata(result, "card_history")["kept_newer"] == 1


def test_what_has_departed(
    make_parquet: MakeWarehouse,
    warehouse: Warehouse,
    client: Any,
    store: ClusterStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before: gold has lost ten cards, on all nodes, one of which has a live event. The others go, with every key. So
    does that one, as soon as it is asked for.
    """
    seed(warehouse, store, verify=True, key_tags=True)
    event = Transaction("live", "fuel", 2.5, "2026-01-02T00:00:00.000+00:00", None, None)
    apply_event(client, "of c1", "c1", event, tags=True)
    before: dict[bytes, object] = features(client)
    gold = make_parquet([row for row in ROWS if len(row.card_id) > 2])
    result = seed(gold, store, job="load_and_prune", prune=True, key_tags=True)
    found = metadata(result, "departed")
    assert (found["cards_departed"], found["cards_live"], found["customers_removed"]) == (10, 1, 9)
    gone = tuple(f"{{{of}c{n}}}".encode() for n in range(10) if n != 1 for of in ("", "of "))
    assert features(client) == {name: value for name, value in before.items() if not any(one in name for one in gone)}
    environment = {
        "REDIS_URL": store.url,
        "REDIS_PASSWORD": PASSWORD,
        "REDIS_CLUSTER": "1",
        "FEATURE_SEED_KEY_TAGS": "1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    assert main(["forget", "card", "c1"]) == 0
    assert not client.exists(*(name for name in before if name.startswith(b"card:{c1}")))


def test_slots_that_moved_since_the_topology_was_read(
    warehouse: Warehouse, cluster: Cluster, client: Any, store: ClusterStore
) -> None:
    """Before the first write, two empty slots with cards move: their old owner says MOVED, the new one gets them."""
    source, target = cluster.primaries[1], cluster.primaries[2]
    slots = [slot for slot in (client.keyslot(f"{{c{i}}}") for i in range(100)) if slot in source.owned()][:2]

    def move(sent: int) -> None:
        if sent == 0:
            for slot in slots:
                cluster.migrate(slot, source, target)

    try:
        assert load(store, warehouse, "overwrite", move) > 0
        assert_holds(client, expect(ROWS), tags=True)
        cluster.assert_placed()
    finally:
        for slot in slots:
            cluster.migrate(slot, target, source)


@pytest.mark.parametrize("on_conflict", MODES)
def test_a_slot_that_is_half_moved(
    make_parquet: MakeWarehouse, cluster: Cluster, client: Any, store: ClusterStore, on_conflict: OnConflict
) -> None:
    """Before: of one slot, a card is on the old node, one on the new, one on both, and three are nowhere yet.

    The load meets ASK and TRYAGAIN, and must wait for the slot. Once it has met them, the rest is moved: all is right.
    """
    source, target = cluster.primaries[1], cluster.primaries[2]
    slot = min(source.owned()) + (on_conflict == "overwrite")
    cards = list(islice(ids_in(slot), 6))
    rows = [transaction(i, cards[i % 6], seconds=i) for i in range(24)]
    older = make_parquet([row for row in rows[:12] if row.card_id in cards[:3]])
    load(store, older, "overwrite")
    cluster.begin_migration(slot, source, target)
    cluster.move_keys(source, target, *(f"card:{{{cards[1]}}}:{kind}" for kind in ("history", "loc", "last_ts")))
    cluster.move_keys(source, target, *(f"card:{{{cards[2]}}}:{kind}" for kind in ("seq", "seed")))

    before = errors(source)

    def finish(_: Event) -> None:
        eventually(lambda: all(now != was for now, was in zip(errors(source), before, strict=True)))
        cluster.end_migration(slot, source, target)

    try:
        with meanwhile(finish):
            assert load(store, make_parquet(rows), on_conflict) > 0
        assert_holds(client, expect(rows), tags=True)
        assert slot in target.owned()
    finally:
        cluster.migrate(slot, target, source)


def errors(node: Node) -> tuple[Any, Any]:
    """How often a node has answered that a key is elsewhere, and that keys are in two places."""
    return node.info("errorstat_ASK"), node.info("errorstat_TRYAGAIN")


def test_slots_that_move_in_mid_load(
    many: tuple[Warehouse, Expected], cluster: Cluster, client: Any, store: ClusterStore
) -> None:
    """While 3,000 cards are loaded, slots move with their keys from one node to another, one after the other."""
    warehouse, expected = many
    source, target = cluster.primaries[0], cluster.primaries[2]
    moved: list[int] = []

    def move(ended: Event) -> None:
        for slot in sorted(source.owned()):
            if ended.is_set():
                return
            cluster.migrate(slot, source, target)
            moved.append(slot)

    def some_have_moved(sent: int) -> None:
        eventually(lambda: len(moved) >= 40)  # in which there are cards of those that come

    try:
        with meanwhile(move):
            resent = load(store, warehouse, "keep_newer", some_have_moved)
        assert moved and resent
        assert_holds(client, expected, tags=True)
        cluster.assert_placed()
    finally:
        for node in cluster.primaries:
            node.client.flushall()
        for slot in moved:
            cluster.migrate(slot, target, source)


def test_a_slot_whose_migration_was_left_open(
    make_parquet: MakeWarehouse,
    cluster: Cluster,
    store: ClusterStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before: a slot is half open between two nodes, and stays so. An entity, which has several keys, is not taken:
    after a while that is an error that names the keys, the slot and what Redis says.
    """
    source, target = cluster.primaries[0], cluster.primaries[2]
    slot = min(source.owned())
    card = next(ids_in(slot))
    cluster.begin_migration(slot, source, target)
    try:
        monkeypatch.setattr(cluster_module, "FAILOVER_SECONDS", 0.3)
        with pytest.raises(StoreUnavailableError, match=rf"cust:\{{{card}\}}:.* \(slot {slot}\) .*(ASK|TRYAGAIN)"):
            load(store, make_parquet([transaction(1, "elsewhere", customer_id=card)]), "keep_newer")
        with pytest.raises(StoreUnavailableError, match=rf"card:\{{{card}\}}:.* \(slot {slot}\) .*(ASK|TRYAGAIN)"):
            load(store, make_parquet([transaction(1, card)]), "keep_newer")
    finally:
        target.client.flushall()
        for node in (source, target):
            node.ask("CLUSTER", "SETSLOT", slot, "STABLE")


def test_an_id_that_has_no_slot(make_parquet: MakeWarehouse, client: Any, store: ClusterStore) -> None:
    """Redis takes no empty tag, so an id that begins with a brace scatters its keys; other braces do no harm."""
    rows = [transaction(i, card) for i, card in enumerate(["a}b", "{x", "a{}b"])]
    load(store, make_parquet(rows), "overwrite")
    assert_holds(client, expect(rows), tags=True)
    with pytest.raises(StoreError, match=r"refused card:\{\}x\}:.*an id that begins with '}'"):
        load(store, make_parquet([transaction(1, "}x")]), "overwrite")


def hand_over(cluster: Cluster, sent: int) -> None:
    """As for maintenance: the replica knows no script and no client."""
    if sent == 25:
        cluster.promote(cluster.replica)


def flush_scripts(cluster: Cluster, sent: int) -> None:
    """The node is given the script once more, and what it did not take."""
    cluster.primaries[0].client.script_flush()


@pytest.mark.parametrize("happen", [hand_over, flush_scripts])
def test_what_costs_nothing_in_mid_load(
    many: tuple[Warehouse, Expected],
    cluster: Cluster,
    client: Any,
    store: ClusterStore,
    happen: Callable[[Cluster, int], None],
) -> None:
    """CLUSTER FAILOVER, and SCRIPT FLUSH before every block: some entities are sent again, and nothing is lost."""
    warehouse, expected = many
    assert load(store, warehouse, "keep_newer", partial(happen, cluster))
    assert_holds(client, expected, tags=True)


@pytest.mark.slow
def test_a_primary_that_dies_in_mid_load(many: tuple[Warehouse, Expected]) -> None:
    """Its replica takes over, and may lack what it had acknowledged: an error says so. Run again, all is right."""
    warehouse, expected = many
    with redis_cluster(PASSWORD) as cluster:
        store = ClusterStore(url=cluster.url, password=PASSWORD)
        first = cluster.primaries[0]
        with pytest.raises(StoreUnavailableError, match=f"Node 127.0.0.1:{first.port} .* went away.*run again"):
            load(store, warehouse, "keep_newer", lambda sent: first.kill() if sent == 75 else None)
        with meanwhile(lambda _: cluster.promote(cluster.replica, "TAKEOVER")):
            load(store, warehouse, "keep_newer")
        assert_holds(cluster.client(), expected, tags=True)


def test_nodes_that_close_idle_connections(warehouse: Warehouse, store: ClusterStore, cluster: Cluster) -> None:
    """Before: nodes that close what is idle for a second. While a block is waited for, none of the load's is closed."""
    layout = Layout(key_tags=True)
    stream = FeatureStream(warehouse, layout, ENTITIES[0], tuple(shard_names(layout.shard_count)))
    blocks = [part for block in stream for part in _parts(block)]
    with store.bulk([ENTITIES[0].guard]) as loading, _timeout_of_a_second(cluster):
        for block in blocks[:-1]:
            loading.write(block)
        with redis.Redis(port=cluster.primaries[0].port, password=PASSWORD, client_name="idle") as idle:
            idle.ping()
            eventually(lambda: loading.keep_alive() or not _named(cluster.primaries[0], "idle"))
        loading.write(blocks[-1])
        loading.drain()
        assert loading.entities == warehouse.profile().cards


@contextmanager
def _timeout_of_a_second(cluster: Cluster) -> Iterator[None]:
    for seconds in (1, 0):
        for node in cluster.primaries:
            node.client.config_set("timeout", seconds)
        if seconds:
            yield


def _named(node: Node, name: str) -> bool:
    clients: Any = node.client.client_list()
    return any(one["name"] == name for one in clients)


@pytest.mark.parametrize("in_mid_load", [True, False])
def test_a_primary_that_is_replaced_by_one_that_lags(
    warehouse: Warehouse, cluster: Cluster, store: ClusterStore, in_mid_load: bool
) -> None:
    """Before: replication is cut, though all nodes serve. The replica takes over without what was loaded.

    In mid-load, when no connection is lost, the load fails; after it, the store is not called ready.
    """
    primary, replica = cluster.primaries[0], cluster.replica
    replica.client.config_set("masterauth", "wrong")
    primary.ask("CLIENT", "KILL", "TYPE", "replica")
    eventually(lambda: replica.info("master_link_status") == "down")

    def replace(sent: int) -> None:
        if sent == 1:
            cluster.promote(replica, "TAKEOVER")
            eventually(lambda: primary.info("role") == "slave")

    if in_mid_load:
        with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{primary.port} was replaced"):
            load(store, warehouse, "keep_newer", replace)
        return
    with DagsterInstance.ephemeral() as instance:
        seed(warehouse, store, key_tags=True, job="load_and_verify", instance=instance)
        replace(1)
        with pytest.raises(ReadinessError, match=r"replaced or restarted since it was seeded.*seed_all"):
            seed(warehouse, store, key_tags=True, job="warm_start", instance=instance)


def test_too_few_replicas(
    make_parquet: MakeWarehouse, store: ClusterStore, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three primaries has a replica: with FEATURE_SEED_WAIT_REPLICAS=1, a load of another's card names that."""
    monkeypatch.setattr(bulk, "REPLICATION_SECONDS", 0.2)
    other = cluster.primaries[1]
    card = next(ids_in(min(other.owned())))
    warehouse = make_parquet([transaction(1, card, customer_id=card)])
    with pytest.raises(StoreError, match=rf"0 of 1 replicas of Redis at 127.0.0.1:{other.port} "):
        load(ClusterStore(url=store.url, password=PASSWORD, wait_replicas=1), warehouse, "keep_newer")


def test_replicas_of_a_single_node(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One replica is waited for: once a load is done, it has all of it. Two are not there."""
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
        eventually(lambda: client.info("replication")["master_link_status"] == "up")  # type: ignore[index]
        url = f"redis://127.0.0.1:{port}"
        seed(warehouse, OnlineStore(url=url, wait_replicas=1))
        assert client.dbsize() == 5 * 100 - 1 + 2 * 100 + 1
        monkeypatch.setattr(BulkConnection, "ask", ask_when_one_has_it)
        monkeypatch.setattr(bulk, "REPLICATION_SECONDS", 0.2)
        with pytest.raises(StoreError, match=f"1 of 2 replicas of Redis at 127.0.0.1:{port} "):
            seed(warehouse, OnlineStore(url=url, wait_replicas=2))


def test_the_rights_that_a_cluster_takes(warehouse: Warehouse, cluster: Cluster, store: ClusterStore) -> None:
    """The printed rules let the whole job run; without one of those for clusters, the run says which, or where."""
    rules = acl(store, [])[0].removeprefix("ACL SETUSER seeder ").replace("…", PASSWORD).split()

    def grant(lacking: str = "") -> None:
        for node in cluster.primaries:
            node.ask("ACL", "DELUSER", "seeder")
            node.ask("ACL", "SETUSER", "seeder", *(rule for rule in rules if rule != lacking))

    limited = ClusterStore(url=store.url.replace("//", "//seeder@"), password=PASSWORD)  # type: ignore[union-attr]
    grant()
    assert seed(warehouse, limited, job="seed_all", key_tags=True, on_conflict="overwrite").success
    for lacking in ("+asking", "+cluster|slots", "+command"):
        assert lacking in rules
        grant(lacking)
        with pytest.raises(StoreError, match=rf"{re.escape(lacking)}|feature_seed/store/README.md lists them"):
            seed(warehouse, limited, key_tags=True)


def test_a_single_node_is_no_cluster(warehouse: Warehouse, redis_port: int) -> None:
    with pytest.raises(StoreError, match="is not a node of a Redis Cluster: unset REDIS_CLUSTER"):
        seed(warehouse, ClusterStore(url=f"redis://127.0.0.1:{redis_port}", password=PASSWORD), key_tags=True)


def test_a_cluster_is_no_single_node(warehouse: Warehouse, cluster: Cluster, client: Any) -> None:
    """By preflight, and by whatever command comes first: what to set is named, and nothing was written."""
    for node in cluster.primaries:
        alone = OnlineStore(url=f"redis://127.0.0.1:{node.port}", password=PASSWORD)
        with pytest.raises(StoreError, match="REDIS_CLUSTER=1 and FEATURE_SEED_KEY_TAGS=1"):
            seed(warehouse, alone)
        with alone.bulk() as connection, pytest.raises(StoreError, match="REDIS_CLUSTER=1 and FEATURE_SEED_KEY_TAGS=1"):
            keys = [f"x{i}".encode() for i in range(30)]
            get = [b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key) for key in keys]
            connection.write(Block([0] * 30, keys, b"".join(get), [*map(len, get)], 1, False))
            connection.drain()
    assert client.dbsize() == 0


def test_declared_features(warehouse: Warehouse, store: ClusterStore, client: Any) -> None:
    """Keys of several columns, each in a slot of its own: all are there, twice the same, and equal to gold."""
    declared = declare(
        {
            "spent": {"key": "velocity:{card_id}:{customer_id}", "string": "count()"},
            "seen": {"key": "card:{card_id}:seen", "set": "transaction_id"},
        }
    )
    for _ in range(2):
        assert load_declared(warehouse, store, declared, key_tags=True) == 200
        assert client.get("velocity:{c7}:{of c7}") == b"4" and client.scard("card:{c7}:seen") == 4
        assert [differences(warehouse, client, one, key_tags=True) for one in declared] == [[], []]
