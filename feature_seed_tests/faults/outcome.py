"""What came of a campaign against the store."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from itertools import groupby
from typing import TypeVar


@dataclass(frozen=True)
class Outcome:
    """What came of loads beside live scorers: one row of the table.

    Attributes:
        tried: what was done to the store, in words.
        times: how often, in loads.
        events: how many live events were applied meanwhile.
        lost, counted_twice: events that are missing, or once too often, on cards or on customers: the larger number.
        half_written: how often readers met what no load and no event may leave.
        different: entities whose counts are right and something else is not.
        flawless: whether all four have to be 0. If not, they are only measured.
    """

    tried: str
    times: int
    events: int
    lost: int
    counted_twice: int
    half_written: int
    different: int
    flawless: bool = True

    @property
    def failed(self) -> bool:
        return self.flawless and bool(self.lost or self.counted_twice or self.half_written or self.different)


@dataclass(frozen=True)
class Recovery:
    """What came of runs that were broken off, and of the run after each: one row of the table.

    Attributes:
        tried: what broke them off, in words.
        times: how often.
        ended_well: how many ended in success all the same: by another attempt of a step, or since all was done.
        attempts: of steps, in addition to their first.
        half_written: keys found in between that were neither as before nor as gold has them.
        lied: how often the ready key, or Dagster's record, said what was not so.
        unclear: how often a run failed for another reason, or named none.
        lost, different: keys that the run after it left missing or surplus, or with other bytes than a run in peace.
        left_behind: processes, threads, temporary files and locks.
    """

    tried: str
    times: int
    ended_well: int
    attempts: int = 0
    half_written: int = 0
    lied: int = 0
    unclear: int = 0
    lost: int = 0
    different: int = 0
    left_behind: int = 0

    @property
    def failed(self) -> bool:
        wrong = (self.half_written, self.lied, self.unclear, self.lost, self.different, self.left_behind)
        return any(wrong) or not self.times


Row = TypeVar("Row", Outcome, Recovery)


def total(outcomes: Sequence[Row]) -> Row:
    """Outcomes of the same attempt, as one row."""
    counts = [field.name for field in fields(outcomes[0]) if type(getattr(outcomes[0], field.name)) is int]
    return replace(outcomes[0], **{name: sum(getattr(one, name) for one in outcomes) for name in counts})


def show(outcomes: Sequence[Outcome | Recovery]) -> None:
    """A table for each kind of row."""
    for _, rows in groupby(outcomes, type):
        _table(list(rows))


def _table(outcomes: Sequence[Outcome | Recovery]) -> None:
    titles = [field.name.replace("_", " ") for field in fields(outcomes[0])]
    rows = [[f"{value:,}" if type(value) is int else str(value) for value in astuple(one)] for one in outcomes]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in [titles, *rows]:
        cells = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        print(f"{row[0]:{widths[0]}}", *cells, sep="  ")
