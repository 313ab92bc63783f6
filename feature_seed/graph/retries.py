"""Retries: a step is run again if its failure may pass by itself. Any other failure is final at once."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from feature_seed.errors import StoreUnavailableError, WarehouseUnavailableError

# Long enough together for a server to restart or a replica to be promoted.
DELAYS_SECONDS = (5.0, 20.0)


@contextmanager
def retried(attempts: int) -> Iterator[None]:
    """Have Dagster run a step again after a transient error. `attempts` were made before. The last one is final.

    Not a RetryPolicy, which would run a step again whatever its error.
    """
    try:
        yield
    except (StoreUnavailableError, WarehouseUnavailableError) as e:
        if attempts >= len(DELAYS_SECONDS):
            raise
        raise dg.RetryRequested(len(DELAYS_SECONDS), DELAYS_SECONDS[attempts]) from e
