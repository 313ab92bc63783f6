"""ClickHouse's HTTP interface, answered by chdb (the same engine) in a process of its own: a server for tests.

    python -m feature_seed_tests.support.clickhouse_http --port 0 --user U --password-from-env NAME [--setup file.sql]

listens on 127.0.0.1, prints its port when ready and ends on SIGTERM; its tables live in memory. Words, status codes and
headers follow ClickHouse's src/Server/HTTPHandler.cpp and src/Server/HTTP. What goes wrong between a server and its
client is played on demand: see `ClickHouseServer.play`.
"""

import argparse
import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from hmac import compare_digest
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase, BytesIO
from pathlib import Path
from string import ascii_lowercase
from tempfile import SpooledTemporaryFile, TemporaryFile
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import lz4.frame
from chdb._exceptions import ChdbError
from chdb.state.sqlitelike import Connection
from clickhouse_connect.driver.binding import quote_identifier

from feature_seed_tests.support.clickhouse_faults import (
    LINE,
    Fault,
    Faults,
    HungUpError,
    Line,
    disturbed,
    hang_up_on_a_slow_reader,
    late,
)
from feature_seed_tests.support.patience import HANG_SECONDS

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# What ClickHouse holds back before it commits itself to status 200 (DBMS_DEFAULT_BUFFER_SIZE).
BUFFER_BYTES = 1 << 20

# Formats whose blocks from chdb can be put one after another; any other has a head or a foot and is made as a whole.
STREAMED_FORMATS = {"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"}

# Precedes every Native block for a client that names its protocol version: not overflowed, no bucket.
BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"

# Parameters of a request that are no settings.
RESERVED = re.compile(
    "param_.+|buffer_size|client_protocol_version|close_session|compress|database|decompress|default_format|password|query"
    "|query_id|quota_key|role|session_check|session_id|session_timeout|stacktrace|user|wait_end_of_query"
)

# As exceptionCodeToHTTPStatus.cpp has it; anything else is 500.
STATUSES = {
    400: r"BAD_ARGUMENTS|CANNOT_PARSE_\w+|DUPLICATE_COLUMN|ILLEGAL_COLUMN|INCORRECT_DATA|SYNTAX_ERROR"
    "|TOO_(DEEP|BIG)_AST|THERE_IS_NO_COLUMN|TYPE_MISMATCH|VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
    401: "REQUIRED_PASSWORD",
    403: "ACCESS_DENIED|AUTHENTICATION_FAILED",
    404: "UNKNOWN_(TABLE|FUNCTION|IDENTIFIER|TYPE|STORAGE|DATABASE|SETTING|AGGREGATE_FUNCTION|FORMAT|DATABASE_ENGINE)",
    408: "TIMEOUT_EXCEEDED",
    501: "NOT_IMPLEMENTED",
}

_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_INSERT = re.compile(
    rb"\s*(INSERT\s+INTO\s(?:(?!\bVALUES\b|\bSELECT\b).)*?)\bFORMAT\s+(\w+)[ \t]*\r?\n?", re.IGNORECASE | re.DOTALL
)
_SELECT = re.compile(rb"(\s|\(|/\*.*?\*/|--.*?\n)*(SELECT|WITH)\b", re.IGNORECASE | re.DOTALL)
_WITHOUT_RESULT = re.compile(
    rb"\s*(ALTER|ATTACH|CREATE|DELETE|DETACH|DROP|EXCHANGE|INSERT|OPTIMIZE|RENAME|SET|SYSTEM|TRUNCATE|UPDATE|USE)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ClickHouseServer:
    """A running server, its process and the one user it knows."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    pid: int

    def play(self, kind: str, **details: Any) -> None:
        """Play a Fault in the next streamed SELECT, or the next `times` of them."""
        self._control("POST", json.dumps(asdict(Fault(kind, **details))))

    def played(self) -> int:
        """How many times the fault was played."""
        return self._noticed(0)

    def left(self) -> int:
        """How many readers have left in the middle of an answer since then, as far as the server has noticed."""
        return self._noticed(1)

    def gave_up(self) -> int:
        """How many answers the server has broken off since then, as it could send nothing for too long."""
        return self._noticed(2)

    def ended(self) -> int:
        """How many streamed answers it has sent whole since then."""
        return self._noticed(3)

    def _noticed(self, position: int) -> int:
        return int(self._control("GET").split()[position])

    def _control(self, method: str, body: str | None = None) -> bytes:
        with closing(HTTPConnection(self.host, self.port, timeout=HANG_SECONDS)) as connection:
            connection.request(method, "/faults", body)
            return connection.getresponse().read()


@contextmanager
def clickhouse_server(user: str, password: str, setup: Path | None = None, port: int = 0) -> Iterator[ClickHouseServer]:
    """Start a server without tables, or with what the SQL file `setup` makes, and end it afterwards.

    Raises:
        RuntimeError: it did not start; its stderr.
    """
    command = [sys.executable, "-m", __name__, "--user", user, "--password-from-env", "CLICKHOUSE_TEST_PASSWORD"]
    command += ["--port", str(port), *(["--setup", str(setup.resolve())] if setup else [])]
    environment = {**os.environ, "CLICKHOUSE_TEST_PASSWORD": password}
    root = Path(__file__).parents[2]
    with TemporaryFile("w+") as stderr:  # a pipe that nobody reads would stop the server once it is full
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
        with process:
            try:
                listening = process.stdout.readline() if process.stdout else ""
                if not listening:
                    process.wait(HANG_SECONDS)
                    stderr.seek(0)
                    raise RuntimeError(f"The ClickHouse test server did not start: {stderr.read()}")
                yield ClickHouseServer("127.0.0.1", int(listening), user, password, process.pid)
            finally:
                _end(process)
                stderr.seek(0)
                sys.stderr.write(stderr.read())


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(HANG_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


# Writers of one frame each, in the server's order of preference; it would take brotli after zstd.
ENCODERS: dict[str, Callable[[Any], Any]] = {
    "zstd": lambda sink: zstd.ZstdFile(sink, "w"),
    "lz4": lambda sink: lz4.frame.LZ4FrameFile(sink, "w"),
    "gzip": lambda sink: gzip.GzipFile(fileobj=sink, mode="w"),
}

# Bodies may be of several frames: clickhouse-connect compresses a block at a time.
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstd.decompress,
    "lz4": lambda body: lz4.frame.LZ4FrameFile(BytesIO(body)).read(),
    "gzip": gzip.decompress,
}


def error(code: int, name: str, text: str) -> ChdbError:
    """What only the server around the engine would raise, worded alike."""
    return ChdbError(f"Code: {code}. DB::Exception: {text} ({name})")


def _message(e: Exception) -> str:
    """What the engine said, even where it quotes bytes that are no text and chdb could not decode it."""
    undecoded = e if isinstance(e, UnicodeDecodeError) else e.__cause__
    return undecoded.object.decode(errors="replace") if isinstance(undecoded, UnicodeDecodeError) else str(e)


class Engine:
    """chdb in memory, its user and its sessions.

    Handles to the one engine run side by side without locks, so a request outside a session has a handle of its own
    (1 ms). One handle runs one statement at a time, which is also ClickHouse's rule for a session.
    """

    def __init__(self, user: str, password: str, setup: str) -> None:
        self._user = user
        self._password = password
        self._first = Connection(":memory:")  # the tables last as long as some handle
        self._first.query(setup or "SELECT 1")
        about = self._first.query("SELECT version(), timezone()", "TSV").bytes().decode()
        self.version, self.timezone = about.split()
        self._sessions: dict[str, tuple[Connection, Lock]] = {}
        self.faults = Faults()

    def run(self, statement: str) -> None:
        with closing(Connection(":memory:")) as connection:
            connection.query(statement)

    def authenticate(self, user: str, password: str) -> None:
        if not compare_digest(f"{user}:{password}".encode(), f"{self._user}:{self._password}".encode()):
            code, name = (516, "AUTHENTICATION_FAILED") if password else (194, "REQUIRED_PASSWORD")
            text = f"{user}: Authentication failed: password is incorrect, or there is no user with such name."
            raise error(code, name, text)

    @contextmanager
    def handle(self, session: str | None) -> Iterator[Connection]:
        if not session:
            with closing(Connection(":memory:")) as connection:
                yield connection
            return
        if session not in self._sessions:
            self._sessions.setdefault(session, (Connection(":memory:"), Lock()))
        connection, lock = self._sessions[session]
        if not lock.acquire(blocking=False):
            raise error(373, "SESSION_IS_LOCKED", f"Session {session} is locked by a concurrent client.")
        try:
            yield connection
        finally:
            lock.release()


@contextmanager
def _settings(connection: Connection, settings: dict[str, str]) -> Iterator[None]:
    """Settings of one request: afterwards the session has again what its own SET statements made of them."""
    names = ", ".join(map(_quote, settings)) or "''"
    known = f"SELECT name, if(changed, value, NULL) FROM system.settings WHERE name IN ({names})"
    before = dict(map(json.loads, connection.query(known, "JSONCompactEachRow").bytes().splitlines()))
    for name in settings.keys() - before:
        raise error(115, "UNKNOWN_SETTING", f"Setting {name} is neither a builtin setting nor started with the prefix.")
    try:
        _set(connection, settings)
        yield
    finally:
        _set(connection, before)


def _set(connection: Connection, settings: dict[str, Any]) -> None:
    if settings:
        values = [f"{name} = {'DEFAULT' if value is None else _quote(value)}" for name, value in settings.items()]
        connection.query(f"SET {', '.join(values)}")


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


Counts = dict[str, int]


def _results(
    connection: Connection, query: bytes, format_: str, parameters: dict[str, str]
) -> Generator[tuple[bytes, Counts], None, None]:
    """What chdb answers: a block at a time where it can stream, at the reader's pace; else all at once."""
    if insert := _INSERT.match(query):  # query() would end the data at the first byte that is a semicolon
        with connection.send_insert(insert[1].decode(), insert[2].decode()) as inserter:
            inserter.append(query[insert.end() :])
            done = inserter.finish()
        yield b"", {"written_rows": done.rows_written, "written_bytes": done.bytes_written}
    elif format_ in STREAMED_FORMATS and _SELECT.match(query):
        with connection.send_query(query, format_, parameters) as stream:  # type: ignore[arg-type]
            yield from map(_counted, stream)
    else:
        yield _counted(connection.query(query, format_, parameters))  # type: ignore[arg-type]


def _counted(result: Any) -> tuple[bytes, Counts]:
    return result.bytes(), {
        "read_rows": result.storage_rows_read(),
        "read_bytes": result.storage_bytes_read(),
        "written_rows": result.rows_written(),
        "written_bytes": result.bytes_written(),
        "result_rows": result.rows_read(),
    }


class Chunks:
    """The end of a response's writers: what is written goes out as a chunk, as soon as the reader takes it."""

    def __init__(self, socket: BufferedIOBase) -> None:
        self._socket = socket

    def write(self, data: bytes) -> int:
        if data:  # an empty chunk would be the last
            self._socket.write(b"%x\r\n%b\r\n" % (len(data), data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back here."""

    def close(self) -> None:
        """Without compression there is no frame to end."""


class Reply:
    """A response of which BUFFER_BYTES, or all of it, are held back: until then an error can still have its status."""

    def __init__(self, handler: "Handler", parameters: dict[str, str]) -> None:
        self._handler = handler
        self._hold_all = parameters.get("wait_end_of_query", "0") != "0"
        self._held = SpooledTemporaryFile(64 * BUFFER_BYTES)  # noqa: SIM115 (closed with the response, by refcount)
        compress = parameters.get("enable_http_compression") != "0"
        accepted = handler.headers.get("Accept-Encoding", "") if compress else ""
        self._encoding = next((name for name in ENCODERS if name in accepted), None)
        self._out: Any = None
        self._counts = Counter[str]()
        self._tag = "".join(random.choices(ascii_lowercase, k=16))
        self.headers = {
            "X-ClickHouse-Server-Display-Name": "chdb",
            "X-ClickHouse-Query-Id": parameters.get("query_id") or str(uuid4()),
            "X-ClickHouse-Exception-Tag": self._tag,
        }

    def write(self, data: bytes, counts: Counts) -> None:
        self._counts.update(counts)
        self._held.write(data)
        if not self._hold_all and self._held.tell() >= BUFFER_BYTES:
            self.flush()

    def finish(self) -> None:
        self.flush()
        self._out.close()
        self._handler.wfile.write(b"0\r\n\r\n")

    def fail(self, message: str) -> None:
        """An error, with its status or, after the first byte, as a marked block and a response without an end."""
        if self._out is None:
            self._handler.send_failure(message, self.headers)
            return
        text, tag = message.encode(), self._tag.encode()
        self._held.write(b"\r\n__exception__\r\n%b\r\n%b\n%d %b\r\n__exception__\r\n" % (tag, text, len(text), tag))
        self.flush()
        self._out.close()
        self._handler.close_connection = True

    def flush(self) -> None:
        self._out = self._out or self._start()
        self._held.seek(0)
        while part := self._held.read(BUFFER_BYTES):
            self._out.write(part)
        self._held.seek(0)
        self._held.truncate()

    def push(self) -> None:
        """Hold nothing back, not even in the compressor."""
        self.flush()
        self._out.flush()

    def _start(self) -> Any:
        encoding = {"Content-Encoding": self._encoding} if self._encoding else {}
        summary = json.dumps({name: str(count) for name, count in self._counts.items()})
        headers = {**self.headers, **encoding, "X-ClickHouse-Summary": summary, "Transfer-Encoding": "chunked"}
        self._handler.send_head(200, headers)
        chunks = Chunks(self._handler.wfile)
        return ENCODERS[self._encoding](chunks) if self._encoding else chunks


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # heads and bodies are separate writes: 40 ms a request otherwise

    def __init__(self, engine: Engine, *args: Any) -> None:
        self._engine = engine
        self._begun = False
        super().__init__(*args)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the reader left, which has cancelled its query
            self._engine.faults.left += self._begun
            self.close_connection = True
        except BlockingIOError:
            self._engine.faults.gave_up += 1
            self.close_connection = True
        except HungUpError:
            self.close_connection = True
        self._begun = False

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/ping":
            self._send_text(200, "Ok.\n", {})
        elif self.path == "/faults":
            faults = self._engine.faults
            self._send_text(200, f"{faults.played} {faults.left} {faults.gave_up} {faults.ended}", {})
        else:
            self.do_POST()

    def do_POST(self) -> None:
        if self.path == "/faults":
            self._engine.faults.plan(Fault(**json.loads(self._body())))
            self._send_text(200, "", {})
            return
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self._body()
        reply = Reply(self, parameters)
        try:
            if self.headers.get_content_type() == "multipart/form-data":
                parameters, body = {**parameters, **self._form(body)}, b""
            self._engine.authenticate(*self._credentials(parameters))
            self._run(b"\n".join(filter(None, [parameters.get("query", "").encode(), body])), parameters, reply)
        except (RuntimeError, UnicodeDecodeError) as e:  # ChdbError is a RuntimeError; inserts raise the bare one
            text = _message(e)
            reply.fail(f"{text[text.index('Code: ') :]} (version {self._engine.version} (official build))")

    def _run(self, query: bytes, parameters: dict[str, str], reply: Reply) -> None:
        settings = {k: v for k, v in parameters.items() if not RESERVED.fullmatch(k)}
        bound = {k.removeprefix("param_"): v for k, v in parameters.items() if k.startswith("param_")}
        named = _FORMAT.search(query[-200:])
        default = self.headers.get("X-ClickHouse-Format") or parameters.get("default_format") or "TabSeparated"
        format_ = named[1].decode() if named else default
        head = BLOCK_INFO if format_ == "Native" and parameters.get("client_protocol_version", "0") != "0" else b""
        streamed = format_ == "Native" and "wait_end_of_query" not in parameters and _SELECT.match(query)
        fault = self._engine.faults.take(streamed=bool(streamed)) or Fault("none")
        if fault.kind == "busy":
            self._send_text(503, "Try again later\n", {})
            return
        hang_up_on_a_slow_reader(self.connection, fault)
        if fault.kind in LINE:
            self.wfile = Line(self.wfile, self.connection, fault)  # type: ignore[assignment]
        if fault.kind == "late":
            late(fault, self._send_progress)
        if fault.kind == "old_exception":
            del reply.headers["X-ClickHouse-Exception-Tag"]
        with self._engine.handle(parameters.get("session_id")) as connection:
            if database := parameters.get("database"):
                connection.query(f"USE {quote_identifier(database)}")
            with _settings(connection, settings), closing(_results(connection, query, format_, bound)) as results:
                reply.headers["X-ClickHouse-Timezone"] = parameters.get("session_timezone") or self._engine.timezone
                if not _WITHOUT_RESULT.match(query):
                    reply.headers["X-ClickHouse-Format"] = format_
                blocks = ((head + data if data else b"", counts) for data, counts in results)
                for data, counts in disturbed(fault, blocks, reply.push, self._engine.run):
                    reply.write(data, counts)
        reply.finish()
        self._engine.faults.ended += bool(streamed)

    def _credentials(self, parameters: dict[str, str]) -> tuple[str, str]:
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            user, _, password = b64decode(encoded).decode().partition(":")
            return user, password
        user = self._header("X-ClickHouse-User") or parameters.get("user", "default")
        return user, self._header("X-ClickHouse-Key") or parameters.get("password", "")

    def _header(self, name: str) -> str:
        return self.headers.get(name, "").encode("latin-1").decode()  # http.server takes every byte for a character

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._read_chunk, b""))
        encoding = self.headers.get("Content-Encoding")
        return DECODERS[encoding](body) if encoding else body

    def _read_chunk(self) -> bytes:
        chunk = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return chunk

    def _form(self, body: bytes) -> dict[str, str]:
        """The fields of a multipart form, in which long parameters are sent."""
        parts = (b"\r\n" + body).split(f"\r\n--{self.headers.get_boundary()}".encode())[1:-1]
        heads_values = [part.split(b"\r\n\r\n", 1) for part in parts]
        if any(b"filename=" in head for head, _ in heads_values):
            raise error(48, "NOT_IMPLEMENTED", "This server for tests takes no external data.")
        return {head.split(b'name="')[1].split(b'"')[0].decode(): value.decode() for head, value in heads_values}

    def send_failure(self, message: str, headers: dict[str, str]) -> None:
        code = re.search(r"Code: (\d+)", message)
        name = re.findall(r"\(([A-Z][A-Z0-9_]+)\)", message)[-1]
        status = next((status for status, names in STATUSES.items() if re.fullmatch(names, name)), 500)
        challenge = {"WWW-Authenticate": 'Basic realm="ClickHouse server HTTP API"'} if status == 401 else {}
        about = {"X-ClickHouse-Exception-Code": code[1] if code else "1002"}
        self._send_text(status, message + "\n", {**headers, **about, **challenge})

    def _send_text(self, status: int, text: str, headers: dict[str, str]) -> None:
        body = text.encode()
        self.send_head(status, {"Content-Type": "text/plain", **headers, "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _send_progress(self) -> None:
        if not self._begun:
            self.send_response(200)
        self._begun = True
        self.send_header("X-ClickHouse-Progress", '{"read_rows":"1"}')
        self.flush_headers()

    def send_head(self, status: int, headers: dict[str, str]) -> None:
        if not self._begun:
            self.send_response(status)
        self._begun = True
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: tests read stderr for errors only."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password-from-env", required=True, metavar="NAME")
    parser.add_argument("--setup", type=Path, metavar="FILE.SQL")
    arguments = parser.parse_args()
    setup = arguments.setup.read_text() if arguments.setup else ""
    engine = Engine(arguments.user, os.environ[arguments.password_from_env], setup)
    signal.signal(
        signal.SIGTERM, lambda *_: os._exit(0)
    )  # in memory: nothing to save, and readers may be in mid-stream
    with ThreadingHTTPServer(("127.0.0.1", arguments.port), partial(Handler, engine)) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
