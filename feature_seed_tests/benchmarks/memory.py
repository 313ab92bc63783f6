"""The memory of a program that is not ours, watched from outside."""

import os
import subprocess
from pathlib import Path

_INTERVAL_SECONDS = 0.1


def peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process that leads a session. Returns what it and its children had resident at most, all together.

    Each counts with its own peak so far (VmHWM), which no look can miss. The sum is too high if one process shrinks
    before another grows, and if they share pages.
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
    """The bytes that a process had resident at most; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024 if "VmHWM" in fields else 0  # a zombie has none
