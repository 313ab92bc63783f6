"""Checks that block: a failed one fails its step in its own words. Dagster's would only count them."""

from collections.abc import Iterable, Iterator, Sequence

import dagster as dg

from feature_seed.errors import CheckFailedError

_UNTOUCHED = "Nothing was written, and what the store holds stays as it was"
_UNSET = "This run does not set feature_seed:ready. Run seed_all again, and find out who else writes these keys"

# What to do when a check has failed. The text of `schema` says it already.
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


def blocking(results: Iterable[dg.AssetCheckResult]) -> Iterator[dg.AssetCheckResult]:
    """The same results, and then an error if one that blocks has failed.

    Raises:
        CheckFailedError: with the text of each failed check, in their order, and what to do about the first.
    """
    failed: list[dg.AssetCheckResult] = []
    for result in results:
        yield result
        if not result.passed and result.severity == dg.AssetCheckSeverity.ERROR:
            failed.append(result)
    if failed:
        raise CheckFailedError(_text(failed))


def _text(failed: Sequence[dg.AssetCheckResult]) -> str:
    found = [
        f"The check {one.check_name} of {dg.AssetKey.from_coercible(one.asset_key or '').to_user_string()} failed: "
        f"{one.description}."
        for one in failed
    ]
    return " ".join([*found, ADVICE[str(failed[0].check_name)]])
