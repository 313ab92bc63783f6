"""Whether the store may be trusted: the ready key, and what has to be seeded before it says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import redis

from feature_seed.contract import READY, Ready, read_ready
from feature_seed.errors import ReadinessError
from feature_seed.feature import FEATURES, STATS
from feature_seed.replication import Position
from feature_seed.warehouse import Warehouse


@dataclass(frozen=True)
class Seeded:
    """The latest load of one shard of a feature: its run, its number of entities and the run's metadata."""

    run_id: str
    entities: int
    metadata: dict[str, Any]


def mark_seeding(client: redis.Redis) -> Ready | None:
    """Say `seeding` on the first write of the first load; a store that is ready stays so while it is seeded again.

    What the store said before is returned.
    """
    before = read_ready(client)
    client.hsetnx(READY.pattern, "state", "seeding")
    return before


def require_marked(client: redis.Redis, address: str) -> None:
    """What Dagster remembers was loaded into a store that bears our mark: another one, or an emptied one, does not.

    Raises:
        ReadinessError: the store has no ready key.
    """
    if read_ready(client) is None:
        raise ReadinessError(f"Redis at {address} was emptied since it was seeded, or is another one: run seed_all")


def require_kept(nodes: Sequence[redis.Redis], loads: Mapping[str, Mapping[str, Seeded]]) -> None:
    """That the primaries of a cluster still have all that they acknowledged to these loads.

    Raises:
        ReadinessError: a failover, or a restart, may have lost some of it.
    """
    ends = [one.metadata.get("replication", {}) for seeded in loads.values() for one in seeded.values()]
    now = [Position.of(node.info("replication")) for node in nodes] if any(ends) else []  # type: ignore[arg-type]
    for history, offset in {end for load in ends for end in load.items()}:
        if not any(position.includes(history, offset) for position in now):
            raise ReadinessError(
                "A node of the Redis Cluster was replaced or restarted since it was seeded, and may have lost what it "
                "had acknowledged: run seed_all. With FEATURE_SEED_WAIT_REPLICAS a replica that takes over has it all"
            )


def latest(instance: dg.DagsterInstance, feature: str, shards: Sequence[str]) -> dict[str, Seeded]:
    """The latest load of every shard that was ever seeded, newest materialisations first."""
    found: dict[str, Seeded] = {}
    cursor: str | None = None
    more = True
    while more and len(found) < len(shards):
        page = instance.fetch_materializations(dg.AssetKey(feature), limit=len(shards), cursor=cursor)
        for record in page.records:
            materialised, shard = record.asset_materialization, record.partition_key
            if not materialised or shard is None or shard not in shards or shard in found:
                continue
            metadata: dict[str, Any] = {name: value.value for name, value in materialised.metadata.items()}
            if "entities_by_shard" in metadata:  # otherwise somebody reported it who loaded nothing
                found[shard] = Seeded(record.run_id, metadata["entities_by_shard"][shard], metadata)
        cursor, more = page.cursor, page.has_more
    return found


def require_whole(loads: dict[str, dict[str, Seeded]], shards: Sequence[str]) -> str:
    """The gold version that every shard of every feature was seeded from.

    Raises:
        ReadinessError: a shard is missing, or shards come from different versions of gold.
    """
    for feature, seeded in loads.items():
        if missing := [shard for shard in shards if shard not in seeded]:
            raise ReadinessError(
                f"{feature} has not been seeded in shards {', '.join(missing)}: materialise them first"
            )
    versions = {one.metadata["gold_version"] for seeded in loads.values() for one in seeded.values()}
    if len(versions) > 1:
        raise ReadinessError(
            f"Shards were seeded from different versions of gold, {', '.join(sorted(versions))}: run seed_all"
        )
    return versions.pop()


def ready_when_whole(
    loads: dict[str, dict[str, Seeded]], shards: Sequence[str], warehouse: Warehouse, run_id: str
) -> Ready:
    """What the ready key says once everything is seeded and verified."""
    version = require_whole(loads, shards)
    entities = {feature: sum(one.entities for one in seeded.values()) for feature, seeded in loads.items()}
    return Ready(
        state="ready",
        gold_version=version,
        watermark=_iso(warehouse.profile().watermark),
        cards=entities[FEATURES[0].name],
        customers=entities[STATS.name],
        finished_at=_iso(datetime.now(timezone.utc)),
        run_id=run_id,
    )


def _iso(time: datetime) -> str:
    return time.astimezone(timezone.utc).isoformat(timespec="milliseconds")
