"""An answer of the warehouse that ends early, stalls, errs or mixes two golds is never a success and leaves nothing."""

import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha512
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from clickhouse_connect.driver.client import Client

from feature_seed.contract import read_ready
from feature_seed.errors import GoldError, StoreError, WarehouseError
from feature_seed.features import entity
from feature_seed.graph import retries
from feature_seed.loading import stream
from feature_seed.loading.stream import FeatureStream, Layout, shard_names
from feature_seed.store import client
from feature_seed.store.online_store import OnlineStore
from feature_seed.warehouse import access, failures
from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed.warehouse.sockets import Sockets
from feature_seed_tests.conftest import PASSWORD
from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server
from feature_seed_tests.support.deployment import wait_for
from feature_seed_tests.support.expected import expect
from feature_seed_tests.support.gold import TYPES, Row, transaction, write_parquet
from feature_seed_tests.support.patience import HANG_SECONDS
from feature_seed_tests.support.redis_server import free_port
from feature_seed_tests.support.run import checks, seed
from feature_seed_tests.support.store import assert_holds

CARDS = 600
CUSTOMERS = 300
KEYS = 5 * CARDS + CUSTOMERS + 1  # with feature_seed:ready

# The rows of `gold_rows`, made by the server, in a database that has UUIDs as a real server's have.
ROWS = f"""
    SELECT
        lower(hex(SHA512(toString(number)))), concat('c', toString(number % {CARDS})),
        concat('p', toString(number % {CUSTOMERS})), 'food', number % 100 / 4,
        toDateTime64('2026-01-01', 3, 'UTC') + toIntervalSecond(number), 1.5, -2.25
    FROM numbers({2 * CARDS})"""
# By then of some 250 blocks there are more than the 64 KB that clickhouse-connect gathers before it hands on the first.
LATE = 220

COLUMNS = ", ".join(f"{name} {type_}" for name, type_ in TYPES.items())
MAKE = f"CREATE OR REPLACE TABLE bank.gold ({COLUMNS}) ENGINE = MergeTree ORDER BY tuple()"

# After all others, a transaction of another card and one of a card that there is.
NEWER = "('new', 'new', 'new', 'food', 1, '2026-10-01', 1, 1), ('newer', 'c1', 'p1', 'food', 1, '2026-10-01', 1, 1)"

OLDER = "('late', 'c1', 'p1', 'food', 1, '2025-12-31', 1, 1)"

# Which a profile would count as rejected.
UNUSABLE = "('late', '', 'p1', 'food', 1, '2025-12-31', 1, 1)"


def gold_rows() -> list[Row]:
    return [
        transaction(
            n,
            f"c{n % CARDS}",
            seconds=n,
            transaction_id=sha512(str(n).encode()).hexdigest(),  # which no compressor makes small
            customer_id=f"p{n % CUSTOMERS}",
            amount=n % 100 / 4,
        )
        for n in range(2 * CARDS)
    ]


@pytest.fixture(autouse=True)
def no_second_attempt(quick_retries: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a step: its first is looked at."""
    monkeypatch.setattr(retries, "DELAYS_SECONDS", ())


@pytest.fixture(scope="module")
def endpoint() -> Iterator[ClickHouseServer]:
    with clickhouse_server("seeder", PASSWORD) as server:
        make_gold(server.port)
        yield server


@pytest.fixture
def gold(endpoint: ClickHouseServer, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A small gold whose answers come in hundreds of blocks, and no more patience than a test has."""
    monkeypatch.setitem(access.FASTER, "group_by_two_level_threshold", "10")
    monkeypatch.setattr(failures, "RETRY_DELAYS", (0.01, 0.1))
    endpoint.play("none")
    return at(endpoint.port)


def at(port: int, database: str = "bank", table: str = "gold", pass_bytes: int = 360_000_000) -> Warehouse:
    return Warehouse(
        host="127.0.0.1",
        port=port,
        user="seeder",
        password=PASSWORD,
        database=database,
        gold_table=table,
        pass_bytes=pass_bytes,
    )


def make_gold(port: int) -> None:
    with at(port, "default").client() as client:
        for statement in ("CREATE DATABASE IF NOT EXISTS bank ENGINE = Atomic", MAKE, f"INSERT INTO bank.gold {ROWS}"):
            client.command(statement)


def history(gold: Warehouse, *shards: str) -> FeatureStream:
    return FeatureStream(gold, Layout(), entity.CARDS, shards or tuple(shard_names(16)))


def delivered(read: FeatureStream) -> int:
    with read.prefetched(1) as blocks:
        return sum(len(block.keys) for block in blocks)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Afterwards there are the same threads and sockets as before."""
    before = threading.enumerate(), sockets()
    yield
    assert (threading.enumerate(), sockets()) == before


def sockets() -> list[str]:
    found = list(Path("/proc/self/fd").iterdir())
    return sorted(name for path in found if path.is_symlink() and (name := str(path.readlink())).startswith("socket"))


def wait_until_left(endpoint: ClickHouseServer) -> None:
    """Until the server has noticed that a reader has left in the middle of an answer."""
    wait_for(endpoint.left, HANG_SECONDS, "the server notices")
    assert endpoint.left() == 1


BROKE_OFF = "broke off in the middle of its answer: look into its log, then run again"
MEMORY = "failed on gold table 'gold': .*Memory limit .total. exceeded"


@pytest.mark.parametrize(
    ("kind", "after", "says"),
    [
        ("cut", 90_000, BROKE_OFF),
        ("reset", 90_000, BROKE_OFF),
        ("exception", 100, MEMORY),
        ("old_exception", 100, MEMORY),
        ("stall", 90_000, "sent nothing for 1 s: "),
        (
            "end",
            100,
            r"cards is incomplete in shards 00, .*, 0f: gold has 600 entities there, and .* \d\d\d before",
        ),
    ],
)
def test_answer_that_is_not_whole_fails_the_step(
    endpoint: ClickHouseServer,
    gold: Warehouse,
    online: redis.Redis,
    store: OnlineStore,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    after: int,
    says: str,
) -> None:
    """Gold reads well; an answer breaks in mid-stream. Then the step has failed and says why and where, the store is
    not ready, and no thread or connection is left."""
    prefetched = FeatureStream.prefetched

    def impatiently(*given: Any) -> Any:
        monkeypatch.setattr(failures, "ANSWER_SECONDS", 1)  # not for what comes before, which a busy server delays
        return prefetched(*given)

    if kind == "stall":
        monkeypatch.setattr(FeatureStream, "prefetched", impatiently)
    gold.profile()
    endpoint.play(kind, after=after)
    with nothing_left(), pytest.raises(WarehouseError, match=says) as failure:
        seed(gold, store)
    assert f"ClickHouse at 127.0.0.1:{endpoint.port} " in str(failure.value)
    assert PASSWORD not in str(failure.value)
    ready = read_ready(online)
    assert ready and ready.state == "seeding"
    assert online.dbsize() < KEYS


def test_next_run_puts_everything_right(
    endpoint: ClickHouseServer, gold: Warehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """A run failed half-way; after another over the same gold every key is there and right, and the store is ready."""
    endpoint.play("end", after=100)
    with pytest.raises(WarehouseError):
        seed(gold, store)
    assert 1 < online.dbsize() < KEYS
    seed(gold, store, verify=True)
    assert_holds(online, expect(gold_rows()))
    ready = read_ready(online)
    assert ready and ready.state == "ready"


def test_missing_entities_of_some_shards_are_found(endpoint: ClickHouseServer, gold: Warehouse) -> None:
    """The same of two shards out of sixteen, which are read whole at first; the error has the numbers."""
    whole = delivered(history(gold, "03", "0a"))
    endpoint.play("end", after=8)
    blocks = []
    with pytest.raises(WarehouseError) as failure:
        blocks.extend(history(gold, "03", "0a"))
    assert 0 < sum(len(block.keys) for block in blocks) < whole < CARDS
    assert f"cards is incomplete in shards 03, 0a: gold has {whole} entities" in str(failure.value)
    assert f"delivered {sum(len(block.keys) for block in blocks)} before its answer ended" in str(failure.value)


def test_answer_without_its_row_is_no_answer(endpoint: ClickHouseServer, gold: Warehouse) -> None:
    """Not that of a stream but the profile's is cut among its headers, and looks whole and empty."""
    with gold.client() as client:
        endpoint.play("cut", after=100, everything=True)
        result = client.query("SELECT 1 AS one")
    with pytest.raises(WarehouseError, match=f"127.0.0.1:{endpoint.port} sent an answer without its row"):
        gold.only_row(result)


@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_cut_off_at_random_moments(endpoint: ClickHouseServer, gold: Warehouse, kind: str) -> None:
    """Wherever an answer of some 100 kB is cut, either an error says so or everything was delivered: where not one
    block had come, by asking again. Cut among its headers it looks like an empty answer that is whole."""
    moments = random.Random(kind)
    outcomes = []
    with nothing_left():
        for after in [0, 1, 100, *(moments.randrange(1_000, 120_000) for _ in range(8))]:
            endpoint.play(kind, after=after)
            try:
                outcomes.append(delivered(history(gold)))
            except WarehouseError as e:
                assert BROKE_OFF in str(e) or (after < 1_000 and "delivered 0 before its answer ended" in str(e))
                outcomes.append(0)
    assert outcomes[:2] == [CARDS] * 2
    assert outcomes.count(0) >= 2
    assert set(outcomes) == {0, CARDS}


def test_server_that_is_killed_and_started_again(gold: Warehouse, tmp_path: Path) -> None:
    """A server dies in mid-stream, which is an error that names it. A read that begins while it restarts succeeds."""
    port = free_port()
    with clickhouse_server("seeder", PASSWORD, port=port) as first:
        make_gold(port)
        mortal = at(port)
        mortal.profile()
        first.play("slow", after=LATE, seconds=60)
        with (
            nothing_left(),
            pytest.raises(WarehouseError, match=f"127.0.0.1:{port} {BROKE_OFF}"),
            history(mortal).prefetched(1) as blocks,
        ):
            next(blocks)
            os.kill(first.pid, 9)
            list(blocks)
    with pytest.raises(WarehouseError, match=f"127.0.0.1:{port} cannot be reached"):
        delivered(history(mortal))
    setup = tmp_path / "setup.sql"
    setup.write_text(f"CREATE DATABASE bank ENGINE = Atomic; {MAKE}; INSERT INTO bank.gold {ROWS};")
    done: list[int] = []
    reader = threading.Thread(target=lambda: done.append(delivered(history(at(port)))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(failures, "RETRY_DELAYS", (0.2,) * 5 * HANG_SECONDS)
        reader.start()
        with clickhouse_server("seeder", PASSWORD, setup, port):
            reader.join(HANG_SECONDS)
    assert done == [CARDS]


# --- trying again


@pytest.mark.parametrize("kind", ["busy", "reset"])
@pytest.mark.parametrize("everything", [True, False])
def test_what_could_not_begin_is_tried_again(
    endpoint: ClickHouseServer, gold: Warehouse, kind: str, everything: bool
) -> None:
    """The first requests, or streams, are turned away or reset, more often than clickhouse-connect bears."""
    endpoint.play(kind, times=2 if everything else 7, everything=everything)
    assert delivered(history(gold)) == CARDS


def test_trying_again_has_an_end(endpoint: ClickHouseServer, gold: Warehouse) -> None:
    """A server that never begins to answer is an error in the end, and was asked after each pause."""
    gold.profile()
    endpoint.play("busy", times=1000)
    started = time.monotonic()
    with nothing_left(), pytest.raises(WarehouseError, match=r"127.0.0.1.* answered HTTP status 503"):
        delivered(history(gold))
    assert sum(failures.RETRY_DELAYS) < time.monotonic() - started
    assert endpoint.played() == 3 * (1 + len(failures.RETRY_DELAYS))  # three times each by clickhouse-connect


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that are made before something is tried again."""
    made: list[float] = []
    monkeypatch.setattr(failures, "time", SimpleNamespace(sleep=made.append))
    return made


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"password": "wrong"}, "refuses user 'seeder'"),
        ({"gold_table": "missing"}, "no gold table 'missing'"),
        ({"database": "missing"}, "no database 'missing'"),
    ],
)
def test_what_is_refused_is_not_tried_again(
    gold: Warehouse, pauses: list[float], changes: dict[str, str], says: str
) -> None:
    with pytest.raises(WarehouseError, match=says):
        gold.model_copy(update=changes).profile()
    assert not pauses


def test_syntax_error_is_not_tried_again(gold: Warehouse, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entity.Entity, "commands", lambda *_, **__: "SELECT (")
    with pytest.raises(WarehouseError, match="SYNTAX_ERROR"):
        delivered(history(gold))
    assert not pauses


# --- slowness


def test_long_scan_does_not_time_out(
    endpoint: ClickHouseServer, gold: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More time than the server may be silent goes by before the first block, but it says that it is at work."""
    gold.profile()
    monkeypatch.setattr(failures, "ANSWER_SECONDS", 3)
    endpoint.play("late", seconds=3.5)
    assert delivered(history(gold)) == CARDS


@pytest.fixture(scope="module")
def long(endpoint: ClickHouseServer) -> Warehouse:
    """40 MB of commands that no compressor makes small: more than the line holds, in blocks of some 160 KB."""
    with at(endpoint.port).client() as client:
        client.command(MAKE.replace("bank.gold", "bank.long"))
        id_, time_ = "concat(toString(number), hex(randomString(5000)))", "toDateTime64('2026-01-01', 3, 'UTC')"
        client.command(
            f"INSERT INTO bank.long SELECT {id_}, toString(number), 'p', 'food', 1, {time_}, 1, 1 FROM numbers(4000)"
        )
    return at(endpoint.port, table="long")


def pausing(read: FeatureStream, pause: Callable[[], object]) -> int:
    """How many entities a reader gets that takes a block, and the others after a pause."""
    with read.prefetched(1) as blocks:
        taken = len(next(blocks).keys)
        pause()
        return taken + sum(len(block.keys) for block in blocks)


def test_slow_reader_does_not_time_out(gold: Warehouse, long: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """More comes than the line holds, the store takes nothing for longer than the server may be silent, and goes on."""
    add, opened = Sockets.add, list[socket.socket]()
    monkeypatch.setattr(Sockets, "add", lambda self, one: (opened.append(one), add(self, one)))

    def pause() -> None:
        for one in opened:
            one.settimeout(1)  # only now: a busy server may take longer to begin its answer
        time.sleep(1.5)

    assert pausing(history(long), pause) == 4000
    assert opened


def test_server_bears_a_slow_reader(
    endpoint: ClickHouseServer, gold: Warehouse, long: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store takes nothing for longer than the server's http_send_timeout. The server would break off, but its
    answer is read on, to its end."""
    long.profile()
    endpoint.play("impatient", seconds=0.5)
    with monkeypatch.context() as patch, pytest.raises(WarehouseError, match=BROKE_OFF):
        patch.setattr(stream, "READ_BYTES_PER_SECOND", 1)
        pausing(history(long), lambda: wait_for(endpoint.gave_up, HANG_SECONDS, "the server breaks off"))
    endpoint.play("none")
    monkeypatch.setattr(stream, "READ_BYTES_PER_SECOND", 40_000_000)
    whole = pausing(history(long), lambda: wait_for(endpoint.ended, HANG_SECONDS, "the answer is read to its end"))
    assert whole == 4000


def test_reading_on_ends_with_the_pass(
    endpoint: ClickHouseServer, gold: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of gold in several passes, the second does not begin before the store has taken the first: memory has a bound."""
    monkeypatch.setattr(stream, "READ_BYTES_PER_SECOND", 10_000_000)
    several = at(endpoint.port, pass_bytes=80_000)
    several.profile()
    endpoint.play("none", times=100)
    with history(several).prefetched(1) as blocks:
        next(blocks)
        wait_for(endpoint.ended, HANG_SECONDS, "the first pass is read")
        time.sleep(0.5)
        assert endpoint.played() == 1
        list(blocks)
    assert endpoint.played() > 1


# --- leaving early


@pytest.mark.parametrize(("seconds", "after"), [(0.5, LATE), (2 * HANG_SECONDS, LATE + 5)])
def test_error_of_redis_ends_a_slow_answer_at_once(
    endpoint: ClickHouseServer, gold: Warehouse, online: redis.Redis, store: OnlineStore, seconds: float, after: int
) -> None:
    """Redis refuses the first block of an answer whose blocks are slow to come, or whose next comes too late for any
    test: the step ends with that error, no thread or connection is left, and the server has noticed."""
    for card in range(CARDS):
        online.sadd(f"card:c{card}:seq", "of another program")
    gold.profile()
    endpoint.play("slow", after=after, seconds=seconds)
    with nothing_left(), pytest.raises(StoreError, match="WRONGTYPE"):
        seed(gold, store)
    if seconds < 1:  # or the server sleeps as long
        wait_until_left(endpoint)


def test_reader_that_leaves_is_not_served_again(endpoint: ClickHouseServer, gold: Warehouse) -> None:
    """The first block is still waited for when the reader leaves: nothing tries to ask for it again."""
    gold.profile()
    endpoint.play("stall", after=0, times=100)
    with nothing_left(), history(gold).prefetched(1):
        wait_for(endpoint.played, HANG_SECONDS, "the reader waits")
    wait_until_left(endpoint)
    assert endpoint.played() == 1


# --- gold changes while it is read


# Which makes some scans per entity.
PASS_BYTES = 80_000


@pytest.fixture
def mutable(endpoint: ClickHouseServer, gold: Warehouse) -> Iterator[Warehouse]:
    """The same gold, made again afterwards."""
    yield at(endpoint.port, pass_bytes=PASS_BYTES)
    make_gold(endpoint.port)


REBUILT = "Gold table 'gold' was rebuilt while it was read, and the store may hold some of both: run again"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (f"{MAKE} AS {ROWS}", REBUILT),
        ("TRUNCATE TABLE bank.gold", REBUILT),
        (f"TRUNCATE TABLE bank.gold; INSERT INTO bank.gold {ROWS}", REBUILT),
        ("ALTER TABLE bank.gold UPDATE amount = 2 WHERE card_id = 'c1' SETTINGS mutations_sync = 1", REBUILT),
        ("ALTER TABLE bank.gold DELETE WHERE card_id = 'c1' SETTINGS mutations_sync = 1", REBUILT),
        (
            f"INSERT INTO bank.gold VALUES {OLDER}",
            "got rows older than 2026-01-01 00:19:59.*run again when the ETL is done",
        ),
        (
            f"INSERT INTO bank.gold VALUES {UNUSABLE}",
            "got rows older than 2026-01-01 00:19:59.*run again when the ETL is done",
        ),
        ("DROP TABLE bank.gold", "There is no gold table 'gold' in database 'bank' of 127.0.0.1"),
    ],
)
def test_gold_that_is_rebuilt_during_the_read(
    endpoint: ClickHouseServer, mutable: Warehouse, store: OnlineStore, change: str, says: str
) -> None:
    """In the first of some scans another connection changes what is read: the step fails and says so."""
    mutable.profile()
    endpoint.play("run", sql=change)
    with nothing_left(), pytest.raises(GoldError, match=says):
        seed(mutable, store)


def test_gold_that_grows_during_the_read(
    endpoint: ClickHouseServer, mutable: Warehouse, online: redis.Redis, store: OnlineStore
) -> None:
    """Rows are added and merged in the first scan of the whole job: it succeeds, checks included, and the store holds
    gold up to the watermark that it names, for a stream to go on from."""
    endpoint.play("run", sql=f"INSERT INTO bank.gold VALUES {NEWER}; OPTIMIZE TABLE bank.gold")
    result = seed(mutable, store, job="seed_all")
    assert all(check.passed for check in checks(result).values())
    assert_holds(online, expect(gold_rows()))
    ready = read_ready(online)
    assert ready and ready.watermark == "2026-01-01T00:19:59.000999+00:00"
    with at(endpoint.port).client() as client:
        assert client.command("SELECT count() FROM bank.gold") == 2 * CARDS + 2


def test_snapshot_that_is_replaced_during_the_read(chdb: Client, tmp_path: Path) -> None:
    """A file takes the place of gold's between two scans, which is an error; a file that is added is not."""
    rows = gold_rows()
    write_parquet(chdb, tmp_path / "gold.parquet", rows)
    write_parquet(chdb, tmp_path / "other", rows[:-1])
    shutil.copy(tmp_path / "gold.parquet", tmp_path / "copy")
    read = history(Warehouse(gold_parquet=str(tmp_path / "*.parquet"), pass_bytes=PASS_BYTES))
    blocks = iter(read)
    count = len(next(blocks).keys)
    write_parquet(chdb, tmp_path / "added.parquet", [transaction(0, seconds=1e6)])
    assert count + sum(len(block.keys) for block in blocks) == CARDS
    blocks = iter(history(Warehouse(gold_parquet=str(tmp_path / "*.parquet"), pass_bytes=PASS_BYTES)))
    next(blocks)
    (tmp_path / "other").replace(tmp_path / "gold.parquet")
    with pytest.raises(GoldError, match="was rebuilt while it was read"):
        list(blocks)


# --- whose error it is


def test_error_of_a_file_is_not_blamed_on_redis(store: OnlineStore) -> None:
    with pytest.raises(FileNotFoundError), store.client():
        Path("/nowhere").read_bytes()


def test_redis_that_stops_to_acknowledge(
    gold: Warehouse, online: redis.Redis, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket times out where replies are read in bulk: that is Redis's."""
    stream = FeatureStream(gold, Layout(on_conflict="overwrite"), entity.CUSTOMERS, ("00",))
    first, second, *_ = stream
    monkeypatch.setattr(client, "ANSWER_SECONDS", 1)
    with pytest.raises(StoreError, match="Redis did not acknowledge: timed out"), store.bulk() as bulk:
        bulk.write(first)
        online.client_pause(1000 * HANG_SECONDS, all=False)
        bulk.write(second)
        bulk.drain()
    online.client_unpause()
