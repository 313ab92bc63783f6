"""Where gold is, how it is read, and up to which time a run reads it."""

import time
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from feature_seed.warehouse.gold import Identifier
from feature_seed.warehouse.mapping import GoldMapping

# The view of a snapshot.
SNAPSHOT = {"database": "default", "gold": "gold_snapshot"}


class GoldSource(dg.ConfigurableResource):
    """Gold as messages name it, up to the watermark of the run that it is a resource of.

    `watermark_lag`: for so many seconds before the run began, gold may still lack rows. These are the stream's.
    """

    host: str | None = None
    port: int | None = None
    user: str | None = None
    database: str = "default"
    gold_table: str = "fact_transactions_gold"
    gold_parquet: str | None = None
    mapping: GoldMapping = GoldMapping()
    zero_is_unknown: bool = False
    watermark_lag: float = 0

    _began: float | None = PrivateAttr(default=None)

    @property
    def named(self) -> dict[str, str]:
        return {"database": self.database, "gold": self.gold_table} if self.host else SNAPSHOT

    @property
    def table(self) -> dict[str, Any]:
        """The SQL's parameters: gold's name, how its zeros are taken, and the salts."""
        names = {name: Identifier(text) for name, text in self.named.items()}
        return {**names, "zero_is_unknown": self.zero_is_unknown, **self.mapping.parameters}

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host or "embedded ClickHouse"

    @property
    def login(self) -> str:
        return self.user or "default"

    @property
    def columns_read(self) -> str:
        return ", ".join(self.mapping.names())

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Every step takes the start of its run, in whichever process it is."""
        if context.run and context.instance:
            record = context.instance.get_run_record_by_id(context.run.run_id)
            self._began = record.start_time if record else None

    @property
    def latest(self) -> int:
        """The time after which no row is read, whatever gold holds, in microseconds since 1970."""
        if self._began is None:
            self._began = time.time()
        return round((self._began - self.watermark_lag) * 1_000_000)
