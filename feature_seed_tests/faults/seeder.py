"""`dagster job execute -m feature_seed -j seed_all`, as a process that may be killed.

    python -m feature_seed_tests.faults.seeder

loads Dagster, which takes seconds, and forks a process for every order on stdin; it prints its id and, at its end, its
exit code. The process has Dagster loaded. Otherwise it is like a process that a shell starts.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from feature_seed.warehouse.clickhouse import Warehouse
from feature_seed_tests.support.patience import HANG_SECONDS

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Order:
    """What a process is to do.

    Attributes:
        log: where it prints to.
        environment: its variables, in addition to those of its parent.
    """

    log: str
    environment: dict[str, str]


class Seeder:
    """Runs the command, one at a time. `directory` has Dagster's instance, temporary files and what a run prints."""

    def __init__(self, forks: subprocess.Popen[str], directory: Path) -> None:
        self._forks = forks
        self._pid = 0
        self._started = 0.0
        self.home = directory / "dagster"
        self.temporary = directory / "tmp"
        self._log = directory / "log.txt"
        self.home.mkdir()
        self.temporary.mkdir()
        (self.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")

    def start(self, gold: Warehouse, port: int) -> None:
        """Begin to seed this snapshot into the Redis at this port. Few shards: each costs events."""
        self._log.write_bytes(b"")
        environment = {
            "DAGSTER_HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "FEATURE_SEED_GOLD_PARQUET": str(gold.gold_parquet),
            "FEATURE_SEED_SHARDS": "4",
            "FEATURE_SEED_LOG_LEVEL": "DEBUG",
            "REDIS_URL": f"redis://127.0.0.1:{port}",
        }
        assert self._forks.stdin
        self._started = time.monotonic()
        self._forks.stdin.write(json.dumps(asdict(Order(str(self._log), environment))) + "\n")
        self._forks.stdin.flush()
        self._pid = self._answer()

    def wait_until(self, step: str, seconds: float) -> None:
        """Wait until so long after the start of the step, or with '' of the process, or until the process has ended."""
        sign = f" - {step} - STEP_START".encode()
        while step and self._runs() and sign not in self._log.read_bytes():
            time.sleep(0.01)
        since = time.monotonic() if step else self._started
        self._wait(since + seconds)

    def send(self, what: signal.Signals) -> None:
        """Send a signal to the process. As in a terminal, an interrupt goes to its children too."""
        if self._runs():
            (os.killpg if what == signal.SIGINT else os.kill)(self._pid, what)

    def end(self) -> int | None:
        """The exit code; a signal is a negative one; None if the process did not end and was killed."""
        self._wait(time.monotonic() + HANG_SECONDS)
        late = self._runs()
        if late:
            os.kill(self._pid, signal.SIGKILL)
        code = self._answer()
        return None if late else code

    def printed(self) -> str:
        """The end of what the last run has printed."""
        return self._log.read_text(errors="replace")[-5000:]

    def left_processes(self) -> bool:
        """Whether something that the last run started stays after its end.

        Dagster's watcher ends the processes that copy a killed run's output, within a second or two.
        """
        deadline = time.monotonic() + HANG_SECONDS
        while (left := _exists(-self._pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def _runs(self) -> bool:
        return _exists(self._pid)

    def _wait(self, deadline: float) -> None:
        while self._runs() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _answer(self) -> int:
        assert self._forks.stdout
        return int(self._forks.stdout.readline())


def _exists(pid: int) -> bool:
    """Whether there is the process, or with a negative id a process of the group."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def seeder(directory: Path) -> Iterator[Seeder]:
    """Start the process that forks. Nobody else may use `directory`."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forks:
        try:
            yield Seeder(forks, directory)
        finally:
            forks.kill()


def main() -> None:
    import dagster._cli  # noqa: F401 - as it is in the process of a shell; but not chdb, whose threads a fork would lack

    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            return _run(Order(**json.loads(line)))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return None


def _run(order: Order) -> None:
    """Run the command to the end of the interpreter."""
    os.setsid()
    os.environ.update(order.environment)
    for stream, name, mode in ((0, os.devnull, os.O_RDONLY), (1, order.log, os.O_WRONLY), (2, order.log, os.O_WRONLY)):
        os.dup2(os.open(name, mode | os.O_APPEND), stream)

    from dagster._cli import create_dagster_cli

    create_dagster_cli()(["job", "execute", "-m", "feature_seed", "-j", "seed_all"])


if __name__ == "__main__":
    main()
