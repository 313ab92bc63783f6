"""The ClickHouse endpoint of the tests answers clickhouse-connect, and plain HTTP, as a server does."""

import datetime as dt
import http.client
import ipaddress
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from feature_seed_tests.support.clickhouse_http import ClickHouseServer, clickhouse_server
from feature_seed_tests.support.patience import HANG_SECONDS

# A name that is plain in an URL and in a header, but not ASCII; both sides must agree on UTF-8.
USER, PASSWORD = "seeder", "pä:ss wörd"

# clickhouse-connect closes responses that the garbage collector has already taken apart.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

# Fails in its last tenth, when megabytes are with the reader.
FAILS_LATE = "SELECT number, repeat('x', 100), throwIf(number = 900000, 'too late') FROM numbers(1000000)"

Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def server() -> Iterator[ClickHouseServer]:
    with clickhouse_server(USER, PASSWORD) as server:
        yield server


@pytest.fixture
def connect(server: ClickHouseServer) -> Iterator[Connect]:
    clients: list[Client] = []

    def connect(**options: Any) -> Client:
        known = {"host": server.host, "port": server.port, "username": USER, "password": PASSWORD}
        clients.append(clickhouse_connect.get_client(**{**known, **options}))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Connect) -> Client:
    return connect()


def open_query(
    server: ClickHouseServer, query: str, headers: Mapping[str, str] | None = None, **parameters: str
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A response without clickhouse-connect; closing the connection leaves the rest unread."""
    login = {"X-ClickHouse-User": USER, "X-ClickHouse-Key": PASSWORD.encode().decode("latin-1")}
    connection = http.client.HTTPConnection(server.host, server.port, timeout=HANG_SECONDS)
    connection.request("POST", f"/?{urlencode(parameters)}", query, {**login, **(headers or {})})
    return connection, connection.getresponse()


def memory_bytes(server: ClickHouseServer) -> int:
    """The most memory that the server ever held."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def test_starts_with_its_setup_and_ends(tmp_path: Path) -> None:
    setup = tmp_path / "setup.sql"
    setup.write_text("CREATE TABLE ready (id UInt8) ENGINE = MergeTree ORDER BY id; INSERT INTO ready VALUES (7);")
    with clickhouse_server("default", "hidden", setup) as server:
        client = clickhouse_connect.get_client(host=server.host, port=server.port, password="hidden")
        assert client.command("SELECT id FROM ready") == 7
        assert b"hidden" not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert "hidden" not in repr(server)
        assert client.ping()
    assert not client.ping()
    assert not Path(f"/proc/{server.pid}").exists()


def test_start_that_fails_shows_why(tmp_path: Path) -> None:
    setup = tmp_path / "setup.sql"
    setup.write_text("INSERT INTO missing VALUES (1)")
    with pytest.raises(RuntimeError, match="UNKNOWN_TABLE"), clickhouse_server("default", "", setup):
        pass


@pytest.mark.parametrize(
    ("user", "password", "status", "name"),
    [
        (USER, "wrong", 403, "AUTHENTICATION_FAILED"),
        ("nobody", PASSWORD, 403, "AUTHENTICATION_FAILED"),
        (USER, "", 401, "REQUIRED_PASSWORD"),
    ],
)
def test_wrong_credentials_are_refused(
    server: ClickHouseServer, connect: Connect, user: str, password: str, status: int, name: str
) -> None:
    with pytest.raises(DatabaseError, match=f"{user}: Authentication failed: password is incorrect") as failure:
        connect(username=user, password=password)
    assert failure.value.name == name
    headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password.encode().decode("latin-1")}
    connection, response = open_query(server, "SELECT 1", headers)
    assert response.status == status
    connection.close()


def test_parameters_are_bound_by_the_server(client: Client) -> None:
    values = {
        "text": "tab\tquote'back\\slash\r\nünï€😀",
        "texts": ["a'b", "c\td"],
        "none": None,
        "shards": [0, 15],
        "when": dt.datetime(2018, 4, 1, 12, 30),
        "table": "numbers",
    }
    bound = client.query(
        "SELECT {text:String}, {texts:Array(String)}, {none:Nullable(String)}, {shards:Array(UInt16)}, {when:DateTime} "
        "FROM system.{table:Identifier} LIMIT 1",
        parameters=values,
    )
    assert bound.result_rows == [tuple(list(values.values())[:5])]


@pytest.mark.parametrize("text", ["x" * 10_000, "é\r\n--\t" * 2_000], ids=["long", "awkward"])
def test_long_parameters_travel_as_a_form(client: Client, text: str) -> None:
    assert client.query("SELECT {text:String}", parameters={"text": text}).result_rows == [(text,)]


# Not DateTime('UTC'): chdb's Native, made for no client revision, names it DateTime; DateTime64 keeps its time zone.
ROUND_TRIP: list[tuple[str, list[Any]]] = [
    ("UInt8", [0, 255]),
    ("Int64", [-(2**63), 2**63 - 1]),
    ("UInt256", [0, 2**256 - 1]),
    ("Float64", [0.1 + 0.2, -1e300]),
    ("Bool", [True, False]),
    ("Decimal(18, 4)", [Decimal("-12345.6789"), Decimal("0.0001")]),
    ("String", ["", "ünï\x00cod€"]),
    ("FixedString(3)", [b"abc", b"\x00\xff\x01"]),
    ("LowCardinality(String)", ["grocery", "travel"]),
    ("LowCardinality(Nullable(String))", [None, "x"]),
    ("Nullable(Float64)", [None, 1.5]),
    ("Date", [dt.date(1970, 1, 1), dt.date(2018, 9, 30)]),
    ("DateTime", [dt.datetime(2018, 4, 1, 0, 0, 31, tzinfo=dt.timezone.utc)] * 2),
    ("DateTime64(6, 'UTC')", [dt.datetime(2018, 4, 1, 0, 0, 31, 123456, tzinfo=dt.timezone.utc)] * 2),
    ("UUID", [uuid.UUID(int=1), uuid.UUID(int=2**128 - 1)]),
    ("IPv4", [ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv4Address("255.0.0.1")]),
    ("Enum8('pos' = 1, 'web' = 2)", ["pos", "web"]),
    ("Array(Array(UInt32))", [[], [[1, 2], []]]),
    ("Tuple(Float64, String)", [(1.5, "a"), (-1.5, "")]),
    ("Map(String, UInt8)", [{"a": 1}, {}]),
    ("Variant(String, UInt64)", ["a", 7]),
    ("JSON", [{"a": {"b": "c"}}, {"a": {"b": "d"}}]),
]


def test_types_come_back_as_they_went(client: Client) -> None:
    columns = [f"c{i}" for i in range(len(ROUND_TRIP))]
    types = [type_ for type_, _ in ROUND_TRIP]
    client.command("DROP TABLE IF EXISTS types")
    definition = ", ".join(f"{column} {type_}" for column, type_ in zip(columns, types, strict=True))
    client.command(f"CREATE TABLE types (row UInt8, {definition}) ENGINE = MergeTree ORDER BY row")
    rows = [[row, *(values[row] for _, values in ROUND_TRIP)] for row in range(2)]
    assert client.protocol_version > 0  # the client saw that blocks have the head that this version asks for
    assert client.insert("types", rows).written_rows == 2
    found = client.query("SELECT * EXCEPT row FROM types ORDER BY row", query_tz="UTC", tz_mode="aware")
    assert [type_.name for type_ in found.column_types] == types
    assert [list(row) for row in found.result_rows] == [row[1:] for row in rows]


def test_rows_that_cannot_be_read_are_refused(client: Client) -> None:
    client.command("CREATE OR REPLACE TABLE refused (id UInt64) ENGINE = MergeTree ORDER BY id")
    with pytest.raises(DatabaseError, match="Code: 27"):
        client.raw_insert("refused", ["id"], b"1\nx;\n", fmt="TSV")
    with pytest.raises(DatabaseError, match="Code: 33"):
        client.raw_insert("refused", ["id"], b"\x01\x02\x02id\x06UInt64\x00", fmt="Native")
    assert client.command("SELECT count() FROM refused") == 0
    client.raw_insert("refused", ["id"], "1\n2\n", fmt="CSV")
    assert client.command("SELECT sum(id) FROM refused") == 3


@pytest.mark.parametrize("method", ["lz4", "zstd", "gzip", None])
def test_bodies_are_compressed_both_ways(server: ClickHouseServer, connect: Connect, method: str | None) -> None:
    query = "SELECT number, toString(number) FROM numbers(300000)"
    connection, response = open_query(server, query, {"Accept-Encoding": method or "identity"})
    assert response.headers["Content-Encoding"] == method
    plain = 10 * 300_000
    assert (len(response.read()) < plain) == (method is not None)
    connection.close()
    client = connect(compress=method or False)
    client.command("CREATE OR REPLACE TABLE squeezed (id UInt64, text String) ENGINE = MergeTree ORDER BY id")
    client.insert("squeezed", [[i, str(i)] for i in range(20_000)])
    ids, texts = client.query("SELECT id, text FROM squeezed ORDER BY id").result_columns
    assert (list(ids), list(texts)) == (list(range(20_000)), [str(i) for i in range(20_000)])


def test_millions_of_rows_stream_through_little_memory(server: ClickHouseServer, client: Client) -> None:
    query = "SELECT concat('card:', leftPad(toString(number), 7, '0'), repeat('x', 300)) FROM numbers(3000000)"
    before, rows, sent = memory_bytes(server), 0, 0
    settings = {"max_block_size": 8192}  # what is in memory is a dozen blocks, whatever their size
    with client.query_column_block_stream(query, settings=settings, query_formats={"String": "bytes"}) as blocks:
        for (texts,) in blocks:
            rows, sent = rows + len(texts), sent + len(b"".join(texts))
    assert (rows, sent) == (3_000_000, 3_000_000 * 312)
    assert memory_bytes(server) - before < sent / 5


def test_query_waits_for_a_slow_reader_and_ends_with_it(server: ClickHouseServer) -> None:
    endless = "SELECT number, repeat('x', 100) FROM system.numbers FORMAT RowBinary"
    before = memory_bytes(server)
    connection, response = open_query(server, endless, session_id="slow")
    response.read(1_000_000)
    time.sleep(0.5)
    assert memory_bytes(server) - before < 100_000_000
    connection.close()
    response.close()
    assert wait_for_session(server, "slow") == b"1\n"


def wait_for_session(server: ClickHouseServer, session: str) -> bytes:
    while True:
        connection, response = open_query(server, "SELECT 1", session_id=session)
        body = response.read()
        connection.close()
        if response.status == 200:
            return body
        assert b"SESSION_IS_LOCKED" in body
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("query", "status", "code", "name"),
    [
        ("SELECT * FROM missing", 404, 60, "UNKNOWN_TABLE"),
        ("INSERT INTO missing VALUES (1)", 404, 60, "UNKNOWN_TABLE"),
        ("SELECT missing", 404, 47, "UNKNOWN_IDENTIFIER"),
        ("SELEC 1", 400, 62, "SYNTAX_ERROR"),
        ("SELECT throwIf(1)", 500, 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("USE missing", 404, 81, "UNKNOWN_DATABASE"),
    ],
)
def test_error_before_the_first_byte_has_its_status(
    server: ClickHouseServer, client: Client, query: str, status: int, code: int, name: str
) -> None:
    connection, response = open_query(server, query)
    assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    text = response.read().decode()
    assert text.startswith(f"Code: {code}. DB::Exception: ")
    assert f"({name}) (version {client.server_version} (official build))\n" in text
    connection.request("POST", "/", "SELECT 1", {"X-ClickHouse-User": "nobody"})  # the connection goes on
    assert connection.getresponse().status == 401
    connection.close()
    with pytest.raises(DatabaseError) as failure:
        client.command(query)
    assert (failure.value.code, failure.value.name) == (code, name)


@pytest.mark.parametrize("method", ["lz4", "zstd", False])
def test_error_after_the_first_byte_reaches_the_reader(connect: Connect, method: str | bool) -> None:
    rows = 0
    with (
        pytest.raises(StreamFailureError, match="too late") as failure,
        connect(compress=method).query_column_block_stream(FAILS_LATE) as blocks,
    ):
        for numbers, *_ in blocks:
            rows += len(numbers)
    assert (failure.value.code, failure.value.name) == (395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO")
    assert 0 < rows <= 900_000


def test_error_after_the_first_byte_is_marked_and_breaks_the_response(server: ClickHouseServer) -> None:
    connection, response = open_query(server, FAILS_LATE)
    assert response.status == 200
    with pytest.raises(http.client.IncompleteRead) as broken:
        response.read()
    tag = response.headers["X-ClickHouse-Exception-Tag"].encode()
    assert broken.value.partial.endswith(b" " + tag + b"\r\n__exception__\r\n")
    assert b"\r\n__exception__\r\n" + tag + b"\r\nCode: 395. DB::Exception: too late" in broken.value.partial
    connection.close()


def test_waiting_for_the_end_turns_a_late_error_into_a_status(server: ClickHouseServer) -> None:
    connection, response = open_query(server, FAILS_LATE, wait_end_of_query="1")
    assert response.status == 500
    assert response.read().startswith(b"Code: 395. DB::Exception: too late")
    connection.close()


def test_tables_databases_and_parts(client: Client) -> None:
    client.command("CREATE DATABASE IF NOT EXISTS shop")
    client.command("CREATE OR REPLACE TABLE shop.sales (id UInt64) ENGINE = MergeTree ORDER BY id")
    client.insert("shop.sales", [[1], [2]])
    client.insert("sales", [[3]], database="shop")
    tables = "SELECT engine, total_rows FROM system.tables WHERE database = 'shop' AND name = 'sales'"
    assert client.query(tables).result_rows == [("MergeTree", 3)]
    assert client.command("SELECT sum(rows) FROM system.parts WHERE active AND database = 'shop'") == 3
    assert client.query("DESCRIBE TABLE shop.sales").result_rows[0][:2] == ("id", "UInt64")
    assert client.command("SHOW TABLES FROM shop LIKE 'none'") == ""
    assert client.query("SELECT id FROM shop.sales LIMIT 0").column_names == ("id",)


def test_database_of_a_client(client: Client, connect: Connect) -> None:
    client.command("CREATE DATABASE IF NOT EXISTS other")
    assert connect(database="other").command("SELECT currentDatabase()") == "other"
    assert client.command("SELECT currentDatabase()") == "default"
    with pytest.raises(DatabaseError, match="UNKNOWN_DATABASE"):
        connect(database="missing")


def test_clients_read_and_write_at_the_same_time(connect: Connect) -> None:
    first, second = connect(), connect()
    numbers = "SELECT number FROM numbers(2000000)"
    with first.query_column_block_stream(numbers) as ones, second.query_column_block_stream(numbers) as others:
        sums = [sum(next(iter(ones))[0]), sum(next(iter(others))[0])]
        connect().command("CREATE OR REPLACE TABLE meanwhile (id UInt8) ENGINE = MergeTree ORDER BY id")
        sums[0] += sum(sum(block[0]) for block in ones)
        sums[1] += sum(sum(block[0]) for block in others)
    assert sums == [sum(range(2_000_000))] * 2


def test_session_keeps_what_was_set_in_it_and_no_more(connect: Connect) -> None:
    client = connect(session_id="mine")
    setting = "SELECT getSetting('max_block_size'), timezone()"
    default = client.query(setting).result_rows
    client.command("SET max_block_size = 1234")
    client.command("CREATE TEMPORARY TABLE kept (id UInt8)")
    client.insert("kept", [[5]])
    once = {"max_block_size": 99, "session_timezone": "Asia/Tokyo"}
    assert client.query(setting, settings=once).result_rows == [(99, "Asia/Tokyo")]
    assert client.query(setting).result_rows == [(1234, default[0][1])]
    assert client.command("SELECT id FROM kept") == 5
    other = connect(autogenerate_session_id=False)
    assert other.query(setting).result_rows == default
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        other.command("SELECT id FROM kept")


def test_session_runs_one_query_at_a_time(server: ClickHouseServer) -> None:
    connection, response = open_query(server, "SELECT * FROM system.numbers", session_id="busy")
    other, refused = open_query(server, "SELECT 1", session_id="busy")
    assert b"Code: 373" in refused.read()
    other.close()
    connection.close()
    response.close()


@pytest.mark.parametrize(
    ("settings", "code", "name"),
    [({"no_such_setting": 1}, 115, "UNKNOWN_SETTING"), ({"max_threads": "many"}, 27, "CANNOT_PARSE_")],
)
def test_settings_that_the_engine_refuses(client: Client, settings: dict[str, Any], code: int, name: str) -> None:
    with pytest.raises(DatabaseError, match=name) as failure:
        client.query("SELECT 1", settings=settings)
    assert failure.value.code == code
    assert client.command("SELECT 1") == 1


def test_headers_say_what_the_body_is(server: ClickHouseServer) -> None:
    connection, response = open_query(server, "SELECT 1 AS one", query_id="q-1", default_format="JSONEachRow")
    about = [response.headers[f"X-ClickHouse-{name}"] for name in ("Format", "Query-Id", "Timezone")]
    assert about[:2] == ["JSONEachRow", "q-1"]
    assert about[2]
    assert response.read() == b'{"one":1}\n'
    connection.close()
