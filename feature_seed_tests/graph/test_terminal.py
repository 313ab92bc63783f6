"""The terminal: what a person wants to know of a run, and at the end what came of it. The command is run as it is."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from feature_seed.contract import read_ready
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.support.command import Command, dagster_command
from feature_seed_tests.support.gold import transaction

SEED_ALL = ("job", "execute", "-m", "feature_seed", "-j", "seed_all")
SEED_SHARD = ("job", "execute", "-m", "feature_seed", "-j", "seed_shard")
SHARD = ("asset", "materialize", "-m", "feature_seed", "--select", "card_history", "--partition", "00")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    with dagster_command(tmp_path_factory.mktemp("dagster")) as command:
        yield command


@pytest.fixture
def environment(make_parquet: MakeWarehouse, redis_port: int, online: redis.Redis) -> dict[str, str]:
    """An empty store, and a gold with a row that has no place on earth."""
    rows = [transaction(i, f"c{i % 40}", seconds=i, location_lat=91 if i == 7 else 1.5) for i in range(200)]
    return {
        "FEATURE_SEED_GOLD_PARQUET": str(make_parquet(rows).gold_parquet),
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}",
        "REDIS_PASSWORD": PASSWORD,
        "FEATURE_SEED_SHARDS": "1",
    }


@pytest.mark.slow
def test_every_asset_at_once(command: Command, environment: dict[str, str], online: redis.Redis) -> None:
    """A range of all shards takes in warm_start, which has none. `dg launch --assets` calls the same code."""
    select = ("asset", "materialize", "-m", "feature_seed", "--select", "*", "--partition-range", "00...02")
    ended = command.run(*select, environment={**environment, "FEATURE_SEED_SHARDS": "3"})
    assert ended.code == 0
    ready = read_ready(online)
    assert ready and (ready.state, ready.cards) == ("ready", 40)
    assert ended.printed.splitlines()[-1].startswith("ready: 40 cards, 40 customers")


def test_a_run_in_words(command: Command, environment: dict[str, str], online: redis.Redis) -> None:
    """A line for each step, what a check warns of, and the outcome in the last line; nothing for whom it is noise. The
    run looks for what gold has no more.
    """
    ended = command.run(*SEED_ALL, environment={**environment, "FEATURE_SEED_PRUNE": "1"})
    assert ended.code == 0
    ready = read_ready(online)
    assert ready
    *lines, last = ended.printed.splitlines()
    outcome = f"ready: 40 cards, 40 customers of gold {ready.gold_version} up to 2026-01-01 00:03:19 UTC, in "
    assert last.startswith(outcome) and re.fullmatch(r"\d+ s", last.removeprefix(outcome))
    told = [line[9:] for line in lines if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert told[0] == f"seed_all: run {ready.run_id}"
    assert told[1].startswith("WARNING check coordinates of gold_transactions: 1 rows have a latitude beyond 90")
    steps = [line.partition(":")[0] for line in told[2:]]
    loads, last_steps = ["cards", "cards", "customers", "customers"], ["warm_start", "store_check", *3 * ["departed"]]
    assert steps == ["gold_checks", *loads, "feature_checks", *last_steps]
    assert "DEBUG" not in ended.printed


@pytest.mark.slow
def test_all_of_it_on_request(command: Command, environment: dict[str, str]) -> None:
    """Every line of Dagster's, and the outcome after them all the same."""
    ended = command.run(*SEED_ALL, environment={**environment, "FEATURE_SEED_LOG_LEVEL": "DEBUG"})
    assert ended.code == 0
    for event in ("RUN_START", "STEP_START", "ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION", "RUN_SUCCESS"):
        assert f" - {event} - " in ended.printed
    assert any(line.startswith("ready: 40 cards") for line in ended.printed.splitlines())


@pytest.mark.slow
def test_less_on_request(command: Command, environment: dict[str, str]) -> None:
    """Warnings and the outcome."""
    ended = command.run(*SHARD, environment={**environment, "FEATURE_SEED_LOG_LEVEL": "WARNING"})
    assert ended.code == 0
    last = ended.printed.splitlines()[-1]
    assert last.startswith("loaded: card_history of shard 00, in ") and "is set by warm_start" in last
    assert "cards: 40 entities" not in ended.printed


@pytest.mark.slow
def test_a_shard_that_nobody_named(command: Command, environment: dict[str, str], online: redis.Redis) -> None:
    """A sentence with what to add, and nothing is written."""
    ended = command.run(*SEED_SHARD, environment=environment)
    last = ended.printed.splitlines()[-1]
    assert ended.code == 1
    assert last.startswith("seed_shard failed: seed_shard seeds the shard that its run names, and this run names none")
    assert "add --partition 05" in last and "dagster/partition" in last
    assert not online.dbsize()


@pytest.mark.slow
@pytest.mark.parametrize("ci", ["", "true"])
def test_a_bar_on_a_terminal(environment: dict[str, str], tmp_path: Path, ci: str) -> None:
    """Where a person looks, and not in CI. The lines are there in both cases."""
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    variables = {
        **environment,
        "CI": ci,
        "FEATURE_SEED_MAX_RATE": "100",
        "DAGSTER_HOME": str(tmp_path),
        "COLUMNS": "100",
    }
    terminal, end = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "dagster", *SEED_ALL], env={**os.environ, **variables}, stdout=end, stderr=end
    )
    os.close(end)
    printed = b""
    with suppress(OSError):  # as the terminal ends with its last process
        while some := os.read(terminal, 65536):
            printed += some
    assert run.wait() == 0
    assert (b"\xe2\x94\x81" in printed) == (not ci)
    assert b"cards: 40 entities in " in printed and b"ready: 40 cards" in printed
