"""The report of `warm_start`: a table of what the loads did, pictures of what the store holds, numbers over time."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import dagster as dg
import redis

from feature_seed.features.feature import FEATURES, Feature
from feature_seed.graph.checks import CHECKS, WARM_START, verdicts
from feature_seed.graph.readiness import Loads
from feature_seed.graph.report.figures import examples, figures, figures_in_all
from feature_seed.graph.report.pictures import available, pictures
from feature_seed.loading.stream import Layout
from feature_seed.sql import over, sql
from feature_seed.store.size import Size
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.gold import RELATIONS

Numbers = Mapping[str, float]

_MB = 1e6


@dataclass(frozen=True)
class Row:
    """A row of the table: what it says, the number that it shows, in which unit and with how many decimals.

    `in_all` is whether it is of all features alone.
    """

    text: str
    number: str
    unit: float = 1
    decimals: int = 0
    in_all: bool = False

    def cells(self, features: Sequence[Numbers], together: Numbers, before: Numbers) -> list[str]:
        """Of each feature, of all of them, and how that differs from the run before."""
        each = ["" if self.in_all else self._cell(one) for one in features]
        now, then = together.get(self.number), before.get(self.number)
        change = "" if now is None or then is None else self._text(now - then, sign="+")
        return [self.text, *each, self._cell(together), change]

    def _cell(self, numbers: Numbers) -> str:
        value = numbers.get(self.number)
        return "–" if value is None else self._text(value)

    def _text(self, value: float, sign: str = "") -> str:
        return format(value / self.unit, f"{sign},.{self.decimals}f")


_ROWS = (
    Row("entities", "entities"),
    Row("with live events after the watermark", "kept_newer"),
    Row("with events that no scorer recorded", "unrecorded"),
    Row("taken over from something else", "taken_over"),
    Row("recorded events that gold has passed", "events_forgotten"),
    Row("rows of gold", "gold_rows", in_all=True),
    Row("rejected rows of gold", "rejected_rows", in_all=True),
    Row("hours from gold's newest row to this run", "gold_age_hours", decimals=1, in_all=True),
    Row("MB sent to Redis", "bytes", _MB, 1),
    Row("seconds", "seconds", decimals=1),
    Row("entities per second", "entities_per_second"),
    Row("bytes in Redis per entity", "memory_per_entity"),
    Row("MB in Redis", "features_memory_bytes", _MB, 1),
    Row("MB in Redis, with all else that is there", "store_memory_bytes", _MB, 1, in_all=True),
)

_SCHEMA = dg.TableSchema(
    [
        dg.TableColumn("figure", "string", "What the row says."),
        *(
            dg.TableColumn(
                one.name, "string", f"Of {one.name}. A {one.entity.name[:-1]} is loaded with all its features at once."
            )
            for one in FEATURES
        ),
        dg.TableColumn("in all", "string", "Each entity once."),
        dg.TableColumn("change", "string", "How that differs from the run before."),
    ]
)


def report(
    context: dg.AssetExecutionContext,
    client: redis.Redis,
    warehouse: Warehouse,
    layout: Layout,
    loads: Loads,
) -> dict[str, Any]:
    """Metadata: a table of the loads, pictures where matplotlib is installed (some 120 KB), and numbers to draw.

    Raises:
        WarehouseError: gold can no longer be read.
    """
    features = [{**figures(loads[one.name]), **_memory(client, warehouse, layout, one, loads)} for one in FEATURES]
    size = Size.of(client)
    together = {
        **figures_in_all(loads),
        "features_memory_bytes": sum(one.get("features_memory_bytes", 0) for one in features),
        "store_memory_bytes": size.memory_bytes,
        "store_keys": size.keys,
        "gold_age_hours": round((datetime.now(timezone.utc) - _watermark(loads)) / timedelta(hours=1), 2),
    }
    before = _numbers_before(context.instance)
    rows = [*(row.cells(features, together, before) for row in _ROWS), _checks(context.instance)]
    table = [dg.TableRecord(dict(zip((one.name for one in _SCHEMA.columns), row, strict=True))) for row in rows]
    return {
        "report": dg.TableMetadataValue(table, _SCHEMA),
        "pictures": dg.MetadataValue.md(_pictures(warehouse, layout)),
        **({"unrecorded_examples": some} if (some := examples(loads)) else {}),
        **together,
    }


def _memory(
    client: redis.Redis, warehouse: Warehouse, layout: Layout, feature: Feature, loads: Loads
) -> dict[str, float]:
    """Estimated by some entities; unknown where no id is text."""
    each = memory_per_entity(client, warehouse, layout, feature)
    if each is None:
        return {}
    entities = sum(one.entities for one in loads[feature.name].values())
    return {"memory_per_entity": each, "features_memory_bytes": round(each * entities)}


def _watermark(loads: Loads) -> datetime:
    return datetime.fromtimestamp(
        min(one.metadata["watermark"] for seeded in loads.values() for one in seeded.values()), timezone.utc
    )


def _numbers_before(instance: dg.DagsterInstance) -> dict[str, float]:
    """Those that the run before has recorded."""
    event = instance.get_latest_materialization_event(WARM_START)
    metadata = event.asset_materialization.metadata if event and event.asset_materialization else {}
    return {name: one.value for name, one in metadata.items() if isinstance(one.value, int | float)}


def _checks(instance: dg.DagsterInstance) -> list[str]:
    """The row that says how the checks came out, those of gold among those in all."""
    keys = [key for key in CHECKS if key != WARM_START]
    passed = {key: verdicts(instance, key) for key in keys}
    each = [_outcome(passed[dg.AssetKey(feature.name)]) for feature in FEATURES]
    every = {f"{name} of {key.to_user_string()}": one for key in keys for name, one in passed[key].items()}
    return ["checks", *each, _outcome(every), ""]


def _outcome(passed: Mapping[str, bool | None]) -> str:
    """How many checks have passed, and which have not."""
    count = sum(one is True for one in passed.values())
    failed = "".join(f", {name} failed" for name, one in passed.items() if one is False)
    missing = "".join(f", {name} was not run" for name, one in passed.items() if one is None)
    return f"{count} of {len(passed)} passed{failed}{missing}"


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
    query = over(RELATIONS, sql("graph/report/entities"))
    with warehouse.client() as gold, warehouse.errors():
        ids = gold.query(query, parameters=parameters).result_columns[0]
    if not ids:
        return None
    with client.pipeline(transaction=False) as pipeline:
        for key in feature.keys:
            for entity_id in ids:
                pipeline.memory_usage(key.of(entity_id, tags=layout.key_tags))
        return sum(size or 0 for size in pipeline.execute()) / len(ids)


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
