"""The report of `warm_start`: what the load of every feature did, and pictures of what the store holds."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import dagster as dg
import redis

from feature_seed.features.feature import FEATURES, Feature
from feature_seed.graph.readiness import ShardLoad
from feature_seed.graph.report.pictures import available, pictures
from feature_seed.loading.stream import Layout
from feature_seed.sql import over, sql
from feature_seed.store.commands import spared
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.gold import RELATIONS

_NOTE = """A card is loaded whole: its figures are those of both of its features together.

*Live* counts entities with live events after the watermark. *Forgotten* counts recorded events that gold has passed.
*Unrecorded* counts entities with events that no scorer recorded. *Taken over* counts entities that had no seed."""


@dataclass(frozen=True)
class Load:
    """What loading one feature did, in the runs that loaded its shards last.

    Attributes:
        feature: its name.
        entities: written or kept.
        live: entities with live events after the watermark.
        forgotten: recorded events that gold has passed.
        unrecorded: entities with events that no scorer recorded, and some of their keys.
        taken_over: entities that something else had filled.
        rejected: gold rows that cannot be used.
        bytes: of commands sent.
        seconds: from the first byte to the last acknowledgement.
        memory_per_entity: bytes in Redis, None where no id is text or Redis does not say.
    """

    feature: str
    entities: int
    live: int
    forgotten: int
    unrecorded: int
    examples: Sequence[str]
    taken_over: int
    rejected: int
    bytes: int
    seconds: float
    memory_per_entity: float | None

    @classmethod
    def of(cls, feature: str, seeded: Mapping[str, ShardLoad], memory_per_entity: float | None) -> "Load":
        """The metadata of a shard is that of the whole run that loaded it, so each run counts once."""
        runs = {one.run_id: one.metadata for one in seeded.values()}.values()
        return cls(
            feature,
            entities=sum(one.entities for one in seeded.values()),
            live=sum(run["kept_newer"] for run in runs),
            forgotten=sum(run["events_forgotten"] for run in runs),
            unrecorded=sum(run["unrecorded"] for run in runs),
            examples=[key for run in runs for key in run["unrecorded_examples"]],
            taken_over=sum(run["taken_over"] for run in runs),
            rejected=max(run["rejected_rows"] for run in runs),
            bytes=sum(run["bytes"] for run in runs),
            seconds=sum(run["seconds"] for run in runs),
            memory_per_entity=memory_per_entity,
        )


def report(
    client: redis.Redis, warehouse: Warehouse, layout: Layout, loads: Mapping[str, Mapping[str, ShardLoad]]
) -> dg.MarkdownMetadataValue:
    """Markdown with a table of the loads by feature and, where matplotlib is installed, four pictures: some 120 KB.

    Raises:
        WarehouseError: gold can no longer be read.
    """
    features = {feature.name: feature for feature in FEATURES}
    done = [
        Load.of(name, seeded, memory_per_entity(client, warehouse, layout, features[name]))
        for name, seeded in loads.items()
    ]
    return dg.MetadataValue.md(
        "\n\n".join(
            [_source(warehouse.gold_table, loads), _table(done), _NOTE, *_unrecorded(done), _images(warehouse, layout)]
        )
    )


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
        sizes = spared(pipeline.execute, None)
    return None if sizes is None else sum(size or 0 for size in sizes) / len(ids)


def _source(gold_table: str, loads: Mapping[str, Mapping[str, ShardLoad]]) -> str:
    """What was loaded. All of it is from one version of gold, and gold may be newer by now."""
    gold = min((one.metadata for seeded in loads.values() for one in seeded.values()), key=lambda one: one["watermark"])
    watermark = datetime.fromtimestamp(gold["watermark"], timezone.utc)
    unread = f" {gold['unread_rows']:,} rows after it were not read." if gold["unread_rows"] else ""
    return (
        f"From {gold['gold_rows']:,} rows of {_text(gold_table)}, {gold['rejected_rows']:,} of them rejected. "
        f"The watermark is {watermark:%Y-%m-%d %H:%M:%S} UTC.{unread}"
    )


def _unrecorded(loads: Sequence[Load]) -> list[str]:
    keys = dict.fromkeys(key for load in loads for key in load.examples)
    return [f"Unrecorded events, for example: {', '.join(map(_text, keys))}"] if keys else []


def _table(loads: Sequence[Load]) -> str:
    heads = (
        "feature",
        "entities",
        "live",
        "forgotten",
        "unrecorded",
        "taken over",
        "rejected rows",
        "MB sent",
        "seconds",
        "entities per second",
        "bytes in Redis per entity",
    )
    rows = [heads, ("---", *["---:"] * (len(heads) - 1)), *(_cells(load) for load in loads)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(load: Load) -> tuple[str, ...]:
    return (
        _text(load.feature),
        *(f"{count:,}" for count in (load.entities, load.live, load.forgotten, load.unrecorded, load.taken_over)),
        f"{load.rejected:,}",
        *(f"{amount:,.1f}" for amount in (load.bytes / 1e6, load.seconds)),
        f"{load.entities / max(load.seconds, 0.001):,.0f}",  # seconds were recorded to the millisecond
        "–" if load.memory_per_entity is None else f"{load.memory_per_entity:,.0f}",
    )


def _images(warehouse: Warehouse, layout: Layout) -> str:
    """All pictures in one paragraph, so that they stand side by side where there is room."""
    if not available():
        return "Pictures need matplotlib: `pip install 'feature_seed[report]'`"
    return "\n".join(
        f"![{_text(title)}](data:image/png;base64,{b64encode(png).decode()})"
        for title, png in pictures(warehouse, layout)
    )


def _text(value: str) -> str:
    """A name as it reads, whatever Markdown would make of it."""
    return re.sub(r"([^\w\s]|_)", r"\\\1", " ".join(value.split()))
