"""The checks by name: what each must hold, what blocks a run, and how an outcome is told."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from feature_seed.features.feature import FEATURES
from feature_seed.graph.dagster_private import check_evaluations

GOLD, WARM_START = dg.AssetKey("gold_transactions"), dg.AssetKey("warm_start")

_OF_GOLD = {
    "schema": "Gold has every column, of a type that can be read.",
    "not_empty": "Gold has rows, and not all of them are rejected.",
    "rejected_rows": "No more rows are rejected than FEATURE_SEED_MAX_REJECTED allows.",
    "freshness": "The newest transaction is not older than FEATURE_SEED_MAX_AGE_HOURS, and not in the future.",
    "coordinates": "No latitude is beyond 90 degrees and no longitude beyond 180. The store takes those as unknown.",
    "zeros": "No row is at (0, 0) or of 1970-01-01 00:00:00, as a join leaves them that finds nothing.",
    "duplicate_transactions": "No two rows have the same transaction id. Both of them would count.",
    "shared_cards": "No card has several customers. Their transactions would count as those of one card.",
}

_OF_A_FEATURE = {
    "entity_count": "The load delivered as many entities of every shard as gold has.",
    "parity": "A sample of entities is in the store as gold and the events after it make it. Every run takes another.",
    "unknown_entities": "Gold knows every entity that has keys in the store. A scorer may have added new ones since.",
}

_OF_THE_STORE = {
    "store_kept": "The store still is what the last run left: the same store, never restarted or replaced by one that "
    "may lack something, with the same feature_seed:ready and no fewer keys. Nothing is written, and gold is not read.",
}

CHECKS: Mapping[dg.AssetKey, Mapping[str, str]] = {
    GOLD: _OF_GOLD,
    **{dg.AssetKey(feature.name): _OF_A_FEATURE for feature in FEATURES},
    WARM_START: _OF_THE_STORE,
}

# Those of a declared feature. Keys that gold does not know are left to expire.
_OF_A_DECLARED_FEATURE = {name: text for name, text in _OF_A_FEATURE.items() if name != "unknown_entities"}

_WARNINGS = ("coordinates", "zeros", "duplicate_transactions", "shared_cards", "unknown_entities")


def check_specs(asset: dg.AssetKey | str) -> list[dg.AssetCheckSpec]:
    """The checks of an asset. Each can be executed by itself."""
    key = dg.AssetKey.from_coercible(asset)
    return [
        dg.AssetCheckSpec(name, asset=key, description=f"{text} {_effect(name)}", blocking=name not in _WARNINGS)
        for name, text in CHECKS.get(key, _OF_A_DECLARED_FEATURE).items()
    ]


def _effect(name: str) -> str:
    effect = "A failure is a warning" if name in _WARNINGS else "A failure ends the run"
    return f"{effect}: see feature_seed/graph/README.md, under Checks."


def check_result(
    check: str, passed: bool, text: str, metadata: Mapping[str, Any] | None = None, asset: dg.AssetKey | str = GOLD
) -> dg.AssetCheckResult:
    severity = dg.AssetCheckSeverity.WARN if check in _WARNINGS else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(
        passed=passed, asset_key=asset, check_name=check, description=text, metadata=metadata, severity=severity
    )


def asked(
    context: dg.AssetCheckExecutionContext, results: Iterable[dg.AssetCheckResult]
) -> Iterator[dg.AssetCheckResult]:
    """Of the outcomes of an op those that its run asks for: on its page a check is executed by itself."""
    names = {key.name for key in context.selected_asset_check_keys}
    return (one for one in results if one.check_name in names)


def verdicts(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, bool | None]:
    """Whether the checks of an asset have passed when each was run last; None for one that never was."""
    latest = {name: check_evaluations(instance, dg.AssetCheckKey(asset, name), 1) for name in CHECKS[asset]}
    return {name: evaluations[0].passed if evaluations else None for name, evaluations in latest.items()}
