"""A failed run: its cause in one line, for the terminal and for the alert, and the alert to a webhook."""

import json
import os
import re
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import dagster as dg

from feature_seed.errors import FeatureSeedError
from feature_seed.graph.dagster_private import ErrorInfo, run_error

# How our errors begin where Dagster writes them down. Their text needs no stack trace.
_OURS = re.compile(r"feature_seed\.errors\.\w+: ")

WEBHOOK = "FEATURE_SEED_ALERT_WEBHOOK"
_WEBHOOK_SECONDS = 10

VERSION_TAG = "feature_seed/gold_version"


def cause(error: ErrorInfo) -> str:
    """The text of our error, or the first line of a library's error, without Dagster's wrapper."""
    while error.cause and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    text = error.message.strip()
    if ours := _OURS.match(text):
        return " ".join(text[ours.end() :].split())
    return text.partition("\n")[0]


def is_ours(error: ErrorInfo) -> bool:
    """Whether an error of ours is among the causes: then nobody needs a stack trace."""
    return bool(_OURS.match(error.message)) or bool(error.cause and is_ours(error.cause))


def run_cause(context: dg.RunFailureSensorContext) -> str:
    """The error of the first step that failed. If the run did not come to its steps, what kept it from them."""
    errors = [event.step_failure_data.error for event in context.get_step_failure_events()]
    first = next(filter(None, errors), None) or run_error(context.failure_event)
    return cause(first) if first else (context.failure_event.message or "no message").partition("\n")[0]


def run_page(run_id: str) -> str | None:
    """The page of a run, if FEATURE_SEED_DAGSTER_URL says where the pages are."""
    url = os.environ.get("FEATURE_SEED_DAGSTER_URL")
    return f"{url.rstrip('/')}/runs/{run_id}" if url else None


def alert_of(run: dg.DagsterRun, error: str) -> dict[str, Any]:
    """What an alert tells about a failed run."""
    return {
        "run_id": run.run_id,
        "job": run.job_name,
        "error": error,
        "gold_version": run.tags.get(VERSION_TAG),
        "will_retry": run.tags.get("dagster/will_retry") == "true",
        "url": run_page(run.run_id),
    }


def send(alert: Mapping[str, Any], headline: str) -> None:
    """Post an alert with its `text`, as chat programs show it, to FEATURE_SEED_ALERT_WEBHOOK.

    The URL is a secret, and the texts of urllib's errors may hold it: the error here names only their kind.
    """
    page = f" {alert['url']}" if alert["url"] else ""
    body = {"text": f"{headline}: {alert['error']}{page}", **alert}
    try:
        request = Request(os.environ[WEBHOOK], json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=_WEBHOOK_SECONDS):
            return
    except HTTPError as e:
        kind = f"HTTP status {e.code}"
    except (OSError, HTTPException, ValueError) as e:
        reason = getattr(e, "reason", None)
        kind = type(reason if isinstance(reason, Exception) else e).__name__
    raise FeatureSeedError(f"The alert could not be sent to {WEBHOOK}: {kind}")
