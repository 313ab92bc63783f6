"""REDIS_URL: every part of it is understood, or refused by name before anything is connected to.

redis-py reads the same URLs, and lets pass what it does not know: an option that asks for text instead of bytes shows
up as a comparison that fails, and one that asks for a check of certificates is not obeyed.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.connection import parse_ssl_verify_flags

from feature_seed.errors import ConfigurationError

_PORT, _SENTINEL_PORT = 6379, 26379

_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")

_UNREADABLE = (
    "REDIS_URL cannot be read. It begins with redis://, rediss://, unix:// or redis+sentinel://, and its port and "
    "database are numbers. In user and password, percent-encode everything but letters and digits, or give the "
    "password in REDIS_PASSWORD"
)

_NO_PRIMARY = (
    "REDIS_URL names sentinels and no primary: add its name, as in redis+sentinel://host:26379,host2:26379/mymaster/0"
)


def _flag(text: str) -> bool:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise ValueError
    return int(text)


def _positive(text: str) -> int:
    return _whole(text) or _flag("")


def _seconds(text: str) -> float:
    """At least one: a load may wait that long for an answer."""
    if not 1 <= float(text) <= 3600:
        raise ValueError
    return float(text)


def _cert_reqs(text: str) -> str:
    """As redis-py calls it; others say CERT_NONE."""
    return {name: name for name in ("none", "optional", "required")}[text.lower().removeprefix("cert_")]


def _tls_version(text: str) -> ssl.TLSVersion:
    """By its number, as in redis-py, or its name."""
    names = {name.lower().replace("_", "."): version for name, version in ssl.TLSVersion.__members__.items()}
    return ssl.TLSVersion(int(text)) if text.isdecimal() else names[text.lower().replace("_", ".")]


def _ciphers(text: str) -> str:
    ssl.create_default_context().set_ciphers(text)
    return text


# What is understood: how its value is read, and what it may be.
UNDERSTOOD: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "db": (_whole, "a number"),
    "health_check_interval": (_whole, "whole seconds"),
    "max_connections": (_positive, "a number"),
    "password": (str, "text"),
    "socket_connect_timeout": (_seconds, "seconds, 1 to 3600"),
    "socket_keepalive": (_flag, "true or false"),
    "socket_read_size": (_positive, "bytes"),
    "socket_timeout": (_seconds, "seconds, 1 to 3600"),
    "username": (str, "text"),
}

# The same where the URL asks for TLS.
UNDERSTOOD_TLS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "ssl_ca_certs": (str, "a file"),
    "ssl_ca_data": (str, "certificates in PEM"),
    "ssl_ca_path": (str, "a directory"),
    "ssl_cert_reqs": (_cert_reqs, "none, optional or required"),
    "ssl_certfile": (str, "a file"),
    "ssl_check_hostname": (_flag, "true or false"),
    "ssl_ciphers": (_ciphers, "names of ciphers that OpenSSL has"),
    "ssl_exclude_verify_flags": (parse_ssl_verify_flags, "names of ssl.VerifyFlags"),
    "ssl_include_verify_flags": (parse_ssl_verify_flags, "names of ssl.VerifyFlags"),
    "ssl_keyfile": (str, "a file"),
    "ssl_min_version": (_tls_version, "TLSv1.2, TLSv1.3, or its number in Python's ssl.TLSVersion"),
    "ssl_password": (str, "text"),
}

_BYTES = "feature_seed reads and writes bytes"
_TWICE = "feature_seed sends no command twice, and runs a step again instead"
_NAMES = "feature_seed gives its connections names of its own, by which the lock knows them"
_OCSP = "redis-py does not look into OCSP for a URL"

# What feature_seed decides by itself: why, and the values that change nothing.
_REFUSED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "client_name": (_NAMES, ()),
    "decode_responses": (_BYTES, ("false", "0", "no")),
    "driver_info": (_NAMES, ()),
    "encoding": (_BYTES, ("utf-8",)),
    "encoding_errors": (_BYTES, ("strict",)),
    "lib_name": (_NAMES, ()),
    "lib_version": (_NAMES, ()),
    "protocol": ("feature_seed speaks RESP2, in which nothing comes between the acknowledgements", ("2",)),
    "retry": (_TWICE, ()),
    "retry_on_error": (_TWICE, ()),
    "retry_on_timeout": (_TWICE, ("false", "0", "no")),
    "ssl": ("rediss:// asks for TLS", ()),
    "ssl_ocsp_context": (_OCSP, ()),
    "ssl_ocsp_expected_cert": (_OCSP, ()),
    "ssl_validate_ocsp": (_OCSP, ("false", "0", "no")),
    "ssl_validate_ocsp_stapled": (_OCSP, ("false", "0", "no")),
    "timeout": ("feature_seed waits for no free connection", ()),
}

# A cluster has one database, and redis-py's client of one passes the others over.
_NOT_IN_CLUSTERS = ("db", "ssl_ciphers", "ssl_min_version")


@dataclass(frozen=True)
class StoreUrl:
    """REDIS_URL, read.

    Attributes:
        address: as written, without user, password and options.
        tls: whether it asks for TLS.
        hosts: host and port; of sentinels one or more; of a unix socket none.
        path: of the unix socket, else ''.
        primary: its name where sentinels are to say where it is, else ''.
        options: everything else, as redis-py's connections take it.
    """

    address: str
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    path: str
    primary: str
    options: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, url: str) -> "StoreUrl":
        """Read a URL.

        Raises:
            ConfigurationError: saying what is wrong, without the password.
        """
        parts, hosts = _parts(url)
        tls = parts.scheme.startswith("rediss")
        path = unquote(parts.path) if parts.scheme == "unix" else ""
        primary, database = _path(parts)
        options = _options(parts.query, tls=tls)
        for name, value in {**_login(parts), **database}.items():
            if options.setdefault(name, value) != value:
                raise ConfigurationError(f"REDIS_URL gives {name} twice: as an option, and before the options")
        address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return cls(address, tls, hosts, path, primary, options)

    def require_node(self) -> None:
        """Raise a ConfigurationError for a URL that names no node of a Redis Cluster."""
        ignored = [name for name in _NOT_IN_CLUSTERS if self.options.get(name)]
        if self.path:
            reason = "is a unix socket: name a node by host and port"
        elif self.primary:
            reason = "names sentinels: name a node, or unset REDIS_CLUSTER"
        elif ignored:
            reason = f"has the option {ignored[0]}, which a cluster does not have. Leave it out"
        else:
            return
        raise ConfigurationError(f"REDIS_CLUSTER=1 and REDIS_URL {reason}")

    @property
    def user(self) -> str:
        return self.options.get("username", "default")


def _parts(url: str) -> tuple[SplitResult, tuple[tuple[str, int], ...]]:
    with suppress(ValueError):  # which may quote the password
        parts = urlsplit(url)
        if parts.scheme in _SCHEMES and not _misread(parts):
            return parts, _hosts(parts)
    raise ConfigurationError(_UNREADABLE)


def _misread(parts: SplitResult) -> bool:
    """Whether it is read as another than was meant: a `/`, `?` or `#` in a password ends it."""
    if parts.scheme == "unix":
        return bool(parts.netloc.rpartition("@")[2] or parts.fragment)
    cut = "@" in parts.query and "@" not in parts.netloc
    database = r"(/[^/@]*(/\d*)?)?" if parts.scheme.endswith("sentinel") else r"/?\d*"
    return cut or bool(parts.fragment) or not re.fullmatch(database, parts.path)


def _hosts(parts: SplitResult) -> tuple[tuple[str, int], ...]:
    if parts.scheme == "unix":
        return ()
    if not parts.scheme.endswith("sentinel"):
        return ((parts.hostname or "localhost", parts.port or _PORT),)
    texts = parts.netloc.rpartition("@")[2].split(",")
    hosts = [urlsplit(f"//{text}") for text in texts]
    return tuple((one.hostname or "localhost", one.port or _SENTINEL_PORT) for one in hosts)


def _path(parts: SplitResult) -> tuple[str, dict[str, int]]:
    """The name of the primary, which sentinels know it by, and the database."""
    first, _, second = parts.path.removeprefix("/").partition("/")
    if parts.scheme == "unix":
        return "", {}
    if not parts.scheme.endswith("sentinel"):
        return "", {"db": int(first)} if first else {}
    if not first:
        raise ConfigurationError(_NO_PRIMARY)
    return unquote(first), {"db": int(second)} if second else {}


def _login(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    return {name: unquote(value) for name, value in (("username", user), ("password", password)) if value}


def _options(query: str, *, tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    understood = {**UNDERSTOOD, **(UNDERSTOOD_TLS if tls else {})}
    pairs = parse_qsl(query, keep_blank_values=True)
    for name, text in pairs:
        if [one for one, _ in pairs].count(name) > 1:
            raise ConfigurationError(f"REDIS_URL gives the option {name} twice")
        if name in understood:
            options[name] = _value(name, text, *understood[name])
        elif text.lower() not in _REFUSED.get(name, ("", ()))[1]:
            raise ConfigurationError(f"REDIS_URL has the option {name}: {_reason(name)}. Leave it out")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ConfigurationError("REDIS_URL has the option ssl_keyfile and no ssl_certfile: name the certificate too")
    return options


def _value(name: str, text: str, read: Callable[[str], Any], accepted: str) -> Any:
    try:
        return read(text)
    except (ValueError, KeyError, ssl.SSLError):
        text = f"REDIS_URL has a value of {name} that cannot be used: it takes {accepted}"
        raise ConfigurationError(text) from None  # the cause quotes a part of the URL


def _reason(name: str) -> str:
    if name in UNDERSTOOD_TLS:
        return "it is of TLS, which rediss:// asks for"
    return _REFUSED[name][0] if name in _REFUSED else "there is no such option"
