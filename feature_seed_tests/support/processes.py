"""Processes looked at from outside while they run: their arguments, and where they listen."""

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Generic, TypeVar

Seen = TypeVar("Seen")

_INTERVAL_SECONDS = 0.05

# 127.0.0.1 and ::1, as the kernel writes them.
_LOOPBACK = ("0100007F:", "00000000000000000000000001000000:")


@dataclass(frozen=True)
class Watched(Generic[Seen]):
    """A process that has ended: its exit code, what it printed, and what was seen of its session meanwhile."""

    code: int
    output: bytes
    seen: list[Seen]


def watched(
    command: Iterable[str], look: Callable[[list[int]], Seen], env: Mapping[str, str] | None = None, stdin: bytes = b""
) -> Watched[Seen]:
    """Run a command to its end, and look at the processes of its session again and again."""
    seen: list[Seen] = []
    with TemporaryFile() as given, TemporaryFile() as printed:
        given.write(stdin)
        given.seek(0)
        run = subprocess.Popen(
            [*command], env=env, stdin=given, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
        while run.poll() is None:
            seen.append(look(list(_session(run.pid))))
            time.sleep(_INTERVAL_SECONDS)
        printed.seek(0)
        return Watched(run.returncode, printed.read(), seen)


def _session(leader: int) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):  # it ended meanwhile
            if os.getsid(int(process.name)) == leader:
                yield int(process.name)


def arguments(processes: Iterable[int]) -> bytes:
    """The command lines of these processes."""
    lines = b""
    for process in processes:
        with suppress(ProcessLookupError, FileNotFoundError):
            lines += Path(f"/proc/{process}/cmdline").read_bytes()
    return lines


def exposed(processes: Iterable[int]) -> set[str]:
    """Addresses beyond loopback at which these processes take TCP connections, as the kernel writes them."""
    sockets = {target for process in processes for target in _open_files(process)}
    tables = [Path(f"/proc/net/{table}").read_text().splitlines()[1:] for table in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table]
    listening = {line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}
    return {address for address in listening if not address.startswith(_LOOPBACK)}


def _open_files(process: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{process}/fd").glob("*"):
        with suppress(FileNotFoundError):  # closed meanwhile
            yield str(descriptor.readlink())
