"""What tests wait with: minutes, so that only a hang is too long, however busy the machine is."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

Value = TypeVar("Value")

# After so long, something hangs.
HANG_SECONDS = 300


def wait_for(condition: Callable[[], Value | None], what: str, seconds: float = HANG_SECONDS) -> Value:
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


def eventually(true: Callable[[], bool]) -> None:
    """Wait until it is true."""
    wait_for(true, "it is true")


def patient(**where: Any) -> redis.Redis:
    """A client that sends each command once. By default, redis-py sends a command again that got no answer for 5 s."""
    return redis.Redis(**where, socket_timeout=HANG_SECONDS, retry=Retry(NoBackoff(), 0))
