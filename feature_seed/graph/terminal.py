"""The terminal: what a run prints where it was launched. The UI has every event; a person wants some of them in words.

The last line says what came of the run: `ready: …`, or why not.
"""

import atexit
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

import dagster as dg
from dagster import DagsterEvent, DagsterEventType

from feature_seed.contract import READY, Ready
from feature_seed.environment import choice
from feature_seed.graph.alert import run_page
from feature_seed.graph.assets import warm_start
from feature_seed.graph.dagster_private import event_of, message_of, run_error
from feature_seed.graph.failure import cause, is_ours
from feature_seed.graph.progress import IS_PROGRESS
from feature_seed.graph.screen import SCREEN
from feature_seed.graph.status import in_words

LEVELS = ("INFO", "DEBUG", "WARNING")

# What Dagster logs for every step behind one that failed.
_CONSEQUENCE = "Dependencies for step"

# The library's logger, which prints a stack trace for an answer that broke off, beside the error that we explain.
_TELLS_TWICE = "clickhouse_connect"

Line = tuple[int, str]


@dg.logger(config_schema={}, description="What a person wants to see of a run, and how it ended.")
def terminal(context: dg.InitLoggerContext) -> logging.Logger:
    """A run has two of them, for itself and for its steps. With FEATURE_SEED_LOG_LEVEL=DEBUG they print all."""
    level = choice("FEATURE_SEED_LOG_LEVEL", LEVELS)
    run_id = context.run_id or ""
    SCREEN.open()
    logging.getLogger(_TELLS_TWICE).setLevel(logging.NOTSET if level == "DEBUG" else logging.CRITICAL)
    logger = logging.Logger("feature_seed")
    logger.addHandler(_Everything(run_id) if level == "DEBUG" else _Lines(level, run_id))
    return logger


class _Everything(logging.Handler):
    """Every line as Dagster writes it, stack traces too, and the outcome after them."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._outcome = _outcome_of(run_id)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.tell(record)
            if event := event_of(record):
                self._outcome.see(event)
        except Exception:  # noqa: BLE001  as handlers do: a line that cannot be printed must not end a load
            self.handleError(record)

    def tell(self, record: logging.LogRecord) -> None:
        SCREEN.line(f"{_clock(record)} {record.levelname} {record.getMessage()}")


class _Lines(_Everything):
    """A line for what a person wants to know, and none for the rest."""

    def __init__(self, level: str, run_id: str) -> None:
        super().__init__(run_id)
        self._least = logging.getLevelName(level)
        self._run_id = run_id
        self._passed = 0
        self._tellers: Mapping[DagsterEventType, Callable[[DagsterEvent], Iterator[Line]]] = {
            DagsterEventType.RUN_START: self._started,
            DagsterEventType.ASSET_CHECK_EVALUATION: self._checked,
            DagsterEventType.STEP_SUCCESS: self._succeeded,
            DagsterEventType.STEP_UP_FOR_RETRY: self._to_be_retried,
            DagsterEventType.STEP_FAILURE: self._failed,
        }

    def tell(self, record: logging.LogRecord) -> None:
        for level, text in self._lines(record):
            if level >= self._least:
                name = "" if level <= logging.INFO else f"{logging.getLevelName(level)} "
                SCREEN.line(f"{_clock(record)} {name}{text}")

    def _lines(self, record: logging.LogRecord) -> Iterator[Line]:
        event = event_of(record)
        if event:
            yield from self._tellers.get(event.event_type, _nothing)(event)
            return
        text, step = message_of(record)
        if text.startswith(_CONSEQUENCE) or (SCREEN.has_bars and hasattr(record, IS_PROGRESS)):
            return
        yield record.levelno, text if not step or text.startswith(f"{step}: ") else f"{step}: {text}"

    def _started(self, event: DagsterEvent) -> Iterator[Line]:
        yield logging.INFO, f"{event.job_name}: run {run_page(self._run_id) or self._run_id}"

    def _checked(self, event: DagsterEvent) -> Iterator[Line]:
        found = event.asset_check_evaluation_data
        self._passed += found.passed
        if not found.passed and found.severity == dg.AssetCheckSeverity.WARN:
            asset = found.asset_key.to_user_string()
            yield logging.WARNING, f"check {found.check_name} of {asset}: {found.description}"

    def _succeeded(self, event: DagsterEvent) -> Iterator[Line]:
        seconds = event.step_success_data.duration_ms / 1000
        did = f"{self._passed} checks passed" if self._passed else "done"
        self._passed = 0
        yield logging.INFO, f"{event.step_key}: {did}, in {seconds:.1f} s"

    def _to_be_retried(self, event: DagsterEvent) -> Iterator[Line]:
        retry = event.step_retry_data
        why = cause(retry.error) if retry.error else event.message
        yield logging.WARNING, f"{event.step_key}: {why} This step is tried again in {retry.seconds_to_wait or 0:g} s"

    def _failed(self, event: DagsterEvent) -> Iterator[Line]:
        error = event.step_failure_data.error
        why = (cause(error) if is_ours(error) else error.to_string()) if error else event.message
        yield logging.ERROR, f"{event.step_key} failed: {why}"


class _Outcome:
    """What came of a run, from its events."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._loaded: dict[str, set[str]] = {}
        self._ready: Ready | None = None
        self._failure = ""

    def see(self, event: DagsterEvent) -> None:
        if event.event_type == DagsterEventType.ASSET_MATERIALIZATION:
            self._materialised(event.step_materialization_data.materialization)
        elif event.event_type == DagsterEventType.STEP_FAILURE and event.step_failure_data.error:
            self._failure = self._failure or cause(event.step_failure_data.error)
        elif event.event_type == DagsterEventType.RUN_SUCCESS:
            SCREEN.line(self._success())
        elif event.event_type == DagsterEventType.RUN_CANCELED:
            SCREEN.line(f"{event.job_name} was stopped after {self._seconds}: run it again")
        elif event.event_type == DagsterEventType.RUN_FAILURE:
            error = run_error(event)
            why = self._failure or (cause(error) if error else event.message)
            atexit.register(SCREEN.line, f"{event.job_name} failed: {why}")  # the command has a last word of its own

    def _materialised(self, one: dg.AssetMaterialization) -> None:
        if one.asset_key == warm_start.key:
            self._ready = _ready({name: value.value for name, value in one.metadata.items()})
        else:
            self._loaded.setdefault(one.asset_key.to_user_string(), set()).add(one.partition or "")

    def _success(self) -> str:
        if self._ready:
            return f"{in_words(self._ready)}, in {self._seconds}"
        if not self._loaded:
            return f"done in {self._seconds}"
        shards = sorted(set().union(*self._loaded.values()))
        which = f"shard {shards[0]}" if len(shards) == 1 else f"{len(shards)} shards"
        return f"loaded: {', '.join(self._loaded)} of {which}, in {self._seconds}. {READY.pattern} is set by warm_start"

    @property
    def _seconds(self) -> str:
        return f"{time.monotonic() - self._started:.0f} s"


def _ready(metadata: Mapping[str, Any]) -> Ready:
    until = datetime.fromtimestamp(metadata["watermark"], timezone.utc)
    return Ready("ready", metadata["gold_version"], until.isoformat(), metadata["cards"], metadata["customers"])


@lru_cache(maxsize=1)
def _outcome_of(run_id: str) -> _Outcome:
    """The same for all loggers of a run in this process."""
    return _Outcome()


def _nothing(_: DagsterEvent) -> Iterator[Line]:
    yield from ()


def _clock(record: logging.LogRecord) -> str:
    return time.strftime("%H:%M:%S", time.localtime(record.created))
