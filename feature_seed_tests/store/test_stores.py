"""The stores of store/README.md, each with its outcome, and its tables of commands."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import redis

import feature_seed.store
from feature_seed.contract import read_ready
from feature_seed.loading import preflight
from feature_seed.loading.preflight import Server, unsaid
from feature_seed.store import commands
from feature_seed.store.cluster import ClusterStore
from feature_seed.store.commands import DONE_WITHOUT, FIELDS, NEEDED
from feature_seed.store.online_store import OnlineStore
from feature_seed.store.url import OPTIONS
from feature_seed_tests.conftest import PASSWORD, MakeWarehouse
from feature_seed_tests.graph.test_retries import attempts
from feature_seed_tests.store import test_acl
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import transaction
from feature_seed_tests.support.redis_cluster import redis_cluster
from feature_seed_tests.support.redis_server import redis_server
from feature_seed_tests.support.redis_versions import WHEELS, first_on_the_path, started_version
from feature_seed_tests.support.run import checks, metadata, seed
from feature_seed_tests.support.sentinels import at_first_block, redis_sentinels
from feature_seed_tests.support.store import assert_entities, assert_holds, dump

pytestmark = pytest.mark.usefixtures("second_attempts")

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(200)]

README = (Path(feature_seed.store.__file__).parent / "README.md").read_text()

# Shown by tests of their own, which compare with the table too.
ELSEWHERE = {"TLS", "`timeout 1`, and a warehouse that takes 3 seconds to answer"}

Started = Iterator[OnlineStore]


def table(header: str) -> dict[str, str]:
    """The two columns below a header."""
    _, _, below = README.partition(f"| {header} |\n")
    lines = below.split("\n\n")[0].splitlines()[1:]
    return {first.strip(): second.strip() for first, second in (line.strip("|").split(" | ") for line in lines)}


OUTCOMES = table("store | outcome")


@contextmanager
def with_options(*options: str) -> Started:
    with TemporaryDirectory() as home, redis_server("--dir", home, *options) as port:
        yield OnlineStore(url=f"redis://127.0.0.1:{port}")


@contextmanager
def with_user(*rules: str) -> Started:
    with redis_server() as port, redis.Redis(port=port) as admin:
        admin.execute_command("ACL", "SETUSER", "seeder", "on", f">{PASSWORD}", "~*", *rules)
        yield OnlineStore(url=f"redis://seeder@127.0.0.1:{port}", password=PASSWORD)


@contextmanager
def clustered() -> Started:
    with redis_cluster(PASSWORD) as cluster:
        yield cluster.store()


@contextmanager
def behind_sentinels(*, failover: bool) -> Started:
    with redis_sentinels(PASSWORD, PASSWORD) as sentinels, pytest.MonkeyPatch.context() as patch:
        if failover:
            at_first_block(sentinels.fail_over, patch)
        yield OnlineStore(url=sentinels.url, password=PASSWORD, sentinel_password=PASSWORD)


@contextmanager
def old() -> Started:
    """Today's server, seen from a time when it is old."""
    with pytest.MonkeyPatch.context() as patch, with_options() as store:
        patch.setattr(preflight, "OLDEST", (100, 0))
        yield store


def without(*names: str) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("--rename-command", name, ""))


NEEDED_RIGHTS = tuple(f"+{name.replace(' ', '|').lower()}" for name in (*NEEDED, "MULTI", "EXEC"))

STORES: dict[str, Callable[[], AbstractContextManager[OnlineStore]]] = {
    started_version(): with_options,
    "older than Redis 6.2": old,
    "a Redis Cluster": clustered,
    "a node of a cluster, without `REDIS_CLUSTER=1`": lambda: with_options("--cluster-enabled", "yes"),
    "a primary behind sentinels": lambda: behind_sentinels(failover=False),
    "a primary behind sentinels, and a failover in mid-load": lambda: behind_sentinels(failover=True),
    "a replica": lambda: with_options("--replicaof", "127.0.0.1", "1"),
    "no `CLIENT`, `CONFIG`, `INFO`, `MEMORY`, `SCAN`": lambda: with_options(
        *without("CLIENT", "CONFIG", "INFO", "MEMORY", "SCAN")
    ),
    "a user with the rights that are needed and no other": lambda: with_user(*NEEDED_RIGHTS),
    "no `EVALSHA`": lambda: with_options(*without("EVALSHA")),
    "a user without `+hset`": lambda: with_user("+@all", "-hset"),
    "no persistence, and `maxmemory` with an `allkeys-` policy": lambda: with_options(
        "--maxmemory", "500mb", "--maxmemory-policy", "allkeys-lru"
    ),
}


def outcome(make_parquet: MakeWarehouse, store: OnlineStore, said: Callable[[], str]) -> str:
    """Run the whole job, look at every key, and say how it went in the words of the table."""
    tags = isinstance(store, ClusterStore)
    result = seed(make_parquet(ROWS), store, job="seed_all", raise_on_error=False, key_tags=tags, config={})
    warned = [line for line in said().splitlines() if " WARNING " in line and ", so " in line]
    with store.client() as client:
        if not result.success:
            assert attempts(result, "cards") == 1
            assert dump(client) == {}
            return "refused before the first write"
        assert all(check.passed for check in checks(result).values())
        _assert_seeded(client, tags, scan=not any("SCAN" in line for line in warned))
    tried = {1: "seeded", 2: "seeded at the second attempt"}[attempts(result, "cards")]
    return f"{tried}, with warnings" if warned else tried


def _assert_seeded(client: redis.Redis, tags: bool, *, scan: bool) -> None:
    ready = read_ready(client)
    assert ready and ready.state == "ready"
    (assert_holds if scan else assert_entities)(client, expect(ROWS), tags=tags)


# Which start several servers, and have tests of their own.
_OF_SEVERAL = [row for row in STORES if "sentinel" in row or row == "a Redis Cluster"]


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=pytest.mark.slow) if row in _OF_SEVERAL else row for row in STORES]
)
def test_a_store(make_parquet: MakeWarehouse, capfd: pytest.CaptureFixture[str], row: str) -> None:
    """Before: the store of a row, empty. After the whole job: the outcome that the row gives."""
    with STORES[row]() as store:
        assert outcome(make_parquet, store, lambda: capfd.readouterr().err) == OUTCOMES.get(row, "seeded")


@pytest.mark.slow
@pytest.mark.parametrize("version", WHEELS)
def test_a_version(make_parquet: MakeWarehouse, capfd: pytest.CaptureFixture[str], version: str) -> None:
    """The same stores of another version have the same outcomes, and its errors are understood where rights lack."""
    found: dict[str, str] = {}
    with first_on_the_path(version):
        for row, started in STORES.items():
            with started() as store:
                found[row] = outcome(make_parquet, store, lambda: capfd.readouterr().err)
        rights = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-k", "right or lacking", test_acl.__file__]
        subprocess.run(rights, check=True)
    found[version] = found.pop(started_version())
    assert found == {row: OUTCOMES[row] for row in found}


def test_what_is_done_without(make_parquet: MakeWarehouse, capfd: pytest.CaptureFixture[str]) -> None:
    """Each loss is said once, as the table has it, and the check and the report say what they do not know."""
    with STORES["no `CLIENT`, `CONFIG`, `INFO`, `MEMORY`, `SCAN`"]() as store:
        result = seed(make_parquet(ROWS), store, job="seed_all", config={})
    said = capfd.readouterr().err
    lost = set(DONE_WITHOUT.values())
    assert {loss: said.count(f", so {loss}") for loss in lost} == dict.fromkeys(lost, 1)
    assert checks(result)["card_history.unknown_entities"].description == "No key was looked at: the store runs no SCAN"
    assert {row.data["bytes"] for row in metadata(result, "warm_start")["features"].records} == {""}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_info_leaves_out(store: OnlineStore, field: str) -> None:
    """The rest of what the store says is taken as it is, and the loss is the table's."""
    with store.client() as client:
        info: Any = client.info()
    whole, rest = Server.of(info), Server.of({name: value for name, value in info.items() if name != field})
    assert unsaid(store, info) == []
    assert unsaid(store, {name: value for name, value in info.items() if name != field}) == [
        f"Redis at {store.address} leaves {field} out of INFO, so {FIELDS[field]}"
    ]
    changed = {name for name, value in vars(whole).items() if vars(rest)[name] != value}
    assert len(changed) <= 1


def test_the_table_has_every_store() -> None:
    assert set(STORES) | set(WHEELS) | ELSEWHERE <= set(OUTCOMES) | {started_version()}
    assert set(OUTCOMES) <= set(STORES) | set(WHEELS) | ELSEWHERE | {"Redis 7.0"}


def test_the_tables_have_every_command() -> None:
    """Those that are needed, and when; those that are done without, and what is lost."""
    needed = {tuple(re.findall(r"`([A-Z ]+)`", names)): why for names, why in table("command | for").items()}
    rows = [
        commands.NEEDED,
        ("MULTI", "EXEC"),
        commands.NEEDED_BY_DECLARED,
        commands.NEEDED_TO_EXPIRE,
        commands.NEEDED_IN_CLUSTERS,
        commands.NEEDED_IN_FAILOVERS,
        commands.NEEDED_TO_WAIT,
    ]
    assert [sorted(names) for names in needed] == [sorted(names) for names in rows]
    spared = {f"`{command}`": lost for command, lost in DONE_WITHOUT.items()}
    fields = {f"`INFO`: `{field}`": lost for field, lost in FIELDS.items()}
    assert table("command or field | what is lost without it") == {**spared, **fields}


def test_the_table_has_every_option() -> None:
    options = {f"`{name}`": accepted for name, (_, accepted) in OPTIONS.items()}
    assert table("option | value") == options
