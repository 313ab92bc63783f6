"""The failures of ClickHouse: what to tell the operator, and whether another attempt may succeed."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from feature_seed.warehouse.mapping import GoldMapping

T = TypeVar("T")

# How long the server may send nothing at all while it is waited for. It names its progress every 120 s while it scans,
# keepalive finds a dead host in that time too, and how slowly blocks are read does not count: a healthy server is never
# silent for so long.
ANSWER_SECONDS = 300

# Before each further try of a query that could not start: a server restarts in some seconds.
RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0)

# Errors of a server that another attempt may not meet.
_OVERLOADED = (
    "ALL_CONNECTION_TRIES_FAILED",
    "NETWORK_ERROR",
    "SERVER_OVERLOADED",
    "SOCKET_TIMEOUT",
    "TOO_MANY_SIMULTANEOUS_QUERIES",
)

# The statuses by which a proxy or a full server asks for another try.
_LATER = ("429", "502", "503", "504")

# Which settings of a user's profile stand behind an error, where its text does not say.
_SETTINGS = {
    "INDEX_NOT_USED": "force_primary_key, force_index_by_date or force_data_skipping_indices",
    "MEMORY_LIMIT_EXCEEDED": "max_memory_usage",
    "QUERY_CACHE_USED_WITH_NONDETERMINISTIC_FUNCTIONS": "use_query_cache",
    "QUERY_CACHE_USED_WITH_SYSTEM_TABLE": "use_query_cache",
    "READONLY": "readonly",
    "SET_SIZE_LIMIT_EXCEEDED": "max_rows_in_set, max_rows_in_distinct, max_rows_in_join or those of bytes",
    "SETTING_CONSTRAINT_VIOLATION": "a constraint on a setting",
    "SYNTAX_ERROR": "max_query_size or dialect",
    "TIMEOUT_EXCEEDED": "max_execution_time",
    "TOO_BIG_AST": "max_ast_elements",
    "TOO_DEEP_AST": "max_ast_depth",
    "TOO_DEEP_SUBQUERIES": "max_subquery_depth",
    "TOO_MANY_BYTES": "max_bytes_to_read or another max_bytes_",
    "TOO_MANY_COLUMNS": "max_columns_to_read",
    "TOO_MANY_ROWS": "max_rows_to_read or another max_rows_",
    "TOO_MANY_ROWS_OR_BYTES": "max_result_rows, max_result_bytes or max_rows_to_sort",
    "TOO_MANY_TEMPORARY_COLUMNS": "max_temporary_columns",
    "TOO_MANY_TEMPORARY_NON_CONST_COLUMNS": "max_temporary_non_const_columns",
    "TOO_SLOW": "min_execution_speed or max_estimated_execution_time",
}

# What ClickHouse calls a Parquet file that is none, is cut off, or was written anew since its columns were looked at.
_BAD_FILE = (
    "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
    "CANNOT_PARSE_TEXT",
    "INCORRECT_DATA",
    "THERE_IS_NO_COLUMN",
    "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
)


@dataclass(frozen=True)
class GoldSource:
    """Where gold is, for messages; `parquet` is a snapshot's path, `mapping` how gold is read."""

    address: str
    user: str
    database: str
    table: str
    parquet: str | None
    mapping: GoldMapping


def explain(error: Error, place: GoldSource) -> WarehouseError:
    """The error that names the table, the cause and the way out where ClickHouse only gives a code.

    Where ids are hashed it is without what ClickHouse says: that may quote an id, or a query with the salt.
    """
    explained = _explained(error, place)
    if not place.mapping.salts:
        return explained
    name = f"{error.name or type(error).__name__}. What ClickHouse says is left out, since ids of gold are hashed"
    said = str(error).partition(", Stack trace")[0]
    return type(explained)(str(explained).replace(str(error), name).replace(said, name))


def _explained(error: Error, place: GoldSource) -> WarehouseError:
    if gold := _of_gold(error, place):
        return gold
    if error.name in ("AUTHENTICATION_FAILED", "REQUIRED_PASSWORD", "UNKNOWN_USER"):
        return WarehouseError(
            f"ClickHouse at {place.address} refuses user {place.user!r}: check CLICKHOUSE_USER and CLICKHOUSE_PASSWORD"
        )
    if error.name == "ACCESS_DENIED":
        columns, table = ", ".join(place.mapping.names()), f"{place.database}.{place.table}"
        return WarehouseError(
            f"ClickHouse at {place.address} does not let user {place.user!r} read gold. "
            f"GRANT SELECT({columns}), SHOW COLUMNS ON {table} TO {place.user}. {error}"
        )
    if error.name in _SETTINGS and "(total)" not in str(error):  # else it is the server's memory, not a user's
        return WarehouseError(
            f"ClickHouse at {place.address} does not answer user {place.user!r}, for the settings of its profile: "
            f"change {_SETTINGS[error.name]} for it. {error}"
        )
    if error.code is None and (failure := _of_the_connection(error, place)):
        return failure
    if isinstance(error, OperationalError | InternalError) and error.code is None:
        return WarehouseError(
            f"ClickHouse at {place.address} answered what its client cannot read. If it is ClickHouse that answers "
            f"there, look for offset, additional_result_filter and output_format_native_encode_types_in_binary_format "
            f"in the profile of user {place.user!r}. {error}"
        )
    kind = WarehouseUnavailableError if error.name in _OVERLOADED else WarehouseError
    return kind(f"ClickHouse at {place.address} failed on gold table {place.table!r}: {error}")


def _of_gold(error: Error, place: GoldSource) -> WarehouseError | None:
    if error.name == "UNKNOWN_TABLE":
        return GoldError(
            f"There is no gold table {place.table!r} in database {place.database!r} of {place.address}: "
            f"build it, or name the right one in FEATURE_SEED_GOLD_TABLE and CLICKHOUSE_DATABASE"
        )
    if error.name == "UNKNOWN_DATABASE":
        return GoldError(f"There is no database {place.database!r} on {place.address}: check CLICKHOUSE_DATABASE")
    if error.name == "FILE_DOESNT_EXIST":
        return GoldError(f"No Parquet file matches FEATURE_SEED_GOLD_PARQUET {place.parquet!r}: {error}")
    if error.name == "S3_ERROR":
        return _of_s3(error, place)
    if place.parquet and error.name in _BAD_FILE:
        return GoldError(
            f"FEATURE_SEED_GOLD_PARQUET {place.parquet!r} cannot be read: "
            f"a file is damaged, or was written anew meanwhile. {error}"
        )
    return None


def _of_s3(error: Error, place: GoldSource) -> WarehouseError:
    said = str(error).partition(", Stack trace")[0]
    refused = re.search(r"HTTP response code: 40\d|AccessDenied|NoSuch|Invalid|Signature|credentials", said)
    kind = GoldError if refused else WarehouseUnavailableError
    return kind(
        f"FEATURE_SEED_GOLD_PARQUET {place.parquet!r} cannot be read: check the bucket, AWS_ENDPOINT_URL and "
        f"AWS_REGION, and that AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN may list and read it. {said}"
    )


def _of_the_connection(error: Error, place: GoldSource) -> WarehouseError | None:
    if _caused_by(error, ReadTimeoutError):
        return WarehouseUnavailableError(
            f"ClickHouse at {place.address} sent nothing for {ANSWER_SECONDS} s: "
            f"look at its load and at the network, then run again"
        )
    if isinstance(error, StreamFailureError):
        return WarehouseUnavailableError(
            f"ClickHouse at {place.address} broke off in the middle of its answer: "
            f"look into its log, then run again. {error}"
        )
    if status := _status(error):
        kind = WarehouseUnavailableError if status in _LATER else WarehouseError
        return kind(
            f"ClickHouse at {place.address} answered HTTP status {status} and no error of its own, as a proxy does: "
            f"look at what is in between, and check CLICKHOUSE_HOST and CLICKHOUSE_PORT. {error}"
        )
    if not _caused_by(error, HTTPError):
        return None
    kind = WarehouseError if tls.mistaken(error) else WarehouseUnavailableError
    return kind(
        f"ClickHouse at {place.address} cannot be reached: check CLICKHOUSE_HOST, CLICKHOUSE_PORT, CLICKHOUSE_SECURE "
        f"and CLICKHOUSE_CA. {error}"
    )


def with_retries(begin: Callable[[], T]) -> T:
    """Try again, a few times and ever more slowly, what the server could not begin to answer.

    Not what it refuses, and not what took a whole timeout. Nothing may have been handed on before `begin` returns.
    """
    for pause in RETRY_DELAYS:
        try:
            return begin()
        except DatabaseError as e:
            if not _transient(e):
                raise
        time.sleep(pause)
    return begin()


def _transient(error: Error) -> bool:
    """Refused or reset connections, and the statuses by which a proxy or a full server asks for another try."""
    if error.code is not None or tls.mistaken(error):
        return False
    if _caused_by(error, NewConnectionError):  # urllib3 takes a refusal for a kind of time-out
        return True
    lost = _caused_by(error, HTTPError) and not _caused_by(error, ConnectTimeoutError, ReadTimeoutError)
    return lost or isinstance(error, StreamFailureError) or _status(error) in _LATER


def _status(error: Error) -> str:
    """The HTTP status of an answer that is not ClickHouse's own."""
    status = re.search(r"HTTP status (\d+)", str(error)) if error.code is None else None
    return status[1] if status else ""


def _caused_by(error: BaseException | None, *kinds: type[HTTPError]) -> bool:
    while error and not isinstance(error, kinds):
        error = error.__cause__
    return error is not None
