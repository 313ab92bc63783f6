"""feature_seed: a Dagster asset graph that loads a real-time fraud scorer's features from ClickHouse into Redis.

Everything is made on first use: a scorer can import `feature_seed.contract` without Dagster. `defs` are what Dagster
loads, and `WarmStart` is the component that makes them, for other projects.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "defs":
        return _defs()
    if name == "WarmStart":
        from feature_seed.graph.component import WarmStart

        return WarmStart
    if name == "load":
        import dagster as dg

        return dg.definitions(_defs)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _defs() -> Any:
    from feature_seed.definitions import defs

    return defs


def __dir__() -> list[str]:
    """`load` in place of `defs`: a search for components looks at all of these names, in other projects too."""
    return [*globals(), "load", "WarmStart"]
