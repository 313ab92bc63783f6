"""The progress of a load: a log line and an observation every few seconds."""

import time

import dagster as dg

from feature_seed.graph.screen import SCREEN

# Often enough to see it move, rarely enough that a day's load leaves no more events than shards do.
_INTERVAL_SECONDS = 5.0

# Marks the lines that a progress bar says as well.
IS_PROGRESS = "is_progress"


class Progress:
    """Reports how much of an entity's load is done, at most every few seconds, and on one of its assets alone."""

    def __init__(self, context: dg.OutputContext, name: str, asset: dg.AssetKey, expected: int) -> None:
        self._context = context
        self._name = name
        self._asset = asset
        self._expected = max(expected, 1)
        self._started = self._reported = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        SCREEN.finish(self._name)

    def done(self, entities: int) -> None:
        SCREEN.advance(self._name, entities, self._expected)
        now = time.monotonic()
        if now - self._reported < _INTERVAL_SECONDS:
            return
        self._reported = now
        rate = entities / (now - self._started)
        share = min(entities / self._expected, 1.0)
        left = max(self._expected - entities, 0) / rate if rate else float("inf")
        done = f"{entities:,} entities, {share:.0%}, {rate:,.0f} per second, {left:.0f} s left"
        self._context.log.info(f"{self._name}: {done}", extra={IS_PROGRESS: True})
        metadata = {
            "entities_done": entities,
            "share_done": round(share, 3),
            "entities_per_second": round(rate, 1),
            "seconds_left": round(left, 1),
        }
        self._context.log_event(dg.AssetObservation(self._asset, metadata=metadata))
