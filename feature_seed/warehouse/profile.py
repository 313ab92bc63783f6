"""The profile of gold: how much is in it, and up to when."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from feature_seed.errors import GoldError
from feature_seed.warehouse.identity import Identity

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Profile:
    """What gold holds up to the watermark of the run."""

    rows: int  # rows up to the watermark, and rejected rows
    rejected: int  # how many of these cannot be used
    cards: int  # how many cards the usable rows name, exact but for hashes that collide
    customers: int  # likewise
    pairs: int  # pairs of a card and a customer, likewise
    out_of_range: int  # usable rows that are off the globe
    zero_places: int  # rows at (0, 0)
    zero_times: int  # rows of 1970-01-01 00:00:00
    reasons: Sequence[tuple[str, int, str]]  # why rows are rejected, how many for each, and one of them as JSON
    unread: int  # usable rows after the watermark
    oldest: datetime  # of the usable rows, after the watermark or not
    newest: datetime  # likewise
    until: int  # the watermark in microseconds since 1970
    identity: Identity  # of what was looked at
    content: int = 0  # a sum over the usable rows of a table in which rows replace others; 0 for any other

    @property
    def version(self) -> str:
        return self.identity.version

    @property
    def watermark(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.until)

    @property
    def unix(self) -> str:
        """The watermark in Unix seconds, as the seeds of entities have it."""
        return unix_text(self.until)

    @property
    def readable(self) -> dict[str, int | bool]:
        """What the SQL chooses rows by: the watermark, and whether each row has to be looked at: some are rejected."""
        return {"until": self.until, "all_valid": not self.rejected}

    @property
    def daily(self) -> float:
        """Usable rows a day, on average."""
        return (self.rows - self.rejected) / max((self.newest - self.oldest) / timedelta(days=1), 1)

    def entities(self, column: str) -> int:
        """How many an id column names: `card_id` or `customer_id`."""
        return self.cards if column == "card_id" else self.customers


def micros(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def unix_text(micros: int) -> str:
    """Microseconds as Unix seconds with six decimals, not rounded."""
    return format(Decimal(micros).scaleb(-6), "f")


def require_readable(profile: Profile, table: str) -> None:
    """Raise a GoldError that says why no row can be read, if none can."""
    why = f"all {profile.rows} rows are rejected" if profile.rows else "it is empty"
    if profile.unread:
        why = (
            f"its {profile.unread} usable rows are all after the watermark, the time at which the run began less "
            "FEATURE_SEED_WATERMARK_LAG"
        )
    if profile.rows == profile.rejected:
        raise GoldError(f"Gold table {table!r} has nothing to seed: {why}. The store was left as it is")
