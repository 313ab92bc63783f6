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
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase, BytesIO
from pathlib import Path
from string import ascii_lowercase
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import lz4.frame

from feature_seed_tests.support.clickhouse_engine import SELECT, Counts, Engine, error, message, start
from feature_seed_tests.support.clickhouse_faults import (
    LINE,
    Fault,
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

    def set_profile(self, **settings: str) -> None:
        """Give the user a profile of these settings, in place of another."""
        self._control("POST", json.dumps(settings), "/profile")

    def _control(self, method: str, body: str | None = None, path: str = "/faults") -> bytes:
        with closing(HTTPConnection(self.host, self.port, timeout=HANG_SECONDS)) as connection:
            connection.request(method, path, body)
            return connection.getresponse().read()


@contextmanager
def clickhouse_server(
    user: str,
    password: str,
    setup: Path | None = None,
    port: int = 0,
    users: Path | None = None,
    place: Path | None = None,
    python: Path = Path(sys.executable),
) -> Iterator[ClickHouseServer]:
    """Start a server without tables, or with what the SQL file `setup` makes, and end it afterwards.

    With `users`, a users.xml, the user is its `default`, with the rights and the profile that it has there, and the
    tables are in the directory `place`, where the first server of several makes them. `python` is an interpreter with
    chdb and clickhouse-connect, for another version of the engine.

    Raises:
        RuntimeError: it did not start; its stderr.
    """
    command = [str(python), "-m", __name__, "--user", user, "--password-from-env", "CLICKHOUSE_TEST_PASSWORD"]
    command += ["--port", str(port), *(["--setup", str(setup.resolve())] if setup else [])]
    environment = {**os.environ, "CLICKHOUSE_TEST_PASSWORD": password}
    root = Path(__file__).parents[2]
    with TemporaryFile("w+") as stderr:  # a pipe that nobody reads would fill up
        command += ["--users", str(users.resolve()), "--place", str(place)] if users else []
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
        if self.path == "/profile":
            self._engine.profile = json.loads(self._body())
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
            text = message(e)
            reply.fail(f"{text[text.index('Code: ') :]} (version {self._engine.version} (official build))")

    def _run(self, query: bytes, parameters: dict[str, str], reply: Reply) -> None:
        settings = {k: v for k, v in parameters.items() if not RESERVED.fullmatch(k)}
        bound = {k.removeprefix("param_"): v for k, v in parameters.items() if k.startswith("param_")}
        named = _FORMAT.search(query[-200:])
        default = self.headers.get("X-ClickHouse-Format") or parameters.get("default_format") or "TabSeparated"
        format_ = named[1].decode() if named else default
        head = BLOCK_INFO if format_ == "Native" and parameters.get("client_protocol_version", "0") != "0" else b""
        streamed = format_ == "Native" and "wait_end_of_query" not in parameters and SELECT.match(query)
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
        with self._engine.answer(query, format_, parameters, bound, settings) as results:
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
    parser.add_argument("--users", type=Path, metavar="USERS.XML", help="needs --place")
    parser.add_argument("--place", type=Path, metavar="DIRECTORY", help="for the tables of a user with few rights")
    arguments = parser.parse_args()
    setup = arguments.setup.read_text() if arguments.setup else ""
    password = os.environ[arguments.password_from_env]
    engine = start(arguments.user, password, setup, arguments.users, arguments.place)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing to save, and readers may be in mid-stream
    with ThreadingHTTPServer(("127.0.0.1", arguments.port), partial(Handler, engine)) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
