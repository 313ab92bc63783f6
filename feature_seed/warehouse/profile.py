"""The profile of gold: how much is in it, and up to when."""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from feature_seed.warehouse.identity import Identity

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Profile:
    """What gold holds.

    Attributes:
        rows: in all.
        rejected: of them, those that cannot be used.
        cards, customers: how many the usable rows name, exact but for hashes that collide.
        pairs: of a card and a customer, likewise.
        watermark: time of the newest usable transaction, in UTC.
        identity: of what was looked at.
        content: a sum over the usable rows of a table in which rows replace others; 0 for any other.
    """

    rows: int
    rejected: int
    cards: int
    customers: int
    pairs: int
    watermark: datetime
    identity: Identity
    content: int = 0

    @property
    def version(self) -> str:
        return self.identity.version

    @property
    def until(self) -> int:
        """The watermark in microseconds since 1970, as the SQL's parameter."""
        return (self.watermark - _EPOCH) // timedelta(microseconds=1)

    @property
    def readable(self) -> dict[str, int | bool]:
        """By which the SQL chooses what is read: rows up to the watermark, looked at one by one if any was rejected."""
        return {"until": self.until, "all_valid": not self.rejected}

    def entities(self, column: str) -> int:
        """How many an id column names: `card_id` or `customer_id`."""
        return self.cards if column == "card_id" else self.customers
