"""Memory of a program that is watched from outside, since it is not ours."""

import os
import subprocess
from pathlib import Path

_INTERVAL_SECONDS = 0.1


def peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that leads a session, and say what it and its children had resident at most, all together.

    Each counts with its own peak so far (VmHWM), which no look can miss; the sum is too high where one process shrinks
    before another grows, and where they share pages.
    """
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(high_water, _members(process.pid))))
        try:
            process.wait(_INTERVAL_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    return peak


def _members(session: int) -> list[int]:
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if _session(pid) == session]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:  # it has just ended
        return None


def high_water(pid: int) -> int:
    """Bytes that a process had resident at most; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024 if "VmHWM" in fields else 0  # a zombie has none
