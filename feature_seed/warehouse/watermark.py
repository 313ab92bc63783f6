"""The watermark of a run: taken once, for all of its steps."""

import time

import dagster as dg
from pydantic import PrivateAttr


class Watermarked(dg.ConfigurableResource):
    """What reads gold up to the watermark of the run that it is a resource of.

    `watermark_lag` is for how many seconds before the run began gold may still lack rows: they are the stream's.
    """

    watermark_lag: float = 0

    _began: float | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Every step takes the start of its run, whichever process it is in."""
        if context.run and context.instance:
            record = context.instance.get_run_record_by_id(context.run.run_id)
            self._began = record.start_time if record else None

    @property
    def latest(self) -> int:
        """The time after which no row is read, whatever gold holds, in microseconds since 1970."""
        if self._began is None:
            self._began = time.time()
        return round((self._began - self.watermark_lag) * 1_000_000)
