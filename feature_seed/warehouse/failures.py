"""The failures of ClickHouse: what to tell the operator, and whether another attempt may succeed."""

import re
import time
from collections.abc import Callable
from typing import TypeVar

from clickhouse_connect.driver.exceptions import (
    DatabaseError,
    Error,
    InternalError,
    OperationalError,
    StreamFailureError,
)
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError

from feature_seed import tls
from feature_seed.errors import GoldError, WarehouseError, WarehouseUnavailableError
from feature_seed.warehouse.source import GoldSource

T = TypeVar("T")

# How long the server may send nothing while somebody waits for it. A healthy server is never silent for so long: it
# names its progress every 120 s while it scans. keepalive finds a dead host in that time too. Slow reading does not
# count.
ANSWER_SECONDS = 300

# The pause before each further try of a query that could not start. A server restarts in some seconds.
RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0)

# Errors of a server that may not come again at another attempt.
_OVERLOADED = (
    "ALL_CONNECTION_TRIES_FAILED",
    "NETWORK_ERROR",
    "SERVER_OVERLOADED",
    "SOCKET_TIMEOUT",
    "TOO_MANY_SIMULTANEOUS_QUERIES",
)

# The statuses by which a proxy or a full server asks for another try.
_LATER = ("429", "502", "503", "504")

# Which settings of a user's profile stand behind an error, by its name, if ClickHouse's own words do not say.
_SETTINGS = {
    "INDEX_NOT_USED": "force_primary_key, force_index_by_date or force_data_skipping_indices",
    "MEMORY_LIMIT_EXCEEDED": "max_memory_usage",
    "QUERY_CACHE_USED_WITH_.*": "use_query_cache",
    "READONLY": "readonly",
    "SETTING_CONSTRAINT_VIOLATION": "a constraint on a setting",
    "SYNTAX_ERROR": "max_query_size or dialect",
    "TIMEOUT_EXCEEDED|TOO_SLOW": "max_execution_time, max_estimated_execution_time or min_execution_speed",
    "TOO_(BIG|DEEP)_.*": "max_ast_elements, max_ast_depth or max_subquery_depth",
    "TOO_MANY_.*COLUMNS": "max_columns_to_read, max_temporary_columns or max_temporary_non_const_columns",
    "TOO_MANY_(ROWS|BYTES).*|SET_SIZE_.*": "max_result_rows, max_rows_to_read or another max_rows_ or max_bytes_",
}

# The errors for a file that is no Parquet, is cut off, or was written anew since its columns were looked at.
_BAD_FILE = (
    "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
    "CANNOT_PARSE_TEXT",
    "INCORRECT_DATA",
    "THERE_IS_NO_COLUMN",
    "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
)


_LOGIN = "ClickHouse at {0.address} refuses user {0.login!r}: check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD"
_DAMAGED = (
    "FEATURE_SEED_GOLD_PARQUET {0.gold_parquet!r} cannot be read: a file is damaged, or was written anew meanwhile. {1}"
)

# The text about an error, by its name, with a GoldSource and ClickHouse's own words.
_OF_GOLD = {
    "UNKNOWN_TABLE": "There is no gold table {0.gold_table!r} in database {0.database!r} of {0.address}: build it, or "
    "name the right one in FEATURE_SEED_GOLD_TABLE and CLICKHOUSE_DATABASE",
    "UNKNOWN_DATABASE": "There is no database {0.database!r} on {0.address}: check CLICKHOUSE_DATABASE",
    "FILE_DOESNT_EXIST": "No Parquet file matches FEATURE_SEED_GOLD_PARQUET {0.gold_parquet!r}: {1}",
}
_OF_THE_USER = {
    **dict.fromkeys(("AUTHENTICATION_FAILED", "REQUIRED_PASSWORD", "UNKNOWN_USER"), _LOGIN),
    "ACCESS_DENIED": "ClickHouse at {0.address} does not let user {0.login!r} read gold. "
    "GRANT SELECT({0.columns_read}), SHOW COLUMNS ON {0.database}.{0.gold_table} TO {0.login}. {1}",
}


def explain(error: Error, place: GoldSource) -> WarehouseError:
    """The error that names the table, the cause and the way out where ClickHouse only gives a code.

    If ids are hashed, ClickHouse's own words are left out: they may quote an id, or a query with the salt.
    """
    explained = _explained(error, place)
    if not place.mapping.salts:
        return explained
    name = f"{error.name or type(error).__name__}. What ClickHouse says is left out, since ids of gold are hashed"
    said = str(error).partition(", Stack trace")[0]
    return type(explained)(str(explained).replace(str(error), name).replace(said, name))


def _explained(error: Error, place: GoldSource) -> WarehouseError:
    said = {**_OF_GOLD, **(dict.fromkeys(_BAD_FILE, _DAMAGED) if place.gold_parquet else {})}
    if error.name in said:
        return GoldError(said[error.name].format(place, error))
    if error.name in _OF_THE_USER:
        return WarehouseError(_OF_THE_USER[error.name].format(place, error))
    if error.name == "S3_ERROR":
        return _of_s3(error, place)
    kind = WarehouseUnavailableError if _passes(error) else WarehouseError
    return kind(_said(error, place))


def _of_s3(error: Error, place: GoldSource) -> WarehouseError:
    said = str(error).partition(", Stack trace")[0]
    refused = re.search(r"HTTP response code: 40\d|AccessDenied|NoSuch|Invalid|Signature|credentials", said)
    kind = GoldError if refused else WarehouseUnavailableError
    return kind(
        f"FEATURE_SEED_GOLD_PARQUET {place.gold_parquet!r} cannot be read: check the bucket, AWS_ENDPOINT_URL and "
        f"AWS_REGION, and that AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN may list and read it. {said}"
    )


def _said(error: Error, place: GoldSource) -> str:
    at, user = place.address, place.login
    settings = next((names for pattern, names in _SETTINGS.items() if re.fullmatch(pattern, error.name or "")), "")
    if settings and "(total)" not in str(error):  # else the server's memory is meant, not the user's
        return (
            f"ClickHouse at {at} does not answer user {user!r}, for the settings of its profile: "
            f"change {settings} for it. {error}"
        )
    if _caused_by(error, ReadTimeoutError):
        return f"ClickHouse at {at} sent nothing for {ANSWER_SECONDS} s: look at its load and the network. Run again"
    if isinstance(error, StreamFailureError) and error.code is None:
        return f"ClickHouse at {at} broke off in the middle of its answer: look into its log, then run again. {error}"
    if status := _status(error):
        return (
            f"ClickHouse at {at} answered HTTP status {status} and no error of its own, as a proxy does: "
            f"look at what is in between, and check CLICKHOUSE_HOST and CLICKHOUSE_PORT. {error}"
        )
    if _caused_by(error, HTTPError):
        names = "CLICKHOUSE_HOST, CLICKHOUSE_PORT, CLICKHOUSE_SECURE and CLICKHOUSE_CA"
        return f"ClickHouse at {at} cannot be reached: check {names}. {error}"
    if isinstance(error, OperationalError | InternalError) and error.code is None:
        return (
            f"ClickHouse at {at} answered what its client cannot read. If it is ClickHouse that answers there, look "
            "for offset, additional_result_filter and output_format_native_encode_types_in_binary_format in the "
            f"profile of user {user!r}. {error}"
        )
    return f"ClickHouse at {at} failed on gold table {place.gold_table!r}: {error}"


def with_retries(begin: Callable[[], T]) -> T:
    """Try again, a few times and ever more slowly, a query that the server could not begin to answer.

    A refusal is not tried again, nor a query that took a whole timeout. `begin` must hand on nothing before it returns.
    """
    for pause in RETRY_DELAYS:
        try:
            return begin()
        except DatabaseError as e:
            # urllib3 takes a refused connection for a kind of time-out
            timed_out = _caused_by(e, ConnectTimeoutError, ReadTimeoutError) and not _caused_by(e, NewConnectionError)
            if e.code is not None or timed_out or not _passes(e):
                raise
        time.sleep(pause)
    return begin()


def _passes(error: Error) -> bool:
    """Whether another attempt may succeed: after a lost connection, and where a proxy or a full server asks for it."""
    if error.code is not None:
        return error.name in _OVERLOADED
    lost = _caused_by(error, HTTPError) or isinstance(error, StreamFailureError) or _status(error) in _LATER
    return lost and not tls.mistaken(error)


def _status(error: Error) -> str:
    """The HTTP status of an answer that does not come from ClickHouse itself."""
    status = re.search(r"HTTP status (\d+)", str(error)) if error.code is None else None
    return status[1] if status else ""


def _caused_by(error: BaseException | None, *kinds: type[HTTPError]) -> bool:
    while error and not isinstance(error, kinds):
        error = error.__cause__
    return error is not None
