"""The order of the lists in the store. A wrong order would mix live events with gold, and nobody would notice."""

from functools import partial
from itertools import islice

import redis

from feature_seed.contract import CARD_HISTORY, Ready, Transaction
from feature_seed.errors import StoreError
from feature_seed.loading.comparison.comparison import scanned
from feature_seed.loading.layout import Layout
from feature_seed.store.commands import spared

_LISTS = 500


def require_order(client: redis.Redis, address: str, layout: Layout, before: Ready | None) -> None:
    """Require that lists in the store have their newest transaction where this load puts it. Some lists are looked at.

    If some have events after the watermark, only these lists count: others may come from a load before. If most have
    the newest at the other end, a StoreError names the setting to change.
    """
    lists = spared(partial(_ends, client), [])
    watermark = before.unix if before else None
    live = [one for one in lists if watermark is not None and max(one) > watermark]
    wrong = [one for one in live or lists if (one[0] > one[1]) != layout.newest_first]
    if 2 * len(wrong) <= len(live or lists):
        return
    theirs = "oldest_first" if layout.newest_first else "newest_first"
    raise StoreError(
        f"Lists in Redis at {address} are kept the other way round: {len(wrong):,} of {len(live or lists):,} that were "
        f"looked at are {theirs}. Set FEATURE_SEED_HISTORY_ORDER={theirs}, or order: {theirs} of card_history in "
        "FEATURE_SEED_CONFIG. To turn the lists round, stop the scorer and set FEATURE_SEED_ON_CONFLICT=overwrite. "
        "Nothing was written"
    )


def _ends(client: redis.Redis) -> list[tuple[float, float]]:
    """The times of the first and the last transaction of some lists, in Unix seconds, where they differ."""
    names = list(islice(dict.fromkeys(scanned(client, CARD_HISTORY.template.format("*"))), _LISTS))
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.lrange(name, 0, 0)
            pipeline.lrange(name, -1, -1)
        times = [_time(reply) for reply in pipeline.execute(raise_on_error=False)]
    ends = zip(times[::2], times[1::2], strict=True)
    return [(first, last) for first, last in ends if first is not None and last is not None and first != last]


def _time(reply: object) -> float | None:
    try:
        return Transaction.decode(reply[0]).time.timestamp() if isinstance(reply, list) and reply else None
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
