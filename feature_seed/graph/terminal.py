"""The terminal: what a run prints where it was launched. The UI has every event; a person wants some of them in words.

The last line says what came of the run: `ready: …`, or why not.
"""

import atexit
import logging
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

import dagster as dg
from dagster import DagsterEvent, DagsterEventType

from feature_seed.contract import READY, Ready
from feature_seed.environment import choice
from feature_seed.graph.checks import WARM_START, check_name
from feature_seed.graph.dagster_private import run_error, told
from feature_seed.graph.failure import cause, is_ours, run_page
from feature_seed.graph.progress import IS_PROGRESS, SCREEN
from feature_seed.graph.status import in_words

# What Dagster logs for every step behind one that failed.
_CONSEQUENCE = "Dependencies for step"

# The logger of the library, which prints a stack trace for an answer that broke off. We explain the same error.
_TELLS_TWICE = "clickhouse_connect"

Line = tuple[int, str]


@dg.logger(config_schema={}, description="What a person wants to see of a run, and how it ended.")
def terminal(context: dg.InitLoggerContext) -> logging.Logger:
    """A run has two of these, for itself and for its steps. With FEATURE_SEED_LOG_LEVEL=DEBUG they print everything."""
    level = choice("FEATURE_SEED_LOG_LEVEL", ("INFO", "DEBUG", "WARNING"))
    SCREEN.open()
    logging.getLogger(_TELLS_TWICE).setLevel(logging.NOTSET if level == "DEBUG" else logging.CRITICAL)
    logger = logging.Logger("feature_seed")
    logger.addHandler(_run(context.run_id or "", logging.getLevelName(level)))
    return logger


class _Run(logging.Handler):
    """What a run has done so far, from its events.

    It prints a line for what a person wants to know, and none for the rest; or every event as Dagster writes it.
    """

    def __init__(self, run_id: str, least: int) -> None:
        super().__init__()
        self._id, self._least = run_id, least
        self._started = time.monotonic()
        self._passed = 0
        self._loaded: dict[str, set[str]] = {}
        self._ready: Ready | None = None
        self._failure = ""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event, text, step = told(record)
            lines = [*(self._lines(event) if event else _message(record, text, step))]
            if self._least == logging.DEBUG:
                lines = [(logging.DEBUG, f"{record.levelname} {record.getMessage()}")]
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            for level, line in lines:
                if level >= self._least:
                    SCREEN.line(f"{clock} {'' if level <= logging.INFO else logging.getLevelName(level) + ' '}{line}")
            if event:
                self._end(event)
        except Exception:  # noqa: BLE001  as handlers do: a line that cannot be printed must not end a load
            self.handleError(record)

    def _lines(self, event: DagsterEvent) -> Iterator[Line]:
        """What is told of an event."""
        kind, step = event.event_type, event.step_key
        if kind == DagsterEventType.RUN_START:
            yield logging.INFO, f"{event.job_name}: run {run_page(self._id) or self._id}"
        elif kind == DagsterEventType.ASSET_MATERIALIZATION:
            self._materialised(event.step_materialization_data.materialization)
        elif kind == DagsterEventType.ASSET_CHECK_EVALUATION:
            found = event.asset_check_evaluation_data
            self._passed += found.passed
            if not found.passed and found.severity == dg.AssetCheckSeverity.WARN:
                yield logging.WARNING, f"check {check_name(found)}: {found.description}"
        elif kind == DagsterEventType.STEP_SUCCESS:
            did = f"{self._passed} checks passed" if self._passed else "done"
            self._passed = 0
            yield logging.INFO, f"{step}: {did}, in {event.step_success_data.duration_ms / 1000:.1f} s"
        elif kind == DagsterEventType.STEP_UP_FOR_RETRY:
            retry = event.step_retry_data
            why = cause(retry.error) if retry.error else event.message
            yield logging.WARNING, f"{step}: {why} This step is tried again in {retry.seconds_to_wait or 0:g} s"
        elif kind == DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            why = cause(error) if error else event.message or ""
            self._failure = self._failure or why
            yield logging.ERROR, f"{step} failed: {why if not error or is_ours(error) else error.to_string()}"

    def _materialised(self, one: dg.AssetMaterialization) -> None:
        if one.asset_key == WARM_START:
            found: dict[str, Any] = {name: value.value for name, value in one.metadata.items()}
            until = datetime.fromtimestamp(found["watermark"], timezone.utc).isoformat()
            self._ready = Ready("ready", found["gold_version"], until, found["cards"], found["customers"])
        elif one.partition:
            self._loaded.setdefault(one.asset_key.to_user_string(), set()).add(one.partition)

    def _end(self, event: DagsterEvent) -> None:
        """Say what came of the run, if this is its last event."""
        if event.event_type == DagsterEventType.RUN_SUCCESS:
            SCREEN.line(self._success(f"in {self._seconds}"))
        elif event.event_type == DagsterEventType.RUN_CANCELED:
            SCREEN.line(f"{event.job_name} was stopped after {self._seconds}: run it again")
        elif event.event_type == DagsterEventType.RUN_FAILURE:
            error = run_error(event)
            why = self._failure or (cause(error) if error else event.message)
            atexit.register(SCREEN.line, f"{event.job_name} failed: {why}")  # the command has a last word of its own

    def _success(self, seconds: str) -> str:
        if self._ready:
            return f"{in_words(self._ready)}, {seconds}"
        if not self._loaded:
            return f"done {seconds}"
        shards = sorted(set().union(*self._loaded.values()))
        which = f"shard {shards[0]}" if len(shards) == 1 else f"{len(shards)} shards"
        return f"loaded: {', '.join(self._loaded)} of {which}, {seconds}. {READY.pattern} is set by warm_start"

    @property
    def _seconds(self) -> str:
        return f"{time.monotonic() - self._started:.0f} s"


def _message(record: logging.LogRecord, text: str, step: str) -> Iterator[Line]:
    if not (text.startswith(_CONSEQUENCE) or (SCREEN.has_bars and hasattr(record, IS_PROGRESS))):
        yield record.levelno, text if not step or text.startswith(f"{step}: ") else f"{step}: {text}"


# The same for all loggers of a run in this process.
_run = lru_cache(maxsize=1)(_Run)
