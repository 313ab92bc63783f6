"""What the benchmark is played on: a gold snapshot of any size, and a Redis server for every load."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.client import Client
from redis import Redis

from feature_seed.contract import READY, Card, read_card
from feature_seed.local_redis import LocalRedis
from feature_seed.online_store import OnlineStore


def write_gold(client: Client, cards: int, transactions: int, directory: Path) -> Path:
    """The snapshot of this size in `directory`, written on first use."""
    gold = directory.resolve() / f"gold-{cards}-{transactions}.parquet"
    if not gold.exists():
        draft = gold.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        statement = Path(__file__).with_name("gold.sql").read_text()
        client.command(statement, {"gold": str(draft), "cards": cards, "transactions": transactions})
        draft.rename(gold)
    return gold


def write_subset(client: Client, gold: Path, subset: Path, cards: int) -> list[str]:
    """Write all transactions of some cards to a snapshot of their own, and name a handful of these cards."""
    parameters = {"gold": str(gold), "subset": str(subset), "cards": cards}
    client.command(
        "INSERT INTO FUNCTION file({subset:String}, 'Parquet') SELECT * FROM file({gold:String}, 'Parquet') WHERE "
        "card_id IN (SELECT DISTINCT card_id FROM file({gold:String}, 'Parquet') ORDER BY 1 LIMIT {cards:UInt32})",
        parameters,
    )
    some = "SELECT DISTINCT card_id FROM file({subset:String}, 'Parquet') ORDER BY sipHash64(card_id) LIMIT 20"
    return [str(card) for card in client.query(some, parameters).result_columns[0]]


@contextmanager
def empty_store(home: Path) -> Iterator[Redis]:
    """A server of its own for every load: none profits from memory that another has already asked the kernel for."""
    try:
        with OnlineStore(home=str(home)).client() as client:
            yield client
    finally:
        LocalRedis(home).remove()


def cpu_seconds(redis: Redis) -> float:
    """What the server has used since it started."""
    used: Any = redis.info("cpu")
    return used["used_cpu_user"] + used["used_cpu_sys"]


def busy_seconds() -> float:
    """What all processes of this machine have used since it started: tells a disturbed measurement from a good one."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = map(int, fields)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contents:
    """What a load left behind: how many keys of features, and some cards as a scorer reads them."""

    keys: int
    cards: dict[str, Card | None]

    @classmethod
    def of(cls, redis: Redis, cards: Sequence[str]) -> "Contents":
        keys: Any = redis.dbsize()
        ready: Any = redis.exists(READY.pattern)
        return cls(keys - ready, {card: read_card(redis, card) for card in cards})

    def difference(self, other: "Contents") -> str:
        cards = [card for card, state in self.cards.items() if state != other.cards[card]]
        return f"{self.keys:,} and {other.keys:,} keys, other cards: {', '.join(cards) or 'none'}"
