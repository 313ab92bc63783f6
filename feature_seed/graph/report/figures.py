"""The figures of the report: numbers of the latest loads, which Dagster also draws over time."""

from collections.abc import Mapping, Sequence
from typing import Any

from feature_seed.features.feature import FEATURES
from feature_seed.graph.readiness import LOAD, Loads, ShardLoad

# Of a shard's metadata, and of the figures of its load.
COUNTS = ("kept_newer", "events_forgotten", "unrecorded", "taken_over")
_SUMS = ("commands", "bytes", "seconds")
_MOST = ("gold_rows", "rejected_rows", "unread_rows", "probe_p99_ms")


def figures_in_all(loads: Loads) -> dict[str, float]:
    """Of all entities: each is loaded whole, so that the figures of its first feature are those of its others."""
    firsts = {feature.entity.name: feature.name for feature in reversed(FEATURES)}
    return figures(*(loads[name] for name in firsts.values()))


def figures(*loads: Mapping[str, ShardLoad]) -> dict[str, float]:
    """What the latest loads of these features did. A load of several shards counts once."""
    shards = [one for seeded in loads for one in seeded.values()]
    runs = [run for seeded in loads for run in {one.run_id: one.metadata[LOAD] for one in seeded.values()}.values()]
    sums = {name: sum(run[name] for run in runs) for name in _SUMS}
    rate = sum(run["entities"] for run in runs) / max(sums["seconds"], 0.001)  # seconds were kept to the millisecond
    return {
        "entities": sum(one.entities for one in shards),
        **{name: sum(one.metadata[name] for one in shards) for name in COUNTS},
        **sums,
        "entities_per_second": round(rate, 1),
        **{name: max(run[name] for run in runs) for name in _MOST if any(name in run for run in runs)},
    }


def examples(loads: Loads) -> Sequence[str]:
    """Keys of entities with events that no scorer recorded."""
    shards: list[dict[str, Any]] = [one.metadata for seeded in loads.values() for one in seeded.values()]
    return list(dict.fromkeys(key for shard in shards for key in shard["unrecorded_examples"]))
