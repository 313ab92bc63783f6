"""The screen: standard error, with a progress bar below the lines where it is a terminal and `rich` is installed."""

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Screen:
    """Prints lines, and a bar for each load that is under way.

    While a step runs, Dagster sends standard error to a file, and the file to standard error: later, and without the
    last lines at times. So this has a copy of standard error from before that.
    """

    def __init__(self) -> None:
        self._out: TextIO = sys.stderr
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @property
    def has_bars(self) -> bool:
        return self._bars is not None

    def open(self) -> None:
        """Print to what is standard error now."""
        try:
            self._out = os.fdopen(os.dup(sys.stderr.fileno()), "w")
        except OSError:  # a notebook's has no descriptor
            self._out = sys.stderr
        self._bars = _bars(self._out) if self._out.isatty() and not os.environ.get("CI") else None

    def line(self, text: str) -> None:
        if self._bars:
            self._bars.console.print(text, soft_wrap=True)
        else:
            print(text, file=self._out, flush=True)

    def advance(self, name: str, done: int, expected: int) -> None:
        """Draw how much of a load is done."""
        if self._bars:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=expected)
                self._bars.start()
            self._bars.update(self._tasks[name], completed=done)

    def finish(self, name: str) -> None:
        """Take the bar of a load away."""
        if self._bars and name in self._tasks:
            self._bars.stop()
            self._bars.remove_task(self._tasks.pop(name))


def _bars(terminal: TextIO) -> "Progress | None":
    if not find_spec("rich"):
        return None
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(file=terminal, highlight=False, markup=False), transient=True)


SCREEN = Screen()
