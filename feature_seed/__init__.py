"""feature_seed: a Dagster asset graph that loads a real-time fraud scorer's features from ClickHouse into Redis.

`defs` is what Dagster loads. It is made on first use: a scorer can import `feature_seed.contract` without Dagster.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "defs":
        from feature_seed.definitions import defs

        return defs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "defs"]
