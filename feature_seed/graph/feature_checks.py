"""The checks of the features: they compare the store with gold before the store is called ready."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import dagster as dg

from feature_seed.errors import printable
from feature_seed.features.entity import ENTITIES
from feature_seed.features.feature import FEATURES, Feature
from feature_seed.graph.checks import asked, blocking, check_result, check_specs, shards_of
from feature_seed.graph.readiness import LOADS, ShardLoad, latest_loads
from feature_seed.graph.retries import retried
from feature_seed.loading.changes import Changes
from feature_seed.loading.comparison.comparison import Comparison, Verdict, sample_share
from feature_seed.loading.comparison.digests import compare
from feature_seed.loading.stream import FeatureStream, Layout, shard_names
from feature_seed.store.commands import spared
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.limits import GoldLimits

# Entities of keys in the store that are looked up in gold.
_SCANNED_ENTITIES = 1000

_EXAMPLES = 10


def checked(
    feature: Feature,
    seeded: Mapping[str, ShardLoad],
    warehouse: Warehouse,
    layout: Layout,
    store: OnlineStore,
    shards: Sequence[str],
    run_id: str,
    size: int | None,
    comparison_of: Callable[..., Comparison] = Comparison,
) -> Iterator[dg.AssetCheckResult]:
    """The outcome of each check of a feature, for its loads of these shards."""
    with store.client() as client, warehouse.client() as gold, warehouse.errors():
        untils = _untils(seeded, layout, warehouse)
        table = {**warehouse.table, "untils": untils}
        comparison = comparison_of(feature, gold, client, table, layout, shards, frozenset(untils), warehouse.mapping)
        digests = _digests(feature, warehouse, layout, store, shards, untils)
        yield from _compared(comparison, run_id, size, seeded, digests)


def _compared(
    comparison: Comparison, run_id: str, size: int | None, seeded: Mapping[str, ShardLoad], digests: Changes | None
) -> Iterator[dg.AssetCheckResult]:
    """Two scans of gold, some 3 CPU-seconds for 10 M rows, and about `size` entities of either side.

    `digests` says what all of them are in the store.

    Without a size all of them, and a scan for every million rows.
    """
    feature, shards = comparison.feature.name, comparison.shards
    scanned = spared(lambda: comparison.scanned_keys(_SCANNED_ENTITIES), None)
    ids = [zlib.crc32(entity_id) for entity_id in set((scanned or {}).values())]
    rows = {f"{row['shard']:02x}": row for row in comparison.entities(ids)}
    counts = {shard: rows[shard]["entities"] if shard in rows else 0 for shard in shards}
    yield _entity_count(feature, counts, digests, seeded)
    transactions = sum(rows[shard]["transactions"] for shard in shards if shard in rows)
    share, slices = sample_share(size, sum(counts.values()), transactions)
    # A chain lets go of a slice before it asks for the next.
    found = chain.from_iterable(map(comparison.differences, comparison.sample(run_id, share, slices)))
    yield _parity(feature, found, seeded)
    known = {entity_id for row in rows.values() for entity_id in row["known"]}
    unknown = [name for name, entity_id in (scanned or {}).items() if entity_id not in known]
    yield _unknown_entities(feature, None if scanned is None else len(scanned), unknown)


def _entity_count(
    feature: str, counts: Mapping[str, int], digests: Changes | None, seeded: Mapping[str, ShardLoad]
) -> dg.AssetCheckResult:
    """By the digests; without them by how many entities the store was given."""
    right, says = {shard: one.entities for shard, one in seeded.items()}, "was given {}"
    if digests:
        right = {shard: digests.entities[int(shard, 16)] - digests.different[int(shard, 16)] for shard in counts}
        says = "has {} of them as gold has them"
    wrong = [
        f"shard {shard}: gold has {count}, the store {says.format(right.get(shard, 'none yet'))}"
        for shard, count in counts.items()
        if right.get(shard) != count
    ]
    total = sum(right.values())
    text = f"{total:,} entities in {len(counts)} shards, {len(wrong)} of which differ from gold"
    examples = digests.examples if digests else []
    named = [f"for example {key}" for key in examples]
    metadata = {"entities": total, "examples": examples, **_loads(seeded)}
    return check_result("entity_count", not wrong, "; ".join([text, *named[:1], *wrong]), metadata, feature)


def _digests(
    feature: Feature, warehouse: Warehouse, layout: Layout, store: OnlineStore, shards: Sequence[str], untils: list[int]
) -> Changes | None:
    """What all entities are in the store, beside gold up to the watermark of each shard; once for their features.

    None of a declared feature, which has no digest.
    """
    if feature.entity not in ENTITIES:
        return None
    name = f"{feature.entity.name} after the load"
    if name not in layout.found:
        found = Changes()
        of_shard = {shard: untils[int(shard, 16) if len(untils) > 1 else 0] for shard in shards}
        for until in dict.fromkeys(of_shard.values()):
            some = tuple(shard for shard in shards if of_shard[shard] == until)
            compare(FeatureStream(warehouse, layout, feature.entity, some), store, until, found)
        layout.found[name] = found
    return layout.found[name]


def _loads(seeded: Mapping[str, ShardLoad]) -> dict[str, Any]:
    """The loads that were looked at. From these `warm_start` knows that they were verified."""
    return {LOADS: {shard: one.run_id for shard, one in seeded.items()}}


def _parity(feature: str, found: Iterable[Verdict], seeded: Mapping[str, ShardLoad]) -> dg.AssetCheckResult:
    sampled = live = unrecorded = different = 0
    examples: list[str] = []
    for one in found:
        sampled += 1
        live += one.live
        unrecorded += one.unrecorded
        different += bool(one.difference)
        if one.difference and len(examples) < _EXAMPLES:
            examples.append(one.difference)
    text = (
        f"{different:,} of {sampled:,} entities differ from gold and the recorded events after it; {live:,} have such "
        f"events, {unrecorded:,} have events that no scorer recorded"
    )
    counts = {"sampled": sampled, "live": live, "unrecorded": unrecorded, "different": different}
    metadata = {**counts, "examples": examples, **_loads(seeded)}
    return check_result("parity", not different, "; ".join([text, *examples[:1]]), metadata, feature)


def _unknown_entities(feature: str, looked_at: int | None, unknown: Sequence[bytes]) -> dg.AssetCheckResult:
    if looked_at is None:
        return check_result("unknown_entities", True, "No key was looked at: the store runs no SCAN", {}, feature)
    examples = [printable(name) for name in unknown[:_EXAMPLES]]
    text = f"{len(unknown):,} of {looked_at:,} keys looked at belong to entities that gold does not know"
    metadata = {"looked_at": looked_at, "unknown": len(unknown), "examples": examples}
    return check_result("unknown_entities", not unknown, "; ".join([text, *examples[:1]]), metadata, feature)


def feature_checks(feature: Feature, comparison_of: Callable[..., Comparison] = Comparison) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(name=f"{feature.name}_checks", specs=check_specs(feature.name), can_subset=True)
    def evaluate(
        context: dg.AssetCheckExecutionContext,
        warehouse: Warehouse,
        layout: Layout,
        store: OnlineStore,
        limits: GoldLimits,
    ) -> Iterable[dg.AssetCheckResult]:
        shards = shards_of(context, layout)
        seeded = latest_loads(context.instance, feature.name, shards)
        with retried(context.retry_number):
            results = checked(
                feature, seeded, warehouse, layout, store, shards, context.run.run_id, limits.sample_size, comparison_of
            )
            yield from blocking(asked(context, results))

    return evaluate


def _untils(seeded: Mapping[str, ShardLoad], layout: Layout, warehouse: Warehouse) -> list[int]:
    """The watermark that each shard was loaded up to, in microseconds since 1970; one where it is the same for all."""
    mine = warehouse.profile().until
    loaded = {shard: round(one.metadata["watermark"] * 1e6) for shard, one in seeded.items()}
    untils = [loaded.get(shard, mine) for shard in shard_names(layout.shard_count)]
    return [loaded.popitem()[1]] if len({*loaded.values()}) == 1 else untils


FEATURE_CHECKS = [feature_checks(feature) for feature in FEATURES]
