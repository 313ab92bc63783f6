"""Local mode as a new user meets it: the commands of the README, in processes of their own."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis

from feature_seed.local_redis import LocalRedis

DAGSTER = [sys.executable, "-m", "dagster"]
FEATURE_SEED = [sys.executable, "-m", "feature_seed"]


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


def test_seed_show_empty(home: Path) -> None:
    """One shard, then all, then a look at a card and a customer, and the store is gone when it is emptied."""
    one = run(
        *DAGSTER, "job", "execute", "-m", "feature_seed", "-j", "seed_shard", "--tags", '{"dagster/partition": "05"}'
    )
    assert one.returncode == 0, one.stderr
    local = redis.Redis(unix_socket_path=str(LocalRedis(home).socket))
    some = local.dbsize()
    assert isinstance(some, int) and 0 < some < 5000

    every = run(*DAGSTER, "job", "execute", "-m", "feature_seed", "-j", "seed_all")
    assert every.returncode == 0, every.stderr
    assert "card_history: 5,000 entities" in every.stderr

    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert run(*FEATURE_SEED, "show", "card", "card-4987").stdout in readme
    card = json.loads(run(*FEATURE_SEED, "show", "card", "card-0042").stdout)
    assert len(card["history"]) == 10
    assert card["seq"] >= 10
    customer = json.loads(run(*FEATURE_SEED, "show", "customer", "cust-0021").stdout)
    assert customer["count"] >= card["seq"]

    unknown = run(*FEATURE_SEED, "show", "card", "nobody")
    assert unknown.returncode == 1
    assert "'nobody'" in unknown.stderr

    assert run(*FEATURE_SEED, "empty").returncode == 0
    assert not LocalRedis(home).running()
    assert run(*FEATURE_SEED, "show", "card", "card-0042").returncode == 1


def test_shards_and_tags_from_the_environment(home: Path) -> None:
    run(
        *DAGSTER,
        "job",
        "execute",
        "-m",
        "feature_seed",
        "-j",
        "seed_all",
        FEATURE_SEED_SHARDS="3",
        FEATURE_SEED_KEY_TAGS="1",
    )
    local = redis.Redis(unix_socket_path=str(LocalRedis(home).socket))
    assert local.get("card:{card-0042}:seq")
    assert not local.get("card:card-0042:seq")
    shown = run(*FEATURE_SEED, "show", "card", "card-0042", FEATURE_SEED_KEY_TAGS="1")
    assert json.loads(shown.stdout)["last_ts"] > 0


def test_empty_never_touches_a_store_of_ones_own(home: Path) -> None:
    refused = run(*FEATURE_SEED, "empty", REDIS_URL="redis://127.0.0.1:1", FEATURE_SEED_GOLD_PARQUET="x")
    assert refused.returncode == 1
    assert "REDIS_URL" in refused.stderr


def test_many_processes_share_one_local_redis(home: Path) -> None:
    """Eight at once, as under `dagster dev`: one server, reachable by this user alone and on no port."""
    code = f"from feature_seed.local_redis import LocalRedis; LocalRedis({str(home)!r}).ensure()"
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: run(sys.executable, "-c", code), range(8)))
    assert [result.returncode for result in results] == [0] * 8
    local = redis.Redis(unix_socket_path=str(LocalRedis(home).socket))
    assert local.info("server")["tcp_port"] == 0
    assert LocalRedis(home).socket.stat().st_mode & 0o077 == 0
    assert local.info("clients")["connected_clients"] == 1
