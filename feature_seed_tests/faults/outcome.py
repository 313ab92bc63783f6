"""What came of a campaign against the store."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace


@dataclass(frozen=True)
class Outcome:
    """One row of the table.

    Attributes:
        tried: what was done to the store, in words.
        times: how often, in loads.
        events: how many live events were applied meanwhile.
        lost, counted_twice: events that are missing, or once too often, on cards or on customers: the larger number.
        half_written: what readers met that no load and no event may leave.
        different: entities whose counts are right and something else is not.
        flawless: whether all four have to be 0; otherwise they are measured.
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


def total(outcomes: Sequence[Outcome]) -> Outcome:
    """Outcomes of the same attempt, as one row."""
    counts = ("times", "events", "lost", "counted_twice", "half_written", "different")
    return replace(outcomes[0], **{name: sum(getattr(one, name) for one in outcomes) for name in counts})


def show(outcomes: Sequence[Outcome]) -> None:
    titles = [field.name.replace("_", " ") for field in fields(Outcome)]
    rows = [[f"{value:,}" if type(value) is int else str(value) for value in astuple(one)] for one in outcomes]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in [titles, *rows]:
        cells = (f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        print(f"{row[0]:{widths[0]}}", *cells, sep="  ")
