"""Local mode as a new user meets it: the commands of the README, in processes of their own."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
import redis
from clickhouse_connect.driver.client import Client

import feature_seed
from feature_seed.__main__ import main
from feature_seed.contract import read_ready
from feature_seed.store.local import LocalRedis
from feature_seed_tests.conftest import MakeWarehouse
from feature_seed_tests.support.documents import README, only
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.processes import exposed, watched
from feature_seed_tests.support.store import features

DAGSTER = [sys.executable, "-m", "dagster"]
FEATURE_SEED = [sys.executable, "-m", "feature_seed"]


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


@pytest.mark.slow
def test_seed_show_empty(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All shards, then a look at a card and a customer, and the store is gone when it is emptied.

    Nobody else can reach any of it: neither the run nor its Redis listens beyond this machine's loopback, and the
    socket is the owner's.
    """
    every = watched([*DAGSTER, "job", "execute", "-m", "feature_seed", "-j", "seed_all"], exposed)
    assert every.code == 0, every.output
    assert b"cards: 5,000 entities" in every.output
    local = redis.Redis(unix_socket_path=str(LocalRedis(home).socket))
    assert set().union(*every.seen, exposed([local.info("server")["process_id"]])) == set()  # type: ignore[index]
    assert [oct(path.stat().st_mode & 0o777) for path in (home, LocalRedis(home).socket)] == ["0o700"] * 2

    shown = only(r"feature_seed show card (card-\d+)$")[1]
    printed = run(*FEATURE_SEED, "show", "card", shown).stdout.splitlines()
    document = README.read_text().splitlines()
    start, end = document.index("{"), document.index("}") + 1
    left_out = document.index("    …")
    assert document[start:left_out] == printed[: left_out - start]
    assert document[left_out + 1 : end] == printed[left_out + 1 - end :]
    assert main(["show", "card", "card-0042"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert len(card["card:card-0042:history"]) == 10
    assert card["card:card-0042:seq"] >= 10
    assert main(["show", "customer", "cust-0021"]) == 0
    customer = json.loads(capsys.readouterr().out)
    assert customer["cust:cust-0021:stats"]["count"] >= card["card:card-0042:seq"]

    assert main(["show", "card", "nobody"]) == 1
    assert "'nobody'" in capsys.readouterr().err

    assert run(*FEATURE_SEED, "empty").returncode == 0
    assert not LocalRedis(home).running()
    assert main(["show", "card", "card-0042"]) == 1
    assert "REDIS_URL is not set" in capsys.readouterr().err
    assert not LocalRedis(home).running()


@pytest.mark.slow
def test_shards_tags_and_elements_from_the_environment(home: Path, make_parquet: MakeWarehouse) -> None:
    """A run is of as many shards as it says, keys have braces, and elements are arrays: `show` reads them as well."""
    seeded = run(
        *DAGSTER,
        "job",
        "execute",
        "-m",
        "feature_seed",
        "-j",
        "seed_all",
        FEATURE_SEED_SHARDS="3",
        FEATURE_SEED_KEY_TAGS="1",
        FEATURE_SEED_ELEMENT="array",
        FEATURE_SEED_LOG_LEVEL="DEBUG",
        FEATURE_SEED_GOLD_PARQUET=str(make_parquet([transaction(i, f"c{i}") for i in range(50)]).gold_parquet),
    )
    assert "50 entities in 3 shards" in seeded.stderr
    local = redis.Redis(unix_socket_path=str(LocalRedis(home).socket))
    assert local.get("card:{c42}:seq")
    assert local.lrange("card:{c42}:history", 0, -1) == [b'["t042","food",10.5,1767225600,1.5,-2.25]']
    assert not local.get("card:c42:seq")
    shown = run(*FEATURE_SEED, "show", "card", "c42", FEATURE_SEED_KEY_TAGS="1")
    assert json.loads(shown.stdout)["card:{c42}:history"][0]["timestamp"] == "2026-01-01T00:00:00.000+00:00"


def test_empty_never_touches_a_store_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    assert main(["empty"]) == 1
    assert "REDIS_URL" in capsys.readouterr().err


def test_many_processes_share_one_local_redis(home: Path) -> None:
    """Eight at once, as under `dagster dev`: one server, reachable by this user alone and on no port."""
    code = f"from feature_seed.store.local import LocalRedis; LocalRedis({str(home)!r}).ensure()"
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: run(sys.executable, "-c", code), range(8)))
    assert [result.returncode for result in results] == [0] * 8
    local = redis.Redis(unix_socket_path=str(LocalRedis(home).socket))
    assert local.info("server")["tcp_port"] == 0
    assert home.stat().st_mode & 0o077 == LocalRedis(home).socket.stat().st_mode & 0o077 == 0
    assert local.info("clients")["connected_clients"] == 1


def seed_all() -> dg.JobDefinition:
    """Of the definitions as they are shipped, in the environment of the test."""
    from feature_seed.definitions import defs

    return defs.resolve_job_def("seed_all")


def history_of(shards: tuple[str, str], instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    """What a backfill of a range on the page of card_history launches."""
    from feature_seed.definitions import defs

    first, last = shards
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("card_history")], tags=tags)


def test_parts_and_failures(
    chdb: Client, home: Path, make_parquet: MakeWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: a store as a clean run leaves it, emptied, and a key of another type, so that a run fails half-way.

    After a re-execution from failure: ready, and every key as the clean run left it. Then histories, places and counts
    are deleted, and a range of shards of one asset of cards, and one shard, bring back theirs, byte for byte.
    """
    rows = [transaction(i, f"c{i % 90}", seconds=i) for i in range(500)]
    monkeypatch.setenv("FEATURE_SEED_GOLD_PARQUET", str(make_parquet(rows).gold_parquet))
    monkeypatch.delitem(sys.modules, "feature_seed.definitions", raising=False)
    job = dg.reconstructable(seed_all)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        redis.Redis(unix_socket_path=str(LocalRedis(home).ensure())) as local,
    ):
        assert dg.execute_job(job, instance).success
        whole = features(local)
        local.flushall()

        local.set("cust:of c7:stats", "not a hash")
        failed = dg.execute_job(job, instance)
        ready = read_ready(local)
        assert not failed.success
        assert ready and ready.state == "seeding"
        local.delete("cust:of c7:stats")
        options = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
        with dg.execute_job(job, instance, reexecution_options=options) as resumed:
            loaded = [event.asset_key for event in resumed.filter_events(lambda event: event.is_step_materialization)]
        ready = read_ready(local)
        assert resumed.success
        assert dg.AssetKey("card_history") not in loaded
        assert ready and (ready.state, ready.cards, ready.run_id) == ("ready", 90, resumed.run_id)
        assert features(local) == whole

        named = chdb.query("SELECT 'c' || toString(number), sipHash64('c' || toString(number)) % 2 FROM numbers(90)")
        shard_of = {
            f"card:{card}:{key}".encode(): shard
            for card, shard in named.result_rows
            for key in ("history", "loc", "seq")
        }
        local.delete(*shard_of)
        materialised = history_of(("00", "00"), instance).get_asset_materialization_events()
        assert {event.asset_key for event in materialised} == {dg.AssetKey("card_history")}
        assert features(local) == {key: value for key, value in whole.items() if not shard_of.get(key)}
        seed_shard = feature_seed.defs.resolve_job_def("seed_shard")
        assert seed_shard.execute_in_process(instance=instance, partition_key="01").success
        assert features(local) == whole
