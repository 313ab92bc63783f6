"""The checks by name: what each says must hold, which of them block a run and what to do then, and their outcomes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from feature_seed.errors import CheckFailedError
from feature_seed.features.feature import FEATURES
from feature_seed.loading.layout import Layout, shard_names

GOLD, WARM_START, DEPARTED = (dg.AssetKey(name) for name in ("gold_transactions", "warm_start", "departed"))

_OF_GOLD = {
    "schema": "Gold has every column, of a type that can be read.",
    "not_empty": "Gold has rows, and not all of them are rejected.",
    "rejected_rows": "No more rows are rejected than FEATURE_SEED_MAX_REJECTED allows.",
    "freshness": "The newest transaction is not older than FEATURE_SEED_MAX_AGE_HOURS, and not in the future.",
    "coordinates": "No latitude is beyond 90 degrees and no longitude beyond 180. The store takes those as unknown.",
    "zeros": "No row is at (0, 0) or of 1970-01-01 00:00:00, as a join leaves them that finds nothing.",
    "duplicate_transactions": "No two rows have the same transaction id. Both of them would count.",
    "shared_cards": "No card has several customers. Their transactions would count as those of one card.",
    "loss": "Gold has not lost more of the entities or rows that the store was last loaded from than "
    "FEATURE_SEED_MAX_LOSS allows.",
}

_OF_A_FEATURE = {
    "entity_count": "Every entity of gold is in the store, loaded from gold's rows: the digests are the same.",
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

# The checks of a declared feature, which has no digest. Keys that gold does not know are left to expire.
_OF_A_DECLARED_FEATURE = {
    "entity_count": "The load delivered as many entities of every shard as gold has.",
    "parity": _OF_A_FEATURE["parity"],
}

_UNTOUCHED = "Nothing was written, and what the store holds stays as it was"
_UNSET = (
    "feature_seed:ready was not set. Run seed_all with FEATURE_SEED_FULL=1, and find out who else writes these keys"
)

# The checks that block, and what to do after a failure. The text of `schema` says so already.
ADVICE = {
    "schema": _UNTOUCHED,
    "not_empty": f"Find out what the ETL wrote. {_UNTOUCHED}",
    "rejected_rows": f"Correct gold, or set FEATURE_SEED_MAX_REJECTED to the share that you accept. {_UNTOUCHED}",
    "freshness": f"Build gold anew, or set FEATURE_SEED_MAX_AGE_HOURS to the age that you accept. {_UNTOUCHED}",
    "loss": f"Look at what the ETL left out. If gold is right, run once with FEATURE_SEED_MAX_LOSS=1. {_UNTOUCHED}",
    "entity_count": _UNSET,
    "parity": _UNSET,
    "store_kept": "Nothing was written",
}


def check_specs(asset: dg.AssetKey | str) -> list[dg.AssetCheckSpec]:
    """The checks of an asset. Each can be executed by itself."""
    key = dg.AssetKey.from_coercible(asset)
    return [
        dg.AssetCheckSpec(name, asset=key, description=f"{text} {_effect(name)}", blocking=name in ADVICE)
        for name, text in CHECKS.get(key, _OF_A_DECLARED_FEATURE).items()
    ]


def _effect(name: str) -> str:
    effect = "A failure ends the run" if name in ADVICE else "A failure is a warning"
    return f"{effect}: see feature_seed/graph/README.md, under Checks."


def check_result(
    check: str, passed: bool, text: str, metadata: Mapping[str, Any] | None = None, asset: dg.AssetKey | str = GOLD
) -> dg.AssetCheckResult:
    severity = dg.AssetCheckSeverity.ERROR if check in ADVICE else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=passed, asset_key=asset, check_name=check, description=text, metadata=metadata, severity=severity
    )


def check_name(one: dg.AssetCheckResult | dg.AssetCheckEvaluation) -> str:
    """The name in messages: `parity of card_history`."""
    return f"{one.check_name} of {dg.AssetKey.from_coercible(one.asset_key or '').to_user_string()}"


def asked(
    context: dg.AssetCheckExecutionContext, results: Iterable[dg.AssetCheckResult]
) -> Iterator[dg.AssetCheckResult]:
    """The outcomes of an op that its run asks for: a check can be executed alone, on its page."""
    names = {key.name for key in context.selected_asset_check_keys}
    return (one for one in results if one.check_name in names)


def shards_of(context: dg.AssetCheckExecutionContext, layout: Layout) -> list[str]:
    """The shards of the run; all shards if checks are run alone."""
    names = shard_names(layout.shard_count)
    if not (context.has_partition_key or context.has_partition_key_range):
        return names
    some = context.partition_key_range  # partition_keys raises where no asset is run
    return [name for name in names if some.start <= name <= some.end]


def blocks(one: dg.AssetCheckResult) -> bool:
    return not one.passed and one.severity == dg.AssetCheckSeverity.ERROR


def blocking(results: Iterable[dg.AssetCheckResult]) -> Iterator[dg.AssetCheckResult]:
    """The same results, and then an error if a blocking check has failed. Dagster's own error only counts failures.

    Raises:
        CheckFailedError: with the text of each failed check, in their order, and what to do about the first.
    """
    failed: list[dg.AssetCheckResult] = []
    for result in results:
        yield result
        if blocks(result):
            failed.append(result)
    if failed:
        found = [f"The check {check_name(one)} failed: {one.description}." for one in failed]
        raise CheckFailedError(" ".join([*found, ADVICE[str(failed[0].check_name)]]))
