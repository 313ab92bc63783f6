"""A scorer in a process of its own: it reads cards and customers at a steady rate, and times each read.

`python -m feature_seed_tests.benchmarks.scorer SOCKET CARDS RATE FILE` is that process, and `scorer` starts it.
"""

import os
import random
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from feature_seed.contract import read_card, read_customer

# (from, until) in Unix seconds.
Span = tuple[float, float]


@dataclass
class Reads:
    """When each read was due, in Unix seconds, and how many seconds later it was done."""

    due: "array[float]" = field(default_factory=lambda: array("d"))
    seconds: "array[float]" = field(default_factory=lambda: array("d"))

    def within(self, span: Span) -> list[float]:
        return [seconds for due, seconds in zip(self.due, self.seconds, strict=True) if span[0] <= due < span[1]]


@contextmanager
def scorer(server: Path, cards: int, rate: int, home: Path) -> Iterator[tuple[int, Reads]]:
    """Start a scorer of the store at a unix socket. Gives its process id, and what it did, known afterwards."""
    reads, file = Reads(), home / "reads"
    command = [sys.executable, "-m", __name__, str(server), str(cards), str(rate), str(file)]
    with subprocess.Popen(command, start_new_session=True) as process:  # Linux shares cores out by session
        try:
            yield process.pid, reads
        finally:
            process.terminate()
            process.wait()
    with file.open("rb") as recorded:
        count = os.fstat(recorded.fileno()).st_size // 16
        reads.due.fromfile(recorded, count)
        reads.seconds.fromfile(recorded, count)


def read(redis: Redis, cards: int, rate: int, stopped: list[int]) -> Reads:
    """A read is due every 1/rate seconds, and late from then on: all reads that a stall delays are late."""
    reads, chance = Reads(), random.Random(1)
    started, wall, number = time.monotonic(), time.time(), 0
    while not stopped:
        due = number / rate
        time.sleep(max(started + due - time.monotonic(), 0))
        card = chance.randrange(cards)
        if number % 2:
            read_customer(redis, f"cust-{card // 2:07}")
        else:
            read_card(redis, f"card-{card:08}")
        reads.seconds.append(time.monotonic() - started - due)
        reads.due.append(wall + due)
        number += 1
    return reads


def main(server: str, cards: str, rate: str, file: str) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    reads = read(Redis(unix_socket_path=server), int(cards), int(rate), stopped)
    with Path(file).open("wb") as recorded:
        reads.due.tofile(recorded)
        reads.seconds.tofile(recorded)


if __name__ == "__main__":
    main(*sys.argv[1:])
