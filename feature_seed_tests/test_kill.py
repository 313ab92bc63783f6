"""Killed anywhere: whatever a run leaves behind, the store never claims to be ready, and the next run puts it right."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import read_ready
from feature_seed.lock import KEY as LOCK
from feature_seed.online_store import OnlineStore
from feature_seed.warehouse import Warehouse
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.deployment import wait_for
from feature_seed_tests.run import seed
from feature_seed_tests.store import features

CARDS, TRANSACTIONS = 60_000, 300_000

STEPS = ("card_history", "card_location", "customer_stats", "warm_start")

# Half the cards are never located, and some customers have many.
GOLD = f"""
    SELECT
        concat('t', toString(number)) AS transaction_id,
        concat('c', toString(number % {CARDS})) AS card_id,
        concat('p', toString(number % 7919)) AS customer_id,
        'food' AS merchant_category,
        number % 1000 / 8 AS amount,
        toDateTime64('2026-01-01', 3, 'UTC') + toIntervalSecond(number) AS timestamp,
        if(number % 2 = 0, 1.5, NULL) AS location_lat,
        -2.25 AS location_long
    FROM numbers({TRANSACTIONS})"""


@pytest.fixture(scope="module")
def gold(chdb: Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kill") / "gold.parquet"
    chdb.command(f"INSERT INTO FUNCTION file('{path}', 'Parquet') {GOLD}")
    return path


@contextmanager
def run(gold: Path, port: int, home: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`seed_all` in a process of its own, and its log; gone afterwards, with whatever it started."""
    environment = {
        "FEATURE_SEED_GOLD_PARQUET": str(gold),
        "REDIS_URL": f"redis://127.0.0.1:{port}",
        "REDIS_PASSWORD": PASSWORD,
        "DAGSTER_HOME": str(home),
    }
    home.mkdir(exist_ok=True)
    log = home / "run.log"
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "feature_seed", "-j", "seed_all"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process, log
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def wait_for_step(process: subprocess.Popen[bytes], log: Path, step: str) -> None:
    """Until the log says that this step has started."""
    deadline = time.monotonic() + 90
    while f"{step} - STEP_START" not in log.read_text(errors="replace"):
        assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("signals", "rounds"),
    [
        ((signal.SIGKILL, signal.SIGTERM), 1),
        pytest.param((signal.SIGTERM, signal.SIGINT, signal.SIGKILL), 2, marks=pytest.mark.slow),
    ],
)
def test_killed_at_every_step(
    gold: Path,
    redis_port: int,
    online: redis.Redis,
    store: OnlineStore,
    tmp_path: Path,
    signals: tuple[signal.Signals, ...],
    rounds: int,
) -> None:
    """Before: an empty store, and what an uninterrupted run leaves in it. Runs are killed one after the other, each a
    random moment into a step, and over what the others left; none says ready, which nothing was before. The next run
    leaves the same bytes.
    """
    seed(Warehouse(gold_parquet=str(gold)), store)
    whole = features(online)
    online.flushall()
    moment = random.Random(4)
    for number in range(rounds * len(STEPS)):
        with run(gold, redis_port, tmp_path / "dagster") as (process, log):
            wait_for_step(process, log, STEPS[number % len(STEPS)])
            time.sleep(moment.uniform(0, 0.6) if number % len(STEPS) < 3 else 0)
            os.kill(process.pid, signals[number % len(signals)])
            assert process.wait(20) != 0
            wait_for(lambda: not alive(process.pid), 20, "Dagster's own helpers have seen that it is gone")
        ready = read_ready(online)
        assert ready is None or ready.state == "seeding"
        online.delete(LOCK)  # as if its lease had run out
    seed(Warehouse(gold_parquet=str(gold)), store)
    assert features(online) == whole
    ready = read_ready(online)
    assert ready and (ready.state, ready.cards, ready.customers) == ("ready", CARDS, 7919)


def alive(session: int) -> list[int]:
    """What is left of the processes of a session."""
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        stat = process / "stat"
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[3] == str(session):
            left.append(int(process.name))
    return left
