"""Clients of what REDIS_URL names, set up but not connected yet."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthorizationError
from redis.retry import Retry

from feature_seed import tls
from feature_seed.errors import StoreError, StoreUnavailableError
from feature_seed.store.commands import spared
from feature_seed.store.url import StoreUrl

CONNECT_SECONDS = 10
ANSWER_SECONDS = 60

# A sentinel answers at once. A sentinel that is gone delays the question to the next one.
_SENTINEL_SECONDS = 3

# What feature_seed decides by itself.
_FIXED = {
    "protocol": 2,  # RESP3 may interleave push messages with the acknowledgements
    "retry": Retry(NoBackoff(), 0),  # of commands: nobody knows whether one that got no answer was run
    "driver_info": None,  # CLIENT SETINFO needs a right of its own
}

_AUTHORITY = ("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data")
_OWN = ("ssl_certfile", "ssl_keyfile")


def client_of(url: StoreUrl, password: str | None, sentinel_password: str | None, name: str | None) -> redis.Redis:
    """A client of one server: the one that the URL names, or that its sentinels name now.

    A StoreError says which certificate or key cannot be used, or why the sentinels name none.
    """
    if url.tls:
        _require_certificates(url.options)
    options = options_of(url, password)
    # The login, with the TLS handshake, may take as long as connecting. redis-py would wait as for an answer.
    patience = options["socket_timeout"]
    options["socket_timeout"] = min(options["socket_connect_timeout"], patience)

    def log_in(connection: redis.Connection) -> None:
        connection.on_connect()
        give_name(name, connection)
        connection.update_current_socket_timeout(patience)

    return _client(url, {**_place(url, sentinel_password), **options, "redis_connect_func": log_in})


def _require_certificates(options: Mapping[str, Any]) -> None:
    """Raise a StoreError for a file that cannot be used: to redis-py, the server is away then."""
    authority, (certificate, key) = [options.get(name) for name in _AUTHORITY], [options.get(name) for name in _OWN]
    if missing := [path for path in (*authority[:2], certificate, key) if path and not Path(path).exists()]:
        raise StoreError(f"REDIS_URL names a file that does not exist: {', '.join(missing)}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if certificate:  # without a password, OpenSSL would ask at the terminal for an encrypted key's
            context.load_cert_chain(certificate, key, options.get("ssl_password", ""))
        if any(authority):
            context.load_verify_locations(*authority)
    except (ssl.SSLError, OSError) as e:
        names = ", ".join((*_AUTHORITY, *_OWN, "ssl_password"))
        raise StoreError(f"A certificate or key of REDIS_URL cannot be used: check its {names}. {e}") from e


def _place(url: StoreUrl, sentinel_password: str | None) -> dict[str, Any]:
    if url.path:
        return {"path": url.path}
    host, port = _primary(url, sentinel_password) if url.primary else url.hosts[0]
    return {"host": host, "port": port}


def options_of(url: StoreUrl, password: str | None) -> dict[str, Any]:
    """What the connections to a store are set up with."""
    return {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
        **({"password": password} if password else {}),
        **url.options,
        **_FIXED,
    }


def give_name(name: str | None, connection: redis.Connection) -> None:
    """Give the connection a name, if the store lets it have one."""
    if name:
        connection.send_command("CLIENT", "SETNAME", name, check_health=False)
        spared(connection.read_response, None)


def _primary(url: StoreUrl, password: str | None) -> tuple[str, int]:
    """The host and port of the primary, by the first sentinel that knows it.

    The sentinel may be out of date: the caller has to look at what is found there. If no sentinel that may know the
    primary can be reached, the error is a StoreUnavailableError.
    """
    away: list[str] = []
    patience = dict.fromkeys(("socket_connect_timeout", "socket_timeout"), _SENTINEL_SECONDS)
    of_tls = {name: value for name, value in url.options.items() if name.startswith("ssl_")}
    for host, port in url.hosts:
        options = {"host": host, "port": port, "password": password, **patience, **of_tls, **_FIXED}
        try:
            with _client(url, options) as sentinel:
                found: Any = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.primary)
        except redis.AuthenticationError as e:
            raise StoreError(f"Sentinel {host}:{port} refuses the login: check REDIS_SENTINEL_PASSWORD. {e}") from e
        except (redis.ConnectionError, redis.TimeoutError) as e:
            if tls.mistaken(e):
                raise
            away.append(f"{host}:{port}: {e}")
        except redis.ResponseError as e:
            raise StoreError(f"{host}:{port} does not answer as a sentinel: check the ports in REDIS_URL. {e}") from e
        else:
            if found:
                return found[0].decode(), int(found[1])
    if away:
        reasons = "; ".join(away)
        raise StoreUnavailableError(f"No sentinel that knows the primary {url.primary!r} can be reached. {reasons}")
    raise StoreError(f"The sentinels know no primary {url.primary!r}: check its name in REDIS_URL")


def _client(url: StoreUrl, options: Mapping[str, Any]) -> redis.Redis:
    kind: Any = redis.SSLConnection if url.tls else redis.UnixDomainSocketConnection if url.path else redis.Connection
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **options))


def passes(error: Exception) -> bool:
    """Whether an error of the connection may pass by itself. A wrong password or certificate does not."""
    permanent = (redis.AuthenticationError, AuthorizationError)
    return not isinstance(error, permanent) and not tls.mistaken(error)


def tls_advice(pool: redis.ConnectionPool) -> str:
    """What to change in REDIS_URL if only one side speaks TLS; else ''."""
    host, port = (pool.connection_kwargs.get(name) for name in ("host", "port"))
    if not (host and port):
        return ""
    if issubclass(pool.connection_class, redis.SSLConnection):
        return "that port speaks no TLS: begin REDIS_URL with redis://" if tls.speaks_redis(host, port) else ""
    return "that port speaks TLS: begin REDIS_URL with rediss://" if tls.speaks_tls(host, port) else ""
