"""The checks of the features: they compare the store with gold before the store is called ready."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import dagster as dg

from feature_seed.errors import printable
from feature_seed.features.declared.declared import Declared
from feature_seed.features.declared.entity import DeclaredEntity
from feature_seed.features.entity import ENTITIES, Entity
from feature_seed.features.feature import FEATURES, Feature
from feature_seed.graph.checks import asked, blocking, check_result, check_specs, shards_of
from feature_seed.graph.readiness import LOADS, Loads, ShardLoad, latest_loads
from feature_seed.graph.retries import retried
from feature_seed.loading.changes import Changes
from feature_seed.loading.comparison.comparison import Comparison, Verdict
from feature_seed.loading.comparison.declared import DeclaredComparison
from feature_seed.loading.comparison.digests import compare
from feature_seed.loading.comparison.scan import Found
from feature_seed.loading.layout import Layout, shard_names
from feature_seed.loading.stream import FeatureStream
from feature_seed.store.commands import spared
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.limits import GoldLimits

# How many entities with keys in the store are looked up in gold.
_SCANNED_ENTITIES = 1000

_EXAMPLES = 10


class Parity:
    """What the comparison has found out about a feature so far."""

    def __init__(self) -> None:
        self.counts = {"sampled": 0, "live": 0, "unrecorded": 0, "different": 0}
        self.examples: list[str] = []

    def add(self, found: Iterable[Verdict]) -> None:
        for one in found:
            self.counts["sampled"] += 1
            self.counts["live"] += one.live
            self.counts["unrecorded"] += one.unrecorded
            self.counts["different"] += bool(one.difference)
            if one.difference and len(self.examples) < _EXAMPLES:
                self.examples.append(one.difference)


def checked(
    features: Sequence[Feature],
    loads: Loads,
    warehouse: Warehouse,
    layout: Layout,
    store: OnlineStore,
    shards: Sequence[str],
    run_id: str,
    size: int | None,
    comparison_of: Callable[..., Comparison] = Comparison,
) -> Iterator[dg.AssetCheckResult]:
    """The outcome of each check of these features, for their loads of these shards.

    Features with the same watermarks are looked at together: all features of a run have the same.
    """
    untils = {feature.name: _untils(loads[feature.name], layout, warehouse) for feature in features}
    with store.client() as client, warehouse.client() as gold, warehouse.errors():
        for one in dict.fromkeys(untils.values()):
            some = [feature for feature in features if untils[feature.name] == one]
            comparison = comparison_of(warehouse, gold, layout, shards, one, features=some, store=client)
            entities = {one.entity.name: one.entity for one in some if one.entity in ENTITIES}
            with warehouse.side_by_side() as begin:  # beside the scan, in which the store would be idle
                digests = {
                    name: begin(partial(_digests, comparison, entity, store)) for name, entity in entities.items()
                }
                yield from _compared(comparison, run_id, size, loads, digests)


def _compared(
    comparison: Comparison, run_id: str, size: int | None, loads: Loads, digests: Mapping[str, Callable[[], Changes]]
) -> Iterator[dg.AssetCheckResult]:
    """One scan of gold, and about `size` entities on each side. Without a size: all, and a scan for every million rows.

    `digests` says how all entities of the store compare with gold. Declared features have none.
    """
    features, parities = comparison.features, {one.name: Parity() for one in comparison.features}
    keys = {one.name: spared(partial(comparison.scanned_keys, one, _SCANNED_ENTITIES), None) for one in features}
    ids: dict[str, set[bytes]] = {one.entity.name: set() for one in features}
    for one in features:
        ids[one.entity.name].update((keys[one.name] or {}).values())

    def look(found: Mapping[str, Found]) -> dict[str, Found]:
        for one in features:
            parities[one.name].add(comparison.differences(one, found[one.entity.name].rows))
        return {name: one.thinned(0) for name, one in found.items()}

    # A map lets go of a slice before it asks for the next one.
    found, *_ = map(look, comparison.scans(run_id, size, ids))
    for one in features:
        gold, seeded, names = found[one.entity.name], loads[one.name], keys[one.name]
        digest = digests.get(one.entity.name)
        yield _entity_count(one.name, gold.entities, digest and digest(), seeded)
        yield _parity(one.name, parities[one.name], seeded)
        unknown = [name for name, entity_id in (names or {}).items() if entity_id not in gold.known]
        yield _unknown_entities(one.name, None if names is None else len(names), unknown)


def _entity_count(
    feature: str, counts: Mapping[str, int], digests: Changes | None, seeded: Mapping[str, ShardLoad]
) -> dg.AssetCheckResult:
    """By the digests. Without digests, by how many entities the store was given."""
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


def _digests(comparison: Comparison, entity: Entity, store: OnlineStore) -> Changes:
    """What all entities are in the store, beside gold up to the watermark of each shard."""
    shards, untils = comparison.shards, comparison.untils
    found: Changes | None = None
    of_shard = {shard: untils[int(shard, 16) if len(untils) > 1 else 0] for shard in shards}
    for until in dict.fromkeys(of_shard.values()):
        some = tuple(shard for shard in shards if of_shard[shard] == until)
        found = compare(FeatureStream(comparison.warehouse, comparison.layout, entity, some), store, until, found)
    assert found  # a run has a shard
    return found


def _loads(seeded: Mapping[str, ShardLoad]) -> dict[str, Any]:
    """The loads that were looked at. From these `warm_start` knows that they were verified."""
    return {LOADS: {shard: one.run_id for shard, one in seeded.items()}}


def _parity(feature: str, found: Parity, seeded: Mapping[str, ShardLoad]) -> dg.AssetCheckResult:
    text = (
        "{different:,} of {sampled:,} entities differ from gold and the recorded events after it; {live:,} have such "
        "events, {unrecorded:,} have events that no scorer recorded"
    ).format(**found.counts)
    metadata = {**found.counts, "examples": found.examples, **_loads(seeded)}
    described = "; ".join([text, *found.examples[:1]])
    return check_result("parity", not found.counts["different"], described, metadata, feature)


def _unknown_entities(feature: str, looked_at: int | None, unknown: Sequence[bytes]) -> dg.AssetCheckResult:
    if looked_at is None:
        return check_result("unknown_entities", True, "No key was looked at: the store runs no SCAN", {}, feature)
    examples = [printable(name) for name in unknown[:_EXAMPLES]]
    text = f"{len(unknown):,} of {looked_at:,} keys looked at belong to entities that gold does not know"
    metadata = {"looked_at": looked_at, "unknown": len(unknown), "examples": examples}
    return check_result("unknown_entities", not unknown, "; ".join([text, *examples[:1]]), metadata, feature)


def feature_checks(
    name: str, features: Sequence[Feature], comparison_of: Callable[..., Comparison] = Comparison
) -> dg.AssetChecksDefinition:
    """The checks of features that are compared together."""

    @dg.multi_asset_check(
        name=name, specs=[spec for one in features for spec in check_specs(one.name)], can_subset=True
    )
    def evaluate(
        context: dg.AssetCheckExecutionContext,
        warehouse: Warehouse,
        layout: Layout,
        store: OnlineStore,
        limits: GoldLimits,
    ) -> Iterable[dg.AssetCheckResult]:
        shards = shards_of(context, layout)
        named = {key.asset_key.to_user_string() for key in context.selected_asset_check_keys}
        some = [one for one in features if one.name in named]
        loads = {one.name: latest_loads(context.instance, one.name, shards) for one in some}
        with retried(context.retry_number):
            results = checked(
                some, loads, warehouse, layout, store, shards, context.run.run_id, limits.sample_size, comparison_of
            )
            yield from blocking(asked(context, results))

    return evaluate


def _untils(seeded: Mapping[str, ShardLoad], layout: Layout, warehouse: Warehouse) -> tuple[int, ...]:
    """The watermark of each shard's load, in microseconds since 1970; only one if it is the same for all."""
    mine = warehouse.profile().until
    loaded = {shard: round(one.metadata["watermark"] * 1e6) for shard, one in seeded.items()}
    untils = tuple(loaded.get(shard, mine) for shard in shard_names(layout.shard_count))
    return tuple({*loaded.values()}) if len({*loaded.values()}) == 1 else untils


STANDARD_CHECKS = feature_checks("feature_checks", FEATURES)


def declared_checks(declared: Sequence[Declared]) -> list[dg.AssetChecksDefinition]:
    return [feature_checks(f"{feature.name}_checks", [feature], of) for feature, of in compared(declared)]


def compared(declared: Sequence[Declared]) -> list[tuple[Feature, Callable[..., Comparison]]]:
    """Each declared feature, and what compares it."""
    return [(DeclaredEntity.of(one).feature(one), partial(DeclaredComparison, declared=one)) for one in declared]
