"""The assets and checks of declared features."""

from collections.abc import Callable, Sequence
from functools import partial

import dagster as dg

from feature_seed.contract import Key
from feature_seed.features.declared.declared import Declared
from feature_seed.features.declared.entity import DeclaredEntity
from feature_seed.features.feature import Feature, Value
from feature_seed.graph.assets import feature_assets
from feature_seed.graph.feature_checks import feature_checks
from feature_seed.loading.comparison.comparison import Comparison
from feature_seed.loading.comparison.declared import DeclaredComparison
from feature_seed.loading.declared import DeclaredStream


def declared_assets(declared: Sequence[Declared]) -> list[dg.AssetsDefinition]:
    """An asset for each feature. The features of one entity are loaded together."""
    return [
        feature_assets(entity, [feature_of(one, entity) for one in entity.features], DeclaredStream)
        for entity in DeclaredEntity.all_of(declared)
    ]


def declared_checks(declared: Sequence[Declared]) -> list[dg.AssetChecksDefinition]:
    return [
        feature_checks(f"{feature.name}_checks", [feature], comparison) for feature, comparison in compared(declared)
    ]


def compared(declared: Sequence[Declared]) -> list[tuple[Feature, Callable[..., Comparison]]]:
    """Each declared feature as a Feature, with what compares it."""
    return [(feature_of(one, DeclaredEntity.of(one)), partial(DeclaredComparison, declared=one)) for one in declared]


def feature_of(one: Declared, entity: DeclaredEntity) -> Feature:
    counted = f", of the {one.window:,} seconds before the watermark" if one.window else ""
    return Feature(
        one.name,
        f"A {one.kind} that the configuration declares{counted}.",
        entity,
        keys=(Key(one.name, one.key, one.kind.upper(), tuple(one.expressions) if one.kind == "hash" else ()),),
        values={name: Value("string", "", expression) for name, expression in one.expressions.items()},
    )
