"""What tests wait with: minutes, so that only a hang is too long, however busy the machine is."""

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# After which something is taken to hang.
HANG_SECONDS = 300


def patient(**where: Any) -> redis.Redis:
    """A client that sends each command once. By default, redis-py sends one that got no answer for 5 s again."""
    return redis.Redis(**where, socket_timeout=HANG_SECONDS, retry=Retry(NoBackoff(), 0))
