"""The profile of gold: how much is in it, and up to when."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import NamedTuple

from feature_seed.warehouse.identity import Identity

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Rows(NamedTuple):
    """Rows of gold that share a reason for which they are rejected: '' for those that are read, 'unread' for usable
    ones after the watermark.

    Attributes:
        cards: how many the rows that are read name, exact but for hashes that collide.
        customers: likewise.
        pairs: of a card and a customer, likewise.
        oldest: time of the usable rows, in microseconds since 1970.
        newest: likewise.
        out_of_range: how many are off the globe.
        zero_places: how many are at (0, 0).
        zero_times: how many are of 1970-01-01 00:00:00.
        example: one of them, as JSON.
    """

    reason: str
    rows: int = 0
    cards: int = 0
    customers: int = 0
    pairs: int = 0
    oldest: int = 0
    newest: int = 0
    out_of_range: int = 0
    zero_places: int = 0
    zero_times: int = 0
    example: str = ""


@dataclass(frozen=True)
class Profile:
    """What gold holds up to the watermark of the run."""

    read: Rows  # the usable rows up to the watermark
    unread: Rows  # usable rows after it
    rejections: Sequence[Rows]  # those that cannot be used
    tick: int  # microseconds between two values of its timestamp
    latest: int  # up to when rows are read, whatever gold holds, in microseconds since 1970
    identity: Identity  # of what was looked at
    content: int = 0  # a sum over the usable rows of a table in which rows replace others; 0 for any other

    @property
    def rows(self) -> int:
        """Up to the watermark, and those that are rejected."""
        return self.read.rows + self.rejected

    @property
    def rejected(self) -> int:
        return sum(one.rows for one in self.rejections)

    @property
    def cards(self) -> int:
        return self.read.cards

    @property
    def customers(self) -> int:
        return self.read.customers

    @property
    def newest(self) -> datetime:
        """Of the usable rows, after the watermark or not."""
        return time_of(max(one.newest for one in (self.read, self.unread) if one.rows))

    @property
    def until(self) -> int:
        """The watermark in microseconds since 1970.

        It is the last microsecond of the newest tick: a stream has its events at that time, and gold has all of them.
        """
        return min(micros(self.newest) + self.tick - 1, self.latest)

    @property
    def version(self) -> str:
        return self.identity.version

    @property
    def watermark(self) -> datetime:
        return time_of(self.until)

    @property
    def unix(self) -> str:
        """The watermark in Unix seconds, as the seeds of entities have it."""
        return unix_text(self.until)

    @property
    def readable(self) -> dict[str, int | bool]:
        """By which the SQL chooses what is read: rows up to the watermark, looked at one by one if any was rejected."""
        return {"until": self.until, "all_valid": not self.rejected}

    @property
    def daily(self) -> float:
        """Usable rows a day, on average."""
        oldest = min(one.oldest for one in (self.read, self.unread) if one.rows)
        return self.read.rows / max((self.newest - time_of(oldest)) / timedelta(days=1), 1)

    def entities(self, column: str) -> int:
        """How many an id column names: `card_id` or `customer_id`."""
        return self.cards if column == "card_id" else self.customers


def micros(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def unix_text(micros: int) -> str:
    """Microseconds as Unix seconds with six decimals, without a rounding."""
    return format(Decimal(micros).scaleb(-6), "f")


def time_of(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def nothing_readable(profile: Profile) -> str:
    """Why no row can be read."""
    if profile.unread.rows:
        return (
            f"its {profile.unread.rows} usable rows are all after the watermark, the time at which the run began less "
            "FEATURE_SEED_WATERMARK_LAG"
        )
    return f"all {profile.rows} rows are rejected" if profile.rows else "it is empty"
