"""The screen, which is standard error; and the progress of a load, on the screen, in the log and on an asset's page."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
from rich.console import Console
from rich.progress import Progress

# Often enough to see it move, rarely enough that a day's load leaves no more events than shards do.
_INTERVAL_SECONDS = 5.0

# Marks the lines that a progress bar says as well.
IS_PROGRESS = "is_progress"


class Screen:
    """Prints lines above the bar of the load that is under way. A bar is only where a person looks: not in CI.

    While a step runs, Dagster sends standard error to a file, and the file to standard error: later, and at times
    without the last lines. So the screen has a copy of standard error from before the step.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True, quiet=True)
        self.has_bars = False

    def open(self) -> None:
        """Print to what is standard error now."""
        try:
            out = os.fdopen(os.dup(sys.stderr.fileno()), "w")
        except OSError:  # a notebook's has no descriptor
            out = sys.stderr
        self.console = Console(file=out, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.has_bars = out.isatty() and not os.environ.get("CI")

    def line(self, text: str) -> None:
        self.console.print(text)
        self.console.file.flush()


SCREEN = Screen()


@contextmanager
def progress(
    context: dg.OutputContext, name: str, asset: dg.AssetKey, expected: int
) -> Iterator[Callable[[int], None]]:
    """A function that takes how many entities of a load are done. It reports every few seconds at most."""
    expected = max(expected, 1)
    started = reported = time.monotonic()
    with Progress(console=SCREEN.console, transient=True, disable=not SCREEN.has_bars) as bars:
        bar = bars.add_task(name, total=expected)

        def done(entities: int) -> None:
            nonlocal reported
            bars.update(bar, completed=entities)
            now = time.monotonic()
            if now - reported < _INTERVAL_SECONDS:
                return
            reported = now
            rate = entities / (now - started)
            share = min(entities / expected, 1.0)
            left = max(expected - entities, 0) / rate if rate else float("inf")
            text = f"{entities:,} entities, {share:.0%}, {rate:,.0f} per second, {left:.0f} s left"
            context.log.info(f"{name}: {text}", extra={IS_PROGRESS: True})
            metadata = {
                "entities_done": entities,
                "share_done": round(share, 3),
                "entities_per_second": round(rate, 1),
                "seconds_left": round(left, 1),
            }
            context.log_event(dg.AssetObservation(asset, metadata=metadata))

        yield done
