"""TLS: tells a wrong setting, which fails again and again, from a server that is away for a while."""

import socket
import ssl
from contextlib import suppress

# Long enough for a round trip or two of a server that has just been reached.
_PROBE_SECONDS = 2

# A connection that ended in mid-handshake may be of a server that restarts.
_ENDED = (ssl.SSLEOFError, ssl.SSLSyscallError, ssl.SSLZeroReturnError)


def mistaken(error: BaseException) -> bool:
    """Whether an error was caused by a certificate that cannot be trusted, or by an answer that is not TLS."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None and not isinstance(cause, _ENDED)


def speaks_tls(host: str, port: int) -> bool:
    """Whether a handshake succeeds there, whatever the certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with suppress(OSError), socket.create_connection((host, port), _PROBE_SECONDS) as plain, context.wrap_socket(plain):
        return True
    return False


def speaks_redis(host: str, port: int) -> bool:
    """Whether a Redis answers there without TLS, if only to ask for a password."""
    with suppress(OSError), socket.create_connection((host, port), _PROBE_SECONDS) as plain:
        plain.sendall(b"PING\r\n")
        return plain.recv(1) in (b"+", b"-")
    return False
