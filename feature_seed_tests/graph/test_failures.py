"""Each failure of the table "it says / do", where people look: webhook, run page, terminal and exit code.

The command is run as it is. The three likeliest failures are in the suite, all of them in the slow tests.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import clickhouse_connect
import dagster as dg
import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.graph.sensors import run_failed
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server
from feature_seed_tests.support.command import Command, Ended, dagster_command
from feature_seed_tests.support.documents import DOCUMENTS, ROOT, rows
from feature_seed_tests.support.expected import listed
from feature_seed_tests.support.gold import Row, create_table, transaction, write_parquet
from feature_seed_tests.support.redis_cluster import ids_in, redis_cluster
from feature_seed_tests.support.redis_server import free_port, redis_server
from feature_seed_tests.support.webhook import webhook

ROWS = [transaction(i, f"c{i % 40}", seconds=i) for i in range(200)]

SEED_ALL = ("job", "execute", "-m", "feature_seed", "-j", "seed_all")
WARM_START = ("asset", "materialize", "-m", "feature_seed", "--select", "warm_start")
SHARD = ("asset", "materialize", "-m", "feature_seed", "--select", "card_history", "--partition", "00")

CHANGE_A_CARD = """
import os, redis
after_load(lambda: [redis.Redis.from_url(os.environ["REDIS_URL"]).delete(f"card:c{i}:history") for i in range(40)])
"""

TAKE_THE_LOCK = """
import os, redis
after_load(lambda: redis.Redis.from_url(os.environ["REDIS_URL"]).set("feature_seed:lock", "run another on there"))
"""

REBUILD_GOLD = """
import os
after_load(lambda: os.utime(os.environ["FEATURE_SEED_GOLD_PARQUET"], (0, 60)))
"""


@dataclass
class Place:
    """What a failure is made of: an environment, a command, and what happens meanwhile."""

    tmp: Path
    chdb: Client
    command: Command
    stack: ExitStack
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = SEED_ALL
    mishap: str = ""

    def __post_init__(self) -> None:
        self.environment = {"REDIS_URL": self.url(self.port), "FEATURE_SEED_SHARDS": "2"}
        self.parquet(ROWS)

    @property
    def store(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def url(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}"

    def parquet(self, gold: Sequence[Row]) -> None:
        path = write_parquet(self.chdb, self.tmp / "gold.parquet", gold)
        self.environment["FEATURE_SEED_GOLD_PARQUET"] = str(path)

    def redis(self, *options: str) -> int:
        port = self.stack.enter_context(redis_server(*options, "--dir", str(self.tmp)))
        self.environment["REDIS_URL"] = self.url(port)
        return port

    def clickhouse(self, gold: Sequence[Row] = ROWS, **variables: str) -> ClickHouseServer:
        server = self.stack.enter_context(clickhouse_server("seeder", PASSWORD))
        del self.environment["FEATURE_SEED_GOLD_PARQUET"]
        self.environment |= {
            "CLICKHOUSE_HOST": server.host,
            "CLICKHOUSE_PORT": str(server.port),
            "CLICKHOUSE_USER": server.user,
            "CLICKHOUSE_PASSWORD": PASSWORD,
            **variables,
        }
        with clickhouse_connect.get_client(
            host=server.host, port=server.port, username=server.user, password=PASSWORD
        ) as client:
            create_table(client, "fact_transactions_gold", gold)
        return server

    def fails(self) -> Ended:
        return self.command.run(*self.arguments, environment=self.environment, mishap=self.mishap)


def no_file(place: Place) -> None:
    place.environment["FEATURE_SEED_GOLD_PARQUET"] = str(place.tmp / "gone.parquet")


def wrong_columns(place: Place) -> None:
    path = place.tmp / "wrong.parquet"
    write = "INSERT INTO FUNCTION file({path:String}, 'Parquet') SELECT 't' AS transaction_id, 'c' AS card_id"
    place.chdb.command(write, {"path": str(path)})
    place.environment["FEATURE_SEED_GOLD_PARQUET"] = str(path)


def damaged(place: Place) -> None:
    Path(place.environment["FEATURE_SEED_GOLD_PARQUET"]).write_bytes(b"PAR1 and nothing more")


def nothing_to_seed(place: Place) -> None:
    place.parquet([])
    place.arguments = SHARD


def rejected(place: Place) -> None:
    place.parquet([*ROWS, transaction(900, amount=None)])


def changed(place: Place) -> None:
    place.mishap = CHANGE_A_CARD


def broken_off(place: Place) -> None:
    place.clickhouse([transaction(i, f"c{i}") for i in range(9000)]).play("cut", after=90_000, times=9)


def incomplete(place: Place) -> None:
    place.clickhouse().play("end", times=9)


def rebuilt(place: Place) -> None:
    place.mishap = REBUILD_GOLD


def no_clickhouse(place: Place) -> None:
    del place.environment["FEATURE_SEED_GOLD_PARQUET"]
    place.environment |= {"CLICKHOUSE_HOST": "127.0.0.1", "CLICKHOUSE_PORT": str(free_port())}


def wrong_user(place: Place) -> None:
    place.clickhouse(CLICKHOUSE_PASSWORD="another")


def no_redis(place: Place) -> None:
    place.environment["REDIS_URL"] = place.url(free_port())


def wrong_password(place: Place) -> None:
    place.environment["REDIS_PASSWORD"] = "another"


def too_small(place: Place) -> None:
    place.parquet([transaction(i, f"c{i}") for i in range(5000)])
    with redis.Redis(port=place.redis()) as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 2_000_000)  # type: ignore[index]


def may_not(place: Place) -> None:
    with redis.Redis(port=place.redis()) as client:
        client.execute_command("ACL", "SETUSER", "default", "-hsetnx")


def other_order(place: Place) -> None:
    element = json.dumps(asdict(listed(transaction(7))))
    place.store.rpush("card:c1:history", element, element.replace("2026", "2025"))


def locked(place: Place) -> None:
    place.store.set("feature_seed:lock", "run another on there (process 1)")


def lost_lock(place: Place) -> None:
    place.mishap = TAKE_THE_LOCK


def emptied(place: Place) -> None:
    assert place.fails().code == 0
    place.store.flushall()
    place.arguments = WARM_START


def not_verified(place: Place) -> None:
    changed(place)
    assert place.fails().code == 1
    place.mishap, place.arguments = "", WARM_START


def full(place: Place) -> None:
    too_small(place)
    place.environment["FEATURE_SEED_MEMORY_CHECK"] = "warn"


def node_dies(place: Place) -> None:
    cluster = place.stack.enter_context(redis_cluster(PASSWORD, "--cluster-node-timeout", "1000"))
    pid = cluster.primaries[0].info("process_id")
    place.environment |= cluster.environment
    place.mishap = f"import os\nbefore_block(lambda: os.kill({pid}, 9))\n" + (
        "from feature_seed.store import block; block._BYTES = 500"
    )


def open_slot(place: Place) -> None:
    cluster = place.stack.enter_context(redis_cluster(PASSWORD))
    source, target = cluster.primaries[0], cluster.primaries[2]
    slot = min(source.owned())
    cluster.begin_migration(slot, source, target)
    place.parquet([transaction(1, next(ids_in(slot)))])
    place.environment |= cluster.environment


def no_replica(place: Place) -> None:
    place.environment["FEATURE_SEED_WAIT_REPLICAS"] = "1"


def replica(place: Place) -> None:
    place.redis("--replicaof", f"127.0.0.1 {place.port}")


def anothers(place: Place) -> None:
    place.store.set("card:c1:history", "something else's")


# The beginning of each row, how it is brought about, and what must be said: the cause, and what to do.
FAILURES: dict[str, tuple[Callable[[Place], None], tuple[str, ...]]] = {
    "`There is no gold table": (no_file, ("The check schema of gold", "gone.parquet", "FEATURE_SEED_GOLD_PARQUET")),
    "`Gold table … cannot be read": (wrong_columns, ("customer_id is missing", "Nothing was written")),
    "`FEATURE_SEED_GOLD_PARQUET … cannot be read": (damaged, ("a file is damaged", "Nothing was written")),
    "`Gold table … has nothing to seed": (nothing_to_seed, ("nothing to seed", "empty")),
    "the check `rejected_rows`": (rejected, ("check rejected_rows of gold", "1 of 201", "FEATURE_SEED_MAX_REJECTED")),
    "the check `entity_count`": (changed, ("check parity of card_history", "FEATURE_SEED_FULL=1", "who else writes")),
    "`ClickHouse at … broke off": (broken_off, ("broke off in the middle of its answer", "run again")),
    "`… is incomplete in shards": (incomplete, ("is incomplete in shards", "run again")),
    "`Gold table … was rebuilt": (rebuilt, ("rebuilt while it was read", "run again")),
    "`ClickHouse at … cannot be reached": (no_clickhouse, ("cannot be reached", "check CLICKHOUSE_HOST")),
    "`ClickHouse at … refuses user": (wrong_user, ("refuses user 'seeder'", "CLICKHOUSE_PASSWORD")),
    "`Redis at … cannot be reached": (no_redis, ("Redis at redis://127.0.0.1", "check REDIS_URL")),
    "`Redis at … refuses the login": (wrong_password, ("refuses the login", "check REDIS_PASSWORD")),
    "`Lists in Redis at … are kept": (other_order, ("are newest_first", "FEATURE_SEED_HISTORY_ORDER=newest_first")),
    "`Redis has too little memory": (too_small, ("too little memory", "raise maxmemory", "FEATURE_SEED_MEMORY_CHECK")),
    "`User … lacks rights": (may_not, ("lacks rights", "ACL SETUSER default +hsetnx")),
    "`… is being seeded by": (locked, ("is being seeded by run another on there", "terminate it")),
    "`… lost the lock": (lost_lock, ("lost the lock", "run again")),
    "`… was emptied": (emptied, ("was emptied since it was seeded", "run seed_all")),
    "`… was seeded in shard": (not_verified, ("its check parity failed", "Run seed_all")),
    "`Redis refused …` with `raise": (full, ("Redis refused", "raise maxmemory")),
    "`Node … of the Redis Cluster": (node_dies, ("Node 127.0.0.1", "went away", "run again")),
    "`Redis Cluster has not taken": (open_slot, ("Redis Cluster has not taken card:", "redis-cli --cluster check")),
    "`… replicas of Redis": (no_replica, ("0 of 1 replicas", "FEATURE_SEED_WAIT_REPLICAS")),
    "`… is a replica of": (replica, ("is a replica of 127.0.0.1", "point REDIS_URL at the primary")),
    "`Redis refused …` with `another": (anothers, ("card:c1:history", "another program keeps something else there")),
}

LIKELIEST = ["`There is no gold table", "the check `rejected_rows`", "`Redis at … cannot be reached"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    with dagster_command(tmp_path_factory.mktemp("dagster")) as command:
        yield command


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with redis_server() as port:
        yield port


@pytest.fixture
def place(tmp_path: Path, chdb: Client, command: Command, port: int) -> Iterator[Place]:
    with ExitStack() as stack, redis.Redis(port=port) as client:
        client.flushall()
        yield Place(tmp_path, chdb, command, stack, port)


@contextmanager
def latest_run(home: Path) -> Iterator[tuple[dg.DagsterInstance, dg.DagsterRun]]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs(limit=1)
        yield instance, run


def page(home: Path) -> str:
    """The errors on the page of the latest run, with their causes."""
    with latest_run(home) as (instance, run):
        failed = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        events = [entry.dagster_event for entry in failed]
    return "\n".join(event.step_failure_data.error.to_string() for event in events)  # type: ignore[union-attr]


def posted(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the sensor sends of the latest run."""
    with latest_run(home) as (instance, run), webhook(200) as hook:
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setenv("FEATURE_SEED_ALERT_WEBHOOK", hook.url)
        (failure,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
        event = failure.dagster_event
        assert event
        run_failed(dg.build_run_status_sensor_context("run_failed", event, instance, run).for_run_failure())
    ((_, body),) = hook.received
    return body


def assert_said(place: Place, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause and what to do: on the page, as the alert, as the last line of the terminal, without a stack trace."""
    bring_about, says = FAILURES[row]
    bring_about(place)
    ended = place.fails()
    assert ended.code == 1, ended.printed
    last = ended.printed.splitlines()[-1]
    alert = posted(place.command.home, monkeypatch)
    assert last == f"{alert['job']} failed: {alert['error']}"
    shown = page(place.command.home)
    for text in says:
        assert text in last, last
        assert text in shown
        assert text in alert["text"]
    assert "Traceback" not in ended.printed and "Stack Trace" not in ended.printed
    assert "DEBUG" not in ended.printed


@pytest.mark.parametrize("row", LIKELIEST)
def test_the_likeliest_failures(place: Place, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_said(place, row, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in FAILURES if row not in LIKELIEST])
def test_every_other_failure(place: Place, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_said(place, row, monkeypatch)


def test_every_row_is_tried() -> None:
    """The table has one row for each failure above, and no other."""
    table = rows(DOCUMENTS[ROOT / "feature_seed" / "graph" / "README.md"], "| it says | do |")
    tried = [[row for row in FAILURES if says.startswith(row)] for says, _ in table]
    assert [len(found) for found in tried] == [1] * len(table)
    assert sorted(row for found in tried for row in found) == sorted(FAILURES)
