"""The engine behind the tests' ClickHouse endpoint: chdb, with the user, the sessions and the rights of a server.

Rights, profiles and constraints are ClickHouse's own: chdb reads them from the `users.xml` of a server. Only what a
server's shipped configuration adds to them is played here, see `Rights`.
"""

import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from hmac import compare_digest
from multiprocessing import get_context
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import Any

from chdb.state.sqlitelike import Connection
from clickhouse_connect.driver.binding import quote_identifier

from feature_seed_tests.support.clickhouse_faults import Faults

# Formats whose blocks can be put one after another. Any other has a head or a foot, and chdb makes it as a whole.
STREAMED_FORMATS = {"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"}

SELECT = re.compile(rb"(\s|\(|/\*.*?\*/|--[^\n]*\n)*(SELECT|WITH)\b", re.IGNORECASE | re.DOTALL)

_INSERT = re.compile(
    rb"\s*(INSERT\s+INTO\s(?:(?!\bVALUES\b|\bSELECT\b).)*?)\bFORMAT\s+(\w+)[ \t]*\r?\n?", re.IGNORECASE | re.DOTALL
)

# What everybody may read of `system` where a server's configuration has select_from_system_db_requires_grant, as the
# shipped one does; chdb does not read that part of a configuration.
_OPEN_TABLES = {
    *("aggregate_function_combinators", "build_options", "collations", "columns", "contributors", "current_roles"),
    *("data_type_families", "database_engines", "databases", "enabled_roles", "formats", "functions", "licenses"),
    *("one", "privileges", "quota_usage", "settings", "table_engines", "table_functions", "tables", "time_zones"),
}

Counts = dict[str, int]
Results = Generator[tuple[bytes, Counts], None, None]


def error(code: int, name: str, text: str) -> RuntimeError:
    """An error that only the server around the engine would raise, in the same words."""
    return RuntimeError(f"Code: {code}. DB::Exception: {text} ({name})")


def message(e: Exception) -> str:
    """The engine's words, even if they quote bytes that are no text, which chdb could not decode."""
    undecoded = e if isinstance(e, UnicodeDecodeError) else e.__cause__
    return undecoded.object.decode(errors="replace") if isinstance(undecoded, UnicodeDecodeError) else str(e)


class Engine:
    """chdb in memory, its user and its sessions.

    Handles to the one engine run side by side without locks, so a request outside a session has a handle of its own
    (1 ms). One handle runs one statement at a time, which is also ClickHouse's rule for a session.
    """

    def __init__(self, user: str, password: str, setup: str = "", place: str = ":memory:") -> None:
        self._user = user
        self._password = password
        self._place = place
        self._first = Connection(place)  # the tables last as long as one handle is open
        self._first.query(setup or "SELECT 1")
        about = self._first.query("SELECT version(), timezone()", "TSV").bytes().decode()
        self.version, self.timezone = about.split()
        self._sessions: dict[str, tuple[Connection, Lock]] = {}
        self.faults = Faults()
        self.profile: dict[str, str] = {}

    def run(self, statement: str) -> None:
        with self._handle(None) as connection:
            connection.query(statement)

    def authenticate(self, user: str, password: str) -> None:
        if not compare_digest(f"{user}:{password}".encode(), f"{self._user}:{self._password}".encode()):
            code, name = (516, "AUTHENTICATION_FAILED") if password else (194, "REQUIRED_PASSWORD")
            text = f"{user}: Authentication failed: password is incorrect, or there is no user with such name."
            raise error(code, name, text)

    @contextmanager
    def answer(
        self, query: bytes, format_: str, about: Mapping[str, str], bound: dict[str, str], settings: dict[str, str]
    ) -> Iterator[Results]:
        """A query's result, with these settings, in the session and the database of the request."""
        with self._handle(about.get("session_id")) as connection:
            if database := about.get("database"):
                connection.query(f"USE {quote_identifier(database)}")
            set_ = self._settings(connection, settings, about.get("session_id"))
            with set_, closing(self._results(connection, query, format_, bound)) as results:
                yield results

    @contextmanager
    def _settings(self, connection: Connection, settings: dict[str, str], session: str | None) -> Iterator[None]:
        """Settings of one request. Afterwards the session has the values of its own SET statements again."""
        before = _changed(connection, settings) if session else {}
        _set(connection, settings)
        try:
            yield
        finally:
            _set(connection, before)

    @contextmanager
    def _handle(self, session: str | None) -> Iterator[Connection]:
        if not session:
            with closing(Connection(self._place)) as connection:
                self._become(connection)
                yield connection
            return
        if session not in self._sessions:
            self._sessions.setdefault(session, (Connection(self._place), Lock()))
        connection, lock = self._sessions[session]
        if not lock.acquire(blocking=False):
            raise error(373, "SESSION_IS_LOCKED", f"Session {session} is locked by a concurrent client.")
        try:
            yield connection
        finally:
            lock.release()

    def _become(self, connection: Connection) -> None:
        """Settings that the user's profile has, `readonly` last: it forbids what comes after it."""
        _set(connection, dict(sorted(self.profile.items(), key=lambda setting: setting[0] == "readonly")))

    def _results(self, connection: Connection, query: bytes, format_: str, parameters: dict[str, str]) -> Results:
        """chdb's answer: a block at a time, at the reader's pace, if chdb can stream it; else all at once."""
        if insert := _INSERT.match(query):  # query() would end the data at the first semicolon
            with connection.send_insert(insert[1].decode(), insert[2].decode()) as inserter:
                inserter.append(query[insert.end() :])
                done = inserter.finish()
            yield b"", {"written_rows": done.rows_written, "written_bytes": done.bytes_written}
        elif format_ in STREAMED_FORMATS and SELECT.match(query):
            with connection.send_query(query, format_, parameters) as stream:  # type: ignore[arg-type]
                yield from map(_counted, stream)
        else:
            yield _counted(connection.query(query, format_, parameters))  # type: ignore[arg-type]


class Rights(Engine):
    """An engine whose one user is ClickHouse's `default` with the rights and the profile of a `users.xml`.

    Beyond them it is refused what a server with the shipped configuration would refuse it of `system`. The tables were
    made before, by another process, at `place`.
    """

    def __init__(self, password: str, users: Path, place: Path) -> None:
        config = place.with_suffix(".xml")
        config.write_text(f"<clickhouse><users_config>{users.resolve()}</users_config></clickhouse>")
        super().__init__("default", password, place=f"{place}?config-file={config}")
        self._first.query("SELECT 1")

    def _results(self, connection: Connection, query: bytes, format_: str, parameters: dict[str, str]) -> Results:
        grants = connection.query("SHOW GRANTS", "TSV").bytes().decode()
        granted = set(re.findall(r"\bSELECT(?:\([^)]*\))? ON system\.(\w+)", grants))
        for table in re.findall(r"\bsystem\.(\w+)", query.decode()):
            if table not in _OPEN_TABLES | granted:
                needed = f"To execute this query, it's necessary to have the grant SELECT ON system.{table}."
                raise error(497, "ACCESS_DENIED", f"default: Not enough privileges. {needed}")
        yield from super()._results(connection, query, format_, parameters)


class OldEngine(Engine):
    """An engine of a wheel before chdb 4.

    It has one session whatever the handle, takes parameters as settings, does not insert bytes and answers as a whole.
    """

    _lock = Lock()

    @contextmanager
    def _settings(self, connection: Connection, settings: dict[str, str], session: str | None) -> Iterator[None]:
        with super()._settings(connection, {**self.profile, **settings}, session or "the only one"):
            yield

    @contextmanager
    def _handle(self, session: str | None) -> Iterator[Connection]:
        with self._lock:
            self._first.query("USE default")
            yield self._first

    def _results(self, connection: Connection, query: bytes, format_: str, parameters: dict[str, str]) -> Results:
        _set(connection, {f"param_{name}": value for name, value in parameters.items()})
        if insert := _INSERT.match(query):
            with NamedTemporaryFile() as rows:
                rows.write(query[insert.end() :])
                rows.flush()
                source = f"SELECT * FROM file({_quote(rows.name)}, {_quote(insert[2].decode())})"
                yield connection.query(f"{insert[1].decode()} {source}").bytes(), {}
        else:
            yield connection.query(query.decode(), format_).bytes(), {}


def start(user: str, password: str, setup: str, users: Path | None, place: Path | None) -> Engine:
    """The engine of this process: with the tables of the SQL `setup`, and the rights of `users` if there are any."""
    if users and place:
        # Set up in another process: chdb takes the rights when it starts, and with these nobody may create a table.
        if not (place / "data").exists():
            process = get_context("spawn").Process(target=Engine, args=("", "", setup, str(place / "data")))
            process.start()
            process.join()
        return Rights(password, users, place / "data")
    return (Engine if hasattr(Connection, "send_insert") else OldEngine)(user, password, setup)


def _counted(result: Any) -> tuple[bytes, Counts]:
    return result.bytes(), {
        "read_rows": result.storage_rows_read(),
        "read_bytes": result.storage_bytes_read(),
        "written_rows": result.rows_written(),
        "written_bytes": result.bytes_written(),
        "result_rows": result.rows_read(),
    }


def _changed(connection: Connection, names: Iterable[str]) -> dict[str, str | None]:
    """The values of settings; None where a setting has the engine's own value."""
    quoted = ", ".join(map(_quote, names)) or "NULL"
    known = f"SELECT name, if(changed, value, NULL) FROM system.settings WHERE name IN ({quoted})"
    return dict(map(json.loads, connection.query(known, "JSONCompactEachRow").bytes().splitlines()))


def _set(connection: Connection, settings: Mapping[str, Any]) -> None:
    if settings:
        values = [f"{name} = {'DEFAULT' if value is None else _quote(value)}" for name, value in settings.items()]
        connection.query(f"SET {', '.join(values)}")


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
