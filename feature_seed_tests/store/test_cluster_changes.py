"""Redis Cluster: whatever becomes of slots and nodes in mid-load, nothing is lost, or an error says so."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from threading import Event
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from dagster import DagsterInstance

from feature_seed.errors import ReadinessError, StoreUnavailableError
from feature_seed.features.entity import CARDS, OnConflict
from feature_seed.loading.comparison.digests import Digests, compare
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store import cluster as cluster_module
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.cluster_load import load, meanwhile
from feature_seed_tests.support.expected import Expected, expect
from feature_seed_tests.support.gold import transaction, write_parquet
from feature_seed_tests.support.patience import eventually
from feature_seed_tests.support.redis_cluster import Cluster, Node, ids_in, redis_cluster
from feature_seed_tests.support.run import seed
from feature_seed_tests.support.store import assert_holds

# Called before every block of a load, with how many blocks were sent.
Before = Callable[[int], object]


@pytest.fixture(scope="module")
def many(chdb: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, Expected]:
    """Cards enough for many blocks."""
    rows = [transaction(i, f"c{i}") for i in range(3_000)]
    path = write_parquet(chdb, tmp_path_factory.mktemp("many") / "gold.parquet", rows)
    return Warehouse(gold_parquet=str(path)), expect(rows)


@pytest.fixture
def few(make_parquet: MakeWarehouse) -> Warehouse:
    return make_parquet([transaction(i, f"c{i % 100}", seconds=i) for i in range(400)])


@contextmanager
def slots_moved_before_the_first_block(cluster: Cluster) -> Iterator[Before]:
    """Two empty slots: their old owner says MOVED."""
    source, target = cluster.primaries[1], cluster.primaries[2]
    slots = [slot for slot in (cluster.client().keyslot(f"{{c{i}}}") for i in range(100)) if slot in source.owned()][:2]

    def move(sent: int) -> None:
        for slot in slots if sent == 0 else ():
            cluster.migrate(slot, source, target)

    yield move


@contextmanager
def slots_move_all_the_time(cluster: Cluster) -> Iterator[Before]:
    """With their keys, one after the other."""
    source, target = cluster.primaries[0], cluster.primaries[2]
    moved: list[int] = []

    def move(ended: Event) -> None:
        for slot in sorted(source.owned()):
            if ended.is_set():
                return
            cluster.migrate(slot, source, target)
            moved.append(slot)

    with meanwhile(move):
        yield lambda sent: eventually(lambda: len(moved) >= 40)  # in which there are cards of those that come


@contextmanager
def a_primary_hands_over(cluster: Cluster) -> Iterator[Before]:
    """CLUSTER FAILOVER, as for maintenance: the replica knows no script and no client."""
    yield lambda sent: cluster.promote(cluster.replica) if sent == 25 else None


@contextmanager
def scripts_are_flushed(cluster: Cluster) -> Iterator[Before]:
    """SCRIPT FLUSH before every block: the node gets the script once more, and what it did not take."""
    yield lambda sent: cluster.primaries[0].client.script_flush()


@pytest.mark.parametrize(
    ("happen", "on_conflict"),
    [
        (slots_moved_before_the_first_block, "overwrite"),
        (slots_move_all_the_time, "keep_newer"),
        (a_primary_hands_over, "keep_newer"),
        (scripts_are_flushed, "keep_newer"),
    ],
)
def test_nothing_is_lost(
    many: tuple[Warehouse, Expected],
    cluster: Cluster,
    happen: Callable[[Cluster], AbstractContextManager[Before]],
    on_conflict: OnConflict,
) -> None:
    """Some entities are sent a second time. Afterwards all are right, each on the node that owns its slot."""
    warehouse, expected = many
    with happen(cluster) as before:
        assert load(cluster.store(), warehouse, on_conflict, before) > 0
    assert_holds(cluster.client(), expected, tags=True)
    cluster.assert_placed()


def test_a_comparison_looks_at_each_once(
    many: tuple[Warehouse, Expected], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: a loaded store. Slots move when the comparison has asked where they are, and it is told to ask elsewhere.
    After: it has looked at every card once, and none differs.
    """
    warehouse, _ = many
    load(cluster.store(), warehouse)
    layout, cut, cards = Layout(key_tags=True), Digests._cut, warehouse.profile().cards  # pyright: ignore[reportPrivateUsage]
    with slots_moved_before_the_first_block(cluster) as before:
        monkeypatch.setattr(Digests, "_cut", lambda self, columns: (before(0), cut(self, columns))[1])
        shards = tuple(shard_names(layout.shard_count))
        moved = cluster.primaries[1].info("errorstat_MOVED")
        found = compare(FeatureStream(warehouse, layout, CARDS, shards), cluster.store())
        assert cluster.primaries[1].info("errorstat_MOVED") != moved
    assert found.counts == {"known": cards, "rows": 3_000, "new": 0, "changed": 0}
    assert (found.entities.total(), found.different.total(), found.to_send) == (cards, 0, 0)


@pytest.mark.parametrize("on_conflict", ["keep_newer", "overwrite"])
def test_a_slot_that_is_half_moved(make_parquet: MakeWarehouse, cluster: Cluster, on_conflict: OnConflict) -> None:
    """Before: of one slot, a card is on the old node, one on the new, one on both, and three are nowhere yet.

    The load meets ASK and TRYAGAIN, and waits for the slot. Only then the rest of the slot moves. Every card is right.
    """
    source, target = cluster.primaries[1], cluster.primaries[2]
    slot = min(source.owned())
    cards = list(islice(ids_in(slot), 6))
    rows = [transaction(i, cards[i % 6], seconds=i) for i in range(24)]
    load(cluster.store(), make_parquet([row for row in rows[:12] if row.card_id in cards[:3]]), "overwrite")
    cluster.begin_migration(slot, source, target)
    cluster.move_keys(source, target, *(f"card:{{{cards[1]}}}:{kind}" for kind in ("history", "loc", "last_ts")))
    cluster.move_keys(source, target, *(f"card:{{{cards[2]}}}:{kind}" for kind in ("seq", "seed")))
    before = redirects(source)

    def finish(_: Event) -> None:
        eventually(lambda: all(now != was for now, was in zip(redirects(source), before, strict=True)))
        cluster.end_migration(slot, source, target)

    with meanwhile(finish):
        assert load(cluster.store(), make_parquet(rows), on_conflict) > 0
    assert_holds(cluster.client(), expect(rows), tags=True)
    assert slot in target.owned()


def redirects(node: Node) -> tuple[Any, Any]:
    """How often a node has answered that a key is elsewhere, and that keys are in two places."""
    return node.info("errorstat_ASK"), node.info("errorstat_TRYAGAIN")


def test_a_slot_whose_migration_was_left_open(
    make_parquet: MakeWarehouse, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: a slot is half open between two nodes, and stays so. No node takes an entity, which has several keys.

    After a while that is an error. It names the keys, the slot and what Redis says.
    """
    source, target = cluster.primaries[0], cluster.primaries[2]
    slot = min(source.owned())
    one = next(ids_in(slot))
    monkeypatch.setattr(cluster_module, "FAILOVER_SECONDS", 0.3)
    cluster.begin_migration(slot, source, target)
    for kind, row in (("cust", transaction(1, "elsewhere", customer_id=one)), ("card", transaction(1, one))):
        with pytest.raises(StoreUnavailableError, match=rf"{kind}:\{{{one}\}}:.* \(slot {slot}\) .*(ASK|TRYAGAIN)"):
            load(cluster.store(), make_parquet([row]))


@pytest.mark.slow
def test_a_primary_that_dies(many: tuple[Warehouse, Expected]) -> None:
    """Its replica may lack what the primary had acknowledged: an error says so. The next load makes all right."""
    warehouse, expected = many
    with redis_cluster(PASSWORD) as cluster:
        first = cluster.primaries[0]
        with pytest.raises(StoreUnavailableError, match=f"Node 127.0.0.1:{first.port} .* went away.*run again"):
            load(cluster.store(), warehouse, before=lambda sent: first.kill() if sent == 75 else None)
        with meanwhile(lambda _: cluster.promote(cluster.replica, "TAKEOVER")):
            load(cluster.store(), warehouse)
        assert_holds(cluster.client(), expected, tags=True)


@pytest.fixture
def replace(cluster: Cluster) -> Callable[[], None]:
    """Have the first primary replaced by a replica that lags: replication was cut before, though all nodes serve."""
    primary, replica = cluster.primaries[0], cluster.replica
    replica.client.config_set("masterauth", "wrong")
    primary.ask("CLIENT", "KILL", "TYPE", "replica")
    eventually(lambda: replica.info("master_link_status") == "down")

    def take_over() -> None:
        cluster.promote(replica, "TAKEOVER")
        eventually(lambda: primary.info("role") == "slave")

    return take_over


def test_a_replica_that_lags_takes_over_in_mid_load(
    few: Warehouse, cluster: Cluster, replace: Callable[[], None]
) -> None:
    """No connection is lost, and the load fails all the same: the replica lacks what was loaded."""
    with pytest.raises(StoreUnavailableError, match=f"127.0.0.1:{cluster.primaries[0].port} was replaced"):
        load(cluster.store(), few, before=lambda sent: replace() if sent == 1 else None)


def test_a_replica_that_lags_takes_over_after_a_load(
    few: Warehouse, cluster: Cluster, replace: Callable[[], None]
) -> None:
    """The replica lacks what was loaded: the store is not called ready again."""
    with DagsterInstance.ephemeral() as instance:
        seed(few, cluster.store(), key_tags=True, job="load_and_verify", instance=instance)
        replace()
        with pytest.raises(ReadinessError, match=r"replaced or restarted since it was seeded.*seed_all"):
            seed(few, cluster.store(), key_tags=True, job="warm_start", instance=instance)
