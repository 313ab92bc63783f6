"""The report of `warm_start`: a table of what the loads did, pictures of what the store holds, numbers over time."""

import re
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import dagster as dg
import redis

from feature_seed.features.feature import FEATURES, Feature
from feature_seed.graph.checks import CHECKS, WARM_START
from feature_seed.graph.dagster_private import check_evaluations
from feature_seed.graph.readiness import LOAD, Loads
from feature_seed.loading.comparison.scan import Found, Row, sample
from feature_seed.loading.layout import Layout
from feature_seed.store.commands import spared
from feature_seed.store.size import Size
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.profile import Profile

# Numbers of a shard; numbers of a load that add up over loads; numbers of a load of which the largest is shown.
_COUNTS = ("kept_newer", "events_forgotten", "unrecorded", "taken_over")
_SUMS = ("commands", "bytes", "seconds")
_MOST = ("gold_rows", "rejected_rows", "unread_rows", "probe_p99_ms")

# The rows of the table: the number and its words. The words are short, so that the table is whole in a window of 1,280
# pixels: Dagster gives it 280 of them. Bytes are shown in MB.
_ROWS = {
    "entities": "entities",
    "kept_newer": "with live events",
    "unrecorded": "unrecorded",
    "taken_over": "taken over",
    "events_forgotten": "events forgotten",
    "gold_rows": "gold rows",
    "rejected_rows": "rejected rows",
    "gold_age_hours": "gold's age, hours",
    "bytes": "MB sent",
    "seconds": "seconds",
    "entities_per_second": "entities per second",
    "features_memory_bytes": "MB of features",
    "store_memory_bytes": "MB of store",
}
_WITH_A_DECIMAL = ("bytes", "seconds", "hours")

_REPORT = {
    "figure": "feature_seed/graph/README.md says what each means, under its metadata.",
    "now": "In the loads by which the store became ready.",
    "change": "The difference to the run before.",
}

_FEATURES = {
    "feature": "The features of an entity are loaded together.",
    "entities": "How many have it.",
    "bytes": "In Redis per entity, of the feature's own keys.",
}


def report(
    context: dg.AssetExecutionContext, client: redis.Redis, warehouse: Warehouse, layout: Layout, loads: Loads
) -> dict[str, Any]:
    """Metadata: tables of the loads, pictures where matplotlib is installed (some 200 KB), and numbers to draw.

    Raises:
        WarehouseError: gold can no longer be read.
    """
    entities = {name: sum(one.entities for one in seeded.values()) for name, seeded in loads.items()}
    found = sample(warehouse, layout)
    sizes = {one.name: memory_per_entity(client, found[one.entity.name].rows, layout, one) for one in FEATURES}
    shards = [one.metadata for seeded in loads.values() for one in seeded.values()]
    examples = list(dict.fromkeys(key for shard in shards for key in shard["unrecorded_examples"]))
    now = {
        **figures(loads),
        "features_memory_bytes": round(sum((sizes[name] or 0) * entities[name] for name in sizes)),
        **{f"store_{name}": one for name, one in asdict(Size.of(client)).items() if one is not None},
        "gold_age_hours": round((time.time() - min(shard["watermark"] for shard in shards)) / 3600, 2),
    }
    return {
        "report": _table(_REPORT, _rows(now, _numbers_before(context.instance))),
        "features": _table(_FEATURES, ((name, f"{entities[name]:,}", _rounded(sizes.get(name))) for name in entities)),
        "checks": _checks(context.instance),
        **({"unrecorded_examples": examples} if examples else {}),
        "pictures": dg.MetadataValue.md(_pictures(found, warehouse.profile(), layout)),
        **now,
    }


def figures(loads: Loads) -> dict[str, float]:
    """Numbers of the latest loads, which Dagster also draws over time. A load of several shards counts once.

    An entity is loaded whole: its first feature has the same figures as its others.
    """
    firsts = {feature.entity.name: feature.name for feature in reversed(FEATURES)}
    shards = [(name, one) for name in firsts.values() for one in loads[name].values()]
    runs = {(name, one.run_id): one.metadata[LOAD] for name, one in shards}.values()
    sums = {name: sum(run[name] for run in runs) for name in _SUMS}
    rate = sum(run["entities"] for run in runs) / max(sums["seconds"], 0.001)  # seconds were kept to the millisecond
    return {
        "entities": sum(one.entities for _, one in shards),
        **{name: sum(one.metadata[name] for _, one in shards) for name in _COUNTS},
        **sums,
        "entities_per_second": round(rate, 1),
        **{name: max(run[name] for run in runs) for name in _MOST if any(name in run for run in runs)},
    }


def _table(columns: Mapping[str, str], rows: Iterable[Sequence[str]]) -> dg.TableMetadataValue:
    schema = dg.TableSchema([dg.TableColumn(name, "string", text) for name, text in columns.items()])
    return dg.TableMetadataValue([dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows], schema)


def _rows(now: Mapping[str, float], before: Mapping[str, float]) -> Iterable[tuple[str, str, str]]:
    """Each number, and its difference to the number of the run before."""
    for name, text in _ROWS.items():
        value, then = now.get(name), before.get(name)
        change = None if value is None or then is None else value - then
        yield text, _rounded(value, name), _rounded(change, name, "+" if change else "")


def _rounded(value: float | None, name: str = "", sign: str = "") -> str:
    unit = 1e6 if name.endswith("bytes") else 1
    return "" if value is None else format(value / unit, f"{sign},.{int(name.endswith(_WITH_A_DECIMAL))}f")


def _numbers_before(instance: dg.DagsterInstance) -> dict[str, float]:
    """The numbers that the run before has recorded."""
    event = instance.get_latest_materialization_event(WARM_START)
    metadata = event.asset_materialization.metadata if event and event.asset_materialization else {}
    return {name: one.value for name, one in metadata.items() if isinstance(one.value, int | float)}


def _checks(instance: dg.DagsterInstance) -> str:
    """How many checks have passed in their last run, and which have failed."""
    keys = [dg.AssetCheckKey(asset, name) for asset, names in CHECKS.items() if asset != WARM_START for name in names]
    latest = {key: evaluations[0] for key in keys if (evaluations := check_evaluations(instance, key, 1))}
    failed = [f"{key.name} of {key.asset_key.to_user_string()} failed" for key in latest if not latest[key].passed]
    missing = len(keys) - len(latest)
    said = [f"{len(latest) - len(failed)} of {len(keys)} passed", *failed]
    return ", ".join([*said, f"{missing} not run so far"] if missing else said)


def memory_per_entity(client: redis.Redis, rows: Sequence[Row], layout: Layout, feature: Feature) -> float | None:
    """Bytes that an entity's keys take in Redis, on average over a hundred of a sample of gold."""
    ids = [row["id"] for row in rows[:: max(len(rows) // 100, 1)]]
    if not ids:
        return None
    with client.pipeline(transaction=False) as pipeline:
        for key in feature.keys:
            for entity_id in ids:
                pipeline.memory_usage(key.of(entity_id, tags=layout.key_tags))
        sizes = spared(pipeline.execute, None)
    return None if sizes is None else sum(size or 0 for size in sizes) / len(ids)


def _pictures(found: Mapping[str, Found], profile: Profile, layout: Layout) -> str:
    """All pictures in one paragraph, so that they stand side by side if there is room."""
    if not find_spec("matplotlib"):
        return "Pictures need matplotlib: `pip install 'feature_seed[report]'`"
    from feature_seed.graph.report.pictures import pictures

    return "\n".join(
        f"![{_text(title)}](data:image/png;base64,{b64encode(png).decode()})"
        for title, png in pictures(found, profile, layout)
    )


def _text(value: str) -> str:
    """A name as it reads, whatever Markdown would make of it."""
    return re.sub(r"([^\w\s]|_)", r"\\\1", " ".join(value.split()))
