"""Readiness: the ready key, and everything that must hold before it says `ready`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import dagster as dg
import redis

from feature_seed.contract import READY, Ready, read_ready
from feature_seed.errors import ReadinessError
from feature_seed.features.feature import FEATURES, HISTORY, STATS
from feature_seed.graph.dagster_private import check_evaluations
from feature_seed.store.cluster import primaries
from feature_seed.store.replication import ReplicationState

# The checks that verify a load, and the name under which their evaluations keep the loads that they looked at.
VERIFYING = ("entity_count", "parity")
LOADS = "loads"

# The name of a load's figures in a materialisation. A materialisation without them was reported by hand.
LOAD = "load"

# The field of the ready key that goes when a store is emptied, so that no other store is taken for it.
_STORE_ID = READY.fields[-1]


@dataclass(frozen=True)
class ShardLoad:
    """The latest load of one shard of a feature: its run, its number of entities and the run's metadata."""

    run_id: str
    entities: int
    metadata: dict[str, Any]


# By feature and shard.
Loads = Mapping[str, Mapping[str, ShardLoad]]


@dataclass(frozen=True)
class Mark:
    """What a load finds in a store: what the store said of itself `before`, and the store's id.

    `goes_back` says whether the store's watermark was later than the load's.
    """

    before: Ready | None
    store_id: str
    goes_back: bool


def mark_loading(client: redis.Redis, gold_version: str, watermark: datetime) -> Mark:
    """Say which gold is being loaded, and `seeding` on the first write of the first load. A ready store stays ready.

    A watermark that goes back does so before the watermarks of entities: later events are about to leave the store.
    """
    before: Ready | None = read_ready(client)
    client.hsetnx(READY.pattern, "state", "seeding")
    client.hsetnx(READY.pattern, _STORE_ID, uuid4().hex)
    client.hset(READY.pattern, "loading", loading(gold_version, watermark))
    goes_back = bool(before and before.watermark and datetime.fromisoformat(before.watermark) > watermark)
    if goes_back:
        client.hset(READY.pattern, "watermark", _iso(watermark))
    return Mark(before, _store_id(client), goes_back)


def loading(gold_version: str, watermark: datetime) -> str:
    """What the field of that name says of a load."""
    return f"{gold_version} {_iso(watermark)}"


def _store_id(client: redis.Redis) -> str:
    fields: Any = client.hgetall(READY.pattern)
    return fields.get(_STORE_ID.encode(), b"").decode()


def require_kept(client: redis.Redis, address: str, loads: Loads) -> None:
    """Require that the store still has all that it acknowledged to these loads.

    Raises:
        ReadinessError: it is another store, was emptied or restarted, or a failover may have lost some of it.
    """
    seeded = [one for shards in loads.values() for one in shards.values()]
    if {one.metadata.get("store_id") for one in seeded} != {_store_id(client)}:
        raise ReadinessError(f"Redis at {address} was emptied since it was seeded, or is another one: run seed_all")
    nodes = primaries(client)
    servers = {server for one in seeded if (server := one.metadata.get("server"))}
    if servers and servers != {node.info("server").get("run_id") for node in nodes}:  # type: ignore[union-attr]
        raise ReadinessError(
            f"Redis at {address} was restarted since it was seeded, and may have lost what it had acknowledged: "
            "run seed_all"
        )
    _require_replicated(nodes, address, seeded)


def _require_replicated(nodes: Sequence[redis.Redis], address: str, seeded: Sequence[ShardLoad]) -> None:
    """The replication of the primaries tells whether one was replaced by a server that lacks something."""
    ends = {end for one in seeded for end in one.metadata.get("replication", {}).items()}
    now = [ReplicationState.of(node.info("replication")) for node in nodes] if ends else []  # type: ignore[arg-type]
    if any(not any(position.includes(*end) for position in now) for end in ends):
        raise ReadinessError(
            f"A primary of Redis at {address} was replaced or restarted since it was seeded, and may have lost what it "
            "had acknowledged: run seed_all. With FEATURE_SEED_WAIT_REPLICAS a replica that takes over has it all"
        )


def recorded() -> dg.DagsterInstance:
    """The instance of DAGSTER_HOME, which knows the loads. Without DAGSTER_HOME, an instance that knows none."""
    return dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else dg.DagsterInstance.ephemeral()


def all_loads(instance: dg.DagsterInstance, shards: Sequence[str]) -> Loads:
    """The latest load of every shard of every feature."""
    return {feature.name: latest_loads(instance, feature.name, shards) for feature in FEATURES}


def latest_loads(instance: dg.DagsterInstance, feature: str, shards: Sequence[str]) -> dict[str, ShardLoad]:
    """The latest load of every shard that was ever seeded, newest materialisations first."""
    found: dict[str, ShardLoad] = {}
    cursor: str | None = None
    more = True
    while more and len(found) < len(shards):
        page = instance.fetch_materializations(dg.AssetKey(feature), limit=len(shards), cursor=cursor)
        for record in page.records:
            materialised, shard = record.asset_materialization, record.partition_key
            if not materialised or shard is None or shard not in shards or shard in found:
                continue
            metadata: dict[str, Any] = {name: value.value for name, value in materialised.metadata.items()}
            if LOAD in metadata:
                found[shard] = ShardLoad(record.run_id, metadata["entities_by_shard"][shard], metadata)
        cursor, more = page.cursor, page.has_more
    return found


def require_verified(instance: dg.DagsterInstance, loads: Loads) -> None:
    """Require that the checks which compare a load with gold looked at every shard's latest load, and passed.

    Within a run these checks block `warm_start`. It requires them across runs too, such as those of a backfill.

    Raises:
        ReadinessError: one of them failed, or has not been run since.
    """
    for feature, seeded in loads.items():
        for check in VERIFYING:
            outcomes = _outcomes(instance, dg.AssetCheckKey(dg.AssetKey(feature), check), len(seeded))
            for shard, one in sorted(seeded.items()):
                outcome = outcomes.get((shard, one.run_id))
                if not outcome or not outcome.passed:
                    said = f"failed: {outcome.description}" if outcome else "has not been run since"
                    raise ReadinessError(
                        f"{feature} was seeded in shard {shard} by run {one.run_id}, and its check {check} {said}. "
                        "Run seed_all, or the check once its cause is gone"
                    )


def _outcomes(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, shards: int
) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    """The latest outcome of a check for each load that it looked at, by shard and run.

    A run seeds one shard or more, and one evaluation follows it. Twice as many as shards leave room for repeats.
    """
    outcomes: dict[tuple[str, str], dg.AssetCheckEvaluation] = {}
    for evaluation in reversed(check_evaluations(instance, check, 2 * shards)):
        looked_at: Any = evaluation.metadata[LOADS].value if LOADS in evaluation.metadata else {}
        outcomes |= dict.fromkeys(looked_at.items(), evaluation)
    return outcomes


def ready_when_whole(loads: Loads, shards: Sequence[str], run_id: str) -> Ready:
    """What the ready key says once everything is seeded. Its watermark is the earliest of the loads' watermarks.

    Raises:
        ReadinessError: a shard is missing, or shards come from different versions of gold.
    """
    for feature, seeded in loads.items():
        if missing := [shard for shard in shards if shard not in seeded]:
            raise ReadinessError(
                f"{feature} has not been seeded in shards {', '.join(missing)}: materialise them first"
            )
    done = [one.metadata for seeded in loads.values() for one in seeded.values()]
    version, *others = sorted({one["gold_version"] for one in done})
    if others:
        versions = ", ".join([version, *others])
        raise ReadinessError(f"Shards were seeded from different versions of gold, {versions}: run seed_all")
    entities = {feature: sum(one.entities for one in seeded.values()) for feature, seeded in loads.items()}
    return Ready(
        state="ready",
        gold_version=version,
        watermark=_iso(datetime.fromtimestamp(min(one["watermark"] for one in done), timezone.utc)),
        rows=max(one[LOAD]["gold_rows"] - one[LOAD]["rejected_rows"] for one in done),  # of gold, in all shards
        cards=entities[HISTORY.name],
        customers=entities[STATS.name],
        finished_at=_iso(datetime.now(timezone.utc)),
        run_id=run_id,
    )


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")
