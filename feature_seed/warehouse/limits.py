"""The limits of gold: beyond them gold is refused."""

from datetime import datetime, timedelta, timezone

import dagster as dg

from feature_seed.errors import GoldError
from feature_seed.warehouse.clickhouse import Warehouse

# Clocks are off by less, a wrong time zone or unit by more.
FUTURE = timedelta(hours=1)


class GoldLimits(dg.ConfigurableResource):
    """What is allowed: `max_rejected` is a share of gold's rows; without `max_age_hours` age is reported only.

    `max_loss` is the share of the entities, or of their rows, that gold may have lost since the store was last loaded.
    `sample_size` is about how many entities of each feature a run compares with gold; without it all are.
    See feature_seed/warehouse/README.md.
    """

    max_rejected: float = 0
    max_age_hours: float | None = None
    max_loss: float = 1
    sample_size: int | None = 1000

    def require(self, warehouse: Warehouse) -> None:
        """Raise a GoldError for what gold's checks refuse: assets that are materialised alone run without checks."""
        gold = warehouse.profile()
        newest = f"its newest transaction is of {gold.newest:%Y-%m-%d %H:%M:%S} UTC"
        age = datetime.now(timezone.utc) - gold.newest
        if gold.rejected / gold.rows > self.max_rejected:
            wrong = (
                f"{gold.rejected:,} of {gold.rows:,} rows are rejected: correct them, or set FEATURE_SEED_MAX_REJECTED"
            )
        elif age < -FUTURE:
            wrong = f"{newest}, in the future: correct its time"
        elif self.max_age_hours is not None and age / timedelta(hours=1) > self.max_age_hours:
            wrong = f"{newest}: rebuild gold, or set FEATURE_SEED_MAX_AGE_HOURS"
        else:
            return
        raise GoldError(f"Gold table {warehouse.gold_table!r} cannot be used: {wrong}. The store was left as it is")
