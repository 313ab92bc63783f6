"""REDIS_URL: every part of it is understood, or refused by name before anything is connected to.

redis-py reads the same URLs and lets any option pass. An option that asks for text instead of bytes then shows up as a
comparison that fails. An option that redis-py does not know, such as a check of certificates, is not obeyed.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote

from pydantic import Field, TypeAdapter
from redis.connection import parse_ssl_verify_flags

from feature_seed.errors import ConfigurationError

# What REDIS_URL may look like. A `/`, `?` or `#` would end a user or a password, and the rest would be another part.
_LOGIN = r"(?:(?P<username>[^:/?#]*)(?::(?P<password>[^/?#]*))?@)?"
_HOST = r"(?:\[[\w:.]+\]|[^\[\]:/?#@,]*)(?::\d{1,5})?"
_OPTION = r"[^#@&=]*(?:=[^#&]*)?"
_QUERY = rf"(?:\?(?P<query>{_OPTION}(?:&{_OPTION})*))?"
_SHAPES = (
    rf"(?P<scheme>rediss?)://{_LOGIN}(?P<place>(?P<hosts>{_HOST})(?:/(?P<db>\d*))?){_QUERY}",
    rf"(?P<scheme>unix)://{_LOGIN}(?P<place>(?P<path>/[^?#]*)){_QUERY}",
    rf"(?P<scheme>rediss?\+sentinel)://{_LOGIN}(?P<place>(?P<hosts>{_HOST}(?:,{_HOST})*)"
    rf"(?:/(?P<primary>[^/?#@]*)(?:/(?P<db>\d*))?)?){_QUERY}",
)


def _cert_reqs(text: str) -> str:
    """As redis-py calls it. Others say CERT_NONE."""
    return {name: name for name in ("none", "optional", "required")}[text.lower().removeprefix("cert_")]


def _tls_version(text: str) -> ssl.TLSVersion:
    """By its number, as in redis-py, or its name."""
    return ssl.TLSVersion(int(text)) if text.isdecimal() else ssl.TLSVersion[text.replace(".", "_")]


_flag = TypeAdapter(bool).validate_python
_from_0 = TypeAdapter(Annotated[int, Field(ge=0, le=10**9)]).validate_python
_from_1 = TypeAdapter(Annotated[int, Field(ge=1, le=10**9)]).validate_python
# At least one second: a load may wait that long for an answer.
_seconds = TypeAdapter(Annotated[float, Field(ge=1, le=3600)]).validate_python

# How the value of an option is read, and what it may be. Options that begin with ssl_ are of TLS.
OPTIONS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "db": (_from_0, "a number"),
    "health_check_interval": (_from_0, "whole seconds"),
    "max_connections": (_from_1, "a number"),
    "password": (str, "text"),
    "socket_connect_timeout": (_seconds, "seconds, 1 to 3600"),
    "socket_keepalive": (_flag, "true or false"),
    "socket_read_size": (_from_1, "bytes"),
    "socket_timeout": (_seconds, "seconds, 1 to 3600"),
    "username": (str, "text"),
    "ssl_ca_certs": (str, "a file"),
    "ssl_ca_data": (str, "certificates in PEM"),
    "ssl_ca_path": (str, "a directory"),
    "ssl_cert_reqs": (_cert_reqs, "none, optional or required"),
    "ssl_certfile": (str, "a file"),
    "ssl_check_hostname": (_flag, "true or false"),
    "ssl_ciphers": (str, "names of ciphers that OpenSSL has"),
    "ssl_exclude_verify_flags": (parse_ssl_verify_flags, "names of ssl.VerifyFlags"),
    "ssl_include_verify_flags": (parse_ssl_verify_flags, "names of ssl.VerifyFlags"),
    "ssl_keyfile": (str, "a file"),
    "ssl_min_version": (_tls_version, "TLSv1.2, TLSv1.3, or its number in Python's ssl.TLSVersion"),
    "ssl_password": (str, "text"),
}

# What feature_seed decides by itself, and why.
_REFUSED = {
    r"decode_responses|encoding(_errors)?": "feature_seed reads and writes bytes",
    r"retry(_on_error|_on_timeout)?": "feature_seed sends no command twice, and runs a step again instead",
    r"client_name|driver_info|lib_(name|version)": "the lock knows connections by the names that feature_seed gives",
    r"protocol": "feature_seed speaks RESP2, in which nothing comes between the acknowledgements",
    r"ssl": "rediss:// asks for TLS",
    "|".join(name for name in OPTIONS if name.startswith("ssl_")): "it is of TLS, which rediss:// asks for",
    r".*": "feature_seed takes no such option",
}

# A cluster has one database. redis-py's client of a cluster ignores the other two.
_NOT_IN_CLUSTERS = ("db", "ssl_ciphers", "ssl_min_version")


@dataclass(frozen=True)
class StoreUrl:
    address: str  # as written, without user, password and options
    tls: bool  # whether it asks for TLS
    hosts: tuple[tuple[str, int], ...]  # host and port; of sentinels one or more; of a unix socket none
    path: str  # of the unix socket, else ''
    primary: str  # the name that sentinels know it by, else ''
    options: Mapping[str, Any] = field(repr=False)  # everything else, as redis-py's connections take it

    @classmethod
    def of(cls, url: str) -> "StoreUrl":
        """Read a URL. A ConfigurationError says what is wrong, without the password."""
        found = next(filter(None, (re.fullmatch(shape, url) for shape in _SHAPES)), None)
        if not found:
            raise ConfigurationError(
                "REDIS_URL cannot be read. It begins with redis://, rediss://, unix:// or redis+sentinel://, and its "
                "port and database are numbers. In user and password, percent-encode everything but letters and "
                "digits, or give the password in REDIS_PASSWORD"
            )
        parts = {name: text or "" for name, text in found.groupdict().items()}
        if not parts.get("primary", "-"):
            raise ConfigurationError(
                "REDIS_URL names sentinels and no primary: add its name, as in "
                "redis+sentinel://host:26379,host2:26379/mymaster/0"
            )
        given = [(name, unquote(parts[name])) for name in ("username", "password", "db") if parts.get(name)]
        tls = parts["scheme"].startswith("rediss")
        return cls(
            f"{parts['scheme']}://{parts['place']}",
            tls,
            _hosts(parts["hosts"], 26379 if "primary" in parts else 6379) if "hosts" in parts else (),
            unquote(parts.get("path", "")),
            unquote(parts.get("primary", "")),
            _options([*given, *parse_qsl(parts["query"], keep_blank_values=True)], tls=tls),
        )

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


def _hosts(texts: str, default: int) -> tuple[tuple[str, int], ...]:
    found = re.findall(r"(?:^|,)\[?([^,\]]*?)\]?(?::(\d+))?(?=,|$)", texts)
    return tuple((host or "localhost", int(port or default)) for host, port in found)


def _options(pairs: list[tuple[str, str]], *, tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, text in pairs:
        if name not in OPTIONS or (name.startswith("ssl_") and not tls):
            reason = next(reason for names, reason in _REFUSED.items() if re.fullmatch(names, name, re.DOTALL))
            raise ConfigurationError(f"REDIS_URL has the option {name}: {reason}. Leave it out")
        if name in options:
            raise ConfigurationError(f"REDIS_URL gives {name} twice")
        read, accepted = OPTIONS[name]
        try:
            options[name] = read(text)
        except (ValueError, KeyError):
            wrong = f"REDIS_URL has a value of {name} that cannot be used: it takes {accepted}"
            raise ConfigurationError(wrong) from None  # the cause quotes a part of the URL
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ConfigurationError("REDIS_URL has the option ssl_keyfile and no ssl_certfile: name the certificate too")
    return options
