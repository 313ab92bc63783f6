"""The alert: a failed run as JSON, to whatever webhook people look at."""

import json
import os
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from feature_seed.errors import ConfigurationError, FeatureSeedError

_WEBHOOK_SECONDS = 10


def run_page(run_id: str) -> str | None:
    """The page of a run, where FEATURE_SEED_DAGSTER_URL says where the pages are."""
    url = os.environ.get("FEATURE_SEED_DAGSTER_URL")
    return f"{url.rstrip('/')}/runs/{run_id}" if url else None


def send(alert: Mapping[str, Any], headline: str) -> bool:
    """Post an alert with its `text`, as chat programs show it; whether there is a webhook to post it to."""
    webhook = os.environ.get("FEATURE_SEED_ALERT_WEBHOOK")
    if webhook:
        page = f" {alert['url']}" if alert["url"] else ""
        _post(webhook, {"text": f"{headline}: {alert['error']}{page}", **alert})
    return bool(webhook)


def send_test() -> None:
    """An alert that has every field of a real one, and says that nothing failed.

    Raises:
        ConfigurationError: no webhook is named.
    """
    alert = {
        "run_id": "alert-test",
        "job": "seed_all",
        "error": "nothing failed. Whoever reads this gets the alerts of feature_seed",
        "gold_version": None,
        "will_retry": False,
        "url": os.environ.get("FEATURE_SEED_DAGSTER_URL") or None,
    }
    if not send(alert, "A test of the alert"):
        raise ConfigurationError("FEATURE_SEED_ALERT_WEBHOOK is not set: name the URL that is to get alerts")


def _post(url: str, body: Mapping[str, Any]) -> None:
    """The URL is a secret, and the texts of urllib's errors may hold it: an error here names its kind alone."""
    try:
        request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=_WEBHOOK_SECONDS):
            return
    except HTTPError as e:
        kind = f"HTTP status {e.code}"
    except (OSError, HTTPException, ValueError) as e:
        reason = getattr(e, "reason", None)
        kind = type(reason if isinstance(reason, Exception) else e).__name__
    raise FeatureSeedError(f"The alert could not be sent to FEATURE_SEED_ALERT_WEBHOOK: {kind}")
