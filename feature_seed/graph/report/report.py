"""The report of `warm_start`: a table of what the loads did, pictures of what the store holds, numbers over time."""

import re
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import redis

from feature_seed.features.feature import FEATURES, Feature
from feature_seed.graph.checks import CHECKS, WARM_START, verdicts
from feature_seed.graph.readiness import Loads
from feature_seed.graph.report.figures import examples, figures_in_all
from feature_seed.graph.report.pictures import available, pictures
from feature_seed.loading.stream import Layout
from feature_seed.sql import over, sql
from feature_seed.store.commands import spared
from feature_seed.store.size import Size
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.gold import RELATIONS

Numbers = Mapping[str, float]

_MB = 1e6


@dataclass(frozen=True)
class Row:
    """A row of the table: what it says, the number that it shows, in which unit and with how many decimals."""

    text: str
    number: str
    unit: float = 1
    decimals: int = 0

    def record(self, now: Numbers, before: Numbers) -> dg.TableRecord:
        """The number, and how it differs from that of the run before."""
        value, then = now.get(self.number), before.get(self.number)
        change = "" if value is None or then is None else self._text(value - then, "+" if value != then else "")
        return dg.TableRecord(
            {"figure": self.text, "now": "" if value is None else self._text(value), "change": change}
        )

    def _text(self, value: float, sign: str = "") -> str:
        return format(value / self.unit, f"{sign},.{self.decimals}f")


# Short, so that the table is whole in a window of 1,280 pixels, of which Dagster gives it 280.
_ROWS = (
    Row("entities", "entities"),
    Row("with live events", "kept_newer"),
    Row("unrecorded", "unrecorded"),
    Row("taken over", "taken_over"),
    Row("events forgotten", "events_forgotten"),
    Row("gold rows", "gold_rows"),
    Row("rejected rows", "rejected_rows"),
    Row("gold's age, hours", "gold_age_hours", decimals=1),
    Row("MB sent", "bytes", _MB, 1),
    Row("seconds", "seconds", decimals=1),
    Row("entities per second", "entities_per_second"),
    Row("MB of features", "features_memory_bytes", _MB, 1),
    Row("MB of store", "store_memory_bytes", _MB, 1),
)

_REPORT = dg.TableSchema(
    [
        dg.TableColumn("figure", "string", "feature_seed/graph/README.md says what each means, under its metadata."),
        dg.TableColumn("now", "string", "In the loads by which the store became ready."),
        dg.TableColumn("change", "string", "The difference to the run before."),
    ]
)

_FEATURES = dg.TableSchema(
    [
        dg.TableColumn("feature", "string", "The features of an entity are loaded together."),
        dg.TableColumn("entities", "string", "How many have it."),
        dg.TableColumn("bytes", "string", "In Redis per entity, of the feature's own keys."),
    ]
)


def report(
    context: dg.AssetExecutionContext, client: redis.Redis, warehouse: Warehouse, layout: Layout, loads: Loads
) -> dict[str, Any]:
    """Metadata: tables of the loads, pictures where matplotlib is installed (some 120 KB), and numbers to draw.

    Raises:
        WarehouseError: gold can no longer be read.
    """
    entities = {name: sum(one.entities for one in seeded.values()) for name, seeded in loads.items()}
    sizes = {one.name: memory_per_entity(client, warehouse, layout, one) for one in FEATURES}
    now = {
        **figures_in_all(loads),
        "features_memory_bytes": round(sum((sizes[name] or 0) * entities[name] for name in sizes)),
        **_store(client),
        "gold_age_hours": _age_hours(loads),
    }
    before = _numbers_before(context.instance)
    features = [_feature(name, count, sizes.get(name)) for name, count in entities.items()]
    return {
        "report": dg.TableMetadataValue([row.record(now, before) for row in _ROWS], _REPORT),
        "features": dg.TableMetadataValue(features, _FEATURES),
        "checks": _checks(context.instance),
        **({"unrecorded_examples": some} if (some := examples(loads)) else {}),
        "pictures": dg.MetadataValue.md(_pictures(warehouse, layout)),
        **now,
    }


def _feature(name: str, entities: int, size: float | None) -> dg.TableRecord:
    return dg.TableRecord(
        {"feature": name, "entities": f"{entities:,}", "bytes": "–" if size is None else f"{size:,.0f}"}
    )


def _store(client: redis.Redis) -> dict[str, int]:
    size = Size.of(client)
    sizes = {"store_memory_bytes": size.memory_bytes, "store_keys": size.keys}
    return {name: value for name, value in sizes.items() if value is not None}


def _age_hours(loads: Loads) -> float:
    """From the watermark, which is the least of the loads'."""
    watermark = min(one.metadata["watermark"] for seeded in loads.values() for one in seeded.values())
    return round((time.time() - watermark) / 3600, 2)


def _numbers_before(instance: dg.DagsterInstance) -> dict[str, float]:
    """Those that the run before has recorded."""
    event = instance.get_latest_materialization_event(WARM_START)
    metadata = event.asset_materialization.metadata if event and event.asset_materialization else {}
    return {name: one.value for name, one in metadata.items() if isinstance(one.value, int | float)}


def _checks(instance: dg.DagsterInstance) -> str:
    """How many checks have passed when they were run last, and which have failed."""
    keys = [key for key in CHECKS if key != WARM_START]
    passed = {f"{name} of {key.to_user_string()}": one for key in keys for name, one in verdicts(instance, key).items()}
    text = f"{sum(one is True for one in passed.values())} of {len(passed)} passed"
    failed = "".join(f", {name} failed" for name, one in passed.items() if one is False)
    missing = sum(one is None for one in passed.values())
    return f"{text}{failed}{f', {missing} not run so far' if missing else ''}"


def memory_per_entity(client: redis.Redis, warehouse: Warehouse, layout: Layout, feature: Feature) -> float | None:
    """Bytes that an entity's keys take in Redis, on average over a hundred entities of gold."""
    parameters = {
        **warehouse.table,
        "entity": feature.entity.id,
        "key_tags": layout.key_tags,
        "shard_count": layout.shard_count,
        "shards": list(range(layout.shard_count)),
        **warehouse.profile().readable,
    }
    query = warehouse.mapping.over(over(RELATIONS, sql("graph/report/entities")))
    with warehouse.client() as gold, warehouse.errors():
        ids = gold.query(query, parameters=parameters).result_columns[0]
    if not ids:
        return None
    with client.pipeline(transaction=False) as pipeline:
        for key in feature.keys:
            for entity_id in ids:
                pipeline.memory_usage(key.of(entity_id, tags=layout.key_tags))
        sizes = spared(pipeline.execute, None)
    return None if sizes is None else sum(size or 0 for size in sizes) / len(ids)


def _pictures(warehouse: Warehouse, layout: Layout) -> str:
    """All pictures in one paragraph, so that they stand side by side where there is room."""
    if not available():
        return "Pictures need matplotlib: `pip install 'feature_seed[report]'`"
    images = (
        f"![{_text(title)}](data:image/png;base64,{b64encode(png).decode()})"
        for title, png in pictures(warehouse, layout)
    )
    return "\n".join(images)


def _text(value: str) -> str:
    """A name as it reads, whatever Markdown would make of it."""
    return re.sub(r"([^\w\s]|_)", r"\\\1", " ".join(value.split()))
